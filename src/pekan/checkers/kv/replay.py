"""The store, revision by revision, and every answer held against it.

::

    for revision r:
        acknowledged write   evaluate its request at S(r-1): its answer must be that, its events must be what a watch of everything saw
        no such write        a gap: who can have made it?     events known: matching (pool.py)     else: search (search.py)
        S(r)                 = S(r-1) with the events of r
        what saw r           must answer S(r)

A contradiction while nothing is guessed is a finding. One that may rest on a guess takes the guess back. After a wrong *answer* the replay
goes on, for the state is known all the same; after a *write* whose effect is in doubt it stops, and what comes later is not judged.

Cost: about 1 us per Put or Get, 2 us per list of ten keys, 5 us per Txn of three operations; memory: the live keys, and one event for each
revision (`Case.order`).
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pekan.checkers import telling
from pekan.checkers.case import Order
from pekan.checkers.evidence import Watched, same_change
from pekan.checkers.kv import problems
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.pool import Matching, Pool, Writer, effect_of, in_key_order
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.refusals import Refusals
from pekan.checkers.kv.search import Search
from pekan.checkers.kv.timing import Timing
from pekan.history.types import Operation
from pekan.models.etcd import (
    Refused,
    State,
    advance,
    effect,
    evaluate,
    holds,
    range_answer,
    replace_key,
    span,
)
from pekan.verdict import Exhibit, Undecided
from pekan.wire.messages import (
    DELETE,
    PUT,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    LeaseGrantRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
)

PLAIN = (b"", 0, 0, 0, 0)
"""RangeRequest from range_end to sort_target, where one key is asked for as it is."""
NOT_PLAIN = (False, False, 0, 0, 0, 0)
"""RangeRequest from keys_only on, where nothing is asked that changes the answer's shape."""
UNFILTERED = (0, 0, 0, 0)
"""RangeRequest from min_mod_revision on, where nothing is filtered."""


IN_THE_FUTURE = "a refusal: that revision is in the future"
"""What a Range deserves that names a revision above that of its answer."""


class Contradiction(Exception):
    """A problem that may rest on a guess."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.finding.summary)
        self.problem = problem


@dataclass(slots=True)
class Result:
    """What the replay established.

    order        the revisions replayed; `stopped` is the first that was not, None where all were
    problems     what was found, in order of revision
    state        the store after the last revision replayed
    """

    order: Order
    state: State
    problems: list[Problem] = field(default_factory=list)
    undecided: list[Undecided] = field(default_factory=list)
    stopped: int | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every revision was replayed and every answer is right."""
        return not self.problems and not self.undecided and self.stopped is None


class Replay:
    """One pass over the revisions from `state` on; see the module. Everything it needs is given, it reads no history."""

    def __init__(
        self,
        buckets: Buckets,
        state: State,
        timing: Timing,
        evidence: Watched,
        pool: Pool,
        suspects: Pool,
        search: Search,
        refusals: Refusals,
        shared_writers: bool,
    ) -> None:
        self.b = buckets
        self.state = state
        self.base = state.revision
        self.timing = timing
        self.evidence = evidence
        self.pool = pool
        self.suspects = suspects
        self.search = search
        self.refusals = refusals
        self.shared_writers = shared_writers
        self.matching = Matching()
        self.order = Order(timing.first, timing.last)
        self.result = Result(self.order, state)
        self.reported: set[int] = set()
        self.gaps = 0
        self.put_by: dict[tuple[bytes, bytes], list[tuple[int, Operation]]] | None = None

    # ---- the pass ----

    def run(self) -> Result:
        """Replay every revision that can be; the result is complete when this returns."""
        revision = self.timing.first
        self._observe_all(self.timing.first - 1)
        last = self.timing.last
        while revision <= last:
            try:
                if not self._write(revision):
                    self.result.stopped = revision
                    break
                self._observe_all(revision)
            except Contradiction as found:
                back = self._back(found.problem)
                if back is None:
                    break
                revision = back
            revision += 1
        self._finish(revision if self.result.stopped is None else self.result.stopped)
        return self.result

    def _finish(self, revision: int) -> None:
        order, result = self.result.order, self.result
        order.last = revision - 1
        for beyond in [r for r in order.events if r > order.last]:
            del order.events[beyond]
            order.written_by.pop(beyond, None)
        for gap, writer in self.matching.writer_of.items():
            if writer.operation is not None and gap <= order.last:
                order.written_by[gap] = writer.operation.id
        self.search.mark_doubtful(order)
        if not self.search.guesses and self.search.exhausted is None:
            # After guesses a refusal may have been held against states that were not.
            matching = self.matching
            all_used = not any(self.state.attached.values()) and all(
                writer.name in matching.reserved or writer.name in matching.gap_of for writer in self.pool.writers
            )
            result.problems += [problem for problem in self.refusals.problems(all_used) if problem.revision <= order.last]
        result.counts |= {
            "revisions": max(0, order.last - order.first + 1),
            "gaps": self.gaps,
            "gaps matched": len(self.matching.writer_of),
            "gaps searched": self.search.gaps,
            "search nodes": self.search.nodes,
        }

    def _back(self, problem: Problem) -> int | None:
        """Take back the last guess that has another way; the revision settled then. None where there is none, or the budget is spent."""
        while True:
            revision = self.search.take_back(self.state, self.matching, self.result.order, problem)
            if revision is None:
                break
            try:
                self._observe_all(revision)
            except Contradiction as found:
                problem = found.problem
            else:
                return revision
        self.result.stopped = self.search.began
        if self.search.exhausted is not None:
            self.result.undecided.append(self.search.exhausted)
        else:
            self.result.problems.append(self.search.deepest or problem)
        return None

    def _report(self, problem: Problem) -> None:
        """A problem is a finding unless a guess may be behind it."""
        if self.search.may_rest_on_guess(problem):
            raise Contradiction(problem)
        key = hash((problem.finding.code, problem.finding.summary))
        if key not in self.reported:
            self.reported.add(key)
            self.result.problems.append(problem)

    # ---- writes ----

    def _write(self, revision: int) -> bool:
        """Make `revision`. False where its effect cannot be told, and everything after it therefore not judged."""
        op = self.b.writes.get(revision)
        known = self.evidence.events.get(revision) if revision in self.evidence.whole else None
        if op is None:
            return self._gap(revision, known)
        events = self._confirmed(op.input, op.output, revision, known) or self._evaluated(op, revision)
        if events is None:
            if known is None:
                return False
            events = self._with_prev(known)
        elif known is not None and known is not events and known != events and not same_change(in_key_order(events), known):
            self._contradicted(op, revision, events, known)
            return False
        self._make(revision, events, known)
        self.order.written_by[revision] = op.id
        return True

    def _confirmed(self, request: Any, answer: Any, revision: int, known: tuple[Event, ...] | None) -> tuple[Event, ...] | None:
        """The one event of a common write (a Put, a deletion of one key, a Txn that did one of these) whose answer is right; else None.

        Nine writes in ten are of these shapes, and a few comparisons confirm their answers without making the right one. What is not
        confirmed here is no finding: it goes the general way, which has the last word. Where a watch showed the very event (`known`), that
        is taken instead of making another.
        """
        kind = type(request)
        if kind is TxnRequest:
            compares, success, failure = request
            _, succeeded, responses = answer
            taken = success if succeeded else failure
            if len(taken) != 1 or len(responses) != 1 or type(taken[0]) is TxnRequest:
                return None
            if self._guarded(compares) != succeeded or responses[0].header.revision not in (0, revision):
                return None
            request, answer = taken[0], responses[0]
            kind = type(request)
        if kind is PutRequest:
            key, value, lease, prev_kv, ignore_value, ignore_lease = request
            if ignore_value or ignore_lease or type(answer) is not PutResponse:
                return None
            old = self.state.kvs.get(key)
            if answer[1] != (old if prev_kv else None):
                return None
            change: tuple[bytes, int, int, int, bytes, int] = (
                (key, revision, revision, 1, value, lease) if old is None else (key, old[1], revision, old[3] + 1, value, lease)
            )
            what = PUT
        elif kind is DeleteRangeRequest:
            key, range_end, prev_kv = request
            old = self.state.kvs.get(key)
            if range_end or old is None or type(answer) is not DeleteRangeResponse:
                return None
            if answer[1] != 1 or answer[2] != ((old,) if prev_kv else ()):
                return None
            change = (key, 0, revision, 0, b"", 0)
            what = DELETE
        else:
            return None
        if known is not None and len(known) == 1:
            event = known[0]
            if event[0] == what and event[1] == change:
                return known if event[2] is old or event[2] == old else (Event(what, event[1], old),)
        return (Event(what, KeyValue(*change), old),)

    def _guarded(self, compares: tuple[Compare, ...]) -> bool:
        """Which branch a Txn takes here."""
        return holds(self.state, compares[0]) if len(compares) == 1 else all(holds(self.state, guard) for guard in compares)

    def _confirmed_read(self, request: Any, answer: Any, revision: int) -> bool:
        """Whether the answer is seen at once to be right: of a deletion of one key that was not there, or a Txn that at most read single
        keys. As in `_confirmed`, False is no finding.
        """
        if type(request) is DeleteRangeRequest:
            return not request.range_end and request.key not in self.state.kvs and answer[1:] == (0, ())
        if type(request) is not TxnRequest:
            return False
        compares, success, failure = request
        _, succeeded, responses = answer
        taken = success if succeeded else failure
        if len(taken) != len(responses) or self._guarded(compares) != succeeded:
            return False
        for op, inner in zip(taken, responses, strict=True):
            if type(op) is not RangeRequest or type(inner) is not RangeResponse or op[1:6] != PLAIN or op[7:] != NOT_PLAIN:
                return False
            header, shown, more, count = inner
            kv = self.state.kvs.get(op[0])
            if more or header[2] not in (0, revision) or count != len(shown) or shown != (() if kv is None else (kv,)):
                return False
        return True

    def _evaluated(self, op: Operation, revision: int) -> tuple[Event, ...] | None:
        """The events of an acknowledged write; None, and a problem, where its answer is not the right one or it writes nothing here."""
        if not self._answerable(op):
            return effect(self.state, op.input)
        # Whether its leases were there is judged apart (leases.py); what the write does is the same.
        leases, self.state.leases = self.state.leases, None
        outcome = evaluate(self.state, op.input, op.output)
        self.state.leases = leases
        if isinstance(outcome, Refused):
            self._wrong(op, revision, f"a refusal: {outcome.text}")
            return None
        if outcome.answer[1:] != op.output[1:] or outcome.answer.header.revision != revision:
            self._wrong(op, revision, outcome.answer)
            return None
        return outcome.events

    def _answerable(self, op: Operation) -> bool:
        """False for a Txn that reads below the revision at which the replay began."""
        return self.base <= 1 or not any(0 < r.revision < self.base for r in self.search.old_ranges(op.input))

    def _wrong(self, op: Operation, revision: int, expected: Any, code: str = "KV-CONTENT") -> None:
        about = problems.first_difference_revision(op.output, expected)
        self._report(problems.wrong_answer(code, op, revision, expected, self._writer_exhibit(about)))

    def _contradicted(self, op: Operation, revision: int, events: tuple[Event, ...], known: tuple[Event, ...]) -> None:
        suspect = self._suspect(known, revision)
        seen = self._seen_exhibit(revision, known)
        if suspect is not None:
            self._report(problems.refused_but_applied(suspect, revision, telling.events(known), (seen, telling.exhibit(op))))
        else:
            self._report(problems.lost_write(op, revision, known, seen))

    def _suspect(self, known: tuple[Event, ...], revision: int) -> Operation | None:
        found = self.suspects.candidates(self.state, known, self.timing.latest_of(revision))
        return next((writer.operation for writer in found if writer.operation is not None), None)

    def _make(self, revision: int, events: tuple[Event, ...], known: tuple[Event, ...] | None) -> None:
        """S(revision) from S(revision - 1). Events get the prev_kv of the replay; a watch's objects are preferred: replies share them."""
        state = self.state
        if self.search.guesses:
            self.search.remember(state, events)
        if len(events) == 1:
            event = events[0]
            if known is not None and known is not events:
                seen = known[0]
                if seen[1] is not event[1]:
                    event = seen if seen[2] is event[2] or seen[2] == event[2] else Event(seen[0], seen[1], event[2])
                    events = (event,)
            kind, kv, old = event
            key = kv[0]
            if kind == PUT and (old[5] if old is not None else 0) == kv[5]:
                state.kvs[key] = kv
                if old is None:
                    insort(state.keys, key)
            else:
                replace_key(state, key, old, kv if kind == PUT else None)
            past = state.past
            if past is not None:
                # A deletion's key-value has version 0, so it is the tombstone that the past keeps.
                kept = kv if kind == PUT or not kv[3] else KeyValue(key, 0, revision, 0, b"", 0)
                if key in past:
                    past[key].append(kept)
                else:
                    past[key] = [kept]
            state.revision = revision
        else:
            # A watch tells what a key was before the revision, also for the second event of a key in it.
            ordered = self._with_prev(in_key_order(events))
            advance(state, revision, events)
            events = ordered
        self.order.events[revision] = events

    # ---- gaps ----

    def _gap(self, revision: int, known: tuple[Event, ...] | None) -> bool:
        self.gaps += 1
        if known is None:
            if self.shared_writers:
                self.result.undecided.append(foreign(revision))
                return False
            return self._guess(revision)
        events = self._with_prev(known)
        if not self.shared_writers:
            choices = [w for w in self._revokers(revision) if same_change(in_key_order(effect_of(self.state, w)), known)]
            choices += self.pool.candidates(self.state, known, self.timing.latest_of(revision))
            if not self.matching.add(revision, choices):
                self._unexplained(revision, known, len(choices))
        self._make(revision, events, known)
        return True

    def _revokers(self, revision: int) -> list[Writer]:
        """The acknowledged revokes that can have been the step to `revision`."""
        latest = self.timing.latest_of(revision)
        return [Writer(op.call, op.id, 0, 0, op) for op in self.b.revokes.get(revision, ()) if op.call <= latest]

    def _with_prev(self, known: tuple[Event, ...]) -> tuple[Event, ...]:
        kvs = self.state.kvs
        return tuple(e if e.prev_kv == kvs.get(e.kv.key) else Event(e.type, e.kv, kvs.get(e.kv.key)) for e in known)

    def _unexplained(self, revision: int, known: tuple[Event, ...], choices: int) -> None:
        seen = self._seen_exhibit(revision, known)
        suspect = self._suspect(known, revision)
        if suspect is not None:
            self._report(problems.refused_but_applied(suspect, revision, telling.events(known), (seen,)))
            return
        repeated = self._repeated(known, revision)
        if repeated is not None:
            self._report(problems.twice(revision, known, repeated, repeated.output.header.revision, (seen,)))
            return
        self._report(problems.unexplained(revision, known, (*self._around(revision), seen), choices))

    def _repeated(self, known: tuple[Event, ...], revision: int) -> Operation | None:
        """An acknowledged write of another revision that puts the same value to the same key."""
        if self.put_by is None:
            self.put_by = defaultdict(list)
            for r, op in self.b.writes.items():
                if type(op.input) is PutRequest and not op.input.ignore_value:
                    self.put_by[op.input.key, op.input.value].append((r, op))
        for event in known:
            if event.type == PUT:
                for r, op in self.put_by.get((event.kv.key, event.kv.value), ()):
                    if r != revision:
                        return op
        return None

    def _around(self, revision: int) -> list[Exhibit]:
        """The nearest acknowledged writes below and above."""
        found = []
        for step in (-1, 1):
            r = revision + step
            while self.timing.first <= r <= self.timing.last and abs(r - revision) < 1000:
                if r in self.b.writes:
                    found.append(telling.exhibit(self.b.writes[r]))
                    break
                r += step
        return found

    def _guess(self, revision: int) -> bool:
        """A gap that no watch of everything showed. False where the budget is spent."""
        chosen = self.search.fill(self.state, revision, self._revokers(revision), self.matching)
        if chosen is None:
            problem = self._nobody(revision)
            if self.search.may_rest_on_guess(problem):
                raise Contradiction(problem)
            if not self.search.evidence_complete:
                self.result.undecided.append(lost_tail(revision))
            else:
                self.result.problems.append(problem)
            return False
        self._make(revision, chosen.events, None)
        if chosen.writer.operation is not None:
            self.order.written_by[revision] = chosen.writer.operation.id
        return True

    def _nobody(self, revision: int) -> Problem:
        shown = self.search.shown_at(revision)
        for event in shown:
            for put in self.suspects.by_put.get((event.kv.key, event.kv.value), ()):
                if put.operation is not None:
                    return problems.refused_but_applied(put.operation, revision, telling.events(shown), self._around(revision))
        repeated = self._repeated(tuple(shown), revision)
        if repeated is not None:
            return problems.twice(revision, shown, repeated, repeated.output.header.revision, self._around(revision))
        return problems.unexplained(revision, shown, self._around(revision), 0)

    # ---- answers ----

    def _observe_all(self, revision: int) -> None:
        """Hold everything that shows the state of `revision` against it."""
        b = self.b
        group = b.readers.get(revision)
        if group is not None:
            self._observe(group, revision, "KV-CONTENT")
        group = b.old.get(revision)
        if group is not None:
            self._observe(group, revision, "KV-CONTENT", old=True)
        group = b.local.get(revision)
        if group is not None:
            self._observe(group, revision, "LOCAL-CONTENT", old=True)
        if b.revokes and revision in b.revokes:
            self._revoked(b.revokes[revision], revision)
        if self.refusals.waiting or revision in self.refusals.starting:
            self.refusals.look(revision, self.state)
        if b.compares and revision in b.compares:
            for op in b.compares[revision]:
                if all(holds(self.state, guard) for guard in op.input.compare) != op.output.succeeded or op.output.responses:
                    self._wrong(op, revision, f"succeeded {not op.output.succeeded}", "KV-CONTENT")

    def _observe(self, group: Sequence[Operation], revision: int, code: str, old: bool = False) -> None:
        state = self.state
        kvs, keys = state.kvs, state.keys
        for op in group:
            request = op.input
            if type(request) is RangeRequest:
                key, range_end, limit, asked, sort_order, sort_target = request[:6]
                header, shown, more, count = op.output
                if asked:
                    if 0 < asked < header[2] and not old:
                        continue
                    if asked > header[2]:
                        self._wrong(op, revision, IN_THE_FUTURE, code)
                        continue
                # The common shapes are confirmed without making the right answer; what is not confirmed goes the general way below.
                keys_only, count_only = request[7:9]
                if count_only:
                    # Counted before filters, order and limit.
                    low, high = span(keys, key, range_end) if range_end else (0, key in kvs)
                    if count == high - low and not shown and not more:
                        continue
                elif not sort_order and not sort_target and request[9:] == UNFILTERED and (not keys_only or not range_end):
                    if not range_end:
                        kv = kvs.get(key)
                        if kv is None:
                            if not shown and count == 0 and not more:
                                continue
                        elif len(shown) == 1 and count == 1 and not more:
                            seen = shown[0]
                            if keys_only:
                                if seen[:5] == (*kv[:4], b"") and seen[5] in (0, kv[5]):
                                    continue
                            elif seen is kv:
                                continue
                            elif seen == kv:
                                kvs[key] = seen  # The same, but the object that later replies will show too.
                                continue
                    else:
                        low, high = span(keys, key, range_end)
                        cut = 0 < limit < high - low
                        if high - low == count and cut == more:
                            if tuple([kvs[k] for k in keys[low : low + limit if cut else high]]) == shown:
                                continue
                expected = range_answer(request, state.find(key, range_end), header, op.output)
                if expected[1:] != (shown, more, count):
                    self._wrong(op, revision, expected, code)
            elif type(request) is LeaseGrantRequest:
                if state.leases is not None and self.b.lives_after(op.output.id, revision):
                    state.leases[op.output.id] = 0
            elif self._confirmed_read(request, op.output, revision):
                continue
            elif self._answerable(op):
                outcome = evaluate(state, request, op.output)
                if isinstance(outcome, Refused):
                    self._wrong(op, revision, f"a refusal: {outcome.text}", code)
                elif outcome.answer[1:] != op.output[1:] or outcome.events:
                    self._wrong(op, revision, outcome.answer, code)

    def _revoked(self, group: Sequence[Operation], revision: int) -> None:
        """An acknowledged revoke leaves no key attached at its revision, whether or not it made that revision."""
        for op in group:
            left = self.state.attached.get(op.input.id)
            if left:
                self._wrong(op, revision, still_attached(len(left), min(left)))
            leases = self.state.leases
            if leases is not None and op.input.id in leases and not self.b.lives_after(op.input.id, revision):
                del leases[op.input.id]

    # ---- exhibits ----

    def _writer_exhibit(self, revision: int | None) -> Exhibit | None:
        if revision is None:
            return None
        op = self.b.writes.get(revision)
        if op is not None:
            return telling.exhibit(op)
        known = self.evidence.events.get(revision)
        return None if known is None else self._seen_exhibit(revision, known)

    def _seen_exhibit(self, revision: int, known: Sequence[Event]) -> Exhibit:
        return problems.seen_exhibit(revision, self.evidence.seen.get(revision), known)


def still_attached(keys: int, first: bytes) -> str:
    """What is wrong with an acknowledged revoke: so many keys are left, `first` the lowest."""
    return f"{keys} keys still attached to the lease, among them {telling.text(first)}"


def foreign(revision: int) -> Undecided:
    """Writers are shared, and nobody showed what one of them did."""
    return Undecided(
        reason=f"revision {revision} was made by someone who is not in the record (writers are shared), and no watch of all shows it",
        would_decide="record a watch of the whole keyspace",
        checker="kv",
    )


def lost_tail(revision: int) -> Undecided:
    """The request that explains the revision may be in what was cut off."""
    return Undecided(
        reason=f"revision {revision} is explained by no recorded request, but the record was cut and may lack one",
        would_decide="a record that is not cut",
        checker="kv",
    )
