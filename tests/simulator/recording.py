"""A history in memory as the record file that Pekan's recorder would have left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from pekan.history.reading import TOKEN, UNKNOWN_USER
from pekan.history.records import RecordWriter
from pekan.history.types import INDEFINITE, OK, FaultSpan, History, Mark, Operation, Stream
from pekan.wire import messages as wire
from pekan.wire import pb
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire.errors import WireError
from pekan.wire.messages import encode, method_of


def write_history(history: History, path: Path) -> int:
    """Writes `history` to the new file `path`, records in order of time; returns the number of records."""
    moments = list(_moments(history))
    # Stable: what one client or stream did at one instant stays in its order.
    moments.sort(key=itemgetter(0))
    writer = RecordWriter(path)
    try:
        for time, make, *what in moments:
            record = make(*what)
            record.time_ns = time
            writer.write(record)
    finally:
        writer.close()
    return len(moments)


def recordable(history: History) -> History | None:
    """`history` as a recorder could have seen it: operations numbered from 1 in the order of their calls, one at a time in each process,
    each of the method that serves it, users' tokens issued first, and the marks that say how it began and that it ended.

    None for what no single record can hold: several clocks, a message before anything was sent, an answer before its call.
    """
    if history.order != "real-time" or history.cut or any(s.messages and not s.messages[0].sent for s in history.streams):
        return None
    if any(done is not None and done < o.call for o in history.operations for done in (o.ret, o.gave_up)):
        return None
    answered = [o if o.outcome == OK or isinstance(o.output, WireError) else _unanswered(o) for o in history.operations]
    operations = _with_tokens(sorted(answered, key=lambda o: o.call))
    free: dict[int, float] = {}
    unused = max((o.process for o in operations), default=0) + 1
    numbered = []
    for number, o in enumerate(operations, 1):
        process = o.process
        if free.get(process, o.call) > o.call:
            process, unused = unused, unused + 1
        done = o.ret if o.ret is not None else o.gave_up
        free[process] = float("inf") if done is None else done
        numbered.append(o._replace(id=number, process=process, method=o.method or method_of(o.input)))
    told = [m.time for s in history.streams for m in s.messages]
    times = [*(o.call for o in numbered), *(o.ret or 0 for o in numbered), *told, *(mark.time for mark in history.marks)]
    if min(times, default=0) < 0:
        return None
    marks = list(history.marks)
    if history.start == "empty" and not any(mark.kind == "start" for mark in marks):
        marks.insert(0, Mark(min(times, default=0), "start", "", {"start": "empty"}))
    if history.complete and not any(mark.kind == "end" for mark in marks):
        marks.append(Mark(max(times, default=0), "end", "", {"reason": "finished"}))
    streams = tuple(replace(s, id=number) for number, s in enumerate(history.streams, 1) if s.messages)
    recorded = replace(history, operations=tuple(numbered), streams=streams, marks=tuple(marks))
    return later(recorded, 1) if min(times, default=0) == 0 else recorded


def later(history: History, ns: int) -> History:
    """`history` that much later. No recorder's clock shows 0, and a record at that time would have no time in it at all."""

    def then(time: int | None) -> Any:
        return None if time is None else time + ns

    return replace(
        history,
        operations=tuple(o._replace(call=o.call + ns, ret=then(o.ret), gave_up=then(o.gave_up)) for o in history.operations),
        streams=tuple(
            replace(s, ended=then(s.ended), messages=tuple(m._replace(time=m.time + ns) for m in s.messages)) for s in history.streams
        ),
        faults=tuple(replace(f, armed=f.armed + ns, fired=then(f.fired), healed=then(f.healed)) for f in history.faults),
        marks=tuple(m._replace(time=m.time + ns) for m in history.marks),
    )


def _unanswered(o: Operation) -> Operation:
    return o._replace(outcome=INDEFINITE, ret=None, output=None, gave_up=None)


def _with_tokens(operations: list[Operation]) -> list[Operation]:
    """`operations`, before them an Authenticate for every user among them."""
    users = sorted({o.user for o in operations} - {"", UNKNOWN_USER})
    if not users:
        return operations
    began = operations[0].call
    method = wire.AUTHENTICATE
    made = []
    for number, user in enumerate(users):
        asked, answer = pb.AuthenticateRequest(name=user), pb.AuthenticateResponse(token=_token(user))
        made.append(Operation(number, -1 - number, began, began, OK, asked, answer, method, "admin-0", operations[0].member))
    processes = max(o.process for o in operations) + 1
    return [o._replace(process=processes + number) for number, o in enumerate(made)] + operations


def _token(user: str) -> str:
    return f"token of {user}"


def _metadata(user: str) -> list[record_pb.Metadata]:
    return [record_pb.Metadata(key=TOKEN, value=_token(user))] if user else []


def _moments(history: History) -> Iterator[tuple[Any, ...]]:
    """(time, what makes the record, its arguments): a record is made only when it is written, so that millions fit."""
    for mark in history.marks:
        yield mark.time, _mark, mark
    for fault in history.faults:
        yield fault.armed, _armed, fault
        if fault.fired is not None:
            yield fault.fired, _fired, fault
        if fault.healed is not None:
            yield fault.healed, _healed, fault
    for o in history.operations:
        yield o.call, _invoked, o
        done = o.ret if o.ret is not None else o.gave_up
        if done is not None:
            yield done, _completed, o
    for s in history.streams:
        for index, message in enumerate(s.messages):
            yield message.time, _sent if message.sent else _received, s, index
        if s.ended is not None:
            yield s.ended, _ended, s


def _mark(mark: Mark) -> record_pb.Record:
    return record_pb.Record(mark=record_pb.Mark(kind=mark.kind, member=mark.member, detail=json.dumps(mark.detail)))


def _armed(fault: FaultSpan) -> record_pb.Record:
    return record_pb.Record(
        fault_armed=record_pb.FaultArmed(
            fault=fault.id, kind=fault.kind, target=fault.target, parameters=json.dumps(fault.parameters), promise=fault.promise,
            required=fault.required, fault_class=fault.fault_class,
        )
    )  # fmt: skip


def _fired(fault: FaultSpan) -> record_pb.Record:
    return record_pb.Record(fault_fired=record_pb.FaultFired(fault=fault.id, evidence=json.dumps(fault.evidence)))


def _healed(fault: FaultSpan) -> record_pb.Record:
    return record_pb.Record(fault_healed=record_pb.FaultHealed(fault=fault.id))


def _invoked(o: Operation) -> record_pb.Record:
    invoked = record_pb.Invoked(
        operation=o.id,
        process=o.process,
        client=o.client,
        member=o.member,
        method=o.method,
        request=encode(o.input),
        metadata=_metadata(o.user),
    )
    return record_pb.Record(invoked=invoked)


def _completed(o: Operation) -> record_pb.Record:
    if o.outcome == OK:
        return record_pb.Record(completed=record_pb.Completed(operation=o.id, response=encode(o.output)))
    assert isinstance(o.output, WireError)
    return record_pb.Record(completed=record_pb.Completed(operation=o.id, code=o.output.code, message=o.output.message))


def _sent(s: Stream, index: int) -> record_pb.Record:
    sent = record_pb.StreamSent(stream=s.id, request=encode(s.messages[index].message))
    if index == 0:
        sent.method, sent.client, sent.member = s.method, s.client, s.member
        sent.metadata.extend(_metadata(s.user))
    return record_pb.Record(stream_sent=sent)


def _received(s: Stream, index: int) -> record_pb.Record:
    return record_pb.Record(stream_received=record_pb.StreamReceived(stream=s.id, response=encode(s.messages[index].message)))


def _ended(s: Stream) -> record_pb.Record:
    return record_pb.Record(stream_ended=record_pb.StreamEnded(stream=s.id, code=s.code, message=s.reason, by_client=s.by_client))
