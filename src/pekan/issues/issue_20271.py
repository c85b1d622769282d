"""#20271: a defragmentation while a follower restores a snapshot puts the old database back in its place.

::

    the follower        the file called "db"               what the member writes to
    ───────────────     ──────────────────────────────     ─────────────────────────────────────────
    before              old                                old
    opens the snapshot  new (renamed over it)              old still; restoring the new one takes a second
    Defragment          old, copied, renamed over it       old
    restored            old                                new, which has no name any more
    restart             old                                old: all since then is gone
"""

from __future__ import annotations

from pekan.issues import behind
from pekan.issues.issue import Boundary, Issue, Recipe, parts
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

FOLLOWER = "m2"
PUTS, TRANSACTIONS = 5_000, 12
"""60,000 keys: reading them takes a member a third of a second while it restores its store, which is the time there is for the
defragmentation."""

SNAPSHOT_COUNT = 50
"""More entries than come after the follower's snapshot. With another snapshot of its own, later ones need a file that it does not have, and
the next start panics instead of going on with the old database; that is the louder and the lesser evil."""


def _recipe(version: str) -> Recipe:
    keys = {"success": [{"times": PUTS, "of": {"request_put": {"key": "k{n:02}{i:04}", "value": "x"}}}]}
    client = Lane(
        "client",
        "m1",
        (
            Step("lead", answer="ok"),
            Step("Txn", keys, name="full", times=TRANSACTIONS, timeout_ms=20_000, answer="ok"),
            behind.leave_behind(version, "behind", wait=Trigger(after="isolate")),
            Step("Put", {"key": "after", "value": "{n}"}, name="written", times=5, answer="ok", wait=Trigger(step="defragmented")),
        ),
    )
    operator = Lane(
        "operator",
        FOLLOWER,
        (
            Step("Defragment", name="defragmented", timeout_ms=20_000, answer="ok", wait=Trigger(log="restoring mvcc store")),
            # Its answer shows that the follower has taken over what was written before.
            Step("Range", {"key": "after"}, name="caught-up", timeout_ms=20_000, answer="ok", wait=Trigger(step="written")),
        ),
    )
    flags = (("max-txn-ops", str(PUTS)), *behind.flags(version, every=SNAPSHOT_COUNT))
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=90_000, flags=flags, script=(client, operator))
    return Recipe(plan, (f"isolate {FOLLOWER} on step full until step behind", f"kill {FOLLOWER} on step caught-up"))


def _about(finding: Finding) -> bool:
    if finding.code == "MEMBER-EXIT" and not any("failed to recover v3 backend" in exhibit.what for exhibit in finding.certificate):
        return False
    return parts(finding, FOLLOWER)


ISSUE = Issue(
    name="20271",
    title="a defragmentation while a snapshot is restored brings the old database back",
    guarantee="a completed write survives a restart, and every member holds the same",
    shows_as="after a restart a member has lost everything since its last snapshot, or does not start any more",
    story="""\
A follower that is too far behind receives the leader's whole database as a file. To take it over, the member renames that file to "db",
over the one it has, opens it and builds its index of keys from it. A file that is open can be renamed over: the member goes on using the
old database through its open handle, without a name, until the new one is ready. For a million keys that takes seconds.

Defragment asks a member to copy its database into a fresh file and to rename the copy to "db". Nothing kept the two apart. A
defragmentation in those seconds copies what the member uses just then, the *old* database, and renames the copy over the *new* one. Then
the new one is ready, and the member serves and writes to a file that no name leads to. Everything looks well: reads are right, hashes agree
with the other members', and the data lies in a file that will vanish with the process.

The next start opens "db", which is the old database. Since 3.5 each commit notes how far the log has been applied. The commit that begins
the defragmentation of the old database notes what the new one has reached, and so the file says that it has all of the log: the member goes
on without what was written in between, and differs from the others for good. Where the log speaks of a later snapshot than the file, the
member looks for that snapshot's own file, which was renamed long ago, and panics at every start; so does 3.4. Operators defragment by a
timer, member after member, and not at a time when all of them are in best health.

Here 60,000 keys make the restore long, one follower is cut off until it needs a snapshot, and Defragment is sent to it at its log line
"restoring mvcc store". It catches up, and is killed and started again. The fix lets either of the two wait for the other (and so opened the
door for #18055).
""",
    introduced="",
    boundaries=(Boundary("3.4.37", "3.4.38"), Boundary("3.5.22", "3.5.23"), Boundary("3.6.4", "3.6.5")),
    codes=("MEMBER-REVISION", "MEMBER-HASH", "MEMBER-DIVERGED", "MEMBER-EXIT"),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/20271", "https://github.com/etcd-io/etcd/pull/20553"),
)
