"""Which keys a lease surely had when a request was decided.

::

    put k with lease L ├──┤ ok                          the request ├──┤ ok, and itself needs L
                            └─ no other request that may write k ──┘         => k belongs to L at that moment

A lease that a request was given can have lost nothing by expiry or revoke before: it would be gone, and a put that names a lease which is
not there is refused. So where it was granted once, only a later write of the key takes the key from it. Whatever may have written the key
in between counts against it, answered or not; a transaction counts though it was refused (#18667).

Sources: etcd server/storage/mvcc/kvstore_txn.go (put: Detach, Attach), server/etcdserver/apply (a put looks its lease up), lease/lessor.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pekan.checkers.kv.collect import attached_by
from pekan.checkers.services import SERVICES
from pekan.history.types import FAILED, OK, Operation
from pekan.models.auth import Interval, interval
from pekan.models.etcd import deletes, puts
from pekan.wire.messages import DeleteRangeRequest, LeaseGrantRequest, PutRequest, TxnRequest

_NEVER = float("inf")


class Attached:
    """The keys that leases surely had, of the requests of one history. Requests have to be asked for in order of their calls."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        granted: Counter[int] = Counter()
        self._puts: list[tuple[int, Operation, bytes, int]] = []
        """(when answered, put or transaction, key, lease) of what was surely attached."""
        self._writes: dict[bytes, list[Operation]] = {}
        """Key -> what may write it, apart from ranges."""
        self._ranges: list[tuple[Interval, Operation]] = []
        known = True
        for op in operations:
            kind = type(op.input)
            if kind in SERVICES:
                known = False  # Members wrote on behalf of somebody.
            elif kind is LeaseGrantRequest and op.outcome != FAILED:
                granted[op.output.id if op.outcome == OK else op.input.id] += 1
            elif kind in (PutRequest, DeleteRangeRequest, TxnRequest):
                self._add(op)
        self._once = {lease for lease, times in granted.items() if times == 1} if known else set()
        self._puts.sort(key=lambda each: each[0])
        self._next = 0
        self._last: dict[int, dict[bytes, Operation]] = {}
        """Lease -> key -> the put answered last that attached it."""

    def _add(self, op: Operation) -> None:
        if op.outcome == FAILED and type(op.input) is not TxnRequest:
            return
        for key, end in _written(op.input):
            if end == key + b"\0":
                self._writes.setdefault(key, []).append(op)
            else:
                self._ranges.append(((key, end), op))
        if op.outcome == OK and op.ret is not None:
            self._puts += [(op.ret, op, key, lease) for key, lease in attached_by(op.input, op.output)]

    def surely(self, op: Operation, lease: int) -> Iterator[tuple[bytes, Operation]]:
        """(key, the put that attached it) of keys that `lease` may have had all the time until `op` was decided; `keeps` says whether."""
        while self._next < len(self._puts) and self._puts[self._next][0] < op.call:
            _, put, key, of = self._puts[self._next]
            self._last.setdefault(of, {})[key] = put
            self._next += 1
        if lease in self._once:
            yield from self._last.get(lease, {}).items()

    def keeps(self, key: bytes, lease: int, put: Operation, op: Operation) -> bool:
        """Whether nothing else can have written `key` between `put`, which gave it `lease`, and `op`."""
        others = self._writes.get(key, []) + [each for (low, end), each in self._ranges if low <= key and (end is None or key < end)]
        return all(each in (put, op) or _apart(each, put, op) or _same_lease(each.input, lease) for each in others)


def _apart(other: Operation, put: Operation, op: Operation) -> bool:
    """Whether `other` came surely before `put`, or surely after `op`."""
    ret = _NEVER if other.ret is None or (other.outcome == FAILED and type(other.input) is TxnRequest) else other.ret
    return ret < put.call or (op.ret is not None and other.call > op.ret)


def _same_lease(request: Any, lease: int) -> bool:
    return isinstance(request, PutRequest) and (request.lease == lease or request.ignore_lease)


def _written(request: Any) -> Iterator[Interval]:
    """The ranges of keys that `request` may write, in whichever branch and however deep."""
    for put in puts(request):
        yield put.key, put.key + b"\0"
    for delete in deletes(request):
        asked = interval(delete.key, delete.range_end)
        yield asked if asked is not None else (b"", None)
