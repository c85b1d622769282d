"""One sequential etcd store: what each request answers and what it leaves behind.

Read from etcd 3.6's server and kept deliberately apart from `pekan.models`:

===================  =================================================================================================
rule                 source in etcd
===================  =================================================================================================
range content        `etcdserver/txn`: filters, then sort, then limit; `count` is of the whole range before all of them
compacted, future    `mvcc/kvstore_txn.go` rangeKeys: above the current revision *future*, below the compaction *compacted*
txn                  `etcdserver/txn`: all compares, nested ones too, are decided on the state before the txn; then all ranges and
                     puts of the taken path are checked on that state; only then is anything changed, under one revision
inner headers        a Range, Put, DeleteRange inside a Txn carries a revision and nothing else; a nested Txn carries nothing
lease                a key belongs to the lease of its last put; revoking deletes its keys, all under one revision
===================  =================================================================================================

A view (`View`) is the store as a member sees it that has applied a prefix of the log: an older revision, an older compaction.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    CREATE,
    DELETE,
    EQUAL,
    GREATER,
    LEASE,
    LESS,
    MOD,
    PUT,
    SORT_ASCEND,
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

COMPACTED = WireError(errors.OUT_OF_RANGE, errors.COMPACTED)
FUTURE = WireError(errors.OUT_OF_RANGE, errors.FUTURE_REVISION)
LEASE_NOT_FOUND = WireError(errors.NOT_FOUND, errors.LEASE_NOT_FOUND)
LEASE_EXISTS = WireError(errors.FAILED_PRECONDITION, errors.LEASE_EXISTS)
KEY_NOT_FOUND = WireError(errors.INVALID_ARGUMENT, errors.KEY_NOT_FOUND)

NO_HEADER = Header(0, 0, 0, 0)
ABSENT = KeyValue(b"", 0, 0, 0, b"", 0)
"""What a compare sees of a key that is not there."""

Ties = Callable[[bytes], Any]
"""Order among key-values that sort alike: etcd's sort is not stable, so any order among them is right."""


class View(NamedTuple):
    """How far a member has come: its revision and its compaction."""

    revision: int
    compacted: int


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    """True where [start, end) holds `key`, with etcd's two special ends: empty is the one key, a zero byte is no end."""
    if end == b"":
        return key == start
    return key >= start and (end == b"\x00" or key < end)


class Store:
    """The whole history of one store. `apply` is the state machine; `answer` asks without changing anything.

    `hides_lease`: since 3.7 a keys-only answer leaves out the lease too, unless it was sorted by value.
    """

    def __init__(self, hides_lease: bool = False) -> None:
        self.hides_lease = hides_lease
        self.revision = 1
        self.compacted = -1
        self.live: dict[bytes, KeyValue] = {}
        self.live_keys: list[bytes] = []
        self.chains: dict[bytes, list[KeyValue]] = {}
        self.chain_keys: list[bytes] = []
        self.leases: dict[int, int] = {}
        self.events: dict[int, tuple[Event, ...]] = {}
        self._changes: list[Event] = []

    def clone(self) -> Store:
        """An independent copy, for searches that branch."""
        other = Store(self.hides_lease)
        other.revision, other.compacted = self.revision, self.compacted
        other.live = dict(self.live)
        other.live_keys = list(self.live_keys)
        other.chains = {key: list(chain) for key, chain in self.chains.items()}
        other.chain_keys = list(self.chain_keys)
        other.leases = dict(self.leases)
        other.events = dict(self.events)
        return other

    @property
    def view(self) -> View:
        return View(self.revision, self.compacted)

    # ---- requests ----

    def apply(self, request: Any, header: Header = NO_HEADER, hint: Any = None) -> Any:
        """The answer to `request` (a response, or the `WireError` of a refusal), with its effect.

        `hint`, a reply to compare with, only decides the order among key-values that sort alike.
        """
        if isinstance(request, RangeRequest):
            return self.answer(request, self.view, header, hint)
        if isinstance(request, PutRequest):
            refused = self._refuse_put(request)
            return refused[0] if refused else self._with(header, lambda: self._put(request))
        if isinstance(request, DeleteRangeRequest):
            return self._with(header, lambda: self._delete(request))
        if isinstance(request, TxnRequest):
            return self._txn(request, header, hint)
        if isinstance(request, CompactionRequest):
            if request.revision <= self.compacted:
                return COMPACTED
            if request.revision > self.revision:
                return FUTURE
            self.compacted = request.revision
            return CompactionResponse(header._replace(revision=self.revision))
        if isinstance(request, LeaseGrantRequest):
            if request.id in self.leases:
                return LEASE_EXISTS
            self.leases[request.id] = request.ttl
            return LeaseGrantResponse(header._replace(revision=self.revision), request.id, request.ttl, "")
        if isinstance(request, LeaseRevokeRequest):
            if request.id not in self.leases:
                return LEASE_NOT_FOUND
            del self.leases[request.id]
            for key in sorted(kv.key for kv in self.live.values() if kv.lease == request.id):
                self._drop(key)
            self._end()
            return LeaseRevokeResponse(header._replace(revision=self.revision))
        raise TypeError(f"the machine has no {type(request).__name__}")

    def answer(self, request: Any, view: View, header: Header = NO_HEADER, hint: Any = None) -> Any:
        """The answer of a member at `view` to a Range, or to a Txn that only reads."""
        if isinstance(request, RangeRequest):
            refused = refuse_range(request, view)
            if refused is not None:
                return refused
            return self._range(request, view, hint)._replace(header=header._replace(revision=view.revision))
        assert isinstance(request, TxnRequest)
        path = list(self._path(request, view))
        refusals = list(self._refusals(request, path, view))
        if refusals:
            return refusals[0]
        response = self._run(request, iter(path), view, hint)
        return response._replace(header=header._replace(revision=view.revision))

    def refusals(self, request: TxnRequest) -> list[WireError]:
        """Every reason for refusing `request` now. Which of several is given differs between etcd's releases."""
        return list(self._refusals(request, list(self._path(request, self.view)), self.view))

    # ---- reading ----

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key-value of `key` in the state of `revision`."""
        if revision >= self.revision and not self._changes:
            return self.live.get(key)
        chain = self.chains.get(key, [])
        place = bisect_right(chain, revision, key=lambda kv: kv.mod_revision)
        found = chain[place - 1] if place else None
        return found if found is not None and found.version else None

    def state(self, start: bytes, end: bytes, revision: int) -> Iterator[KeyValue]:
        """The key-values of [start, end) in the state of `revision`, in key order."""
        now = revision >= self.revision + (1 if self._changes else 0)
        if end == b"":
            one = self.live.get(start) if now else self.at(start, revision)
            if one is not None:
                yield one
            return
        keys = self.live_keys if now else self.chain_keys
        first = bisect_left(keys, start)
        last = len(keys) if end == b"\x00" else bisect_left(keys, end)
        for key in keys[first:last]:
            kv = self.live.get(key) if now else self.at(key, revision)
            if kv is not None:
                yield kv

    def _range(self, request: RangeRequest, view: View, hint: Any) -> RangeResponse:
        header = Header(0, 0, view.revision, 0)
        found = list(self.state(request.key, request.range_end, request.revision or view.revision))
        count = len(found)
        if request.count_only:
            return RangeResponse(header, (), False, count)
        low, high = request.min_mod_revision, request.max_mod_revision
        found = [kv for kv in found if kv.mod_revision >= low and (not high or kv.mod_revision <= high)]
        low, high = request.min_create_revision, request.max_create_revision
        found = [kv for kv in found if kv.create_revision >= low and (not high or kv.create_revision <= high)]
        filtered = request.min_mod_revision or request.max_mod_revision or request.min_create_revision or request.max_create_revision
        order = request.sort_order
        if order == SORT_NONE and request.limit and not filtered:
            # Only what was asked for by an explicit order or a filter is fetched whole; else one more than the limit, in key order.
            found = found[: request.limit + 1]
        if request.sort_target != SORT_BY_KEY and order == SORT_NONE:
            order = SORT_ASCEND
        if order != SORT_NONE:
            found.sort(key=ties_of(hint))
            found.sort(key=lambda kv: kv[SORT_FIELD[request.sort_target]], reverse=order == SORT_DESCEND)
        more = 0 < request.limit < len(found)
        if more:
            found = found[: request.limit]
        if request.keys_only:
            hidden = self.hides_lease and request.sort_target != SORT_BY_VALUE
            found = [kv._replace(value=b"", lease=0 if hidden else kv.lease) for kv in found]
        return RangeResponse(header, tuple(found), more, count)

    def compare(self, compare: Compare, revision: int) -> bool:
        """True where every key of the compare's range passes; a single absent key compares as zeros, and no value equals none."""
        found = list(self.state(compare.key, compare.range_end, revision))
        if not found:
            # For a range with no keys, too: etcd compares the zero key-value, and never a value.
            return compare.target != VALUE and passes(compare, ABSENT)
        return all(passes(compare, kv) for kv in found)

    # ---- transactions ----

    def _path(self, request: TxnRequest, view: View) -> Iterator[bool]:
        succeeded = all(self.compare(compare, view.revision) for compare in request.compare)
        yield succeeded
        for op in request.success if succeeded else request.failure:
            if isinstance(op, TxnRequest):
                yield from self._path(op, view)

    def _refusals(self, request: TxnRequest, path: list[bool], view: View) -> Iterator[WireError]:
        for op in taken(request, iter(path)):
            if isinstance(op, RangeRequest):
                refused = refuse_range(op, view)
                if refused is not None:
                    yield refused
            elif isinstance(op, PutRequest):
                yield from self._refuse_put(op)

    def _refuse_put(self, request: PutRequest) -> list[WireError]:
        refused = []
        if request.lease and request.lease not in self.leases:
            refused.append(LEASE_NOT_FOUND)
        if (request.ignore_value or request.ignore_lease) and request.key not in self.live:
            refused.append(KEY_NOT_FOUND)
        return refused

    def _txn(self, request: TxnRequest, header: Header, hint: Any) -> TxnResponse | WireError:
        path = list(self._path(request, self.view))
        refusals = list(self._refusals(request, path, self.view))
        if refusals:
            return refusals[0]
        response = self._run(request, iter(path), self.view, hint)
        self._end()
        return response._replace(header=header._replace(revision=self.revision))

    def _run(self, request: TxnRequest, path: Iterator[bool], view: View, hint: Any) -> TxnResponse:
        succeeded = next(path)
        hints = hint.responses if isinstance(hint, TxnResponse) else ()
        responses: list[ResponseOp] = []
        for index, op in enumerate(request.success if succeeded else request.failure):
            inner = hints[index] if index < len(hints) else None
            if isinstance(op, TxnRequest):
                responses.append(self._run(op, path, view, inner))
            elif isinstance(op, RangeRequest):
                responses.append(self._range(op, view._replace(revision=view.revision + (1 if self._changes else 0)), inner))
            elif isinstance(op, PutRequest):
                responses.append(self._put(op))
            else:
                responses.append(self._delete(op))
        return TxnResponse(NO_HEADER, succeeded, tuple(responses))

    # ---- writing ----

    def _with(self, header: Header, change: Callable[[], Any]) -> Any:
        response = change()
        self._end()
        return response._replace(header=header._replace(revision=self.revision))

    def _end(self) -> None:
        if self._changes:
            self.revision += 1
            self.events[self.revision] = tuple(self._changes)
            self._changes = []

    def _put(self, request: PutRequest) -> PutResponse:
        revision = self.revision + 1
        before = self.live.get(request.key)
        kv = KeyValue(
            request.key,
            before.create_revision if before else revision,
            revision,
            before.version + 1 if before else 1,
            before.value if request.ignore_value and before else request.value,
            before.lease if request.ignore_lease and before else request.lease,
        )
        event = Event(PUT, kv, before and self.at(request.key, self.revision))
        if before is None:
            insort(self.live_keys, request.key)
        self.live[request.key] = kv
        self._chain(request.key).append(kv)
        self._changes.append(event)
        return PutResponse(Header(0, 0, revision, 0), before if request.prev_kv else None)

    def _delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        first = self.revision + (1 if self._changes else 0)
        gone = list(self.state(request.key, request.range_end, first))
        for kv in gone:
            self._drop(kv.key)
        revision = self.revision + (1 if self._changes else 0)
        return DeleteRangeResponse(Header(0, 0, revision, 0), len(gone), tuple(gone) if request.prev_kv else ())

    def _drop(self, key: bytes) -> None:
        # What a watch calls the previous key-value is read at the revision before: a put earlier in the same txn is not seen.
        before = self.at(key, self.revision)
        del self.live[key]
        del self.live_keys[bisect_left(self.live_keys, key)]
        # A tombstone: version 0 tells it from a value.
        tombstone = KeyValue(key, 0, self.revision + 1, 0, b"", 0)
        self._chain(key).append(tombstone)
        self._changes.append(Event(DELETE, tombstone, before))

    def _chain(self, key: bytes) -> list[KeyValue]:
        chain = self.chains.get(key)
        if chain is None:
            chain = self.chains[key] = []
            insort(self.chain_keys, key)
        return chain


SORT_FIELD = {SORT_BY_KEY: 0, SORT_BY_CREATE: 1, SORT_BY_MOD: 2, SORT_BY_VERSION: 3, SORT_BY_VALUE: 4}
"""Sort target -> field of KeyValue."""


def ties_of(hint: Any) -> Callable[[KeyValue], int]:
    """The order in which `hint`, a Range reply, has its keys (unknown keys last)."""
    place = {kv.key: index for index, kv in enumerate(getattr(hint, "kvs", ()))}
    return lambda kv: place.get(kv.key, len(place))


def refuse_range(request: RangeRequest, view: View) -> WireError | None:
    if request.revision > view.revision:
        return FUTURE
    if 0 < request.revision < view.compacted:
        return COMPACTED
    return None


def passes(compare: Compare, kv: KeyValue) -> bool:
    seen: Any = {VERSION: kv.version, CREATE: kv.create_revision, MOD: kv.mod_revision, VALUE: kv.value, LEASE: kv.lease}[compare.target]
    wanted: Any = compare.operand
    if compare.result == EQUAL:
        return bool(seen == wanted)
    if compare.result == GREATER:
        return bool(seen > wanted)
    if compare.result == LESS:
        return bool(seen < wanted)
    return bool(seen != wanted)


def taken(request: TxnRequest, path: Iterator[bool]) -> Iterator[RequestOp]:
    """The operations that are run, nested ones flattened, along `path`."""
    for op in request.success if next(path) else request.failure:
        if isinstance(op, TxnRequest):
            yield from taken(op, path)
        else:
            yield op


def leaves(request: Any) -> Iterator[RequestOp]:
    """All operations of both branches, nested ones flattened; for anything but a Txn, the request itself."""
    if isinstance(request, TxnRequest):
        for op in (*request.success, *request.failure):
            yield from leaves(op)
    else:
        yield request


def is_local(request: Any) -> bool:
    """True where any member may answer from its own state: a serializable Range, or a Txn of nothing but such in both branches."""
    found = list(leaves(request))
    return bool(found) and all(isinstance(op, RangeRequest) and op.serializable for op in found)


def is_read(request: Any) -> bool:
    """True where `request` can change nothing: a Range, or a Txn of Ranges only."""
    return isinstance(request, (RangeRequest, TxnRequest)) and all(isinstance(op, RangeRequest) for op in leaves(request))
