"""A simulated history as the record file that Pekan's recorder would have left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from pekan.history.records import RecordWriter
from pekan.history.types import OK, History, Mark, Operation, Stream
from pekan.wire._generated import pekan_record_pb2 as pb
from pekan.wire.errors import WireError
from pekan.wire.messages import encode


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


def _moments(history: History) -> Iterator[tuple[Any, ...]]:
    """(time, what makes the record, its arguments): a record is made only when it is written, so that millions fit."""
    for mark in history.marks:
        yield mark.time, _mark, mark
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


def _mark(mark: Mark) -> pb.Record:
    return pb.Record(mark=pb.Mark(kind=mark.kind, member=mark.member, detail=json.dumps(mark.detail)))


def _invoked(o: Operation) -> pb.Record:
    invoked = pb.Invoked(operation=o.id, process=o.process, client=o.client, member=o.member, method=o.method, request=encode(o.input))
    return pb.Record(invoked=invoked)


def _completed(o: Operation) -> pb.Record:
    if o.outcome == OK:
        return pb.Record(completed=pb.Completed(operation=o.id, response=encode(o.output)))
    assert isinstance(o.output, WireError)
    return pb.Record(completed=pb.Completed(operation=o.id, code=o.output.code, message=o.output.message))


def _sent(s: Stream, index: int) -> pb.Record:
    sent = pb.StreamSent(stream=s.id, request=encode(s.messages[index].message))
    if index == 0:
        sent.method, sent.client, sent.member = s.method, s.client, s.member
    return pb.Record(stream_sent=sent)


def _received(s: Stream, index: int) -> pb.Record:
    return pb.Record(stream_received=pb.StreamReceived(stream=s.id, response=encode(s.messages[index].message)))


def _ended(s: Stream) -> pb.Record:
    return pb.Record(stream_ended=pb.StreamEnded(stream=s.id, code=s.code, message=s.reason, by_client=s.by_client))
