"""#14370: a cluster of one acknowledges a write before its write-ahead log has it, and loses it in a crash.

::

    raft            entry 5 is committed (one voter: its own copy is the majority)
      ├─ apply ───> the store has it ──> the client is answered: ok
      └─ log ─────────── written ── synced                              side by side: nobody waits for this one
               └─ x  a crash here loses a write that has been acknowledged
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger

HOLD = "1s"
"""How late the log is: long enough for an answer on any machine."""
FLAGS = (("backend-batch-interval", "1m0s"),)
"""The database is no refuge for what the log has lost: what is committed there within the second would survive. By default that is 100 ms,
and the crash has to come within them."""


def _recipe(version: str) -> Recipe:
    client = Lane(
        "client",
        "m1",
        (
            Step("Put", {"key": "before", "value": "{n}"}, name="written", answer="ok"),
            # The one that is under way at the hold is answered where the bug is, and the next one finds nobody.
            Step("Put", {"key": "k{n}", "value": "{n}"}, until=Trigger(after="failpoint"), timeout_ms=3_000),
            Step("ready", wait=Trigger(healed="failpoint"), answer="ok"),
            Step("Range", {"key": "k", "range_end": "l"}, answer="ok"),
            Step("Put", {"key": "after", "value": "{n}"}, answer="ok"),
        ),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(client,))
    return Recipe(plan, (f"failpoint m1 {HOLD} point=wal.WAL.saveEntry action=hold-kill down_ms=100ms on step written",))


ISSUE = Issue(
    name="14370",
    title="a cluster of one acknowledges a write that is on no disk yet",
    guarantee="a completed write survives a crash",
    shows_as="after a crash the newest acknowledged writes are gone, and their revisions are given out a second time",
    story="""\
raft promises that an entry is committed when a majority of members has it on disk. For its own copy a member counts the entry as soon as
it hands it to the write-ahead log; the copies of the others are what it really waits for, and etcd writes its own log meanwhile. That
is right in a cluster of three, where two other disks vote. In a cluster of one the majority is that own copy: raft hands the same entry out
as "to be written" and as "committed" in one go.

Up to 3.5.4 etcd gave the committed entry to the apply loop and the log to the disk side by side. The apply is the faster one, so the client
reads "ok" a moment before write(2) and fsync(2) have been called. A crash of the process in that moment loses the write; a crash of the
machine, or a slow disk, makes the moment as long as the disk takes. Kubernetes on one node is such a cluster.

Here the thread that writes the log is held for a second, one write is sent, and the process is killed at the end of the second. Affected
releases answer the write while the log is held. The others keep the client waiting, and nothing that was promised is lost. Since 3.4.21 and
3.5.5 etcd waits for its log where the same entry is in both hands, and 3.6 brought the order into raft itself.
""",
    introduced="",
    boundaries=(Boundary("3.4.20", "3.4.21"), Boundary("3.5.4", "3.5.5")),
    codes=("KV-REAL-TIME", "KV-LOST-WRITE", "KV-REVISION-REUSED", "KV-CONTENT"),
    run=_recipe,
    links=(
        "https://github.com/etcd-io/etcd/issues/14370",
        "https://github.com/etcd-io/etcd/pull/14424",
        "https://github.com/etcd-io/etcd/pull/14423",
    ),
)
