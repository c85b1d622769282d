"""#17780: after a crash in the middle of a compaction the store's revision is lower than what has been acknowledged.

::

    revision      2 ... 20    21                      batches of 20 revisions
    keys          19 puts     delete                  compaction at 21
    batch 1       2 ... 21: k0's put and its deletion are removed ── committed
    batch 2       nothing left: note "compacted up to 21" ── killed before that
    start         the highest revision in the database is 20; nothing says that there was a 21
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger

BATCH = 20
IDLE_MS = 500
"""What was written is committed within 100 ms; from then on nothing is, but by the compaction. The point is armed in another such pause."""
COMMITS = 2
"""A compaction commits that it has begun, and then each full batch."""


def _recipe(version: str) -> Recipe:
    steps = (
        # With the deletion exactly one batch; the deletion is the newest of it.
        Step("Put", {"key": "k{n}", "value": "{n}"}, times=BATCH - 1, answer="ok"),
        Step("DeleteRange", {"key": "k0"}, name="deleted", answer="ok"),
        Step("nothing", name="idle", times=2, every_ms=IDLE_MS),
        Step("nothing", times=2, every_ms=IDLE_MS),
        Step("Compact", {"revision": {"reply": "deleted.header.revision"}}),
        Step("ready", wait=Trigger(healed="failpoint"), answer="ok"),
        Step("Range", {"key": "k1"}, answer="ok"),
        Step("Put", {"key": "k1", "value": "after the crash"}, answer="ok"),
    )
    flags = (("compaction-batch-limit", str(BATCH)),)
    lane = Lane("client", "m1", steps)
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=flags, script=(lane,))
    return Recipe(plan, (f"failpoint m1 point=afterCommit nth={COMMITS} action=kill down_ms=100ms on step idle",))


ISSUE = Issue(
    name="17780",
    title="a crash in the middle of a compaction makes the store's revision go back",
    guarantee="every change has a revision of its own, higher than all before it",
    shows_as="linearizable reads at a lower revision than before; one revision for two different writes",
    story="""\
Each change of the store has a revision, one more than the change before. Nobody stores the newest one anywhere: a starting member
takes the highest revision among the records in its database, or that of the last finished compaction where that is higher.

Compaction removes what no read can ask for any more, in batches of a thousand records, each committed to disk, and notes at the very
end "compacted up to R". A deletion is a record, too, and one that goes: a key that is deleted needs no record at R. If the newest change of
all is a deletion and the store is compacted just there, the record with the highest revision is removed. That does no harm once the
note is written. A member that crashes between the last batch and the note has neither: it comes back with the revision of the newest record
that is left.

From there it counts upwards again. A read that asks for a revision it has been given gets "future revision", the next write gets a number
that clients have already seen on another one, and compare-and-swap on revisions, which all of Kubernetes rests on, may succeed for those
who hold the old one. Members that did not crash are ahead: the cluster is torn apart. At what revision a compaction is *begun* is noted
before anything is removed; the fix has a start look there, too.

Here 19 keys are put and the first is deleted, a batch has 20 records, the store is compacted at the deletion, and the member is killed
as soon as the one full batch is committed.
""",
    introduced="",
    boundaries=(Boundary("3.4.31", "3.4.32"), Boundary("3.5.13", "3.5.14")),
    codes=("KV-REAL-TIME", "KV-REVISION-REUSED", "KV-LOST-WRITE"),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/17780", "https://github.com/etcd-io/etcd/pull/17815"),
)
