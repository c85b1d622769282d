"""Refusals that state a fact: was there a moment at which it was true?

::

             call                 return
    ──────────┼─────────────────────┼──────────>   every state that can have been the present in between: revisions lowest..highest
              r3        r4         r5              the refusal must be right of one of them

    key not found          a Put that keeps value or lease found no key
    future revision        a Range of the branch taken names a revision above the present one (a plain Range: timing.py has it)
    compacted revision     a Range of the branch taken names a revision at all; whether it was compacted by then is compaction.py's
    lease not found        the lease had not been granted by then, or can have ended: revoked, or its TTL over
    lease exists           somebody asked to grant it before

Only requests that go through consensus count; what one member says for itself says nothing about the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pekan.checkers import telling
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.timing import Timing
from pekan.history.types import OK, Operation
from pekan.models.etcd import State, branch_taken, deletes, puts, ranges
from pekan.verdict import Exhibit, Finding
from pekan.wire import errors
from pekan.wire.messages import LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest

SECOND = 1_000_000_000
_CODES = {errors.FUTURE_REVISION: "KV-FUTURE-REVISION", errors.COMPACTED: "KV-COMPACTED"}


class Refusals:
    """The refusals of one history that still wait for a state that they are right of."""

    def __init__(self, b: Buckets, timing: Timing, complete: bool, lease_time: bool) -> None:
        """`complete`: every writer is recorded from an empty store on. `lease_time`: a fault may have let leases end at any time."""
        self.b = b
        self.lease_time = lease_time
        self.complete = complete
        self.revokes: dict[int, list[Operation]] = defaultdict(list)
        for op in (*b.pending, *(op for group in b.revokes.values() for op in group), *b.later_revokes):
            if type(op.input) is LeaseRevokeRequest:
                self.revokes[op.input.id].append(op)
        self.starting: dict[int, list[tuple[int, Operation]]] = defaultdict(list)
        self.waiting: list[tuple[int, Operation]] = []
        self.wrong: list[tuple[int, Operation]] = []
        self.later: set[int] = set()
        if timing.real_time:
            for op in b.refusals:
                if op.ret is not None and op.ret >= op.call:
                    lowest, highest = timing.present_between(op.call, op.ret)
                    if lowest < timing.first and not complete:
                        continue  # It can be of a state before the first one that is known.
                    if highest < timing.last or self._judged_at_the_end(op):
                        self.starting[lowest].append((highest, op))
                        if highest == timing.last and self._may_be_later(op):
                            self.later.add(op.id)

    def _judged_at_the_end(self, op: Operation) -> bool:
        """Whether a refusal that may be of the last revision can be judged: no fork, and nobody unrecorded who may have gone on."""
        return self.b.limit is None and (self.complete or not self._may_be_later(op))

    def _may_be_later(self, op: Operation) -> bool:
        """Whether `op` can have seen a state after the last revision that anything shows, and depends on what that state is."""
        if op.output.message in _CODES and not any(r.revision for r in ranges(op.input)):
            return False
        if not self.complete:
            return True
        if type(op.input) in (LeaseGrantRequest, LeaseRevokeRequest) or (type(op.input) is PutRequest and op.input.lease):
            return False
        return bool(self.b.grants) or any(write.call <= _end(op) for write in self.b.pending)

    def look(self, revision: int, state: State) -> None:
        """Hold the refusals that can be of `revision` against it."""
        if revision in self.starting:
            self.waiting += self.starting[revision]
        still: list[tuple[int, Operation]] = []
        for highest, op in self.waiting:
            if not self._right(state, op):
                (still if highest > revision else self.wrong).append((highest, op))
        self.waiting = still

    def problems(self, all_used: bool) -> Iterator[Problem]:
        """The refusals that were right at no state they can be of; those whose states were not all replayed are left out.

        `all_used`: every write that may have happened has its revision, so that there is no unseen state after the last.
        """
        for revision, op in self.wrong:
            if all_used or op.id not in self.later:
                yield wrong(op, revision, list(self._evidence(op)))

    def _right(self, state: State, op: Operation) -> bool:
        request, text = op.input, op.output.message
        kind = type(request)
        if kind is LeaseGrantRequest:
            return not self.complete or any(other.call <= _end(op) for other in self.b.grants.get(request.id, ()))
        if kind is LeaseRevokeRequest:
            return self._may_lack(request.id, op)
        for inner in branch_taken(state, request):
            if type(inner) is RangeRequest:
                if text == errors.FUTURE_REVISION and inner.revision > state.revision:
                    return True
                if text == errors.COMPACTED and inner.revision:
                    return True
            elif type(inner) is PutRequest:
                if text == errors.KEY_NOT_FOUND and (inner.ignore_value or inner.ignore_lease) and inner.key not in state.kvs:
                    return True
                if text == errors.LEASE_NOT_FOUND and inner.lease and self._may_lack(inner.lease, op):
                    return True
        return False

    def _may_lack(self, lease: int, op: Operation) -> bool:
        """Whether `lease` can have been absent at some time in which `op` was under way."""
        if not self.complete or self.lease_time:
            return True
        grants = self.b.grants.get(lease, ())
        if not any(g.outcome == OK and g.ret is not None and g.ret < op.call for g in grants):
            return True
        if any(revoke.call <= _end(op) for revoke in self.revokes.get(lease, ())):
            return True
        # Renewals only move the deadline on; without them the lease may be thought to end too early here, never too late.
        return any(g.call + (g.output.ttl if g.outcome == OK else g.input.ttl) * SECOND <= _end(op) for g in grants)

    def _evidence(self, op: Operation) -> Iterator[Exhibit]:
        leases = {p.lease for p in puts(op.input) if p.lease}
        if type(op.input) is LeaseRevokeRequest:
            leases.add(op.input.id)
        for lease in sorted(leases):
            for grant in self.b.grants.get(lease, ())[:1]:
                yield telling.exhibit(grant)


def _end(op: Operation) -> int:
    return 1 << 62 if op.ret is None else op.ret


def wrong(op: Operation, revision: int, evidence: list[Exhibit]) -> Problem:
    """A refusal that was right at no state it can be of."""
    named = [str(r.revision) for r in ranges(op.input) if r.revision]
    about = f" It names {', '.join(named)}." if named else " It names no revision." if op.output.message in _CODES else ""
    return Problem(
        revision,
        Finding(
            code=_CODES.get(op.output.message, "KV-WRONG-REFUSAL"),
            summary=f"operation {op.id} was refused for a reason that was at no time true",
            explanation=f"{telling.request(op.input)} was refused: {op.output.message}. No state that was the present between its call and "
            f"its answer (up to revision {revision}) makes that so.{about}",
            certificate=(*evidence, telling.exhibit(op)),
            subject={"operations": [op.id], "revision": revision, "member": op.member},
            shape=(telling.kind_of(op.input), op.output.message),
        ),
        tuple((p.key, b"") for p in puts(op.input)) + tuple((d.key, d.range_end) for d in deletes(op.input)),
    )
