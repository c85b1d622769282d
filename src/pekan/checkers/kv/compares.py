"""Transactions without operations: asked as linearizable, answered by any member from its own state.

etcd counts a Txn with no operation in either branch as serializable (server/etcdserver/txn, IsTxnSerializable: a loop over no operations),
so it is answered without a read barrier although nobody asked for that. Like any local answer it proves that its revision existed, and
nothing more; it is judged last::

    its guards are true or false of the state of its revision     else KV-CONTENT (in the replay)
    that revision existed before the answer                       else LOCAL-CONTENT (with the other local answers)
    nothing after that revision was known before the call         else COMPARES-ONLY-STALE
"""

from __future__ import annotations

from collections.abc import Iterator

from pekan.checkers import telling
from pekan.checkers.evidence import Watched
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.proofs import known_before
from pekan.checkers.kv.timing import Timing
from pekan.history.types import Operation
from pekan.verdict import Exhibit, Finding


def judge_compares(b: Buckets, timing: Timing, evidence: Watched) -> Iterator[Problem]:
    """Problems of time of every Txn without operations."""
    if not timing.real_time:
        return
    for revision, group in sorted(b.compares.items(), key=lambda item: item[0]):
        for op in group:
            if op.call > timing.latest_of(revision + 1):
                yield stale(op, revision, known_before(b, evidence, revision, op.call))


def stale(op: Operation, revision: int, known: Exhibit | None) -> Problem:
    """A Txn without operations that was answered from an older state than `known` had shown."""
    return Problem(
        revision,
        Finding(
            code="COMPARES-ONLY-STALE",
            summary=f"a transaction without operations was answered from revision {revision}, older than what had been acknowledged",
            explanation=f"Operation {op.id} did not ask for a serializable answer. Its guards were decided at revision {revision}, though "
            "a later revision had been shown to a client before it was called.",
            certificate=(*((known,) if known is not None else ()), telling.exhibit(op)),
            subject={"operations": [op.id], "revision": revision, "member": op.member},
            shape=("txn without operations",),
        ),
        (),
    )
