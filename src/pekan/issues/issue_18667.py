"""#18667: a transaction that reads at a compacted revision is refused by the member that was asked, and applied by all others.

::

    Txn: put a, range k at revision 2          2 is compacted away

    m1 (asked)     put a, range k at 2: compacted ──> nothing is done, the client is answered "compacted"
    m2, m3         put a                          ──> done: nobody here waits for the answer, so ranges were taken out before
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step

KEY = "refused"


def _recipe(version: str) -> Recipe:
    put, read = {"request_put": {"key": KEY, "value": "1"}}, {"request_range": {"key": "k", "revision": 2}}
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, name="written", times=5, answer="ok"),
        Step("Compact", {"revision": {"reply": "written.header.revision"}}, answer="ok"),
        Step("Txn", {"success": [put, read]}, answer="error"),
        *(Step("Range", {"key": KEY}, member=member, answer="ok") for member in ("m1", "m2", "m3")),
    )
    return Recipe(Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=10_000, script=(Lane("client", "m1", steps),)))


ISSUE = Issue(
    name="18667",
    title="a transaction with a read at a compacted or future revision is refused and applied all the same, by the other members",
    guarantee="every member applies the same history, and what is refused does not happen",
    shows_as="members that differ for good after a single request",
    story="""\
Every member applies every transaction. Only one of them has a client that waits for the answer; for the others a read within it is work for
nothing. So they take all reads out of a transaction before they apply it.

But applying begins with checking, and one of the checks is about reads: a read may name a revision, and if that is compacted away, or does
not exist yet, the whole transaction is refused and none of its writes is done. The member that was asked finds the read, checks it and
refuses. The others have no read left to check and do the writes. The client is told that nothing happened; two members of three have the
write, one has not; and that one's revisions are behind by one from now on, so that the same number means different things
on different members.

Nothing heals this and nothing reports it until somebody compares hashes. One request of one client is enough, without any fault, at any
time; a permission that fails for a read alone does the same (docs/known-deviations.md). 3.7.0 takes nothing out any more.

Here five versions of a key are written and compacted, one transaction puts a key and reads at revision 2, and every member is asked for
that key.
""",
    introduced="",
    boundaries=(Boundary("3.6.16", "3.7.0"),),
    codes=("REFUSED-BUT-APPLIED",),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/18667", "https://github.com/etcd-io/etcd/pull/21432"),
)
