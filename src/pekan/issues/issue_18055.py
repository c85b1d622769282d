"""#18055: a follower is sent a second snapshot before it has opened the first one, deletes that as outdated, and panics.

::

    the follower's raft loop     saves A ──────────────────────── saves B, deletes A's file
    its apply loop                   └─ waits for a lock ...............................└─ opens A: no such file, panic
    Defragment                   holds the lock ── and again ── and again ── and again ─┘
"""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.issues import behind
from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

FOLLOWER = "m2"
NEXT_LEADER = "m3"
PUTS, TRANSACTIONS = 5_000, 10
"""50,000 keys: a defragmentation takes some 60 ms."""
DEFRAGMENTATIONS = 40
"""At once: they go one after the other, and whoever comes last waits two to three seconds. The second snapshot comes after a good second.
Each is asked for twice, so that there are as many when the first snapshot has come."""
SLOW = "4MiB"
"""What the follower's link takes a second: the first snapshot, of 5 MB, is a second on its way, and defragmentations begin meanwhile."""
HEARTBEAT_MS, ELECTION_MS = 500, 5_000
"""A follower to which no heartbeat comes for a second or two must not call an election."""
RECEIVING, SAVED = "receiving database snapshot", "received and saved database snapshot"
"""Lines of the follower's log."""


def _recipe(version: str) -> Recipe:
    number = numbered(version)
    if number < (3, 5, 23) or (3, 6) <= number < (3, 6, 5):
        raise UsageError(
            f"#18055: etcd {version} waits for no defragmentation when it opens a snapshot; the recipe is for 3.5.23, 3.6.5 and later"
        )
    keys = {"success": [{"times": PUTS, "of": {"request_put": {"key": "k{n:02}{i:04}", "value": "{i:0>40}"}}}]}
    client = Lane(
        "client",
        "m1",
        (
            Step("lead", answer="ok"),
            Step("Txn", keys, name="full", times=TRANSACTIONS, timeout_ms=20_000, answer="ok"),
            behind.leave_behind(version, "behind", wait=Trigger(after="isolate")),
            # A leader whose snapshot is on its way keeps its log for a while: the second snapshot has to come from another one.
            Step("lead", member=NEXT_LEADER, answer="ok", wait=Trigger(after="isolate#2")),
            behind.leave_behind(version, "behind-again", member=NEXT_LEADER),
        ),
    )
    operator = Lane(
        "operator",
        FOLLOWER,
        (
            # Connected before they are needed.
            Step("Status", clients=DEFRAGMENTATIONS, timeout_ms=20_000, answer="ok"),
            Step(
                "Defragment",
                name="defragmented",
                clients=DEFRAGMENTATIONS,
                times=2,
                timeout_ms=30_000,
                wait=Trigger(log=RECEIVING),
            ),
            # Where it has panicked it is started again.
            Step("ready", timeout_ms=20_000),
        ),
    )
    flags = (
        ("heartbeat-interval", str(HEARTBEAT_MS)),
        ("election-timeout", str(ELECTION_MS)),
        ("max-txn-ops", str(PUTS)),
        *behind.flags(version),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=90_000, flags=flags, script=(client, operator))
    return Recipe(
        plan,
        (
            f"isolate {FOLLOWER} on step full until step behind",
            f'rate {FOLLOWER} direction=in bytes={SLOW} on step full until log "{SAVED}"',
            # From 3.6 on each heartbeat is a small job of the apply loop, and waits for the lock. One that is let in as a defragmentation
            # ends makes way for the snapshot behind it just when nobody holds the lock.
            f'messages {FOLLOWER} direction=in kind=MsgHeartbeat action=drop on log "{RECEIVING}" until log "{SAVED}"',
            f'isolate {FOLLOWER} on log "{SAVED}" until step behind-again',
        ),
    )


def _about(finding: Finding) -> bool:
    told = any("failed to open snapshot backend" in exhibit.what for exhibit in finding.certificate)
    return told and finding.subject.get("member") == FOLLOWER


ISSUE = Issue(
    name="18055",
    title="a follower that is sent two snapshots in a row panics",
    guarantee="a member runs until it is asked to stop",
    shows_as='a follower ends by itself: "failed to open snapshot backend", "snapshot file doesn\'t exist"',
    story="""\
A follower that is too far behind receives the leader's whole database as a file. Two loops handle it. The raft loop saves the file and
notes in the log that the snapshot has been taken; the apply loop then opens the file and makes it the member's database. After each
snapshot that it has saved, the raft loop deletes older snapshot files, because nobody needs them any more.

Between the save of a snapshot and its opening nothing says that the file is still needed. If a second snapshot is saved by then, the raft
loop deletes the first one's file, and the apply loop, which comes to open it, finds nothing and panics. Supervisors start the member again
and it recovers from the second snapshot; until then the cluster has one member less, and it meets this when it is already in trouble.

For a second snapshot to come so soon the leader has to change: the old one does not shorten its log while a snapshot is on its way. And the
apply loop has to be slow just there. Ordinarily that is a matter of milliseconds, seen in tests with tiny values of --snapshot-count. The
fix of #20271 made it seconds: since 3.5.23 and 3.6.5 the apply loop waits there for a lock which every defragmentation holds from its
beginning to its end. An operator who defragments a member that has fallen behind opens the window as wide as the database is large.

Here a follower is cut off until it needs a snapshot; as that begins to arrive, defragmentations are asked for. When it has been saved the
follower is cut off again, leadership is moved, and the new leader writes until a second snapshot is due. No release has a fix.
""",
    introduced="",
    boundaries=(Boundary("3.5.35", ""), Boundary("3.6.16", ""), Boundary("3.7.3", "")),
    codes=("MEMBER-EXIT",),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/18055", "https://github.com/etcd-io/etcd/pull/22046"),
)
