"""Leases in the order of revisions: granted before they are used, not used after they are revoked, revoked once.

::

    grant at r  <  every write that attaches to it  <  revoke at r' (the write of r' itself may come before the revoke)

Only for a lease that was granted once: then these are its one life. That a lease runs out too early is judged by the lease checker, by the
clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pekan.checkers import telling
from pekan.checkers.kv.collect import Buckets, attached_by
from pekan.checkers.kv.problems import Problem
from pekan.history.types import OK, Operation
from pekan.verdict import Finding

NEVER_GRANTED = "no recorded request granted the lease"
BEFORE_GRANT = "this was before the lease was granted"
AFTER_REVOKE = "this was after the lease was revoked"
REVOKED_AGAIN = "the lease had been revoked"


def judge_leases(b: Buckets) -> Iterator[Problem]:
    """Acknowledged uses of a lease that contradict its acknowledged grant or revoke."""
    revoked: dict[int, list[tuple[int, Operation]]] = defaultdict(list)
    for revision, group in sorted(b.revokes.items(), key=_first):
        for op in group:
            revoked[op.input.id].append((revision, op))
    single = {lease: ops[0] for lease, ops in b.grants.items() if len(ops) == 1 and ops[0].outcome == OK}
    for lease, ends in revoked.items():
        if lease in single:
            yield from _ends(single[lease], ends)
    for revision, op in b.attaching:
        for _, lease in attached_by(op.input, op.output):
            grant = single.get(lease)
            if grant is None:
                if lease not in b.grants:
                    yield misused(op, revision, None, NEVER_GRANTED)
                continue
            if revision <= grant.output.header.revision:
                yield misused(op, revision, grant, BEFORE_GRANT)
            for ended, end in revoked.get(lease, ()):
                if revision > ended:
                    yield misused(op, revision, end, AFTER_REVOKE)


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def _ends(grant: Operation, ends: list[tuple[int, Operation]]) -> Iterator[Problem]:
    for revision, op in ends:
        if revision < grant.output.header.revision:
            yield misused(op, revision, grant, BEFORE_GRANT)
    for (_, first), (revision, second) in pairwise(ends):
        yield misused(second, revision, first, REVOKED_AGAIN)


def misused(op: Operation, revision: int, other: Operation | None, how: str) -> Problem:
    """An acknowledged use of a lease that was not there; `other`: the grant or revoke that says so."""
    others = () if other is None else (other,)
    return Problem(
        revision,
        Finding(
            code="KV-CONTENT",
            summary=f"operation {op.id} used a lease that was not there: {how}",
            explanation=f"{telling.request(op.input)} was answered at revision {revision}, but by the revisions {how}: a refusal was due.",
            certificate=(*map(telling.exhibit, others), telling.exhibit(op)),
            subject={"operations": [each.id for each in (*others, op)], "revision": revision, "member": op.member},
            shape=(*(telling.kind_of(each.input) for each in others), telling.kind_of(op.input), "lease"),
        ),
        None,
    )
