"""#22386: while the alarm NOSPACE is on, nobody's permissions are looked at: anybody may delete any key, and change users and roles.

::

    appliers, first to last      auth ── quota ── backend
    NOSPACE raised                       no puts ── backend            the new chain is built upon the innermost one
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, ROOT, auth_on
from pekan.plan import Lane, Plan, Step
from pekan.verdict import Finding

ALARM = {"alarm": "NOSPACE", "memberID": 1}
"""Raised by hand: what fills the database is no matter here."""
UNCHECKED = (
    "DeleteRange",
    "RoleAdd",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
    "UserAdd",
    "UserDelete",
    "UserGrantRole",
)
"""Kinds of requests that the appliers decide about."""


def _recipe(version: str) -> Recipe:
    steps = (
        Step("lead", answer="ok"),
        *auth_on(),
        Step("Put", {"key": "secret", "value": "1"}, answer="ok"),
        # As nobody.
        Step("login", {}),
        Step("DeleteRange", {"key": "secret"}, answer="error"),
        Step("login", ROOT),
        Step("Alarm", {"action": "ACTIVATE", **ALARM}, answer="ok"),
        Step("login", {}),
        Step("DeleteRange", {"key": "secret"}),
        Step("RoleAdd", {"name": "made-by-nobody"}),
        Step("login", ROOT),
        Step("Alarm", {"action": "DEACTIVATE", **ALARM}, answer="ok"),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(Lane("client", "m1", steps),))
    return Recipe(plan)


def _about(finding: Finding) -> bool:
    return len(finding.shape) == 3 and finding.shape[1] in UNCHECKED


ISSUE = Issue(
    name="22386",
    title="while the database is full anybody may delete every key, and change users and roles",
    guarantee="with auth on, nobody reads or writes what no role of theirs permits",
    shows_as="deletes and changes of users are done without the permission, without a login even, as long as the alarm NOSPACE is on",
    story="""\
A request that has come through the log is carried out by a chain of appliers, each of which does its part and hands on to the next. The
first looks at permissions, the second at the space that is left, the last one writes. When a member finds the database full, it raises the
alarm NOSPACE by way of the log, and every member that applies it puts another applier in front, which refuses whatever takes space.

In front of what, though? The alarm is applied by the last applier of the chain, and that one hands over itself as what comes next. The
new chain is a lid on the innermost applier, and the other two are gone. Puts are refused, as they should be. Deletes are what one is to
do when there is no space, and they go straight through to where nobody asks who it is. So do changes of users and roles, which only the
first applier held back, and AuthDisable among them. It ends when the alarm is disarmed; a restart meanwhile builds the chain as it should
be.

Whoever may write a single key can bring this about by writing until the database is full, and then turn auth off. Gets stay guarded,
because they do not come through the log. From 3.6 on the chain is built anew from the outside, with the lid on top. For 3.5 a fix has been
proposed, and the newest release that was tried does not have it.

Here a key is written, a delete without a login is refused, the alarm is raised by hand, and the delete is sent again, with a change of
roles.
""",
    introduced="",
    boundaries=(Boundary("3.4.45", ""), Boundary("3.5.35", "3.6.0")),
    codes=("AUTH-ALLOWED",),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/pull/22386",
        "https://github.com/etcd-io/etcd/blob/v3.5.33/server/etcdserver/apply.go#L758",
    ),
)
