"""#14571: a member that catches up by a snapshot goes on judging by the permissions that it had before, and refuses what others apply.

::

    m3 is cut off      grant [x, y) to the role of u, then 5,000 entries and more: their log is gone when m3 comes back
    m3 is back         snapshot: the whole database, with the grant in it
                       table of permissions in memory: as it was before the cut
    u puts x           m1, m2: permitted, applied           m3: permission denied, refused
"""

from __future__ import annotations

from pekan.issues import behind
from pekan.issues.issue import Boundary, Issue, Recipe, parts
from pekan.issues.users import FLAGS, ROOT, USER, auth_on, granted, made
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

VICTIM = "m3"


def _recipe(version: str) -> Recipe:
    client = Lane(
        "client",
        "m1",
        (
            Step("lead", answer="ok"),
            *auth_on(),
            *made(USER, "writer"),
            granted("writer", "a", "b"),
            # Some releases make their table of a user's permissions at the user's first request: each member has one after this.
            Step("login", USER),
            Step("Put", {"key": "a", "value": "1"}, answer="ok"),
            Step("Range", {"key": "a"}, name="known", member=VICTIM, answer="ok"),
            # It has fired with the first bytes that it kept from somebody.
            Step("nothing", wait=Trigger(after="isolate")),
            Step("login", ROOT),
            granted("writer", "x", "y"),
            behind.leave_behind(version, "behind", key="a{client}"),
            Step("login", USER),
            Step("Put", {"key": "x", "value": "{n}"}, wait=Trigger(step="restored"), times=3, answer="ok"),
        ),
    )
    victim = Lane("victim", VICTIM, (Step("nothing", name="restored", wait=Trigger(log="applied snapshot")),))
    flags = (*FLAGS, *behind.flags(version))
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=60_000, flags=flags, script=(client, victim))
    return Recipe(plan, (f"isolate {VICTIM} on step known until step behind",))


def _about(finding: Finding) -> bool:
    return parts(finding, VICTIM)


ISSUE = Issue(
    name="14571",
    title="a member that has received a snapshot judges by the permissions of before, and refuses writes that the others apply",
    guarantee="every member applies the same history",
    shows_as="a permitted write is acknowledged and missing on one member, whose revisions lag behind from then on",
    story="""\
With auth on, every member checks each write when it applies it: may this user write this key? All members have to come to the same
answer, as the client hears only that of the member it asked. So as not to look users and roles up in the database each time, a member keeps
a table of every user's ranges in memory, and brings it up to date with each change of users and roles that it applies.

A member that was away for so long that the others have given up the log it would need gets a snapshot: the whole database of the leader in
place of its own. It then loads from it what it holds in memory, and this table was forgotten. All the changes of users and roles that came
with the snapshot are in its database and not in its table. A write that one of them permits is applied by the other members and refused by
this one, in silence. Its store is behind by a revision from there on, and everything later has another revision here than elsewhere. Where
a permission was taken away, it is the other way round: this member alone applies what nobody may write any more.

That is the bug of 3.4.20, 3.4.21 and 3.5.5, where the table is made whenever something changes. Releases before those make it at a user's
first request and share the mistake: a user that was seen before the snapshot is judged by the old table. Either way a restart of the member
mends the table and leaves the data as it is.

Here one member is cut off; a permission is granted, and writes follow until the leader's log begins after the grant. The member comes back
by a snapshot, and the user writes where it may since.
""",
    introduced="",
    boundaries=(Boundary("3.4.21", "3.4.22"), Boundary("3.5.5", "3.5.6")),
    codes=("MEMBER-REVISION", "MEMBER-HASH", "KV-REAL-TIME"),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/issues/14571",
        "https://github.com/etcd-io/etcd/pull/14648",
        "https://github.com/etcd-io/etcd/pull/14649",
    ),
)
