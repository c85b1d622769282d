"""A transaction of compares alone is answered by any member from what it happens to have, although nobody allowed a stale answer.

::

    m1, m2        k version 1 ──────── k version 2, acknowledged
    m3, cut off   k version 1                                      If version(k) == 1 ──> "true"
                                                                   Range k            ──> no answer, as it should be
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger

FOLLOWER = "m3"


def _recipe(version: str) -> Recipe:
    put = {"key": "k", "value": "{n}"}
    is_first = {"key": "k", "target": "VERSION", "result": "EQUAL", "version": 1}
    steps = (
        Step("lead", answer="ok"),
        Step("Put", put, answer="ok"),
        Step("ready", name="everywhere", member=FOLLOWER, answer="ok"),
        Step("Put", put, answer="ok", wait=Trigger(after="isolate")),
        Step("Txn", {"compare": [is_first]}, name="compared", member=FOLLOWER, answer="ok"),
    )
    lane = Lane("client", "m1", steps)
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=20_000, script=(lane,))
    return Recipe(plan, (f"isolate {FOLLOWER} on step everywhere until step compared",))


ISSUE = Issue(
    name="compares-only-stale",
    title="a transaction without operations is answered by a member that is cut off, from old data",
    guarantee="linearizable by default: an answer is not older than what was acknowledged before the question",
    shows_as="`If version(k) == 1` is answered true after version 2 has been acknowledged",
    story="""\
A read of etcd is linearizable unless its client says `serializable`: the member that is asked makes sure that it knows all that has been
acknowledged, which takes a majority. A transaction that only reads goes the same way, unless all of its reads are serializable.

The server finds that out by looking through the operations for one that is not serializable. A transaction may have no operation at all:
compares alone, as in "do I still hold this lock?", where whether it succeeded is the whole answer. The look finds nothing that is not
serializable, and such a transaction is taken for one whose client is content with a stale answer. Any member answers it at once, from its
own data, also while it is cut off from all others.

So the holder of a lock that was lost minutes ago may be told that it still holds it, and act on that. Every release that was tried does so,
3.7.3 among them, and no report of it is known to us. A linearizable Range in either branch of the transaction avoids it.

Here a key is written, one of three members is cut off, the key is written again, and the member that is cut off is asked whether the key is
still at its first version.
""",
    introduced="",
    boundaries=(Boundary("3.7.3", ""),),
    codes=("COMPARES-ONLY-STALE",),
    run=_recipe,
    links=("https://etcd.io/docs/latest/learning/api_guarantees/",),
)
