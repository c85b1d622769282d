"""Which operation proves what: the operations of a history by the revision that their answer names.

::

    answer to                            header.revision     bucket
    ===================================  ==================  ==========================================================================
    Put, DeleteRange or Txn that wrote   exact               writes[r]: it *is* the step from r-1 to r
    the same without effect, Range,      exact               readers[r]: it saw the state of r
    LeaseGrant
    Range at an older revision q         exact               readers[r] for its time, old[q] for its content
    LeaseRevoke                          exact               revokes[r]: the step to r, or a reader at r, whichever the replay allows
    Range or Txn asked serializable      of that member      local[q]: content of q; r existed before the reply
    Txn without operations               of that member      compares[r]: see compares.py; r existed before the reply
    Compaction                           r existed           compactions, existed
    any write, no proof either way       none                pending: may be a step, once, at any time after its call
    any write, definite refusal          none                refused: must be none; suspects
    "future revision" q                  none                future: before the step to q

(Exactness as read in etcd server/etcdserver/v3_server.go, apply/backend.go and api/v3rpc/header.go: a Compaction's header may be filled
after the apply, all others named here are set by the apply or by the snapshot that was read.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pekan.history.types import FAILED, INDEFINITE, OK, Operation
from pekan.models.etcd import is_compares_only, is_local, may_write, ranges
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)

NEVER = 1 << 62
"""Above every revision."""
JUDGED = frozenset({PutRequest, RangeRequest, TxnRequest, DeleteRangeRequest, CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest})


@dataclass(slots=True)
class Buckets:
    """The operations of one history, sorted by what they prove. `limit`: the first revision that is not looked at, None for all.

    Beside the buckets of the module's table, two lists save a walk over all of them: `attaching`, those of `writes` that may attach a key
    to a lease, and `named`, those of `readers` that are Ranges at a named revision.
    """

    limit: int | None = None
    writes: dict[int, Operation] = field(default_factory=dict)
    clashes: list[tuple[int, Operation, Operation]] = field(default_factory=list)
    readers: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    old: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    revokes: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    local: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    compares: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    existed: list[tuple[int, Operation]] = field(default_factory=list)
    compactions: list[Operation] = field(default_factory=list)
    pending: list[Operation] = field(default_factory=list)
    refused: list[Operation] = field(default_factory=list)
    future: list[tuple[int, Operation]] = field(default_factory=list)
    compacted: list[tuple[int, Operation]] = field(default_factory=list)
    refusals: list[Operation] = field(default_factory=list)
    later_revokes: list[Operation] = field(default_factory=list)
    revoked_at: dict[int, int] = field(default_factory=dict)
    attaching: list[tuple[int, Operation]] = field(default_factory=list)
    named: list[tuple[int, Operation]] = field(default_factory=list)
    grants: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    highest: int = 0
    beyond: int = 0
    reads_the_past: bool = False
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def leases_after(self, revision: int) -> dict[int, int]:
        """The leases that a write above `revision` can attach to (values are not TTLs).

        A lease granted once is there after the revision of its grant and up to that of its acknowledged revoke; one that was granted
        without an answer, or again, may be there at any time.
        """
        return {lease: 0 for lease in self.grants if self.lives_after(lease, revision)}

    def there_until(self) -> dict[int, int]:
        """Lease granted once -> the highest revision at which it was there: where an acknowledged write attached a key to it, or, where
        its revoke was acknowledged, NEVER: nothing else ended it. Sound where every grant is recorded.
        """
        found = {lease: NEVER for lease in self.revoked_at if len(self.grants.get(lease, ())) == 1}
        for revision, op in self.attaching if self.grants else ():
            for _, lease in attached_by(op.input, op.output):
                if len(self.grants.get(lease, ())) == 1:
                    found[lease] = max(revision, found.get(lease, 0))
        return found

    def lives_after(self, lease: int, revision: int) -> bool:
        """Whether a write above `revision` can attach to `lease`."""
        grants = self.grants[lease]
        if len(grants) != 1 or grants[0].outcome != OK:
            return True
        granted_at: int = grants[0].output.header.revision
        return granted_at <= revision < self.revoked_at.get(lease, NEVER)


def collect(operations: Iterable[Operation], limit: int | None = None) -> Buckets:
    """Sort `operations` into buckets; those that name a revision at or above `limit` are only counted (`beyond`)."""
    b = Buckets(limit)
    top = limit if limit is not None else 1 << 62
    writes, readers = b.writes, b.readers
    total = highest = 0
    for op in operations:
        outcome, request, answer = op[4:7]
        kind = type(request)
        if kind not in JUDGED:
            continue
        total += 1
        if outcome != OK or answer is None:
            _unanswered(b, op)
            continue
        revision = answer.header.revision
        if revision >= top:
            b.beyond += 1
            if kind is LeaseGrantRequest:
                b.grants[answer.id].append(op)
            elif kind is CompactionRequest:
                b.compactions.append(op._replace(outcome=INDEFINITE))
            elif kind is LeaseRevokeRequest:
                b.later_revokes.append(op)
            continue
        if revision > highest:
            highest = revision
        if kind is PutRequest:
            if revision in writes:
                b.clashes.append((revision, writes[revision], op))
            else:
                writes[revision] = op
                if request.lease:
                    b.attaching.append((revision, op))
        elif kind is RangeRequest:
            asked = request.revision
            older = 0 < asked < revision
            if request.serializable:
                b.local[asked if older else revision].append(op)
                b.existed.append((revision, op))
            else:
                readers[revision].append(op)
                if asked > 0:
                    b.named.append((revision, op))
                if older:
                    b.old[asked].append(op)
        else:
            _other(b, op, kind, revision)
    b.highest = max(b.highest, highest)
    b.counts["operations"] = total
    b.counts["acknowledged writes"] = len(writes)
    b.counts["readers"] = sum(map(len, readers.values()))
    b.counts["local answers"] = sum(map(len, b.local.values()))
    b.counts["compares only"] = sum(map(len, b.compares.values()))
    b.counts["indefinite writes"] = len(b.pending)
    b.counts["refused"] = len(b.refused) + len(b.future) + len(b.compacted)
    return b


def _other(b: Buckets, op: Operation, kind: type, revision: int) -> None:
    request = op.input
    if kind is TxnRequest or kind is DeleteRangeRequest:
        if not b.reads_the_past and kind is TxnRequest:
            b.reads_the_past = _reads_the_past(request)
        if wrote(op.output):
            if revision in b.writes:
                b.clashes.append((revision, b.writes[revision], op))
            else:
                b.writes[revision] = op
                if kind is TxnRequest:
                    b.attaching.append((revision, op))
        elif kind is DeleteRangeRequest:
            b.readers[revision].append(op)
        elif is_compares_only(request):
            b.compares[revision].append(op)
            b.existed.append((revision, op))
        elif is_local(request):
            b.local[revision].append(op)
            b.existed.append((revision, op))
        else:
            b.readers[revision].append(op)
    elif kind is CompactionRequest:
        b.compactions.append(op)
        b.existed.append((max(revision, request.revision), op))
        b.highest = max(b.highest, request.revision)
    elif kind is LeaseGrantRequest:
        b.readers[revision].append(op)
        b.grants[op.output.id].append(op)
    else:
        b.revokes[revision].append(op)
        b.revoked_at[request.id] = min(revision, b.revoked_at.get(request.id, NEVER))


def _unanswered(b: Buckets, op: Operation) -> None:
    request = op.input
    if op.outcome == FAILED:
        error = op.output
        if isinstance(error, WireError) and not is_local(request) and not is_compares_only(request):
            if error.message == errors.FUTURE_REVISION:
                b.future.append((_named_revision(request, max), op))
            elif error.message == errors.COMPACTED:
                b.compacted.append((_named_revision(request, min), op))
        elif isinstance(error, WireError) and error.message == errors.COMPACTED:
            b.compacted.append((_named_revision(request, min), op))
        if isinstance(error, WireError) and judges(request, error.message) and not is_local(request):
            b.refusals.append(op)
        if may_write(request):
            b.refused.append(op)
        return
    kind = type(request)
    if may_write(request):
        b.pending.append(op)
    elif kind is CompactionRequest:
        b.compactions.append(op)
    elif kind is LeaseGrantRequest and request.id:
        b.grants[request.id].append(op)


def _named_revision(request: Any, choose: Callable[..., int]) -> int:
    """The revision that a refusal is about. Of several in a Txn it may be any: for "future" the highest proves least, else the lowest."""
    if type(request) is CompactionRequest:
        return request.revision
    return choose((r.revision for r in ranges(request) if r.revision), default=0)


def judges(request: Any, text: str) -> bool:
    """Whether the refusal `text` of `request` states a fact that can be held against the states of its time (refusals.py)."""
    kind = type(request)
    if text in (errors.KEY_NOT_FOUND, errors.LEASE_NOT_FOUND):
        return kind in (PutRequest, TxnRequest) or (kind is LeaseRevokeRequest and text == errors.LEASE_NOT_FOUND)
    if text == errors.LEASE_EXISTS:
        return kind is LeaseGrantRequest and request.id != 0
    return kind is TxnRequest and text in (errors.FUTURE_REVISION, errors.COMPACTED) and not is_compares_only(request)


def _reads_the_past(request: TxnRequest) -> bool:
    """Whether a Range in any branch names a revision."""
    for operations in (request.success, request.failure):
        for op in operations:
            if (type(op) is RangeRequest and op.revision > 0) or (type(op) is TxnRequest and _reads_the_past(op)):
                return True
    return False


def attached_by(request: Any, answer: Any) -> list[tuple[bytes, int]]:
    """(key, lease) of what an acknowledged write attached."""
    if type(request) is PutRequest:
        return [(request.key, request.lease)] if request.lease else []
    if type(request) is TxnRequest and type(answer) is TxnResponse:
        taken = request.success if answer.succeeded else request.failure
        return [each for op, inner in zip(taken, answer.responses, strict=False) for each in attached_by(op, inner)]
    return []


def wrote(answer: Any) -> bool:
    """Whether an answer to a DeleteRange or Txn says that something was changed."""
    if type(answer) is TxnResponse:
        return any(type(inner) is PutResponse or wrote(inner) for inner in answer.responses) if answer.responses else False
    return type(answer) is DeleteRangeResponse and answer.deleted > 0
