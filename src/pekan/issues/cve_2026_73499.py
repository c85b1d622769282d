"""CVE-2026-73499: whoever may read one key may watch every key from there on.

::

    the user may read "a" and nothing else

    Range z                             ──> permission denied
    Range from a on                     ──> permission denied
    Watch from a on                     ──> created; events of a, b, ... z
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, USER, auth_on, granted, made
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

FROM_KEY = "\0"
"""The range_end that stands for no end."""


def _recipe(version: str) -> Recipe:
    administrator = (
        Step("lead", answer="ok"),
        *auth_on(),
        *made(USER, "reader"),
        granted("reader", "a", kind="READ", name="granted"),
        Step("Put", {"key": "secret", "value": "{n}"}, wait=Trigger(step="watched"), times=3, answer="ok"),
    )
    user = (
        Step("login", USER, wait=Trigger(step="granted")),
        Step("Range", {"key": "a"}, answer="ok"),
        Step("Range", {"key": "secret"}, answer="error"),
        Step("Range", {"key": "a", "range_end": FROM_KEY}, answer="error"),
        # Where it is refused that is an answer too.
        Step("watch", {"key": "a", "range_end": FROM_KEY}, name="watched", answer="ok"),
    )
    lanes = (Lane("administrator", "m1", administrator), Lane("user", "m1", user))
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=lanes)
    return Recipe(plan)


def _about(finding: Finding) -> bool:
    return "Watch" in finding.shape and finding.shape[-1] == "from key"


ISSUE = Issue(
    name="CVE-2026-73499",
    title="a user who may read one key may watch all keys after it",
    guarantee="with auth on, nobody reads or writes what no role of theirs permits",
    shows_as="a watch delivers events of keys that its user may not read",
    story="""\
A get or a watch of etcd names a key and the end of a range. No end means the key alone, a single zero byte means that there is no end:
everything from the key on. That is how requests spell it. Inside the server the two are told apart in another way, by an end that is
missing and one that is there and empty, which Go knows as two things.

The part of the server that takes watches put one spelling into the other as soon as a request had come in, and looked up the user's
permission afterwards. The part that knows the permissions expects the spelling of requests, and takes an end of no length for no end, a
single key. So a watch of everything from "a" on was looked up as one of "a". Who may read that key was let in, and the watch that was then
made had no end. From then on it delivered every change of every key above, with its value, and its history too, if asked to begin at an
old revision. Gets do not take that detour; the same range is refused there.

A permission for one key, be it the least of all, was thus a permission to follow the rest of the keyspace, from the first release with
users in version 3 to July 2026. The fix moves the respelling behind the look-up. Watches that had been let in go on until they end, since
etcd looks at a watch once, when it is made.

Here a user may read one key. Gets of another key and of everything from the first on are refused, a watch of the same is asked for, and
somebody else writes the other key.
""",
    introduced="",
    boundaries=(Boundary("3.4.45", ""), Boundary("3.5.32", "3.5.33"), Boundary("3.6.13", "3.6.14"), Boundary("3.7.0", "3.7.1")),
    codes=("AUTH-ALLOWED",),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/security/advisories/GHSA-xg4h-6gfc-h4m8",
        "https://github.com/etcd-io/etcd/commit/6643f80602461a6095c9b294b6512fd9719bef41",
        "https://github.com/etcd-io/etcd/blob/v3.6.9/server/etcdserver/api/v3rpc/watch.go#L268",
    ),
)
