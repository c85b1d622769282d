"""A simulated history as the record file that Pekan's recorder would have left."""

from __future__ import annotations

import json
from pathlib import Path

from pekan.history.records import RecordWriter
from pekan.history.types import OK, History
from pekan.wire._generated import pekan_record_pb2 as pb
from pekan.wire.errors import WireError
from pekan.wire.messages import encode


def write_history(history: History, path: Path) -> int:
    """Writes `history` to the new file `path`, records in order of time; returns the number of records."""
    records = list(_records(history))
    records.sort(key=lambda record: record.time_ns)
    writer = RecordWriter(path)
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()
    return len(records)


def _records(history: History) -> list[pb.Record]:
    found = [
        pb.Record(time_ns=mark.time, mark=pb.Mark(kind=mark.kind, member=mark.member, detail=json.dumps(mark.detail)))
        for mark in history.marks
    ]
    for o in history.operations:
        invoked = pb.Invoked(operation=o.id, process=o.process, client=o.client, member=o.member, method=o.method, request=encode(o.input))
        found.append(pb.Record(time_ns=o.call, invoked=invoked))
        done = o.ret if o.ret is not None else o.gave_up
        if done is None:
            continue
        if o.outcome == OK:
            completed = pb.Completed(operation=o.id, response=encode(o.output))
        else:
            assert isinstance(o.output, WireError)
            completed = pb.Completed(operation=o.id, code=o.output.code, message=o.output.message)
        found.append(pb.Record(time_ns=done, completed=completed))
    for s in history.streams:
        first = True
        for time, sent, message in s.messages:
            if sent:
                send = pb.StreamSent(stream=s.id, request=encode(message))
                if first:
                    send.method, send.client, send.member, first = s.method, s.client, s.member, False
                found.append(pb.Record(time_ns=time, stream_sent=send))
            else:
                found.append(pb.Record(time_ns=time, stream_received=pb.StreamReceived(stream=s.id, response=encode(message))))
        if s.ended is not None:
            ended = pb.StreamEnded(stream=s.id, code=s.code, message=s.reason, by_client=s.by_client)
            found.append(pb.Record(time_ns=s.ended, stream_ended=ended))
    return found
