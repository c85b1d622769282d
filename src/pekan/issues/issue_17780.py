"""#17780: after a crash in the middle of a compaction the store's revision is lower than what has been acknowledged.

::

    revision      2 ... 20    21                      batches of 20 revisions
    keys          19 puts     delete                  compaction at 21
    batch 1       2 ... 21: k0's put and its deletion are removed ── committed
    batch 2       nothing left: note "compacted up to 21" ── killed before that
    start         the highest revision in the database is 20; nothing says that there was a 21
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.plan import Lane, Plan, Step, Trigger

BATCH = 20
ARMED_MS = 500
"""From the last step before the compaction to the compaction: the point has to be armed by then, which takes some milliseconds."""


def _point(version: str) -> str:
    """Where the member is killed: in the last batch of a compaction, the one before having been committed.

    Releases with the fix have a failpoint there. Before, it is the second time that the compaction reads records of the database within its
    transaction, which nobody else does while nothing is started or restored.
    """
    number = numbered(version)
    if number >= (3, 5, 14) or (3, 4, 32) <= number < (3, 5):
        return "point=compactBeforeSetFinishedCompact"
    return "point=backend.batchTx.UnsafeRange nth=2"


def _recipe(version: str) -> Recipe:
    steps = (
        # With the deletion exactly one batch; the deletion is the newest of it.
        Step("Put", {"key": "k{n}", "value": "{n}"}, times=BATCH - 1, answer="ok"),
        Step("DeleteRange", {"key": "k0"}, name="deleted", answer="ok"),
        Step("nothing", times=2, every_ms=ARMED_MS),
        Step("Compact", {"revision": {"reply": "deleted.header.revision"}}),
        Step("ready", wait=Trigger(healed="failpoint"), answer="ok"),
        Step("Range", {"key": "k1"}, answer="ok"),
        Step("Put", {"key": "k1", "value": "after the crash"}, answer="ok"),
    )
    flags = (("compaction-batch-limit", str(BATCH)),)
    lane = Lane("client", "m1", steps)
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=flags, script=(lane,))
    return Recipe(plan, (f"failpoint m1 {_point(version)} action=kill down_ms=100ms on step deleted",))


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
at the point between the last full batch and the note.
""",
    introduced="",
    boundaries=(Boundary("3.4.31", "3.4.32"), Boundary("3.5.13", "3.5.14")),
    codes=("KV-REAL-TIME", "KV-REVISION-REUSED", "KV-LOST-WRITE"),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/17780", "https://github.com/etcd-io/etcd/pull/17815"),
)
