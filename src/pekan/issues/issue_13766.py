"""#13766: a commit that falls between noting that a write is applied and applying it, and a crash, lose the write on one member.

::

    one member     index := 7 ──────── write 7 into the store             the apply of entry 7
    its backend              └─ commit ─┘                                 each 100 ms: what is pending, and the index
    a crash                       └─ x                                    on disk: "7 is applied", without write 7
    the next start reads 7 and goes on with entry 8
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe, parts
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

VICTIM = "m3"
COMMIT, APPLY = "backend.batchTxBuffered.Commit", "applierV3backend.Apply"
COMMIT_HELD, APPLY_HELD = "1s", "2s"
"""The first is over in the middle of the second. A commit is under way only where something is to be committed, so none comes too soon."""


def _recipe(version: str) -> Recipe:
    put = {"key": "k{n}", "value": "{n}"}
    writes = Lane(
        "writes",
        "m1",
        (
            Step("lead", answer="ok"),
            Step("Put", put, name="written", answer="ok"),
            Step("Put", put, clients=4, every_ms=10, until=Trigger(after="failpoint#2")),
            Step("ready", wait=Trigger(healed="failpoint#2"), member=VICTIM, answer="ok"),
        ),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=20_000, script=(writes,))
    return Recipe(
        plan,
        (
            f"failpoint {VICTIM} {COMMIT_HELD} point={COMMIT} on step written",
            f"failpoint {VICTIM} {APPLY_HELD} point={APPLY} action=hold-kill down_ms=100ms after failpoint",
        ),
    )


def _about(finding: Finding) -> bool:
    return parts(finding, VICTIM)


ISSUE = Issue(
    name="13766",
    title="a member that is killed under load comes back without a write that the others have",
    guarantee="every member applies the same history, and an acknowledged write is on each of them",
    shows_as="members that differ for good; reads from one of them miss an acknowledged write",
    story="""\
Every member of etcd applies the same log, entry by entry, to a store of its own: a database file that is committed about every 100 ms, many
entries at a time. Beside the data the file holds the *consistent index*: up to which entry of the log the data goes. After a crash the
member reads that index and applies what the log has beyond it. So the two have to reach the disk together.

Until 3.4 the index was written by the entry's own transaction. 3.5.0 moved that into a hook which runs before each commit and stores the
index that the member has in memory. But that one was set at the very beginning of an apply, before the entry had touched the store. Where a
commit fell in between, the file said "entry 7 is applied", without its data. Most of the time the next commit mended that a tenth of a
second later. If the process died before, the start after it went on with entry 8: write 7, acknowledged by the other members, was gone
here, without a word in any log. All later revisions of this member are one less than those of the others, so that one revision names two
different things, and it does not heal: each member is right by its own count.

SIGKILL at random times did not meet this in 120 attempts. It takes a thread that stands still between two lines while a batch ends, which
happens on a machine short of processor time, and then a crash. Here one member is made to be so slow: a commit is held for a second at its
begin, and within that second an apply for two, at its begin as well. The commit goes on, with the index of that apply, and at the end of
the other second the member is killed. The others go on all the time. The fix takes the index over under the lock of the transaction that
holds the data.
""",
    introduced="3.5.0",
    boundaries=(Boundary("3.5.2", "3.5.3"),),
    codes=("MEMBER-REVISION", "MEMBER-HASH", "KV-REAL-TIME"),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/issues/13766",
        "https://github.com/etcd-io/etcd/pull/13908",
    ),
)
