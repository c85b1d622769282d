"""CVE-2026-33413: leases, compactions, alarms and the list of members are for anybody who never logged in.

::

    nobody       Range k                ──> user name is empty
                 MemberList             ──> ok, every address
                 LeaseGrant, LeaseLeases, LeaseTimeToLive, LeaseRevoke     ──> ok
                 Compact, Alarm         ──> ok
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.issues.users import FLAGS, auth_on
from pekan.plan import Lane, Plan, Step
from pekan.verdict import Finding

ROOTS, NOBODYS, TTL_S = 7, 8, 600
"""Leases, and a time in which none of them runs out."""
UNASKED = ("Alarm", "Compaction", "LeaseGrant", "LeaseLeases", "LeaseRevoke", "LeaseTimeToLive", "MemberList")


def _recipe(version: str) -> Recipe:
    steps = (
        Step("lead", answer="ok"),
        *auth_on(),
        Step("LeaseGrant", {"ID": ROOTS, "TTL": TTL_S}, answer="ok"),
        Step("Put", {"key": "k", "value": "{n}"}, name="put", times=3, answer="ok"),
        # As nobody.
        Step("login", {}),
        Step("Range", {"key": "k"}, answer="error"),
        Step("MemberList", {}),
        Step("Alarm", {"action": "GET"}),
        Step("LeaseLeases", {}),
        Step("LeaseTimeToLive", {"ID": ROOTS}),
        Step("LeaseGrant", {"ID": NOBODYS, "TTL": TTL_S}),
        Step("LeaseRevoke", {"ID": ROOTS}),
        Step("Compact", {"revision": {"reply": "put.header.revision"}}),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(Lane("client", "m1", steps),))
    return Recipe(plan)


def _about(finding: Finding) -> bool:
    return finding.shape[-1] == "no token" and finding.shape[1] in UNASKED


ISSUE = Issue(
    name="CVE-2026-33413",
    title="leases, compactions, alarms and the list of members are served to clients that never logged in",
    guarantee="with auth on, a request without a token is refused",
    shows_as="leases granted and revoked, history compacted, members listed, all without a token",
    story="""\
Auth in etcd grew out from the keys: gets, puts and deletes ask which user it is and what the user may do with these keys, and changes of
users and roles ask for the role root. Requests that name no key had to be thought of one by one. Membership changes, defragmentation and
snapshots were. Leases were half: a lease that has keys cannot be revoked by who may not write them, but to grant one, to list all of them,
to ask for its time, or to revoke one without keys took no user at all. The same held for compactions, for alarms, and for the list of the
members with their addresses.

So whoever could open a connection could do these things while auth was on and every get was refused. Leases can be granted until memory
runs out. A compaction throws away history that watches and backups count on. An alarm of the kind that says that space has run out, raised
by hand, makes the cluster refuse every write until somebody disarms it.

The fix has each of them ask for a user first, and some for the role root. Kubernetes is not affected where its API server alone reaches
etcd, which it does with certificates.

Here root grants a lease and writes a key. Then a client that never logged in is refused a get, and asks for the list of members, the
alarms and the leases, grants one, revokes root's, and compacts.
""",
    introduced="",
    boundaries=(Boundary("3.4.41", "3.4.42"), Boundary("3.5.27", "3.5.28"), Boundary("3.6.8", "3.6.9")),
    codes=("AUTH-ALLOWED",),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/security/advisories/GHSA-q8m4-xhhv-38mg", "https://www.cve.org/CVERecord?id=CVE-2026-33413"),
)
