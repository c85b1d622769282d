"""Builders of watch histories for the checkers' tests: a few events, a stream, a case, nothing else.

::

    put(r, "a", "x"), delete(r, "a")      the event that revision r made (create revision and version follow from `story`)
    story(...)                            events of successive revisions with create revision, version and prev_kv worked out
    script(...).create(...).say(...)      one gRPC stream, message by message, on a clock that ticks 10 ns a message
    case_of(streams, operations)          what a checker is given, with the order that `story` says
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oracle.both import agree
from pekan.checkers.case import Case, Options, Order
from pekan.history.types import History, Operation, Stream, StreamMessage
from pekan.wire import messages as wire
from pekan.wire.errors import COMPACTED, OUT_OF_RANGE, WireError
from pekan.wire.messages import (
    CompactionRequest,
    CompactionResponse,
    Event,
    Header,
    KeyValue,
    PutRequest,
    PutResponse,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchResponse,
)

ALL = (b"\0", b"\0")
"""key and range_end of the whole keyspace."""


def header(revision: int, member_id: int = 1) -> Header:
    return Header(7, member_id, revision, 2)


def story(*revisions: Sequence[str], first: int = 2) -> dict[int, tuple[Event, ...]]:
    """Revision -> its events in key order, with full prev_kv. Each revision is a list of "key=value" (put) and "-key" (delete)."""
    state: dict[bytes, KeyValue] = {}
    events: dict[int, tuple[Event, ...]] = {}
    for revision, changes in enumerate(revisions, start=first):
        made = []
        for change in changes:
            name, _, value = change.partition("=")
            if name.startswith("-"):
                key = name[1:].encode()
                made.append(Event(wire.DELETE, KeyValue(key, 0, revision, 0, b"", 0), state.pop(key)))
            else:
                key = name.encode()
                old = state.get(key)
                new = KeyValue(key, old.create_revision if old else revision, revision, old.version + 1 if old else 1, value.encode(), 0)
                made.append(Event(wire.PUT, new, old))
                state[key] = new
        events[revision] = tuple(sorted(made, key=lambda event: event.kv.key))
    return events


def bare(events: Iterable[Event]) -> tuple[Event, ...]:
    """`events` as a watch without prev_kv shows them."""
    return tuple(event._replace(prev_kv=None) for event in events)


@dataclass
class Script:
    """One watch stream being written. Every message takes 10 ns; `at` moves the clock."""

    id: int = 1
    member: str = "m1"
    client: str = "watch-m1-0"
    now: int = 1_000
    messages: list[StreamMessage] = field(default_factory=list)
    ended: int | None = None

    def _add(self, sent: bool, message: Any) -> Script:
        self.now += 10
        self.messages.append(StreamMessage(self.now, sent, message))
        return self

    def at(self, now: int) -> Script:
        assert now > self.now, "a stream's clock runs forward"
        self.now = now - 10
        return self

    def ask(self, key: bytes = b"\0", range_end: bytes = b"\0", start: int = 0, **options: Any) -> Script:
        return self._add(True, WatchCreateRequest(key, range_end, start, **options))

    def created(self, revision: int, watch_id: int = 0) -> Script:
        return self._add(False, WatchResponse(header(revision), watch_id, True, False, 0, "", False, ()))

    def create(self, key: bytes = b"\0", range_end: bytes = b"\0", start: int = 0, *, at: int = 1, wid: int = 0, **options: Any) -> Script:
        """Ask and be answered with a header of revision `at`."""
        return self.ask(key, range_end, start, **options).created(at, wid)

    def refused(self, revision: int, reason: str = "etcdserver: permission denied") -> Script:
        return self._add(False, WatchResponse(header(revision), -1, True, True, 0, reason, False, ()))

    def say(self, *events: Event, revision: int | None = None, wid: int = 0, fragment: bool = False) -> Script:
        """A message with events, its header at `revision` (the last event's where not given)."""
        shown = revision if revision is not None else max(event.kv.mod_revision for event in events)
        return self._add(False, WatchResponse(header(shown), wid, False, False, 0, "", fragment, events))

    def progress(self, revision: int, wid: int = 0) -> Script:
        return self._add(False, WatchResponse(header(revision), wid, False, False, 0, "", False, ()))

    def ask_progress(self) -> Script:
        return self._add(True, WatchProgressRequest())

    def cancel(self, wid: int = 0) -> Script:
        return self._add(True, WatchCancelRequest(wid))

    def canceled(self, revision: int = 0, wid: int = 0, compact_revision: int = 0) -> Script:
        return self._add(False, WatchResponse(header(revision), wid, False, True, compact_revision, "", False, ()))

    def end(self) -> Script:
        self.now += 10
        self.ended = self.now
        return self

    def stream(self) -> Stream:
        return Stream(self.id, wire.WATCH, self.client, self.member, "", tuple(self.messages), self.ended, 0, "", False)


def compaction(operation: int, revision: int, call: int, outcome: str = "ok") -> Operation:
    answers = {"ok": CompactionResponse(header(revision)), "failed": WireError(OUT_OF_RANGE, COMPACTED)}
    answer, ret = answers.get(outcome), call + 5 if outcome in answers else None
    return Operation(operation, operation, call, ret, outcome, CompactionRequest(revision), answer, wire.COMPACT, "kv-0", "m1")  # type: ignore[arg-type]


def writes(events: dict[int, tuple[Event, ...]], *, call: int = 10, base: int = 1_000) -> tuple[Operation, ...]:
    """One operation per revision, invoked in order a nanosecond apart from `call` on. Operation `base + revision` wrote `revision`.

    The requests are puts of the first key, whatever the revision did: the watch checker reads the order and not the requests.
    """
    return tuple(
        Operation(
            base + revision,
            revision,
            call + at,
            call + at + 1,
            "ok",
            PutRequest(made[0].kv.key, made[0].kv.value),
            PutResponse(header(revision), None),
            wire.PUT_METHOD,
            "kv-0",
            "m1",
        )
        for at, (revision, made) in enumerate(sorted(events.items()))
    )


def case_of(
    events: dict[int, tuple[Event, ...]],
    *scripts: Script,
    operations: Sequence[Operation] = (),
    unknown: Iterable[int] = (),
    start: str = "empty",
    options: Options | None = None,
    order: bool = True,
) -> Case:
    """A case whose streams are `scripts` and whose established order is `events`; `operations` come beside the writes of it."""
    made = writes(events)
    history = History(
        operations=tuple(sorted((*made, *operations), key=lambda op: op.call)),
        streams=tuple(script.stream() for script in scripts),
        start=start,  # type: ignore[arg-type]
    )
    agree(history, options)
    case = Case(history, options or Options())
    if order:
        case.order = Order(min(events), max(events), dict(events), set(unknown), {revision: 1_000 + revision for revision in events})
    return case
