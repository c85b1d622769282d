"""Gaps whose events nobody showed: a guess, taken back when it contradicts what comes later.

::

    fill(gap)  ─ one way only, nothing guessed before ──> no guess
               ─ several ways ──> a guess: the best one first, the rest kept
    a later contradiction that can rest on a guess ──> take_back: undo to the last guess that has another way, and go on from there

What keeps it small (each is exact: it drops only what cannot be right, or what is the same again):

1. shown      a reply that shows a key-value with this mod_revision says what the gap put there
2. next fact  the next reply about a touched key must not contradict: an older revision, a version that leaves no room, or its absence
3. symmetry   unanswered Puts that differ only in values that no reply, event or guard ever shows are tried once, earliest call first
4. order      what a later reply needs comes first, the earliest due first; then those whose caller was still waiting for an answer

A contradiction about keys that no writer of any guess can touch is no reason to take anything back: it is a finding at once. The search is
bounded by NODES tries and by time; past that the answer is undecided.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pekan.checkers.case import Order
from pekan.checkers.evidence import Watched
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.facts import Facts
from pekan.checkers.kv.pool import Matching, Pool, Writer, effect_of, in_key_order
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.timing import Timing
from pekan.models.etcd import State, advance, ranges, replace_key, within
from pekan.verdict import Undecided
from pekan.wire.messages import (
    DELETE,
    PUT,
    Event,
    KeyValue,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

NODES = 200_000
"""Gaps filled and fillings taken back in one history's search. Real histories need one or two a gap."""
SECONDS = 60.0
"""Time for one history's search where `Options.budget_s` names none."""


class Way(NamedTuple):
    """One way to fill a gap."""

    writer: Writer
    events: tuple[Event, ...]


@dataclass(slots=True)
class Guess:
    """A gap filled with `way` while `others` remain; `mark`: the length of the trail before it."""

    revision: int
    way: Way
    others: Iterator[Way]
    mark: int
    touched: frozenset[bytes]
    several: bool


@dataclass(slots=True)
class Search:
    """The guesses of one replay and what is needed to make them."""

    b: Buckets
    pool: Pool
    timing: Timing
    evidence: Watched
    budget_s: float | None
    evidence_complete: bool
    guesses: list[Guess] = field(default_factory=list)
    trail: list[tuple[bytes, KeyValue | None]] = field(default_factory=list)
    nodes: int = 0
    gaps: int = 0
    began: int = 0
    deepest: Problem | None = None
    exhausted: Undecided | None = None
    deadline: float | None = None
    touchable: tuple[frozenset[bytes], tuple[tuple[bytes, bytes], ...]] | None = None
    facts: Facts | None = None
    leased: frozenset[bytes] | None = None

    @staticmethod
    def old_ranges(request: Any) -> list[RangeRequest]:
        """Ranges of a Txn that name a revision."""
        return [r for r in ranges(request) if r.revision > 0] if type(request) is TxnRequest else []

    # ---- filling ----

    def fill(self, state: State, revision: int, own: list[Writer], matching: Matching) -> Way | None:
        """The first way to fill the gap at `revision`, its writer reserved; None where there is none."""
        self.gaps += 1
        if self.deadline is None:
            self.deadline = time.monotonic() + (SECONDS if self.budget_s is None else self.budget_s)
        self.nodes += 1
        ways = self._ways(state, revision, own, matching)
        iterator = self._reserved(ways, matching)
        way = next(iterator, None)
        if way is None:
            return None
        if len(ways) == 1 and not self.guesses:
            return way
        if not self.guesses:
            self.began = revision
        touched = frozenset(event.kv.key for each in ways for event in each.events)
        self.guesses.append(Guess(revision, way, iterator, len(self.trail), touched, len(ways) > 1))
        return way

    @staticmethod
    def _reserved(ways: list[Way], matching: Matching) -> Iterator[Way]:
        for way in ways:
            if matching.reserve(way.writer):
                yield way

    def _ways(self, state: State, revision: int, own: list[Writer], matching: Matching) -> list[Way]:
        shown = self._known().shown.get(revision, {})
        latest, earliest = self.timing.latest_of(revision), self.timing.earliest_of(revision)
        ways: dict[object, Way] = {}
        # Where no value was shown of this revision, a Put of a key is refuted by what is known of the key, whatever it puts.
        free = not shown and revision not in self.evidence.events
        refuted: set[bytes] = set()
        for writer in (*own, *self._worth_trying(state, revision, latest, shown)):
            if writer.name in matching.reserved:
                continue
            shape = self._shape(writer)
            if shape in ways:
                continue
            key = _only_key(writer) if free else None
            if key is not None and key in refuted:
                continue
            events = in_key_order(effect_of(state, writer))
            if not events or not self._agrees(revision, events, shown):
                if key is not None:
                    refuted.add(key)
                continue
            ways[shape] = Way(writer, events)
        return sorted(ways.values(), key=lambda way: self._rank(way, revision, earliest))

    def _worth_trying(self, state: State, revision: int, latest: int, shown: dict[bytes, tuple[KeyValue, bool]]) -> Iterable[Writer]:
        """Everybody, or where a value was shown only those who put it."""
        told = [event.kv for event in self.evidence.events.get(revision, ()) if event.type == PUT]
        for kv in (*told, *(kv for kv, complete in shown.values() if complete)):
            if kv.version:
                key = kv.key
                found = {w.name: w for w in (*self.pool.by_put.get((key, kv.value), ()), *self.pool.by_kept_value.get(key, ()))}
                return [w for w in found.values() if w.call <= latest or not self.pool.real_time]
        return self.pool.everybody(state, latest)

    def _shape(self, writer: Writer) -> object:
        """Equal for writers that are the same to everything recorded."""
        op = writer.operation
        known = self._known()
        if op is not None and type(op.input) is PutRequest and op.input.value not in known.values and not known.values_ordered:
            return op.input._replace(value=b"", prev_kv=False)
        return writer.name

    def _rank(self, way: Way, revision: int, earliest: int) -> tuple[int, int, int]:
        """What is due first comes first, then what its caller was still waiting for, then the rest; a lease's own end last."""
        known = self._known()
        dates = [date for event in way.events if (date := known.due(event, revision)) is not None]
        if dates:
            return (0, min(dates), way.writer.call)
        op = way.writer.operation
        if op is None:
            return (3, 0, way.writer.call)
        waited = op.gave_up if op.gave_up is not None else op.call
        return (1 if waited >= earliest else 2, 0, way.writer.call)

    # ---- what is known ----

    def _agrees(self, revision: int, events: tuple[Event, ...], shown: dict[bytes, tuple[KeyValue, bool]]) -> bool:
        for told in self.evidence.events.get(revision, ()):
            if not any(event[:2] == told[:2] for event in events):
                return False
        by_key = {event.kv.key: event for event in events}  # Of a key put and deleted in one Txn, what is left of it.
        for key, (kv, complete) in shown.items():
            event = by_key.get(key)
            if event is None or event.type == DELETE or event.kv[1:4] != kv[1:4] or (complete and event.kv != kv):
                return False
        if any(key not in by_key or by_key[key].type == DELETE for key in self._known().touched.get(revision, ())):
            return False
        return not any(self._known().refuted(event, revision) for key, event in by_key.items() if key not in shown)

    def _known(self) -> Facts:
        """What answers show, put together at the first gap."""
        if self.facts is None:
            gaps = {r for r in range(self.timing.first, self.timing.last + 1) if r not in self.b.writes and r not in self.evidence.whole}
            keys, spans = self._touchable()
            pending = [w.operation.input for w in self.pool.writers if w.operation is not None]
            self.facts = Facts(self.b, self.evidence, pending, gaps, None if spans else keys, self._may_vanish)
        return self.facts

    def _may_vanish(self, key: bytes) -> bool:
        """Whether a writer of the pool, or the end of a lease, may delete `key`."""
        if key in self.pool.by_delete or any(within(key, start, end) for start, end, _ in self.pool.by_range):
            return True
        return bool(self.b.grants or self.b.revokes or self.pool.by_revoke) and key in self._leased_keys()

    def _leased_keys(self) -> frozenset[bytes]:
        """Keys that some request attaches to a lease."""
        if self.leased is None:
            requests = [op.input for op in (*self.b.writes.values(), *self.b.pending)]
            self.leased = frozenset(key for request in requests for key in _leased(request))
        return self.leased

    def shown_at(self, revision: int) -> list[Event]:
        """What is shown of `revision`, as events."""
        return [Event(PUT, kv, None) for kv, _ in self._known().shown.get(revision, {}).values()] + [
            *self.evidence.events.get(revision, ())
        ]

    # ---- taking back ----

    def remember(self, state: State, events: Iterable[Event]) -> None:
        """Note what `events` are about to replace."""
        for event in events:
            self.trail.append((event.kv.key, state.kvs.get(event.kv.key)))

    def may_rest_on_guess(self, problem: Problem) -> bool:
        """Whether another guess could make `problem` go away."""
        if not self.guesses:
            return False
        if problem.touched is None:
            return True
        keys, spans = self._touchable()
        for key, end in problem.touched:
            if not end and key in keys:
                return True
            if end and any(within(k, key, end) for k in keys):
                return True
            for other, other_end in spans:
                if within(key, other, other_end) or (end and (within(other, key, end) or other_end == b"\0" or other_end > key)):
                    return True
        return False

    def _touchable(self) -> tuple[frozenset[bytes], tuple[tuple[bytes, bytes], ...]]:
        """Every key and every range that some writer of the pool could write."""
        if self.touchable is None:
            keys = {key for key, _ in self.pool.by_put} | set(self.pool.by_kept_value) | set(self.pool.by_delete)
            spans = [(start, end) for start, end, _ in self.pool.by_range]
            keys |= self._leased_keys()
            self.touchable = frozenset(keys), tuple(spans)
        return self.touchable

    def take_back(self, state: State, matching: Matching, order: Order, problem: Problem) -> int | None:
        """Undo to the last guess with another way and take that; its revision. None where none is left or the budget is spent."""
        if self.deepest is None or problem.revision >= self.deepest.revision:
            self.deepest = problem
        while self.guesses:
            guess = self.guesses[-1]
            self._undo(state, guess)
            matching.drop_from(guess.revision)
            matching.release(guess.way.writer)
            if self.nodes > NODES or (self.deadline is not None and time.monotonic() > self.deadline):
                self.exhausted = exhausted(self.nodes, self.gaps)
                state.revision = self.began - 1
                while self.guesses:
                    self._undo(state, self.guesses[-1])
                    matching.release(self.guesses.pop().way.writer)
                return None
            way = next(guess.others, None)
            if way is None:
                self.guesses.pop()
                continue
            self.nodes += 1
            guess.way = way
            self.remember(state, way.events)
            advance(state, guess.revision, way.events)
            if state.leases is not None:
                state.leases = self.b.leases_after(guess.revision - 1)
            order.events[guess.revision] = way.events
            order.written_by.pop(guess.revision, None)
            if way.writer.operation is not None:
                order.written_by[guess.revision] = way.writer.operation.id
            return guess.revision
        return None

    def _undo(self, state: State, guess: Guess) -> None:
        while len(self.trail) > guess.mark:
            key, old = self.trail.pop()
            current = state.kvs.get(key)
            if current is not old:
                replace_key(state, key, current, old)
            if state.past is not None:
                state.past[key].pop()
        state.revision = guess.revision - 1

    def mark_doubtful(self, order: Order) -> None:
        """Where a guess had several ways, its revision and later ones that touch the same keys are not proven."""
        doubtful: set[bytes] = set()
        starts = {guess.revision: guess.touched for guess in self.guesses if guess.several}
        if not starts:
            return
        for revision in range(min(starts), order.last + 1):
            if revision in starts:
                doubtful |= starts[revision]
                order.unknown.add(revision)
            elif any(event.kv.key in doubtful for event in order.events.get(revision, ())):
                order.unknown.add(revision)
        for revision in order.unknown:
            order.events.pop(revision, None)
            order.written_by.pop(revision, None)


def _only_key(writer: Writer) -> bytes | None:
    """The key of a writer that does nothing but put it, None of any other."""
    request = None if writer.operation is None else writer.operation.input
    if type(request) is PutRequest and not (request.lease or request.ignore_value or request.ignore_lease):
        return request.key
    return None


def _leased(request: Any) -> list[bytes]:
    if type(request) is PutRequest:
        return [request.key] if request.lease or request.ignore_lease else []
    if type(request) is TxnRequest:
        return [key for op in request.success + request.failure for key in _leased(op)]
    return []


def exhausted(nodes: int, gaps: int) -> Undecided:
    """The budget was spent."""
    return Undecided(
        reason=f"who made {gaps} revisions that nobody was acknowledged for was not settled within the search budget ({nodes} tries)",
        would_decide="a larger --budget, or a watch of the whole keyspace, with which no search is needed",
        checker="kv",
    )


__all__ = ["NODES", "SECONDS", "Guess", "Search", "Way"]
