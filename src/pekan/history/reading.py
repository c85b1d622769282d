"""From records to a history: pairs requests with their outcomes, gathers streams, faults and marks, and refuses what cannot be.

::

    Invoked ─┐
    Completed ┴─> Operation ── code 0 ─────────────────────────────> ok          ret, response
                            ├─ error, a read ──────────────────────> failed      ret, WireError     (a read has no effect)
                            ├─ error that etcd promises to be final > failed      ret, WireError
                            ├─ any other error ────────────────────> indefinite  no ret, WireError, gave_up
                            └─ no Completed ───────────────────────> indefinite  no ret, None

Several files of one run are merged by time. Numbers of the first file stay as they are; in the n-th further file every operation, process,
stream and fault number has n << 48 added (no recorder counts that far), so that they stay apart.

Malformed evidence (an answer without its request, two answers, two open requests of one process, time running backwards, bytes that are
no message of their method) is EvidenceError with file, record and byte: it is never skipped.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from google.protobuf.message import DecodeError, Message

from pekan import native
from pekan.errors import EvidenceError
from pekan.history.memory import too_large
from pekan.history.recorded import RecordedOperations, bulk, recorded_streams
from pekan.history.records import RecordFile
from pekan.history.run import RunDirectory, read_plan
from pekan.history.types import FAILED, INDEFINITE, OK, Epoch, FaultSpan, History, Mark, Operation, Outcome, Stream, StreamMessage
from pekan.plan import Plan
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire._generated.pekan_record_pb2 import Record
from pekan.wire._generated.pekan_wire_pb2 import CampaignRequest, LockRequest
from pekan.wire.errors import LEASE_NOT_FOUND, UNIMPLEMENTED, WireError, is_definite
from pekan.wire.messages import AUTHENTICATE, ON_BEHALF, Decoder, RangeRequest, TxnRequest

UNKNOWN_USER = "?"
"""`Operation.user` where a token was sent that no recorded Authenticate had returned."""
TOKEN = "token"
"""The gRPC metadata key of etcd's auth token (etcd api/v3rpc/rpctypes/metadatafields.go)."""
_FILE_SHIFT = 48
_TIME_TAG, _LENGTH_DELIMITED, _HEAD_SIZE, _CRC_SIZE = 0x09, 2, 11, 5
"""Of a record as our writer writes it; see the picture in `records`."""
_head = struct.Struct("<BQBB").unpack_from
"""Its first bytes: tag of the time, time, tag of the body, first byte of the body's length."""
_IN_STEPS = frozenset({LockRequest, CampaignRequest})
"""Requests that a member carries out in several steps, each of which can fail after others were done."""
_new = tuple.__new__
"""Makes a named tuple from its fields at half the cost of calling the class."""


def is_read(request: object) -> bool:
    """True for a request that cannot change anything: a Range, or a Txn of which every operation in both branches is one."""
    if type(request) is RangeRequest:
        return True
    if type(request) is TxnRequest:
        return all(map(is_read, request.success)) and all(map(is_read, request.failure))
    return False


def outcome_of(request: object, error: WireError) -> Outcome:
    """What `error` proves about `request`: FAILED (it had no effect and never will) or INDEFINITE. See `pekan.wire.errors`.

    A Lock or Campaign puts its key and then waits. An error of the waiting says nothing about the key, and it looks like any other.
    """
    if type(request) in _IN_STEPS:
        # The put alone needs the lease. (A Campaign that loses it later deletes its key.)
        definite = error.code == UNIMPLEMENTED or (type(request) is LockRequest and error.message == LEASE_NOT_FOUND)
        return FAILED if definite else INDEFINITE
    return FAILED if is_definite(error) or is_read(request) else INDEFINITE


def operations(records: Iterable[Record]) -> tuple[Operation, ...]:
    """The operations of one file's `records`, in order of call. Raises EvidenceError naming the record (counted from 1)."""
    return tuple(history_of(records).operations)


def history_of(records: Iterable[Record], plan: Plan | None = None) -> History:
    """The history that one file's `records` tell. Raises EvidenceError naming the record (counted from 1)."""
    decoder = Decoder()
    part = _Part(decoder, 0)
    number = 0
    with bulk():
        try:
            for number, record in enumerate(records, 1):  # noqa: B007  # named in the handler below
                part.add(record)
        except _Malformed as error:
            raise EvidenceError(f"record {number}: {error}") from None
        history = _merge([part], plan, 0, None)
        decoder.forget()
        return history


def load(path: str | os.PathLike[str], *, engine: str = "auto") -> History:
    """The history at `path`: a run directory, or a single history file (its plan too, where it lies in a run directory).

    The native core holds it where the core is there and takes the file (`History.session`); otherwise, and with `engine` "reference", it is
    read into memory here. Both are the same history. A record for which there is not the memory is not read (`History.too_large`).

    Raises EvidenceError naming file, record and byte offset, and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        run = RunDirectory.open(path)
        # Short records in memory: what members answered that were up for a moment.
        epochs = tuple(Epoch(image, attempt, _load(file, None, (file,), "reference")) for image, attempt, file in run.epoch_paths())
        return replace(_load(path, run.plan(), run.history_paths(), engine), epochs=epochs)
    beside = path.with_name("plan.json")
    return _load(path, read_plan(beside) if beside.is_file() else None, (path,), engine)


def _load(path: Path, plan: Plan | None, files: tuple[Path, ...], engine: str) -> History:
    declined = ""
    if engine != "reference" and native.core is not None and (why := too_large(files, "native")):
        return History((), plan=plan, path=path, too_large=why)
    if engine != "reference":
        try:
            return _held_by_core(path, files, plan)
        except _Declined as reason:
            declined = str(reason)
    if why := too_large(files, "reference"):
        return History((), plan=plan, path=path, declined=declined, too_large=why)
    parts: list[_Part] = []
    cut = 0
    decoder = Decoder()  # one for all: a key-value in the answers of all members is one object
    with bulk():
        for index, name in enumerate(files):
            file = RecordFile(name)
            part = _Part(decoder, index << _FILE_SHIFT)
            offset = 0
            try:
                for offset, data in file.raw():  # noqa: B007  # named in the handler below
                    part.add_raw(data)
            except _Malformed as error:
                raise EvidenceError(f"{name}: record {part.records} at byte {offset}: {error}") from None
            cut += file.cut
            parts.append(part)
        history = replace(_merge(parts, plan, cut, path), declined=declined)
        decoder.forget()
        return history


class _Declined(Exception):
    """The native core does not hold the file; says why."""


def _held_by_core(path: Path, files: Sequence[Path], plan: Plan | None) -> History:
    """The history in the columns of the native core. Raises _Declined for anything unusual, and for all that is refused here."""
    core = native.core
    if core is None:
        raise _Declined(f"the native core is not there: {native.reason}")
    if len(files) != 1:
        raise _Declined("the run has more than one history file")
    decoder = Decoder()
    part = _Part(decoder, 0)
    try:
        session = core.Session.open(files[0], _is_definite)
        if any(method in ON_BEHALF for method, _ in session.methods()):
            raise _Declined("it has calls to etcd's lock or election service, which write on their callers' behalf")
        for data in session.rest():
            part.add_raw(data)
        operations = RecordedOperations(session, decoder)
        operations.decode_what_the_core_does_not()
        streams = recorded_streams(session, decoder)
    except (core.Declined, OSError, _Malformed, ValueError) as error:
        raise _Declined(str(error)) from None
    return _history(operations, streams, [part], plan, session.cut, path)


def _is_definite(code: int, message: str) -> bool:
    return is_definite(WireError(code, message))


_BODIES: dict[str, type[Message]] = {
    "invoked": record_pb.Invoked,
    "completed": record_pb.Completed,
    "stream_sent": record_pb.StreamSent,
    "stream_received": record_pb.StreamReceived,
    "stream_ended": record_pb.StreamEnded,
    "fault_armed": record_pb.FaultArmed,
    "fault_fired": record_pb.FaultFired,
    "fault_healed": record_pb.FaultHealed,
    "mark": record_pb.Mark,
}
"""What a Record may be."""


class _Malformed(Exception):
    """Evidence that contradicts itself; becomes an EvidenceError where file and record are known."""


_Open: TypeAlias = tuple[int, int, int, Any, str, str, str, str]
"""A request without its answer so far: (index of its operation, process, call, request, method, client, member, user)."""


class _OpenStream:
    """A stream while its messages are gathered."""

    __slots__ = ("by_client", "client", "code", "decode", "ended", "id", "member", "messages", "method", "reason", "user")

    def __init__(self, stream: int, method: str, client: str, member: str, user: str, decode: Callable[[bytes], Any]) -> None:
        self.id = stream
        self.decode = decode
        self.method = method
        self.client = client
        self.member = member
        self.user = user
        self.messages: list[StreamMessage] = []
        self.ended: int | None = None
        self.code = 0
        self.reason = ""
        self.by_client = False


class _Part:
    """What one history file tells."""

    def __init__(self, decoder: Decoder, base: int) -> None:
        self.base = base
        self.records = 0
        self.operations: list[Operation | None] = []
        self.streams: list[_OpenStream] = []
        self.faults: list[FaultSpan] = []
        self.marks: list[Mark] = []
        self.tokens: dict[str, str] = {}
        self.nameless: list[tuple[int, str]] = []
        """(index of an operation, token) for tokens that this file has not seen issued."""
        self.nameless_streams: list[tuple[_OpenStream, str]] = []
        self._decode_request = decoder.request
        self._decode_response = decoder.response
        self._response_decoder = decoder.response_decoder
        self._time = 0
        self._last_operation = 0
        self._open: dict[int, _Open] = {}
        self._busy: dict[int, int] = {}
        """process -> its open operation."""
        self._stream_by_id: dict[int, _OpenStream] = {}
        self._fault_by_id: dict[int, int] = {}
        self._strings: dict[str, str] = {}
        """Each name once: a million operations share a dozen clients, members and methods."""
        self._add: dict[str | None, Callable[[int, Any], None]] = {
            "invoked": self._invoked,
            "completed": self._completed,
            "stream_sent": self._stream_sent,
            "stream_received": self._stream_received,
            "stream_ended": self._stream_ended,
            "fault_armed": self._fault_armed,
            "fault_fired": self._fault_fired,
            "fault_healed": self._fault_healed,
            "mark": self._mark,
        }
        self._add_hot: dict[int, tuple[Callable[[int, Any], None], Callable[[bytes], Any]]] = {
            Record.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED: (self._add[name], body.FromString)
            for name, body in _BODIES.items()
        }

    def add_raw(self, data: bytes) -> None:
        """Take the next record as it is in the file. Raises _Malformed.

        The form that our writer gives a record (time, body, crc) is taken apart here: its body is what costs to parse, and the outer
        message would be parsed for nothing but two fields. Any other form of a record goes through the generated code.
        """
        size = len(data)
        if size > _HEAD_SIZE + _CRC_SIZE:
            time_tag, time, body_tag, length = _head(data)
            hot = self._add_hot.get(body_tag)
            if hot is not None and time_tag == _TIME_TAG:
                start = _HEAD_SIZE
                if length >= 0x80 and data[start] < 0x80:
                    length += (data[start] << 7) - 0x80
                    start += 1
                if start + length + _CRC_SIZE == size:
                    self.records += 1
                    if time < self._time:
                        raise _Malformed(f"time runs backwards: {time} ns after {self._time} ns")
                    self._time = time
                    add, parse = hot
                    try:
                        body = parse(data[start:-_CRC_SIZE])
                    except DecodeError as error:
                        raise _Malformed(f"not a record: {error}") from None
                    add(time, body)
                    return
        try:
            record = Record.FromString(data)
        except DecodeError as error:
            raise _Malformed(f"checksum right, but not a record: {error}") from None
        self.add(record)

    def add(self, record: Record) -> None:
        """Take the next record. Raises _Malformed."""
        self.records += 1
        time = record.time_ns
        if time < self._time:
            raise _Malformed(f"time runs backwards: {time} ns after {self._time} ns")
        self._time = time
        body = record.WhichOneof("body")
        add = self._add.get(body)
        if add is None:
            raise _Malformed("a kind of record that this release of Pekan does not know")
        add(time, getattr(record, body or ""))

    def _invoked(self, time: int, body: Any) -> None:
        operation = body.operation
        process = body.process
        method = body.method
        if operation <= self._last_operation:
            raise _Malformed(f"operation {operation} is invoked after operation {self._last_operation}; numbers must ascend")
        self._last_operation = operation
        busy = self._busy.setdefault(process, operation)
        if busy != operation:
            raise _Malformed(f"process {process} invokes operation {operation} while its operation {busy} is open")
        try:
            request = self._decode_request(method, body.request)
        except ValueError as error:
            raise _Malformed(f"request of operation {operation}: {error}") from None
        strings = self._strings
        index = len(self.operations)
        user = ""
        if body.metadata:
            user, token = self._user(body.metadata)
            if token:
                self.nameless.append((index, token))
        client = body.client
        member = body.member
        self._open[operation] = (
            index,
            process,
            time,
            request,
            strings.setdefault(method, method),
            strings.setdefault(client, client),
            strings.setdefault(member, member),
            user,
        )
        self.operations.append(None)

    def _completed(self, time: int, body: Any) -> None:
        operation = body.operation
        opened = self._open.pop(operation, None)
        if opened is None:
            known = operation <= self._last_operation
            raise _Malformed(f"operation {operation} completes {'a second time' if known else 'without having been invoked'}")
        index, process, call, request, method, client, member, user = opened
        del self._busy[process]
        code = body.code
        if code == 0:
            try:
                output = self._decode_response(method, body.response)
            except ValueError as error:
                raise _Malformed(f"response of operation {operation}: {error}") from None
            self.operations[index] = _new(
                Operation,
                (operation + self.base, process + self.base, call, time, OK, request, output, method, client, member, user, None),
            )
            if method == AUTHENTICATE:
                self.tokens[output.token] = request.name
            return
        refusal = WireError(code, body.message)
        outcome = outcome_of(request, refusal)
        ret, gave_up = (time, None) if outcome == FAILED else (None, time)
        self.operations[index] = Operation(
            operation + self.base, process + self.base, call, ret, outcome, request, refusal, method, client, member, user, gave_up
        )

    def _stream_sent(self, time: int, body: Any) -> None:
        stream = self._stream_by_id.get(body.stream)
        if stream is None:
            if not body.method:
                raise _Malformed(f"stream {body.stream} begins without naming its method")
            user, token = self._user(body.metadata)
            try:
                decode = self._response_decoder(body.method)
            except ValueError as error:
                raise _Malformed(f"stream {body.stream}: {error}") from None
            stream = _OpenStream(body.stream + self.base, body.method, body.client, body.member, user, decode)
            if token:
                self.nameless_streams.append((stream, token))
            self._stream_by_id[body.stream] = stream
            self.streams.append(stream)
        elif stream.ended is not None:
            raise _Malformed(f"stream {body.stream} sends after its end")
        try:
            message = self._decode_request(stream.method, body.request)
        except ValueError as error:
            raise _Malformed(f"message sent on stream {body.stream}: {error}") from None
        stream.messages.append(StreamMessage(time, True, message))

    def _stream_received(self, time: int, body: Any) -> None:
        stream = self._stream_by_id.get(body.stream)
        if stream is None:
            raise _Malformed(f"stream {body.stream} receives before anything was sent on it")
        if stream.ended is not None:
            raise _Malformed(f"stream {body.stream} receives after its end")
        try:
            message = stream.decode(body.response)
        except (ValueError, DecodeError) as error:
            raise _Malformed(f"message received on stream {body.stream}: not a response of {stream.method}: {error}") from None
        stream.messages.append(_new(StreamMessage, (time, False, message)))

    def _stream_ended(self, time: int, body: Any) -> None:
        stream = self._stream_by_id.get(body.stream)
        if stream is None:
            raise _Malformed(f"stream {body.stream} ends before anything was sent on it")
        if stream.ended is not None:
            raise _Malformed(f"stream {body.stream} ends a second time")
        stream.ended = time
        stream.code = body.code
        stream.reason = body.message
        stream.by_client = body.by_client

    def _fault_armed(self, time: int, body: Any) -> None:
        if body.fault in self._fault_by_id:
            raise _Malformed(f"fault {body.fault} is armed a second time")
        self._fault_by_id[body.fault] = len(self.faults)
        self.faults.append(
            FaultSpan(
                id=body.fault + self.base,
                kind=body.kind,
                target=body.target,
                parameters=_object(body.parameters, f"parameters of fault {body.fault}"),
                promise=body.promise,
                required=body.required,
                fault_class=body.fault_class,
                armed=time,
                fired=None,
                healed=None,
            )
        )

    def _fault_fired(self, time: int, body: Any) -> None:
        index, span = self._fault(body.fault)
        if span.fired is not None or span.healed is not None:
            raise _Malformed(f"fault {body.fault} fires {'a second time' if span.fired is not None else 'after it was healed'}")
        evidence = _object(body.evidence, f"evidence of fault {body.fault}")
        self.faults[index] = replace(span, fired=time, evidence=evidence)

    def _fault_healed(self, time: int, body: Any) -> None:
        index, span = self._fault(body.fault)
        if span.healed is not None:
            raise _Malformed(f"fault {body.fault} is healed a second time")
        healed = _object(body.evidence, f"evidence of fault {body.fault}")
        evidence = {**span.evidence, "healed": healed} if healed else span.evidence
        self.faults[index] = replace(span, healed=time, evidence=evidence)

    def _fault(self, fault: int) -> tuple[int, FaultSpan]:
        index = self._fault_by_id.get(fault)
        if index is None:
            raise _Malformed(f"fault {fault} fires or is healed without having been armed")
        return index, self.faults[index]

    def _mark(self, time: int, body: Any) -> None:
        self.marks.append(Mark(time, body.kind, body.member, _object(body.detail, f"mark {body.kind!r}")))

    def _user(self, metadata: Any) -> tuple[str, str]:
        """(user, token still to be resolved): '' and '' without a token."""
        for pair in metadata:
            if pair.key == TOKEN:
                user = self.tokens.get(pair.value)
                return (user, "") if user is not None else (UNKNOWN_USER, pair.value)
        return "", ""

    def finish(self) -> None:
        """What is still open has no outcome: it may take effect at any later time."""
        for operation, (index, process, call, request, method, client, member, user) in self._open.items():
            self.operations[index] = Operation(
                operation + self.base, process + self.base, call, None, INDEFINITE, request, None, method, client, member, user
            )
        self._open.clear()

    def close(self) -> None:
        """Let go of everything. What reads and what is read know each other, and while millions of values are made nothing looks for
        cycles: without this, a process that reads history after history keeps them all.
        """
        self.operations, self.streams, self.nameless_streams = [], [], []
        self._stream_by_id.clear()
        self._add.clear()
        self._add_hot.clear()


def _merge(parts: list[_Part], plan: Plan | None, cut: int, path: Path | None) -> History:
    tokens: dict[str, str] = {}
    for part in parts:
        part.finish()
        tokens.update(part.tokens)
    for part in parts:
        for index, token in part.nameless:
            operation = part.operations[index]
            if operation is not None and token in tokens:
                part.operations[index] = operation._replace(user=tokens[token])
        for stream, token in part.nameless_streams:
            stream.user = tokens.get(token, UNKNOWN_USER)
    operations = [operation for part in parts for operation in part.operations if operation is not None]
    streams = [_stream(stream) for part in parts for stream in part.streams]
    if len(parts) > 1:  # each part is in order already; sorting is stable
        operations.sort(key=lambda operation: operation.call)
        streams.sort(key=lambda stream: stream.messages[0].time)
    history = _history(tuple(operations), tuple(streams), parts, plan, cut, path)
    for part in parts:
        part.close()
    return history


def _history(
    operations: Sequence[Operation], streams: tuple[Stream, ...], parts: list[_Part], plan: Plan | None, cut: int, path: Path | None
) -> History:
    """The history of `operations` and `streams`, and of the faults and marks of `parts`."""
    faults = [fault for part in parts for fault in part.faults]
    marks = [mark for part in parts for mark in part.marks]
    if len(parts) > 1:
        faults.sort(key=lambda fault: fault.armed)
        marks.sort(key=lambda mark: mark.time)
    starts = [next((mark.detail for mark in part.marks if mark.kind == "start"), {}) for part in parts]
    order: Literal["real-time", "per-process"] = "real-time"
    if len(parts) > 1:
        boots = {detail.get("boot_id") for detail in starts}
        if len(boots) > 1 or None in boots:
            order = "per-process"
    finished = all(any(mark.kind == "end" and mark.detail.get("reason") == "finished" for mark in part.marks) for part in parts)
    return History(
        operations=operations,
        streams=streams,
        faults=tuple(faults),
        marks=tuple(marks),
        plan=plan,
        start="empty" if starts and starts[0].get("start") == "empty" else "unknown",
        order=order,
        complete=finished and not cut,
        cut=cut,
        path=path,
    )


def _stream(stream: _OpenStream) -> Stream:
    return Stream(
        id=stream.id,
        method=stream.method,
        client=stream.client,
        member=stream.member,
        user=stream.user,
        messages=tuple(stream.messages),
        ended=stream.ended,
        code=stream.code,
        reason=stream.reason,
        by_client=stream.by_client,
    )


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise _Malformed(f"{what}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Malformed(f"{what}: expected a JSON object, found {type(value).__name__}")
    return value
