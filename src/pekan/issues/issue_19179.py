"""#19179: a crash in a compaction at a deletion; the start after it forgets the deletion, and a watch from there misses it.

::

    revision      2    3    4         5
    keys          k    k    k: del    other             compaction at 4, batches of 2 records
    batch 1       2, 3 removed ── committed
    batch 2       4 stays: the compaction's own revision (#18089) ── killed before "compacted up to 4" is noted
    start         of k there is nothing but a deletion: left out of the index. The compaction goes on, and what the index does not
                  have it removes: 4
    watch from 4: nothing of k
"""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.plan import Lane, Plan, Step, Trigger

DELETED = {"reply": "deleted.header.revision"}
BATCH = 2
ARMED_MS = 500
"""From the last step before the compaction to the compaction: the point has to be armed by then, which takes some milliseconds."""


def _recipe(version: str) -> Recipe:
    number = numbered(version)
    if number < (3, 4, 34) or (3, 5) <= number < (3, 5, 16):
        raise UsageError(
            f"#19179 cannot be told from #18089 on etcd {version}: there the deletion at the compaction's revision is lost without a "
            "crash. Choose 3.4.34, 3.5.16 or a later release"
        )
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, times=BATCH, answer="ok"),
        Step("DeleteRange", {"key": "k"}, name="deleted", answer="ok"),
        Step("Put", {"key": "other", "value": "1"}, name="written", answer="ok"),
        Step("nothing", times=2, every_ms=ARMED_MS),
        Step("Compact", {"revision": DELETED}),
        Step("ready", wait=Trigger(healed="failpoint"), answer="ok"),
        Step("watch", {"key": "k", "start_revision": DELETED}, name="watch", answer="ok"),
        Step("Put", {"key": "k", "value": "again"}, answer="ok"),
    )
    flags = (("compaction-batch-limit", str(BATCH)),)
    lane = Lane("client", "m1", steps)
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=flags, script=(lane,))
    return Recipe(plan, ("failpoint m1 point=compactBeforeSetFinishedCompact action=kill down_ms=100ms on step written",))


ISSUE = Issue(
    name="19179",
    title="after a crash in the middle of a compaction a watch misses the deletion at the compaction's revision",
    guarantee="a watch from a revision that is not compacted away delivers everything from there on",
    shows_as="a deletion is never delivered by a member that was restarted",
    story="""\
A compaction at revision R keeps a deletion that was made at R itself, since #18089 was mended: a watch from R has to deliver it. It removes
records in batches, commits each batch to disk, and at the very end notes "compacted up to R".

What it may remove it learns from the member's index, which knows for each key all of its revisions. The index is in memory only; a start
builds it anew from the database. There, a key whose first record is a deletion was passed over: a key is born by a put, so a deletion
without anything before it seemed to be the rest of something compacted. After a crash in the middle of a compaction that is what is found:
the batch with the puts is gone, the deletion at R is there. The key is not in the index. The member then takes up the compaction that had
not come to its end, asks the index what to keep at R, hears nothing of the deletion, and removes it.

A watch from R, inside what was promised to stay, never delivers it, on this member and on no other. The fix takes a deletion at the
begin of a key's records into the index.

Here a key is put twice and deleted, a batch has two records, the store is compacted at the deletion, and the member is killed at the
point between the last full batch and the note. After its start a watch begins at R. In releases before 3.5.16 and 3.4.34 the deletion is
lost without any crash, which is #18089 and cannot be told from this.
""",
    introduced="",
    boundaries=(Boundary("3.4.35", "3.4.36"), Boundary("3.5.17", "3.5.18")),
    codes=("WATCH-RESUMABLE", "WATCH-RELIABLE"),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/19179", "https://github.com/etcd-io/etcd/pull/19188"),
)
