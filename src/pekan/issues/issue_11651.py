"""#11651: changes of users and roles are applied again after a restart, and from then on members disagree about who may write.

::

    log             put  grant  grant  grant         a crash and a start of m2          put by m1
    index on disk    1     1      1      1           m2 applies 2, 3, 4 again
    auth revision    5     6      7      8           m2: 11, the others: 8              m2: "old revision", refused; the others: applied
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, auth_on, granted
from pekan.plan import Lane, Plan, Step, Trigger

VICTIM = "m2"
GRANTS = 6
COMMITTED_MS = 1_000
"""Ten batches: what was granted is on disk when the member is killed."""


def _recipe(version: str) -> Recipe:
    root = Lane(
        "root",
        "m1",
        (
            Step("lead", answer="ok"),
            *auth_on(),
            Step("RoleAdd", {"name": "writer"}, answer="ok"),
            # A put writes the index for the last time before the restart.
            Step("Put", {"key": "first", "value": "1"}, answer="ok"),
            granted("writer", "p{n}", times=GRANTS),
            Step("nothing", name="granted", times=2, every_ms=COMMITTED_MS),
            Step("ready", wait=Trigger(healed="kill"), member=VICTIM, answer="ok"),
            *(Step("Put", {"key": f"by-{member}", "value": "1"}, member=member, answer="ok") for member in ("m1", VICTIM, "m3")),
        ),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=30_000, flags=FLAGS, script=(root,))
    return Recipe(plan, (f"kill {VICTIM} 100ms on step granted",))


ISSUE = Issue(
    name="11651",
    title="after a restart a member applies changes of users and roles again, and then keeps other writes than the rest",
    guarantee="every member applies the same history",
    shows_as="every write answers ok, and each member keeps a part of them",
    story="""\
Each member of etcd applies one log to its own database. With the data it keeps the index of the last entry applied, so that a start knows
where to go on. Up to 3.4.7 that index was written with each change of keys, and not with changes of users and roles: after those it stayed
where the last put had left it. A member that was restarted then applied them once more. Most of that is harmless, as a role that
is there cannot be added again. Granting a permission to a role is not: it succeeds a second time, changes nothing, and counts.

What it counts is the *auth revision*, the number of changes so far. A request bears the auth revision of the member that took it, and
whoever applies it refuses what is older than its own, because it may have been permitted by rights that have been taken away since. The
number has to be the same everywhere. On the restarted member it is ahead by the grants it applied twice. From then on that member, alone,
refuses at apply whatever came by way of the others, and the client, who asked one of those, has read "ok". Writes by way of the restarted
member are applied by all. Nothing is logged that anybody would look at, revisions drift apart, and what a client reads depends on whom it
asks. It was found in a production cluster that had been upgraded member by member.

Here auth is turned on, one key is written, six permissions are granted, one member is killed and comes back, and one put goes to each
member. The fix writes the index with every entry.
""",
    introduced="",
    boundaries=(Boundary("3.4.7", "3.4.8"),),
    codes=("MEMBER-REVISION", "MEMBER-HASH", "KV-REVISION-REUSED", "KV-LOST-WRITE"),
    run=_recipe,
    links=(
        "https://github.com/etcd-io/etcd/issues/11651",
        "https://github.com/etcd-io/etcd/pull/11652",
    ),
)
