"""What answers show of keys, by revision: made when revisions have to be guessed, and not before.

::

    shown[r][key]       a key-value with mod_revision r: what the gap r put there
    next fact of key    the first answer about it at or after r:    its key-value, or its absence
    puts between        acknowledged Puts of the key in (r, fact]:  they are counted in the version that the fact shows

The last two together say how many unacknowledged Puts of a key there can be before a fact: with version 5 left at r, three acknowledged
Puts after it and version 8 shown, there is none, and with version 9 shown there is one, due before the fact. The first makes nearly every
wrong guess fail at once, the second says which guess to make first (`due`, the earliest due date first).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from pekan.checkers.evidence import Watched
from pekan.checkers.kv.collect import Buckets
from pekan.history.types import Operation
from pekan.models.etcd import deletes, ranges, within
from pekan.wire.messages import (
    CREATE,
    DELETE,
    EQUAL,
    GREATER,
    LESS,
    MOD,
    SORT_BY_VALUE,
    VALUE,
    VERSION,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

LISTS = 60
"""Lists looked at for the absence of one key; what later ones show is found by the replay itself."""


class Fact(NamedTuple):
    """What an answer shows of a key at `revision`: its key-value (value and lease only where `complete`); without one, that it was absent
    (`complete`) or merely that it was there (not `complete`).
    """

    revision: int
    kv: KeyValue | None
    complete: bool


class Facts:
    """The facts of one history. `keys`: those that matter, None for all; `gaps`: the revisions that have to be guessed."""

    def __init__(
        self,
        b: Buckets,
        evidence: Watched,
        pending: list[Any],
        gaps: Container[int],
        keys: Container[bytes] | None,
        may_vanish: Callable[[bytes], bool],
    ) -> None:
        """`may_vanish`: whether something unacknowledged can delete a key."""
        self.may_vanish = may_vanish
        self.deletes: dict[bytes, list[int]] = defaultdict(list)
        self.wide_deletes: list[tuple[int, bytes, bytes]] = []
        self.gaps = gaps
        self.keys = keys
        self.shown: dict[int, dict[bytes, tuple[KeyValue, bool]]] = {}
        self.by_key: dict[bytes, list[Fact]] = defaultdict(list)
        self.puts: dict[bytes, list[int]] = defaultdict(list)
        self.lists: list[tuple[int, Operation]] = []
        self.put_at: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        self.touched: dict[int, set[bytes]] = defaultdict(set)
        self.values: set[bytes] = set()
        self.values_ordered = False
        self.known: dict[tuple[bytes, int], Fact | None] = {}
        # In order of revision: where answers contradict each other, which of them counts is then no accident.
        for revision, op in sorted(b.writes.items(), key=_first):
            self._acknowledged(op.input, op.output, revision)
            self._request(op.input)
        for bucket, current in ((b.readers, True), (b.old, False), (b.local, False)):
            for revision, group in sorted(bucket.items(), key=_first):
                for op in group:
                    self._answered(op, revision, current)
                    self._request(op.input)
        # These state nothing about keys that the replay does not hold against its state anyway, but their guards tell values apart.
        for op in (*(op for group in b.compares.values() for op in group), *b.refusals):
            self._request(op.input)
        for request in pending:
            self._request(request)
        for events in evidence.events.values():
            self.values.update(event.kv.value for event in events)
            self.values.update(event.prev_kv.value for event in events if event.prev_kv is not None)
        for facts in self.by_key.values():
            facts.sort(key=_revision)
        self.lists.sort(key=_first)
        for pairs in self.put_at.values():
            pairs.sort()
        for revisions in (*self.puts.values(), *self.deletes.values()):
            revisions.sort()

    # ---- collecting ----

    def _note(self, kv: KeyValue, complete: bool) -> None:
        self.values.add(kv.value)
        if kv.mod_revision in self.gaps:
            known = self.shown.setdefault(kv.mod_revision, {})
            if complete or kv.key not in known:
                known[kv.key] = (kv, complete)

    def _matters(self, key: bytes) -> bool:
        return self.keys is None or key in self.keys

    def _acknowledged(self, request: Any, answer: Any, revision: int) -> None:
        for kv, complete in noted(request, answer):
            self._note(kv, complete)
        if type(request) is PutRequest and self._matters(request.key):
            self.puts[request.key].append(revision)
            if request.prev_kv and answer.prev_kv is None:
                self.by_key[request.key].append(Fact(revision - 1, None, True))
            elif request.prev_kv:
                self.by_key[request.key].append(Fact(revision - 1, answer.prev_kv, True))
        elif type(request) is DeleteRangeRequest:
            for kv in answer.prev_kvs:
                if self._matters(kv.key):
                    self.by_key[kv.key].append(Fact(revision - 1, kv, True))
            if not request.range_end and not answer.prev_kvs and self._matters(request.key):
                self.by_key[request.key].append(Fact(revision - 1, None, False))
            self._deleted(request, revision)
        elif type(request) is TxnRequest:
            for key in _put_in(request, answer):
                if self._matters(key):
                    self.puts[key].append(revision)
            for delete in deletes(request):
                self._deleted(delete, revision)
            self._guards(request, answer, revision - 1)

    def _guards(self, request: TxnRequest, answer: TxnResponse, revision: int) -> None:
        """What true guards say of single keys at `revision`: when they were last put, or that they were absent."""
        if not answer.succeeded:
            return
        for compare in request.compare:
            if compare.result != EQUAL or compare.range_end or not self._matters(compare.key):
                continue
            if compare.operand == 0 and compare.target in (VERSION, CREATE, MOD):
                self.by_key[compare.key].append(Fact(revision, None, True))
            elif compare.target == MOD and isinstance(compare.operand, int):
                self.put_at[compare.key].append((revision, compare.operand))
                if compare.operand in self.gaps:
                    self.touched[compare.operand].add(compare.key)

    def _deleted(self, request: DeleteRangeRequest, revision: int) -> None:
        if request.range_end:
            self.wide_deletes.append((revision, request.key, request.range_end))
        else:
            self.deletes[request.key].append(revision)

    def _can_vanish(self, key: bytes, after: int, until: int) -> bool:
        """Whether `key` can have been deleted at a revision in (after, until]."""
        revisions = self.deletes.get(key, ())
        if bisect_right(revisions, until) > bisect_right(revisions, after) or self.may_vanish(key):
            return True
        return any(after < r <= until and within(key, start, end) for r, start, end in self.wide_deletes)

    def _puts_between(self, key: bytes, after: int, until: int) -> int:
        puts = self.puts.get(key, ())
        return bisect_right(puts, until) - bisect_right(puts, after)

    def _answered(self, op: Operation, revision: int, current: bool) -> None:
        request, answer = op.input, op.output
        for kv, complete in noted(request, answer):
            self._note(kv, complete)
        if type(request) is DeleteRangeRequest and not request.range_end and self._matters(request.key):
            self.by_key[request.key].append(Fact(revision, None, True))
        if type(request) is TxnRequest and type(answer) is TxnResponse:
            self._guards(request, answer, revision)
            taken = request.success if answer.succeeded else request.failure
            for inner, told in zip(taken, answer.responses, strict=False):
                if type(inner) is RangeRequest and type(told) is RangeResponse and inner.revision <= 0:
                    self._ranged(inner, told, revision, None)
        if type(request) is RangeRequest and not (current and 0 < request.revision < answer.header.revision):
            self._ranged(request, answer, revision, op)

    def _ranged(self, request: RangeRequest, answer: RangeResponse, revision: int, op: Operation | None) -> None:
        for kv in answer.kvs:
            if self._matters(kv.key):
                self.by_key[kv.key].append(Fact(revision, kv, not request.keys_only))
        if request.limit or request.count_only or any(request[9:]):
            return
        if request.range_end:
            if op is not None:
                self.lists.append((revision, op))
        elif not answer.kvs and self._matters(request.key):
            self.by_key[request.key].append(Fact(revision, None, True))

    def _request(self, request: Any) -> None:
        if type(request) in (RangeRequest, TxnRequest):
            self.values.update(_guarded_values(request))
            # An answer sorted by value, or a guard of order, tells values apart that are never shown.
            self.values_ordered = self.values_ordered or _orders_values(request)

    # ---- asking ----

    def refuted(self, event: Event, revision: int) -> bool:
        """Whether the next fact about the event's key cannot be, if the event was made at `revision`."""
        key = event.kv.key
        pairs = self.put_at.get(key, ())
        at = bisect_left(pairs, (revision, 0))
        if at < len(pairs) and (pairs[at][1] < revision or (pairs[at][1] == revision and event.type == DELETE)):
            return True  # A guard saw it last put before, at a time after.
        fact = self._next(key, revision)
        if fact is None:
            return False
        kv = fact.kv
        if event.type == DELETE:
            return kv is not None and kv.create_revision <= revision
        if kv is None:
            return fact.complete and (fact.revision == revision or not self._can_vanish(key, revision, fact.revision))
        if kv.mod_revision <= revision:
            return kv.mod_revision < revision or kv[1:4] != event.kv[1:4] or (fact.complete and kv != event.kv)
        if kv.create_revision > revision:
            return not self._can_vanish(key, revision, kv.create_revision)
        if kv.create_revision != event.kv.create_revision:
            return True
        between = self._puts_between(key, revision, kv.mod_revision)
        return not max(1, between) <= kv.version - event.kv.version <= kv.mod_revision - revision

    def due(self, event: Event, revision: int) -> int | None:
        """The revision by which something like `event`, not refuted at `revision`, must have happened; None where nothing says so."""
        key = event.kv.key
        if key in self.touched.get(revision, ()):
            return revision
        fact = self._next(key, revision)
        if fact is None:
            return None
        kv = fact.kv
        if event.type == DELETE:
            until = fact.revision if kv is None else kv.create_revision
            gone = (kv is None and fact.complete) or (kv is not None and kv.create_revision > revision)
            return (
                until
                if gone and bisect_right(self.deletes.get(key, ()), until) == bisect_right(self.deletes.get(key, ()), revision)
                else None
            )
        if kv is None:
            there = not fact.complete and event.prev_kv is None and not self._puts_between(key, revision, fact.revision)
            return fact.revision if there else None
        return kv.mod_revision if kv.create_revision == event.kv.create_revision else None

    def _next(self, key: bytes, revision: int) -> Fact | None:
        if (key, revision) in self.known:
            return self.known[key, revision]
        listed = self.by_key.get(key, [])
        at = bisect_left(listed, revision, key=_revision)
        found = listed[at] if at < len(listed) else None
        start = bisect_left(self.lists, revision, key=_first)
        for shown_at, op in self.lists[start : start + LISTS]:
            if found is not None and shown_at >= found.revision:
                break
            if within(key, op.input.key, op.input.range_end) and not any(kv.key == key for kv in op.output.kvs):
                found = Fact(shown_at, None, True)
                break
        self.known[key, revision] = found
        return found


def _revision(fact: Fact) -> int:
    return fact.revision


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def noted(request: Any, answer: Any) -> Iterator[tuple[KeyValue, bool]]:
    """Every key-value that `answer` shows, with whether its value and lease show."""
    kind = type(answer)
    if kind is RangeResponse:
        complete = not (type(request) is RangeRequest and request.keys_only)
        for kv in answer.kvs:
            yield kv, complete
    elif kind is PutResponse:
        if answer.prev_kv is not None:
            yield answer.prev_kv, True
    elif kind is DeleteRangeResponse:
        for kv in answer.prev_kvs:
            yield kv, True
    elif kind is TxnResponse and type(request) is TxnRequest:
        for op, inner in zip(request.success if answer.succeeded else request.failure, answer.responses, strict=False):
            yield from noted(op, inner)


def notes(request: Any, answer: Any) -> Iterator[KeyValue]:
    """Every key-value that `answer` shows with its value."""
    return (kv for kv, complete in noted(request, answer) if complete)


def _put_in(request: TxnRequest, answer: TxnResponse) -> Iterator[bytes]:
    """The keys that an acknowledged transaction put."""
    for op, inner in zip(request.success if answer.succeeded else request.failure, answer.responses, strict=False):
        if type(op) is PutRequest:
            yield op.key
        elif type(op) is TxnRequest and type(inner) is TxnResponse:
            yield from _put_in(op, inner)


def _orders_values(request: Any) -> bool:
    if any(r.sort_target == SORT_BY_VALUE for r in ranges(request)):
        return True
    if type(request) is not TxnRequest:
        return False
    return any(c.target == VALUE and c.result in (GREATER, LESS) for c in request.compare) or any(
        _orders_values(op) for op in request.success + request.failure if type(op) is TxnRequest
    )


def _guarded_values(request: Any) -> Iterator[bytes]:
    if type(request) is TxnRequest:
        for compare in request.compare:
            if compare.target == VALUE and isinstance(compare.operand, bytes):
                yield compare.operand
        for op in request.success + request.failure:
            yield from _guarded_values(op)
