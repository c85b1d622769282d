"""CVE-2026-33343: anybody may do anything inside a transaction that stands in another one.

::

    the user may read and write "mine" and nothing else

    Put secret                          ──> permission denied
    Txn( Put secret )                   ──> permission denied
    Txn( Txn( Put secret ) )            ──> ok, written
    Txn( Txn( Range secret ) )          ──> ok, here it is        the same without a login
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, USER, auth_on, granted, made
from pekan.plan import Lane, Plan, Step
from pekan.verdict import Finding

NESTED = "nested"
"""Of a finding's shape: what was allowed stands in a transaction inside another."""


def _recipe(version: str) -> Recipe:
    put = {"request_put": {"key": "secret", "value": "{n}"}}
    reads = {"success": [{"request_txn": {"success": [{"request_range": {"key": "secret"}}]}}]}
    writes = {"success": [{"request_txn": {"success": [put]}}]}
    steps = (
        Step("lead", answer="ok"),
        *auth_on(),
        *made(USER, "owner"),
        granted("owner", "mine"),
        Step("Put", {"key": "secret", "value": "1"}, answer="ok"),
        Step("login", USER),
        Step("Put", {"key": "mine", "value": "1"}, answer="ok"),
        Step("Put", {"key": "secret", "value": "2"}, answer="error"),
        Step("Txn", {"success": [put]}, answer="error"),
        Step("Txn", reads),
        Step("Txn", writes),
        # As nobody.
        Step("login", {}),
        Step("Range", {"key": "secret"}, answer="error"),
        Step("Txn", reads),
        Step("Txn", writes),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(Lane("client", "m1", steps),))
    return Recipe(plan)


def _about(finding: Finding) -> bool:
    return NESTED in finding.shape


ISSUE = Issue(
    name="CVE-2026-33343",
    title="anybody may read and write every key by a transaction inside a transaction",
    guarantee="with auth on, nobody reads or writes what no role of theirs permits",
    shows_as="a nested transaction returns values that its user may not read, or writes keys that its user may not write",
    story="""\
With auth on, a user of etcd has roles, and a role permits reading or writing certain ranges of keys. Before a request is carried out, the
server looks up whether its user may do what it asks. For a transaction that means a walk: every comparison and every operation of both
branches is looked at, whichever branch will be taken, and one that is not permitted has the whole transaction refused.

An operation of a transaction may be a get, a put, a delete, or another transaction. The walk handled the first three and passed over the
last. So whatever stood one level down was never looked at. The code that carries transactions out does know that level, and did all of it,
whoever asked: any user could read, change and delete every key of the cluster by writing one more pair of brackets. The advisory speaks of
users who are logged in, but it took no login either: that a request bears no token is noticed where a permission is looked up, and none
was.

Kubernetes is not affected, because it does not use etcd's users. Those who do had no protection between them from the first release with
nested transactions, 3.3, to March 2026. The fix has the walk call itself for a transaction within.

Here a user may read and write one key. A put of another key is refused, alone and in a transaction; then a get and a put of that key are
sent one level further down, by the user and by a client that never logged in.
""",
    introduced="",
    boundaries=(Boundary("3.4.41", "3.4.42"), Boundary("3.5.27", "3.5.28"), Boundary("3.6.8", "3.6.9")),
    codes=("AUTH-ALLOWED",),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/security/advisories/GHSA-rfx7-8w68-q57q",
        "https://github.com/etcd-io/etcd/commit/3080527dab11b1c96cb0ac00f78976f1b0832882",
        "https://github.com/etcd-io/etcd/blob/v3.6.8/server/etcdserver/txn/txn.go#L670",
    ),
)
