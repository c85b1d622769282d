"""What a watch can be held against: proven revisions, and which of them a request has to see.

::

    order.events, less order.unknown, below the fork ──> proven      revision -> events, with prev_kv
    else (no order) whole deliveries of any member   ──> proven      revision -> events, prev_kv where it was asked for
    proven ──by key──> due(request)                                  sorted revisions with a matching event

The cost of a narrow watch is that of the events that match it, not of the history: revisions are indexed by key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Mapping, Sequence
from typing import Any, Protocol

from pekan.checkers.case import SUSPECTED_FORK, Case
from pekan.checkers.evidence import Watched, bounds, compactions, is_whole, matches, watched
from pekan.history.types import FAILED, OK, Operation
from pekan.wire.errors import COMPACTED, FUTURE_REVISION
from pekan.wire.messages import (
    NODELETE,
    NOPUT,
    DeleteRangeRequest,
    Event,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
)

AUTO_COMPACTION = "auto-compaction-retention"
"""The flag by which etcd compacts by itself; off (0) unless set."""


class Lookup(Protocol):
    """Revision -> its events, of those for which that is known."""

    def get(self, revision: int, /) -> tuple[Event, ...] | None: ...


class Showing(Protocol):
    """What watches show: the part of `evidence.Watched` that a walk looks at."""

    @property
    def events(self) -> Mapping[int, tuple[Event, ...]]: ...
    @property
    def seen(self) -> Mapping[int, tuple[int, int]]: ...
    @property
    def by_member(self) -> Mapping[str, Mapping[int, tuple[Event, ...]]]: ...
    @property
    def differing(self) -> Container[int]: ...


class Facts(Protocol):
    """What a walk asks of what is proven: `Truth` answers it from Python's objects, `pekan.checkers.native.watch` from the core."""

    @property
    def proven(self) -> Lookup: ...
    @property
    def watched(self) -> Showing: ...
    @property
    def newest(self) -> int: ...
    @property
    def limit(self) -> float: ...
    @property
    def closed(self) -> bool: ...
    @property
    def ordered(self) -> bool: ...
    def due(self, request: WatchCreateRequest, /) -> Sequence[int]: ...
    def expected(self, request: WatchCreateRequest, revision: int, /) -> tuple[Event, ...]: ...
    def may_be_compacted(self, revision: int, by: int, /) -> bool: ...
    def compacted_above(self, revision: int, by: int, /) -> bool: ...
    def compacted_at(self, revision: int, by: int, /) -> bool: ...
    def invoked_after(self, revision: int, time: int, /) -> bool: ...
    def first_invoked_after(self, time: int, /) -> int: ...
    def reachable(self, time: int, /, unseen_by: WatchCreateRequest | None = None) -> int | None: ...
    def writer(self, revision: int, /) -> Operation | None: ...


class Truth:
    """What is proven about a case, in the form in which watches are judged.

    proven    revision -> events in key order
    newest    the last revision of the order (1 without one)
    limit     first revision that belongs to no common history (a fork), or one past anything
    closed    True where every compaction that can have happened is in the record
    ordered   True where it rests on the replayed order, False where on whole deliveries of the watches alone (no prev_kv, no writers)
    timed     True where a header can be too early: some writer's time is known, or `counted`
    counted   True where the number of invoked writes bounds the revision: nobody else wrote, and the store began empty
    """

    def __init__(self, case: Case, limit: int | None) -> None:
        self.case = case
        self.watched: Watched = watched(case)
        self.limit = float("inf") if limit is None else limit
        self.real_time = case.history.order == "real-time"
        exclusive = case.options.writers == "exclusive" and case.history.start == "empty"
        self.closed = exclusive and not compacts_itself(case)
        self.counted = exclusive and self.real_time
        self.ordered = case.order is not None
        self.proven = self._proven()
        # A refused compaction took nothing away; but once members have parted, the one that refuses it speaks only for itself.
        parted = limit is not None or SUSPECTED_FORK in case.shared
        done = (c for c in compactions(case) if parted or c.outcome != FAILED)
        self.compactions = tuple(sorted((c.revision, c.call if self.real_time else -1) for c in done))
        self._operations: dict[int, Operation] | None = None
        self._revisions: Sequence[int] | None = None
        self._by_key: dict[bytes, list[int]] | None = None
        self._keys: list[bytes] = []
        self._due: dict[tuple[bytes, bytes | None, tuple[int, ...]], list[int]] = {}
        self.newest = case.order.last if case.order is not None else 1
        self.invoked_by = self._invocations()
        self.timed = self.counted or bool(self.invoked_by)
        self._may_write: list[Operation] = []
        self._attempts: list[Operation] | None = None

    def _proven(self) -> dict[int, tuple[Event, ...]]:
        order, limit = self.case.order, self.limit
        if order is None:
            known = self.watched
            return {r: known.events[r] for r in known.whole if r < limit and r not in known.differing}
        if not order.unknown and order.last < limit:
            return order.events
        return {r: events for r, events in order.events.items() if r < limit and r not in order.unknown}

    # ---- what a request has to see ----

    def due(self, request: WatchCreateRequest) -> Sequence[int]:
        """The revisions with an event that `request` matches, ascending: those proven, and for a watch of everything all that exist."""
        if is_whole(request):
            if self._revisions is None:
                self._revisions = self._existing()
            return self._revisions
        key = (*bounds(request), tuple(sorted(set(request.filters))))
        known = self._due.get(key)
        if known is None:
            known = self._due[key] = self._matching(request)
        return known

    def _existing(self) -> Sequence[int]:
        """Every revision has an event: etcd counts one up only for a transaction with changes (mvcc/kvstore_txn.go).

        So a watch of everything has to show something even of a revision of which nobody knows what it did. Not so where the store did
        not begin empty: a restored one may have bumped its revision (`etcdutl snapshot restore --bump-revision`).
        """
        if self.case.history.start != "empty":
            return sorted(r for r, events in self.proven.items() if events)
        order = self.case.order
        top = max(order.last if order is not None else 1, max(self.watched.events, default=1))
        return range(2, int(min(top + 1, self.limit)))

    def _matching(self, request: WatchCreateRequest) -> list[int]:
        if self._by_key is None:
            self._by_key = {}
            for revision, events in self.proven.items():
                for event in events:
                    self._by_key.setdefault(event.kv.key, []).append(revision)
            self._keys = sorted(self._by_key)
        low, high = bounds(request)
        keys = self._keys[bisect_left(self._keys, low) : None if high is None else bisect_left(self._keys, high)]
        found = {revision for key in keys for revision in self._by_key[key]}
        if request.filters:
            found = {revision for revision in found if self.expected(request, revision)}
        return sorted(found)

    def expected(self, request: WatchCreateRequest, revision: int) -> tuple[Event, ...]:
        """The events of `revision` that `request` has to see, in key order; empty where nothing is proven of it."""
        return tuple(event for event in self.proven.get(revision, ()) if matches(request, event))

    # ---- compactions ----

    def may_be_compacted(self, revision: int, by: int) -> bool:
        """True where a compaction at or above `revision` was invoked before `by` (ns), or cannot be excluded."""
        if not self.closed:
            return True
        at = bisect_left(self.compactions, (revision,))
        return any(call <= by for _, call in self.compactions[at:])

    def compacted_above(self, revision: int, by: int) -> bool:
        """True where a compaction strictly above `revision` was invoked before `by` (ns), or cannot be excluded."""
        return self.may_be_compacted(revision + 1, by)

    def compacted_at(self, revision: int, by: int) -> bool:
        """True where a compaction of exactly `revision` was invoked before `by` (ns), or cannot be excluded."""
        if not self.closed:
            return True
        low, high = bisect_left(self.compactions, (revision,)), bisect_left(self.compactions, (revision + 1,))
        return any(call <= by for _, call in self.compactions[low:high])

    # ---- when a revision can have existed ----

    def _invocations(self) -> list[int]:
        """For each revision the latest invocation of a writer at or below it (ns); empty where no writer or no time is known.

        Only acknowledged writes whose answer names the revision count: which of several unanswered requests filled a revision may be a
        choice among equals, and this must hold for all of them.
        """
        order = self.case.order
        if order is None or not self.real_time or not order.written_by:
            return []
        calls = [0] * (order.last + 1)
        operations, end = self._by_id(), min(self.limit, order.last + 1)
        for revision, id_ in order.written_by.items():
            if revision >= end:
                continue
            operation = operations.get(id_)
            if operation is not None and operation.outcome == OK and _revision_of(operation.output) == revision:
                calls[revision] = operation.call
        latest = 0
        for revision, call in enumerate(calls):
            latest = calls[revision] = max(latest, call)
        return calls

    def invoked_after(self, revision: int, time: int) -> bool:
        """True where some revision at or below `revision` was written by an operation that was invoked only after `time` (ns)."""
        if not self.invoked_by or revision >= self.limit:
            return False
        return self.invoked_by[min(revision, self.newest)] > time

    def first_invoked_after(self, time: int) -> int:
        """The lowest revision whose acknowledged writer was invoked after `time` (ns); meaningful where `invoked_after` holds."""
        return bisect_right(self.invoked_by, time)

    def reachable(self, time: int, unseen_by: WatchCreateRequest | None = None) -> int | None:
        """The highest revision that can exist at `time` (ns), None where others may write too, or times cannot be compared.

        Each revision needs a request of its own that had been invoked, and above the newest proven revision one that has no place yet:
        unanswered, or granting a lease that may since have expired. With `unseen_by`, the highest that can exist if that watch had nothing
        to see above the newest proven one: requests that make only what it matches count no more.
        """
        if not self.counted:
            return None
        order, newest = self.case.order, self.newest
        if self._attempts is None:
            placed = set(order.written_by.values()) if order is not None else set()
            # In order of call, as operations are.
            self._may_write = [op for op in self.case.history.operations if type(op.input) in _MAY_WRITE and not _refused(op)]
            self._attempts = [op for op in self._may_write if op.id not in placed and not _answered(op, newest)]
        invoked = bisect_right(self._attempts, time, key=_call)
        seen = 0 if unseen_by is None else sum(1 for op in self._attempts[:invoked] if _seen(unseen_by, op.input))
        return min(newest + invoked - seen, 1 + bisect_right(self._may_write, time, key=_call))

    def operation(self, id_: int | None) -> Operation | None:
        """The operation of that id, None where there is none."""
        return None if id_ is None else self._by_id().get(id_)

    def _by_id(self) -> dict[int, Operation]:
        if self._operations is None:
            self._operations = {op[0]: op for op in self.case.history.operations}
        return self._operations

    def writer(self, revision: int) -> Operation | None:
        """The operation that wrote `revision`, where known."""
        return self.operation(self.case.order.written_by.get(revision)) if self.case.order is not None else None


_MAY_WRITE = frozenset({PutRequest, DeleteRangeRequest, TxnRequest, LeaseGrantRequest, LeaseRevokeRequest})
"""Each makes at most one revision, a grant by the expiry of its lease."""


def _refused(op: Operation) -> bool:
    """True where `op` made no revision because it was refused.

    A Txn refused for a compacted or future revision counts as possible all the same: other members may have applied it (#18667), and that
    is another finding's to say.
    """
    if op.outcome != FAILED:
        return False
    return type(op.input) is not TxnRequest or getattr(op.output, "message", "") not in (COMPACTED, FUTURE_REVISION)


def _answered(op: Operation, newest: int) -> bool:
    """True where `op` was answered at or below `newest` and can make no revision above it (the lease of a grant can expire later)."""
    return op.outcome == OK and type(op.input) is not LeaseGrantRequest and _revision_of(op.output) <= newest


def _call(op: Operation) -> int:
    return op.call


def _seen(watch: WatchCreateRequest, request: Any) -> bool:
    """True where whatever revision `request` makes has an event that `watch` matches."""
    kind = type(request)
    if kind is TxnRequest:
        changes = [op for op in request.success + request.failure if type(op) is not RangeRequest]
        return all(_seen(watch, op) for op in changes)
    low, high = bounds(watch)
    if kind is PutRequest:
        return NOPUT not in watch.filters and low <= request.key and (high is None or request.key < high)
    if kind is DeleteRangeRequest:
        first, end = bounds(WatchCreateRequest(request.key, request.range_end))
        return NODELETE not in watch.filters and low <= first and (high is None or (end is not None and end <= high))
    return False


def _revision_of(output: Any) -> int:
    header = getattr(output, "header", None)
    return header.revision if header is not None else 0


def compacts_itself(case: Case) -> bool:
    """Whether etcd was told to compact without being asked."""
    plan = case.history.plan
    if plan is None:
        return False
    return any(name.lstrip("-") == AUTO_COMPACTION and value.strip() not in ("", "0") for name, value in plan.flags)
