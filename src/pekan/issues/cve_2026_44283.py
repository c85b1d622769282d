"""CVE-2026-44283: a put inside a transaction returns what its user may not read, and gives its key to a lease that is none of the user's.

::

    the user may write "mine", and nothing else; the lease 7 has "theirs"

    Put mine, prev_kv                   ──> permission denied
    Txn( Put mine, prev_kv )            ──> ok, and the value that was there

    Put mine, lease 7                   ──> permission denied
    Txn( Put mine, lease 7 )            ──> ok
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, USER, auth_on, granted, made
from pekan.plan import Lane, Plan, Step
from pekan.verdict import Finding

LEASE, TTL_S = 7, 600
"""Nothing runs out meanwhile."""
PASSED_OVER = ("prev_kv", "lease")
"""The last word of a finding's shape: which part of the transaction nobody permitted."""


def _recipe(version: str) -> Recipe:
    reads = {"key": "mine", "value": "{n}", "prev_kv": True}
    attaches = {"key": "mine", "value": "{n}", "lease": LEASE}
    steps = (
        Step("lead", answer="ok"),
        *auth_on(),
        *made(USER, "writer"),
        granted("writer", "mine", kind="WRITE"),
        Step("LeaseGrant", {"ID": LEASE, "TTL": TTL_S}, answer="ok"),
        Step("Put", {"key": "theirs", "value": "1", "lease": LEASE}, answer="ok"),
        Step("Put", {"key": "mine", "value": "of somebody else"}, answer="ok"),
        Step("login", USER),
        Step("Range", {"key": "mine"}, answer="error"),
        Step("Put", reads, answer="error"),
        Step("Txn", {"success": [{"request_put": reads}]}),
        Step("Put", attaches, answer="error"),
        Step("Txn", {"success": [{"request_put": attaches}]}),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(Lane("client", "m1", steps),))
    return Recipe(plan)


def _about(finding: Finding) -> bool:
    return "Txn" in finding.shape and finding.shape[-1] in PASSED_OVER


ISSUE = Issue(
    name="CVE-2026-44283",
    title="a put inside a transaction returns values that its user may not read, and takes leases that its user may not",
    guarantee="with auth on, nobody reads or writes what no role of theirs permits",
    shows_as="a transaction with a put is answered with a previous value, or gives a key to a lease, where that put alone is denied",
    story="""\
A put may ask for more than to write. With prev_kv it is answered with the value that was there before, which is a read, and takes the
permission to read that key. With a lease it makes the key live as long as the lease does. All keys of a lease go together when it runs out
or is revoked. So whoever may not write one of them may not revoke the lease, and may not give it further keys either: nobody could then
get rid of these without those.

The server has two places that look up what a request takes. The one for a put alone knows all of this. The other one goes through the
operations of a transaction and had a put of its own, which knew of the key and nothing else. With a put in a transaction of just this put a
user therefore read any key that they could write but not read, at the price of writing it, and tied their keys to anybody's lease.

The mistake is as old as permissions in transactions. It was found when that walk was looked at for CVE-2026-33343, where it missed the
transactions within, and mended two months later: both places now ask the same function.

Here a user may write one key and read none; another key, which is none of theirs, has a lease. A put that asks for the previous value, and
one that names the lease, are refused alone, and then sent in a transaction each.
""",
    introduced="",
    boundaries=(Boundary("3.4.43", "3.4.44"), Boundary("3.5.29", "3.5.30"), Boundary("3.6.10", "3.6.11")),
    codes=("AUTH-ALLOWED",),
    run=_recipe,
    about=_about,
    links=(
        "https://github.com/etcd-io/etcd/security/advisories/GHSA-x35m-3gp4-4fh5",
        "https://github.com/etcd-io/etcd/pull/21677",
        "https://github.com/etcd-io/etcd/blob/v3.6.9/server/etcdserver/txn/txn.go#L687",
    ),
)
