"""Random requests over a small key space: every kind and every option that etcd's key-value and lease services have.

The weights of `Mix` are relative. A request is drawn from what a client could know: the revision it saw last, the leases granted so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

from pekan.wire.messages import (
    CREATE,
    LEASE,
    MOD,
    VALUE,
    VERSION,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)


@dataclass(frozen=True)
class Mix:
    """Relative weights of the kinds of request."""

    put: float = 30
    get: float = 12
    list: float = 10
    old: float = 5
    local: float = 6
    delete: float = 8
    delete_range: float = 3
    cas: float = 10
    txn: float = 8
    nested: float = 3
    read_txn: float = 3
    compares_only: float = 0
    ranged_txn: float = 1
    open_delete: float = 0.5
    grant: float = 2
    put_lease: float = 4
    revoke: float = 1
    ignore: float = 3
    compact: float = 1
    compact_refused: float = 0.5


NO_LEASES = {"grant": 0.0, "put_lease": 0.0, "revoke": 0.0}


@dataclass
class World:
    """What requests are drawn from. `revision` is the newest that any client has seen."""

    rng: Random
    keys: list[bytes]
    mix: Mix
    unique_values: bool = True
    ttl: int = 5
    list_limit: int = 0
    revision: int = 1
    leases: list[int] = field(default_factory=list)
    _values: int = 0
    _leases: int = 1000

    def __post_init__(self) -> None:
        self._kinds = [f.name for f in fields(self.mix) if getattr(self.mix, f.name) > 0]
        total = 0.0
        self._cumulated = [total := total + getattr(self.mix, kind) for kind in self._kinds]
        self._draw: dict[str, Callable[[World], Any]] = {kind: _DRAW[kind] for kind in self._kinds}

    def draw(self) -> Any:
        """The next request."""
        kind = self.rng.choices(self._kinds, cum_weights=self._cumulated)[0]
        return self._draw[kind](self)

    def skip(self, count: int) -> None:
        """Leave out `count` values and lease ids, for another world over the same store."""
        self._values += count
        self._leases += count

    def key(self) -> bytes:
        return self.rng.choice(self.keys)

    def value(self) -> bytes:
        if not self.unique_values:
            return self.rng.choice((b"a", b"b"))
        self._values += 1
        return b"v%d" % self._values

    def span(self) -> tuple[bytes, bytes]:
        """A range of more than one key: everything, a prefix, or from one key to another (now and then an empty one)."""
        pick = self.rng.random()
        if pick < 0.4:
            return b"\x00", b"\x00"
        if pick < 0.6:
            return self.keys[0][:1], bytes([self.keys[0][0] + 1])
        if pick < 0.8:
            return self.key(), b"\x00"
        return self.key(), self.key()

    def lease(self) -> int:
        """A lease that was asked for, mostly one of the newest; an unknown one now and then."""
        if not self.leases or self.rng.random() < 0.1:
            return 999
        return self.rng.choice(self.leases[-4:])

    def new_lease(self) -> int:
        if self.leases and self.rng.random() < 0.1:
            return self.rng.choice(self.leases[-4:])
        self._leases += 1
        self.leases.append(self._leases)
        return self._leases

    def past(self) -> int:
        """A revision to ask for: mostly a past one, sometimes the current, sometimes one to come."""
        pick = self.rng.random()
        if pick < 0.1:
            return self.revision + self.rng.randint(1, 4)
        if pick < 0.3:
            return self.revision
        return max(1, self.revision - self.rng.randint(0, 12))


def _get(w: World) -> RangeRequest:
    return RangeRequest(w.key(), keys_only=w.rng.random() < 0.1, count_only=w.rng.random() < 0.1)


def _list(w: World) -> RangeRequest:
    rng = w.rng
    start, end = w.span()
    options: dict[str, Any] = {}
    if w.list_limit:
        options["limit"] = w.list_limit
    elif rng.random() < 0.4:
        options["limit"] = rng.randint(1, 4)
    if rng.random() < 0.15:
        options["keys_only"] = True
    if rng.random() < 0.1:
        options["count_only"] = True
    if rng.random() < 0.3:
        options["sort_order"] = rng.randint(0, 2)
        options["sort_target"] = rng.randint(0, 4)
    if rng.random() < 0.2:
        bound = rng.choice(("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"))
        options[bound] = max(1, w.revision - rng.randint(0, 6))
    return RangeRequest(start, end, **options)


def _old(w: World) -> RangeRequest:
    request = _list(w) if w.rng.random() < 0.5 else _get(w)
    return request._replace(revision=w.past())


def _local(w: World) -> Any:
    if w.rng.random() < 0.2:
        request = _read_txn(w)
        return _map(request, lambda op: op._replace(serializable=True))
    read = _old(w) if w.rng.random() < 0.3 else _list(w) if w.rng.random() < 0.5 else _get(w)
    return read._replace(serializable=True)


def _put(w: World) -> PutRequest:
    return PutRequest(w.key(), w.value(), prev_kv=w.rng.random() < 0.3)


def _put_lease(w: World) -> PutRequest:
    return PutRequest(w.key(), w.value(), lease=w.lease(), prev_kv=w.rng.random() < 0.2)


def _ignore(w: World) -> PutRequest:
    if w.rng.random() < 0.5:
        return PutRequest(w.key(), b"", lease=w.lease() if w.rng.random() < 0.3 else 0, ignore_value=True, prev_kv=w.rng.random() < 0.3)
    return PutRequest(w.key(), w.value(), ignore_lease=True)


def _delete(w: World) -> DeleteRangeRequest:
    return DeleteRangeRequest(w.key(), prev_kv=w.rng.random() < 0.3)


def _delete_range(w: World) -> DeleteRangeRequest:
    start, end = w.span()
    return DeleteRangeRequest(start, end, prev_kv=w.rng.random() < 0.3)


def _compare(w: World) -> Compare:
    rng = w.rng
    target = rng.choice((VERSION, CREATE, MOD, VALUE, LEASE))
    operand: int | bytes
    if target == VALUE:
        operand = b"v%d" % rng.randint(max(1, w._values - 8), w._values + 1) if w.unique_values else rng.choice((b"a", b"b"))
    elif target == VERSION:
        operand = rng.randint(0, 3)
    elif target == LEASE:
        operand = 0 if rng.random() < 0.5 else w.lease()
    else:
        operand = 0 if rng.random() < 0.2 else max(0, w.revision - rng.randint(0, 8))
    if rng.random() < 0.2:
        start, end = w.span()
        return Compare(rng.randint(0, 3), target, start, operand, end)
    return Compare(rng.randint(0, 3), target, w.key(), operand)


def _cas(w: World) -> TxnRequest:
    key = w.key()
    guess = max(0, w.revision - w.rng.randint(0, 6))
    compare = Compare(w.rng.choice((0, 0, 3)), MOD, key, w.rng.choice((0, guess)))
    failure: tuple[RequestOp, ...] = (RangeRequest(key),) if w.rng.random() < 0.5 else ()
    return TxnRequest((compare,), (PutRequest(key, w.value()),), failure)


def _ops(w: World, spare: list[bytes], depth: int) -> tuple[RequestOp, ...]:
    """Operations of one branch. A key is written at most once (etcd refuses more): writes take their keys out of `spare`."""
    found: list[RequestOp] = []
    for _ in range(w.rng.randint(0 if depth else 1, 3)):
        pick = w.rng.random()
        if pick < 0.35 and spare:
            found.append(PutRequest(spare.pop(), w.value(), prev_kv=w.rng.random() < 0.3, lease=w.lease() if w.rng.random() < 0.1 else 0))
        elif pick < 0.4 and spare:
            found.append(PutRequest(spare.pop(), b"", ignore_value=True))
        elif pick < 0.55 and spare:
            found.append(DeleteRangeRequest(spare.pop(), prev_kv=w.rng.random() < 0.3))
        elif depth and pick < 0.75:
            found.append(_branches(w, spare, depth - 1))
        else:
            found.append(_list(w) if w.rng.random() < 0.5 else _get(w))
    return tuple(found)


def _branches(w: World, spare: list[bytes], depth: int) -> TxnRequest:
    compares = tuple(_compare(w) for _ in range(w.rng.randint(0, 2)))
    taken = _ops(w, spare, depth)
    return TxnRequest(compares, taken, _ops(w, spare, depth))


def _txn(w: World, depth: int = 0) -> TxnRequest:
    spare = list(w.keys)
    w.rng.shuffle(spare)
    # A range delete beside puts would be refused as a duplicate, so it comes alone.
    if w.rng.random() < 0.15:
        return TxnRequest((_compare(w),), (_delete_range(w), _list(w)), (_get(w),))
    return _branches(w, spare, depth)


def _nested(w: World) -> TxnRequest:
    return _txn(w, 2)


def _read_txn(w: World) -> TxnRequest:
    compares = tuple(_compare(w) for _ in range(w.rng.randint(0, 2)))
    return TxnRequest(compares, (_get(w), _list(w)), (_get(w),))


def _compares_only(w: World) -> TxnRequest:
    return TxnRequest((_compare(w),))


def _ranged_txn(w: World) -> TxnRequest:
    key = w.key()
    return TxnRequest((), (PutRequest(key, w.value()), _old(w)))


def _open_delete(w: World) -> TxnRequest:
    """etcd refuses a txn that puts and deletes the same key, unless it deletes by an open range: then one revision does both."""
    key = w.key()
    ops: list[RequestOp] = [
        PutRequest(key, w.value(), prev_kv=w.rng.random() < 0.5),
        DeleteRangeRequest(w.key(), b"\x00", w.rng.random() < 0.5),
    ]
    w.rng.shuffle(ops)
    return TxnRequest((), (*ops, _list(w)))


def _grant(w: World) -> LeaseGrantRequest:
    return LeaseGrantRequest(w.ttl, w.new_lease())


def _revoke(w: World) -> LeaseRevokeRequest:
    return LeaseRevokeRequest(w.lease())


def _compact(w: World) -> CompactionRequest:
    return CompactionRequest(max(1, w.revision - w.rng.randint(0, 6)), physical=w.rng.random() < 0.5)


def _compact_refused(w: World) -> CompactionRequest:
    return CompactionRequest(w.rng.choice((1, w.revision + 50)))


def _map(request: TxnRequest, change: Callable[[Any], Any]) -> TxnRequest:
    return request._replace(success=tuple(map(change, request.success)), failure=tuple(map(change, request.failure)))


_DRAW: dict[str, Callable[[World], Any]] = {
    "put": _put,
    "get": _get,
    "list": _list,
    "old": _old,
    "local": _local,
    "delete": _delete,
    "delete_range": _delete_range,
    "cas": _cas,
    "txn": _txn,
    "nested": _nested,
    "read_txn": _read_txn,
    "compares_only": _compares_only,
    "ranged_txn": _ranged_txn,
    "open_delete": _open_delete,
    "grant": _grant,
    "put_lease": _put_lease,
    "revoke": _revoke,
    "ignore": _ignore,
    "compact": _compact,
    "compact_refused": _compact_refused,
}
