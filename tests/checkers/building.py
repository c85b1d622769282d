"""Small histories by hand: a store that answers as etcd does, on a clock that the test moves.

::

    story = Story()
    story.put("k", "1")                      one request after the other, each answered as the store stands
    lost = story.lost(PutRequest(...))       an unanswered request; story.takes_effect(lost) makes it happen
    story.change(-1, output=...)             then one answer is made wrong
    story.codes()                            what the checker finds
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from oracle.both import agree
from pekan.checkers.case import Case, Options
from pekan.checkers.kv import check_kv
from pekan.history.types import FAILED, INDEFINITE, OK, History, Mark, Operation, Stream, StreamMessage
from pekan.models.etcd import Evaluated, Refused, State, advance, apply, effect, revoke_events
from pekan.verdict import CheckerReport
from pekan.wire.errors import FAILED_PRECONDITION, NOT_FOUND, OUT_OF_RANGE, UNAVAILABLE, WireError
from pekan.wire.messages import (
    WATCH,
    DeleteRangeRequest,
    Event,
    Header,
    PutRequest,
    RangeRequest,
    WatchCreateRequest,
    WatchResponse,
)

STEP = 10
"""ns between two moments of a story."""
ALL = (b"\0", b"\0")
LOST = WireError(UNAVAILABLE, "etcdserver: request timed out")
_CODES = {
    "etcdserver: requested lease not found": NOT_FOUND,
    "etcdserver: lease already exists": FAILED_PRECONDITION,
    "etcdserver: key not found": 3,
}


def header(revision: int, member: int = 1) -> Header:
    return Header(7, member, revision, 2)


def get(key: bytes, **options: Any) -> RangeRequest:
    return RangeRequest(key, **options)


def everything(**options: Any) -> RangeRequest:
    return RangeRequest(*ALL, **options)


class Story:
    """A history under construction, and the store that it is about."""

    def __init__(self, start: str = "empty", watched: bool = False) -> None:
        self.state = State()
        self.now = 0
        self.operations: list[Operation] = []
        self.start = start
        self.watched = watched
        self.delivered: dict[str, list[StreamMessage]] = {"m1": []} if watched else {}
        self.marks: list[Mark] = []

    def tick(self) -> int:
        self.now += STEP
        return self.now

    def do(self, request: Any, *, process: int = 0, member: str = "m1", call: int | None = None, ret: int | None = None) -> Operation:
        """`request` is answered now, as etcd would."""
        began = self.tick() if call is None else call
        before = self.state.revision
        outcome = apply(self.state, request)
        ended = self.tick() if ret is None else ret
        if isinstance(outcome, Refused):
            return self.add(request, FAILED, WireError(_CODES.get(outcome.text, OUT_OF_RANGE), outcome.text), began, ended, process, member)
        self._deliver(outcome, before)
        answer = outcome.answer._replace(header=header(outcome.answer.header.revision))
        return self.add(request, OK, answer, began, ended, process, member)

    def add(self, request: Any, outcome: Any, output: Any, call: int, ret: int | None, process: int = 0, member: str = "m1") -> Operation:
        """An operation as given; the store does not hear of it."""
        op = Operation(len(self.operations), process, call, ret, outcome, request, output, client=f"kv-{process}", member=member)
        self.operations.append(op)
        return op

    def put(self, key: bytes, value: bytes = b"", **options: Any) -> Operation:
        process = options.pop("process", 0)
        return self.do(PutRequest(key, value, **options), process=process)

    def get(self, key: bytes, **options: Any) -> Operation:
        return self.do(get(key, **options))

    def delete(self, key: bytes, range_end: bytes = b"", **options: Any) -> Operation:
        return self.do(DeleteRangeRequest(key, range_end, **options))

    def lost(self, request: Any, process: int = 100) -> Operation:
        """`request` is sent and never answered."""
        call = self.tick()
        op = self.add(request, INDEFINITE, LOST, call, None, process + len(self.operations))
        self.operations[-1] = op._replace(gave_up=self.tick())
        return self.operations[-1]

    def refused(self, request: Any, text: str, code: int = OUT_OF_RANGE) -> Operation:
        """`request` is refused whatever the store says."""
        return self.add(request, FAILED, WireError(code, text), self.tick(), self.tick())

    def takes_effect(self, op: Operation) -> None:
        """What `op` asked for happens now, unseen by who asked."""
        self._happens(effect(self.state, op.input))

    def expires(self, lease: int) -> None:
        """A lease runs out."""
        self._happens(revoke_events(self.state, lease))

    def _happens(self, events: tuple[Event, ...]) -> None:
        before = self.state.revision
        if events:
            advance(self.state, before + 1, events)
        self._deliver(Evaluated(None, events), before)

    def _deliver(self, outcome: Evaluated, before: int) -> None:
        if outcome.events:
            for member in self.delivered:
                self.deliver(member, before + 1, outcome.events)

    def deliver(self, member: str, revision: int, events: tuple[Event, ...]) -> None:
        """A watch of everything on `member` delivers `events` now."""
        message = WatchResponse(header(revision), 0, False, False, 0, "", False, tuple(events))
        self.delivered.setdefault(member, []).append(StreamMessage(self.tick(), False, message))

    def change(self, op: Operation, **fields: Any) -> Operation:
        """Let `op` have been recorded otherwise."""
        at = next(index for index, each in enumerate(self.operations) if each.id == op.id)
        self.operations[at] = self.operations[at]._replace(**fields)
        return self.operations[at]

    def answer(self, op: Operation, **fields: Any) -> Operation:
        """Let the answer to `op` have been another."""
        return self.change(op, output=op.output._replace(**fields))

    def history(self, **fields: Any) -> History:
        streams = []
        for number, (member, messages) in enumerate(self.delivered.items()):
            create = StreamMessage(0, True, WatchCreateRequest(*ALL, start_revision=1, prev_kv=True))
            created = StreamMessage(1, False, WatchResponse(header(1), 0, True, False, 0, "", False, ()))
            streams.append(Stream(number, WATCH, f"watch-{member}", member, "", (create, created, *messages), None, 0, "", False))
        operations = tuple(sorted(self.operations, key=lambda op: op.call))
        history = History(operations, tuple(streams), marks=tuple(self.marks), start=self.start)
        return replace(history, **fields)

    def case(self, options: Options | None = None, **fields: Any) -> Case:
        return Case(self.history(**fields), options or Options())

    def report(self, options: Options | None = None, **fields: Any) -> CheckerReport:
        case = self.case(options, **fields)
        agree(case.history, case.options)
        return check_kv(case)

    def codes(self, options: Options | None = None, **fields: Any) -> list[str]:
        """The codes that count."""
        return [finding.code for finding in self.report(options, **fields).findings if finding.status == "counts"]
