"""etcd's key-value machine: what every request answers and changes, one request after the other.

::

    evaluate(state, request) ──> Evaluated(answer, events) | Refused(text)      changes nothing
    apply(state, request)    ──> the same, and `advance` has put the events into the state

    request                     answer's revision        new revision when
    ==========================  =======================  =====================================================================
    Range                       current                  never
    Put                         the new one              always
    DeleteRange                 the new or current one   at least one key was there
    Txn                         the new or current one   one revision for all of it, when anything was put or any key deleted
    Compaction                  current                  never
    LeaseGrant                  current                  never
    LeaseRevoke                 the new or current one   at least one key was attached

What is easily got wrong, and where etcd decides it (server/etcdserver/txn, server/storage/mvcc, read at 3.4.23 to main of August 2026):

* A range end of ``b"\\0"`` means every key from `key` on; an empty one means the single key; an end not above the key selects nothing.
* A Range with `revision` q answers the state of q, but its header carries the current revision. q at the compacted revision is readable,
  below is refused; q above the current revision is refused; q negative counts as 0 (but is refused in a Txn once anything was compacted).
* `count` is the number of keys in the range before revision filters and limit; `more` says that the limit cut.
* Filters come first, then the order, then the limit; except with a sort target other than the key and order NONE: then the limit (and
  one more) is applied in key order first, and what is left is sorted ascending. The sort is not stable: among equals any order is right.
* keys_only blanks the value; since 3.7 also the lease (unless sorted by value).
* Compares look at the state before the transaction; over a range they must be true of each key. On no key at all a VALUE compare is false
  whatever it asks, any other compares zero. Nested transactions' branches are chosen before anything is executed, from the same state.
* Refusals of a Txn (revision compacted or future, key or lease not found) are decided for the branches taken, from the state before it;
  then its operations run in order, each seeing what the earlier ones did: at `revision` + 1 as soon as one has changed something.
* A Put without lease detaches the key. Deleting and putting again begins with version 1. A key may be deleted (by an open range) and put
  in one transaction: two events of one key in one revision, in the order of the operations.
* Answers inside a Txn carry a header with nothing but a revision; nested Txns an empty one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from pekan.wire import errors
from pekan.wire.messages import (
    CREATE,
    DELETE,
    EQUAL,
    GREATER,
    LEASE,
    LESS,
    MOD,
    NOT_EQUAL,
    PUT,
    SORT_BY_CREATE,
    SORT_BY_KEY,
    SORT_BY_MOD,
    SORT_BY_VALUE,
    SORT_BY_VERSION,
    SORT_DESCEND,
    SORT_NONE,
    VALUE,
    VERSION,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    Header,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

FROM_KEY = b"\0"
"""As `range_end`: every key from `key` on."""
NEVER_COMPACTED = -1
"""etcd's initial compact revision: it lets revision 0 be compacted."""
NO_HEADER = Header(0, 0, 0, 0)


class Refused(NamedTuple):
    """A definite refusal: nothing happened. `text` is etcd's, see `pekan.wire.errors`."""

    text: str


class Evaluated(NamedTuple):
    """What a request answers and changes. The answer's header has its revision and zeros; events are in order of execution."""

    answer: Any
    events: tuple[Event, ...]


@dataclass(slots=True)
class State:
    """The store after some revision.

    kvs        key -> its current KeyValue; `keys` are its keys in byte order
    attached   lease id -> keys attached to it
    leases     lease id -> TTL (s) granted; None: not tracked, every lease counts as granted
    past       key -> its KeyValues by revision, a tombstone has version 0; None: not kept, and reads at older revisions are not answered
    """

    revision: int = 1
    compacted: int = NEVER_COMPACTED
    kvs: dict[bytes, KeyValue] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    attached: dict[int, set[bytes]] = field(default_factory=dict)
    leases: dict[int, int] | None = field(default_factory=dict)
    past: dict[bytes, list[KeyValue]] | None = field(default_factory=dict)

    def find(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """The current key-values of a range, in key order."""
        if not range_end:
            kv = self.kvs.get(key)
            return [] if kv is None else [kv]
        kvs = self.kvs
        return [kvs[k] for k in self.keys[slice(*span(self.keys, key, range_end))]]

    def find_at(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        """The key-values that a range had at `revision`, in key order. Raises ValueError where the past is not kept."""
        if self.past is None:
            raise ValueError("this state keeps no past")
        found = []
        chosen = sorted(k for k in self.past if within(k, key, range_end)) if range_end else [key] if key in self.past else []
        for k in chosen:
            versions = self.past[k]
            at = bisect_right(versions, revision, key=_mod_revision)
            if at and versions[at - 1].version:
                found.append(versions[at - 1])
        return found


def _mod_revision(kv: KeyValue) -> int:
    return kv.mod_revision


def span(keys: Sequence[bytes], key: bytes, range_end: bytes) -> tuple[int, int]:
    """The half-open index range that [key, range_end) selects in sorted `keys`; `range_end` is not empty."""
    low = bisect_left(keys, key)
    if range_end == FROM_KEY:
        return low, len(keys)
    return low, max(low, bisect_left(keys, range_end))


def within(candidate: bytes, key: bytes, range_end: bytes) -> bool:
    """Whether `candidate` lies in the range that `key` and `range_end` name."""
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == FROM_KEY or candidate < range_end)


# ---- the state moves ----


def advance(state: State, revision: int, events: Sequence[Event]) -> None:
    """Put the `events` of `revision` into `state`, in their order."""
    for event in events:
        old = state.kvs.get(event.kv.key)
        replace_key(state, event.kv.key, old, None if event.type == DELETE else event.kv)
        if state.past is not None:
            tombstone_or_kv = event.kv if event.type == PUT else KeyValue(event.kv.key, 0, revision, 0, b"", 0)
            state.past.setdefault(event.kv.key, []).append(tombstone_or_kv)
    state.revision = revision


def replace_key(state: State, key: bytes, old: KeyValue | None, new: KeyValue | None) -> None:
    """Let `key` have `new` (None: be absent) where it had `old`, with index and attachments."""
    if new is None:
        if old is None:
            return
        del state.kvs[key]
        del state.keys[bisect_left(state.keys, key)]
    else:
        state.kvs[key] = new
        if old is None:
            insort(state.keys, key)
    lease_before = 0 if old is None else old.lease
    lease_after = 0 if new is None else new.lease
    if lease_before != lease_after:
        if lease_before:
            state.attached[lease_before].discard(key)
        if lease_after:
            state.attached.setdefault(lease_after, set()).add(key)


def apply(state: State, request: Any, told: Any = None) -> Evaluated | Refused:
    """Answer `request` and move `state`. `told`: see `evaluate`."""
    outcome = evaluate(state, request, told)
    if isinstance(outcome, Refused):
        return outcome
    if outcome.events:
        advance(state, state.revision + 1, outcome.events)
    if isinstance(request, CompactionRequest):
        state.compacted = request.revision
    elif isinstance(request, LeaseGrantRequest) and state.leases is not None:
        state.leases[outcome.answer.id] = outcome.answer.ttl
    elif isinstance(request, LeaseRevokeRequest) and state.leases is not None:
        del state.leases[request.id]
    return outcome


# ---- what requests answer ----


def evaluate(state: State, request: Any, told: Any = None) -> Evaluated | Refused:
    """What `request` answers and changes at `state`, which stays as it is.

    Where etcd is free (order among equals of a sort, the lease under keys_only, headers inside a Txn, the id and TTL of a granted lease)
    the answer follows `told`, an answer that was given, if it is one of those that etcd may give; so that comparing with it decides.
    Raises TypeError for a request that is not of the key-value machine.
    """
    handler = _EVALUATE.get(type(request))
    if handler is None:
        raise TypeError(f"{type(request).__name__} is no request of the key-value machine")
    return handler(state, request, told)


def _range(state: State, request: RangeRequest, told: Any) -> Evaluated | Refused:
    revision = request.revision
    if revision > state.revision:
        return Refused(errors.FUTURE_REVISION)
    if 0 < revision < state.compacted:
        return Refused(errors.COMPACTED)
    if 0 < revision < state.revision:
        found = state.find_at(request.key, request.range_end, revision)
    else:
        found = state.find(request.key, request.range_end)
    return Evaluated(range_answer(request, found, Header(0, 0, state.revision, 0), told), ())


def range_answer(request: RangeRequest, found: list[KeyValue], header: Header, told: Any = None) -> RangeResponse:
    """What a Range answers over `found`, the key-values in its range at its revision, in key order."""
    count = len(found)
    if request.count_only:
        return RangeResponse(header, (), False, count)
    kvs = _filtered(request, found)
    limit = request.limit
    by_key = request.sort_target == SORT_BY_KEY
    free = False
    if not by_key or request.sort_order == SORT_DESCEND:
        if request.sort_order == SORT_NONE and limit > 0 and not _has_filters(request):
            kvs = kvs[: limit + 1]
        rank = _RANKS[request.sort_target]
        kvs = sorted(kvs, key=rank, reverse=request.sort_order == SORT_DESCEND)
        free = not by_key
    candidates = kvs
    more = 0 < limit < len(kvs)
    if more:
        kvs = kvs[:limit]
    if type(told) is RangeResponse:
        if request.keys_only:
            chosen = told.kvs if _same_but_blank(told.kvs, kvs) else None
        else:
            chosen = told.kvs if told.kvs == tuple(kvs) else None
        if chosen is None and (free or request.keys_only):
            chosen = _as_told(request, candidates, len(kvs), told.kvs)
        if chosen is not None:
            return RangeResponse(header, chosen, more, count)
    if request.keys_only:
        return RangeResponse(header, tuple(kv._replace(value=b"") for kv in kvs), more, count)
    return RangeResponse(header, tuple(kvs), more, count)


def _same_but_blank(told: Sequence[KeyValue], kvs: Sequence[KeyValue]) -> bool:
    """Whether `told` is `kvs` in their order as keys_only shows them: the cheap case of `_as_told`."""
    if [kv[:4] for kv in told] != [kv[:4] for kv in kvs] or any(kv[4] for kv in told):
        return False
    leases = [kv[5] for kv in told]
    return not any(leases) or leases == [kv[5] for kv in kvs]


def _has_filters(request: RangeRequest) -> bool:
    return bool(request.min_mod_revision or request.max_mod_revision or request.min_create_revision or request.max_create_revision)


def _filtered(request: RangeRequest, found: list[KeyValue]) -> list[KeyValue]:
    if not _has_filters(request):
        return found
    return [
        kv
        for kv in found
        if (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
        and (not request.min_mod_revision or kv.mod_revision >= request.min_mod_revision)
        and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
        and (not request.min_create_revision or kv.create_revision >= request.min_create_revision)
    ]


_RANKS: dict[int, Callable[[KeyValue], Any]] = {
    SORT_BY_KEY: attrgetter("key"),
    SORT_BY_VERSION: attrgetter("version"),
    SORT_BY_CREATE: attrgetter("create_revision"),
    SORT_BY_MOD: attrgetter("mod_revision"),
    SORT_BY_VALUE: attrgetter("value"),
}


def _as_told(request: RangeRequest, ordered: list[KeyValue], size: int, told: tuple[KeyValue, ...]) -> tuple[KeyValue, ...] | None:
    """`told` where it is an answer that etcd may give out of `ordered`, else None.

    The first `size` of `ordered` are one right answer; another is right when it shows as many different key-values of `ordered` with the
    same ranks in the same places. Under keys_only the lease may be left out, of all or of none.
    """
    if len(told) != size:
        return None
    blank = request.keys_only
    without_lease = blank and not any(kv.lease for kv in told)
    rank = _RANKS[request.sort_target]
    by_key = {kv.key: kv for kv in ordered}
    seen = set()
    for kv, canonical in zip(told, ordered, strict=False):
        whole = by_key.get(kv.key)
        if whole is None or kv.key in seen or rank(whole) != rank(canonical):
            return None
        seen.add(kv.key)
        shown = whole
        if blank:
            shown = whole._replace(value=b"", lease=0 if without_lease else whole.lease)
        if kv != shown:
            return None
    return told


def _put(state: State, request: PutRequest, told: Any) -> Evaluated | Refused:
    refusal = _put_refusal(state, request)
    if refusal is not None:
        return refusal
    revision = state.revision + 1
    event = put_event(request, state.kvs.get(request.key), revision)
    return Evaluated(PutResponse(Header(0, 0, revision, 0), event.prev_kv if request.prev_kv else None), (event,))


def _put_refusal(state: State, request: PutRequest) -> Refused | None:
    if request.lease and state.leases is not None and request.lease not in state.leases:
        return Refused(errors.LEASE_NOT_FOUND)
    if (request.ignore_value or request.ignore_lease) and request.key not in state.kvs:
        return Refused(errors.KEY_NOT_FOUND)
    return None


def put_event(request: PutRequest, old: KeyValue | None, revision: int) -> Event:
    """The event of `request` at `revision` where the key had `old`; `old` is there where the request ignores value or lease."""
    value, lease = request.value, request.lease
    if old is None:
        return Event(PUT, KeyValue(request.key, revision, revision, 1, value, lease), None)
    if request.ignore_value:
        value = old.value
    if request.ignore_lease:
        lease = old.lease
    return Event(PUT, KeyValue(request.key, old.create_revision, revision, old.version + 1, value, lease), old)


def delete_event(old: KeyValue, revision: int) -> Event:
    """The event of deleting `old` at `revision`."""
    return Event(DELETE, KeyValue(old.key, 0, revision, 0, b"", 0), old)


def _delete_range(state: State, request: DeleteRangeRequest, told: Any) -> Evaluated | Refused:
    found = state.find(request.key, request.range_end)
    revision = state.revision + (1 if found else 0)
    answer = DeleteRangeResponse(Header(0, 0, revision, 0), len(found), tuple(found) if request.prev_kv else ())
    return Evaluated(answer, tuple(delete_event(kv, revision) for kv in found))


def _compaction(state: State, request: CompactionRequest, told: Any) -> Evaluated | Refused:
    if request.revision <= state.compacted:
        return Refused(errors.COMPACTED)
    if request.revision > state.revision:
        return Refused(errors.FUTURE_REVISION)
    return Evaluated(CompactionResponse(Header(0, 0, state.revision, 0)), ())


def _lease_grant(state: State, request: LeaseGrantRequest, told: Any) -> Evaluated | Refused:
    # With id 0 etcd draws an id that is free, and it may raise a TTL below its minimum: both follow what was told.
    granted, ttl = request.id, request.ttl
    if type(told) is LeaseGrantResponse:
        granted, ttl = granted or told.id, max(ttl, told.ttl)
    if state.leases is not None and granted in state.leases:
        return Refused(errors.LEASE_EXISTS)
    return Evaluated(LeaseGrantResponse(Header(0, 0, state.revision, 0), granted, ttl, ""), ())


def _lease_revoke(state: State, request: LeaseRevokeRequest, told: Any) -> Evaluated | Refused:
    if state.leases is not None and request.id not in state.leases:
        return Refused(errors.LEASE_NOT_FOUND)
    events = revoke_events(state, request.id)
    return Evaluated(LeaseRevokeResponse(Header(0, 0, state.revision + (1 if events else 0), 0)), events)


def revoke_events(state: State, lease: int) -> tuple[Event, ...]:
    """The events of a lease's end, revoked or expired: its keys go in one revision, in byte order (lessor.go, Revoke)."""
    return tuple(delete_event(state.kvs[key], state.revision + 1) for key in sorted(state.attached.get(lease, ())))


# ---- transactions ----


def holds(state: State, compare: Compare) -> bool:
    """Whether a guard is true of `state`."""
    result, target, key, operand, range_end = compare
    found = state.find(key, range_end)
    if not found:
        # A missing value cannot be told from an empty one on the wire: etcd lets every VALUE compare fail here.
        return target != VALUE and _compare(result, 0, operand)
    of = _OPERANDS[target]
    if len(found) == 1:
        return _compare(result, of(found[0]), operand)
    return all(_compare(result, of(kv), operand) for kv in found)


_OPERANDS: dict[int, Callable[[KeyValue], Any]] = {
    VERSION: attrgetter("version"),
    CREATE: attrgetter("create_revision"),
    MOD: attrgetter("mod_revision"),
    VALUE: attrgetter("value"),
    LEASE: attrgetter("lease"),
}


def _compare(result: int, have: Any, operand: Any) -> bool:
    if result == EQUAL:
        return bool(have == operand)
    if result == GREATER:
        return bool(have > operand)
    if result == LESS:
        return bool(have < operand)
    # etcd takes any other relation for true.
    return bool(have != operand) if result == NOT_EQUAL else True


class _Path(NamedTuple):
    """Which branch a transaction takes, and those of the transactions nested in that branch, in order."""

    succeeded: bool
    operations: tuple[RequestOp, ...]
    nested: tuple[_Path, ...]


def _path(state: State, request: TxnRequest) -> _Path:
    succeeded = all(holds(state, compare) for compare in request.compare)
    operations = request.success if succeeded else request.failure
    return _Path(succeeded, operations, tuple(_path(state, op) for op in operations if type(op) is TxnRequest))


def branch_taken(state: State, request: Any) -> list[RequestOp]:
    """The operations that `request` would run at `state`: itself, or those of the branches that it and its nested transactions take."""
    if type(request) is not TxnRequest:
        return [request]
    return [inner for op in _path(state, request).operations for inner in branch_taken(state, op)]


def _refusal(state: State, path: _Path, look_at_ranges: bool = True) -> Refused | None:
    nested = iter(path.nested)
    for op in path.operations:
        refusal = None
        if type(op) is RangeRequest:
            if op.revision and look_at_ranges:
                if op.revision > state.revision:
                    return Refused(errors.FUTURE_REVISION)
                if op.revision < state.compacted:
                    return Refused(errors.COMPACTED)
        elif type(op) is PutRequest:
            refusal = _put_refusal(state, op)
        elif type(op) is TxnRequest:
            refusal = _refusal(state, next(nested), look_at_ranges)
        if refusal is not None:
            return refusal
    return None


def _txn(state: State, request: TxnRequest, told: Any) -> Evaluated | Refused:
    path = _path(state, request)
    refusal = _refusal(state, path)
    if refusal is not None:
        return refusal
    running = _Running(state)
    responses = running.execute(path, told)
    header = Header(0, 0, state.revision + (1 if running.events else 0), 0)
    return Evaluated(TxnResponse(header, path.succeeded, responses), tuple(running.events))


def effect(state: State, request: Any) -> tuple[Event, ...]:
    """What `request` would change at `state` if none of its Ranges were refused; nothing where another refusal forbids it.

    This is what a member does that does not look at the Ranges of a Txn (etcd before 3.7, #18667), and what an unanswered request can have
    done.
    """
    kind = type(request)
    if kind is TxnRequest:
        path = _path(state, request)
        if _refusal(state, path, look_at_ranges=False) is not None:
            return ()
        running = _Running(state, answers=False)
        running.execute(path, None)
        return tuple(running.events)
    if kind not in (PutRequest, DeleteRangeRequest, LeaseRevokeRequest):
        return ()
    outcome = evaluate(state, request)
    return () if isinstance(outcome, Refused) else outcome.events


class _Running:
    """A transaction in execution: the state before it, overlaid with what it has done so far. Without `answers` its Ranges are not run."""

    __slots__ = ("answers", "events", "state", "written")

    def __init__(self, state: State, answers: bool = True) -> None:
        self.state = state
        self.answers = answers
        self.written: dict[bytes, KeyValue | None] = {}
        self.events: list[Event] = []

    def execute(self, path: _Path, told: Any) -> tuple[ResponseOp, ...]:
        given = (
            told.responses if type(told) is TxnResponse and len(told.responses) == len(path.operations) else (None,) * len(path.operations)
        )
        nested = iter(path.nested)
        responses: list[ResponseOp] = []
        for op, told_op in zip(path.operations, given, strict=True):
            if type(op) is RangeRequest:
                if self.answers:
                    responses.append(self.range(op, told_op))
            elif type(op) is PutRequest:
                responses.append(self.put(op, told_op))
            elif type(op) is DeleteRangeRequest:
                responses.append(self.delete_range(op, told_op))
            else:
                inner = next(nested)
                header = told_op.header if type(told_op) is TxnResponse else NO_HEADER
                responses.append(TxnResponse(header, inner.succeeded, self.execute(inner, told_op)))
        return tuple(responses)

    def current(self, key: bytes) -> KeyValue | None:
        return self.written[key] if key in self.written else self.state.kvs.get(key)

    def find(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        if not self.written:
            return self.state.find(key, range_end)
        if not range_end:
            kv = self.current(key)
            return [] if kv is None else [kv]
        merged = {kv.key: kv for kv in self.state.find(key, range_end)}
        for k, kv in self.written.items():
            if within(k, key, range_end):
                if kv is None:
                    merged.pop(k, None)
                else:
                    merged[k] = kv
        return [merged[k] for k in sorted(merged)]

    def header(self, told: Any) -> Header:
        """A revision and nothing else; one that was told without a revision is taken as it is."""
        revision = self.state.revision + (1 if self.events else 0)
        if told is not None and told.header.revision in (0, revision):
            header: Header = told.header
            return header
        return Header(0, 0, revision, 0)

    def range(self, op: RangeRequest, told: Any) -> RangeResponse:
        if 0 < op.revision < self.state.revision:
            found = self.state.find_at(op.key, op.range_end, op.revision)
        elif op.revision > 0 and self.events:
            found = self.state.find(op.key, op.range_end)
        else:
            found = self.find(op.key, op.range_end)
        return range_answer(op, found, self.header(told), told)

    def put(self, op: PutRequest, told: Any) -> PutResponse:
        event = put_event(op, self.current(op.key), self.state.revision + 1)
        self._record(event, event.kv)
        return PutResponse(self.header(told), event.prev_kv if op.prev_kv else None)

    def delete_range(self, op: DeleteRangeRequest, told: Any) -> DeleteRangeResponse:
        found = self.find(op.key, op.range_end)
        for kv in found:
            self._record(delete_event(kv, self.state.revision + 1), None)
        return DeleteRangeResponse(self.header(told), len(found), tuple(found) if op.prev_kv else ())

    def _record(self, event: Event, kv: KeyValue | None) -> None:
        self.written[event.kv.key] = kv
        self.events.append(event)


_EVALUATE: dict[type, Callable[[State, Any, Any], Evaluated | Refused]] = {
    RangeRequest: _range,
    PutRequest: _put,
    DeleteRangeRequest: _delete_range,
    TxnRequest: _txn,
    CompactionRequest: _compaction,
    LeaseGrantRequest: _lease_grant,
    LeaseRevokeRequest: _lease_revoke,
}


# ---- what can be said of a request without a state ----


def is_local(request: Any) -> bool:
    """Whether a member answers from its own state because it was asked to: a serializable Range, or a Txn whose operations are all such."""
    if type(request) is RangeRequest:
        return request.serializable
    if type(request) is not TxnRequest:
        return False
    for operations in (request.success, request.failure):
        for op in operations:
            if type(op) is not RangeRequest or not op.serializable:
                return False
    return bool(request.success or request.failure)


def is_compares_only(request: Any) -> bool:
    """A Txn without operations in either branch: etcd answers it like a serializable one (a known deviation)."""
    return type(request) is TxnRequest and not request.success and not request.failure


def may_write(request: Any) -> bool:
    """Whether some state exists in which `request` changes a key."""
    if type(request) is TxnRequest:
        return any(may_write(op) for op in request.success) or any(may_write(op) for op in request.failure)
    return type(request) in (PutRequest, DeleteRangeRequest, LeaseRevokeRequest)


def ranges(request: Any) -> list[RangeRequest]:
    """Every Range in `request`, in all branches."""
    if type(request) is RangeRequest:
        return [request]
    if type(request) is TxnRequest:
        return [inner for op in request.success + request.failure for inner in ranges(op)]
    return []


def puts(request: Any) -> list[PutRequest]:
    """Every Put in `request`, in all branches."""
    if type(request) is PutRequest:
        return [request]
    if type(request) is TxnRequest:
        return [inner for op in request.success + request.failure for inner in puts(op)]
    return []


def deletes(request: Any) -> list[DeleteRangeRequest]:
    """Every DeleteRange in `request`, in all branches."""
    if type(request) is DeleteRangeRequest:
        return [request]
    if type(request) is TxnRequest:
        return [inner for op in request.success + request.failure for inner in deletes(op)]
    return []
