"""Builders of histories for the tests of leases, members, auth and the run itself: on a clock of milliseconds, nothing else.

::

    Clock().op("m1", request, response)     one operation after the other, 10 ms each, 10 ms apart
    Clock().at(5_000)                       go to that millisecond
    case(clock, ...)                        what a checker is given
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oracle.both import agree
from pekan.checkers.case import Case, Options, Order
from pekan.history.types import FAILED, INDEFINITE, OK, FaultSpan, History, Mark, Operation, Outcome, Stream, StreamMessage
from pekan.plan import Plan
from pekan.wire import messages as wire
from pekan.wire import pb
from pekan.wire.errors import PERMISSION, PERMISSION_DENIED, UNAVAILABLE, WireError
from pekan.wire.messages import Event, Header, KeyValue, LeaseKeepAliveRequest, LeaseKeepAliveResponse

MS = 1_000_000
DENIED = WireError(PERMISSION_DENIED, PERMISSION)
LOST = WireError(UNAVAILABLE, "connection lost")
CLUSTER = 7


def header(revision: int = 1, member: str = "m1") -> Header:
    return Header(CLUSTER, int(member[1:]), revision, 2)


def pb_header(revision: int = 1, member: str = "m1") -> pb.ResponseHeader:
    return pb.ResponseHeader(cluster_id=CLUSTER, member_id=int(member[1:]), revision=revision, raft_term=2)


class Clock:
    """A history under construction. `now` is the clock's ms; every operation takes 10 ms and is followed by 10 ms of nothing."""

    def __init__(self) -> None:
        self.now = 0
        self.operations: list[Operation] = []
        self.streams: list[Stream] = []
        self.marks: list[Mark] = []
        self.faults: list[FaultSpan] = []

    def at(self, ms: int) -> Clock:
        assert ms >= self.now, "time does not go back"
        self.now = ms
        return self

    def op(
        self,
        member: str,
        request: Any,
        answer: Any,
        *,
        user: str = "",
        client: str = "kv-0",
        took: int = 10,
        stay: bool = False,
    ) -> Operation:
        """One operation, its outcome read off `answer`: a response, a WireError with a definite code, or None for no answer at all.

        `stay`: the clock does not move, so that the next one overlaps.
        """
        call = self.now
        outcome: Outcome = OK
        ret: int | None = (call + took) * MS
        if answer is None or answer == LOST:
            outcome, ret = INDEFINITE, None
        elif isinstance(answer, WireError):
            outcome = FAILED
        number = len(self.operations)
        made = Operation(number, number, call * MS, ret, outcome, request, answer, wire.method_of(request), client, member, user)
        self.operations.append(made)
        if not stay:
            self.now = call + took + 10
        return made

    def keepalive(self, member: str, lease: int, *, ttl: int, asked: int, answered: int) -> None:
        """A KeepAlive stream with one request at `asked` ms, answered at `answered` ms."""
        messages = (
            StreamMessage(asked * MS, True, LeaseKeepAliveRequest(lease)),
            StreamMessage(answered * MS, False, LeaseKeepAliveResponse(header(1, member), lease, ttl)),
        )
        self.streams.append(Stream(len(self.streams), wire.LEASE_KEEP_ALIVE, "lease-0", member, "", messages, None, 0, "", False))

    def watch(self, member: str, messages: Iterable[tuple[int, bool, Any]], *, ended: int | None = None, user: str = "") -> None:
        """A Watch stream of (ms, sent, message)."""
        told = tuple(StreamMessage(ms * MS, sent, message) for ms, sent, message in messages)
        end = None if ended is None else ended * MS
        self.streams.append(Stream(len(self.streams), wire.WATCH, f"watch-{member}-all", member, user, told, end, 0, "", False))

    def mark(self, kind: str, member: str = "", **detail: Any) -> None:
        self.marks.append(Mark(self.now * MS, kind, member, detail))

    def fault(
        self,
        kind: str,
        target: str,
        armed: int,
        fired: int | None,
        healed: int | None,
        *,
        promise: str = "within",
        required: bool = False,
        fault_class: str = "",
    ) -> None:
        """A fault; times in ms."""
        number = len(self.faults)
        fired_ns, healed_ns = (None if each is None else each * MS for each in (fired, healed))
        self.faults.append(FaultSpan(number, kind, target, {}, promise, required, fault_class, armed * MS, fired_ns, healed_ns))


def case(
    clock: Clock,
    *,
    order: Order | None = None,
    plan: Plan | None = None,
    options: Options | None = None,
    start: Any = "empty",
    complete: bool = True,
) -> Case:
    history = History(
        tuple(sorted(clock.operations, key=lambda op: op.call)),
        tuple(clock.streams),
        tuple(clock.faults),
        tuple(clock.marks),
        plan=plan,
        start=start,
        complete=complete,
    )
    agree(history, options)
    return Case(history, options or Options(), order=order)


def gone(key: bytes, revision: int, lease: int) -> Event:
    """The deletion at `revision` of a key that had `lease`."""
    return Event(wire.DELETE, KeyValue(key, 0, revision, 0, b"", 0), KeyValue(key, revision - 1, revision - 1, 1, b"v", lease))


def codes(report: Any) -> list[tuple[str, str]]:
    """(code, status) of the findings."""
    return [(finding.code, finding.status) for finding in report.findings]
