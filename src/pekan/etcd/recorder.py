"""Writes what clients do and see: one Record before anything leaves, one after anything came.

::

    invoked()  ── write(2) has returned ──>  the request is handed to gRPC
    completed() <── the reply is here ──     time_ns: early for what is sent, late for what came, never the reverse

Times are CLOCK_MONOTONIC, read just before the write, so they never run backwards within a file. One recorder belongs to one thread (the
event loop's): no two records are ever mixed.

When the file cannot be written any more, `failed` is set and every method raises RecorderFailure: no further request leaves. The hunt
waits for `failed`, stops the traffic and ends the run as *interrupted*.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pekan.errors import RecorderFailure
from pekan.history.records import RecordWriter
from pekan.wire import pb
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire.messages import AUTHENTICATE

Metadata = Sequence[tuple[str, str]]
"""gRPC metadata as sent: pairs of key and value."""


class Recorder:
    """The recorder of one run's history file. All counters are for the live line; the truth is in the file."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer
        self.failed = asyncio.Event()
        """Set when the history file could not be written."""
        self.failure: RecorderFailure | None = None
        """Why, once `failed` is set."""
        self.operations = 0
        """Requests invoked so far."""
        self.errors = 0
        """Requests completed with another status than OK so far."""
        self.messages = 0
        """Stream messages recorded so far, both ways."""
        self.revision = 0
        """The greatest revision that a reply's header has named so far."""
        self._awaited: list[tuple[int, asyncio.Event]] = []
        self._processes = 0
        self._streams = 0
        self._faults = 0

    @property
    def bytes_written(self) -> int:
        """Bytes of history written so far."""
        return self._writer.bytes_written

    def saw_revision(self, revision: int) -> None:
        """Clients tell what the headers of their replies name."""
        if revision > self.revision:
            self.revision = revision
            while self._awaited and self._awaited[0][0] <= revision:
                self._awaited.pop(0)[1].set()

    async def until_revision(self, revision: int) -> None:
        """Return once a reply's header has named `revision` or a later one; the caller bounds the wait."""
        if self.revision < revision:
            reached = asyncio.Event()
            bisect.insort(self._awaited, (revision, reached), key=lambda each: each[0])
            await reached.wait()

    def new_process(self) -> int:
        """A process number that nobody has had: each is strictly sequential, and an indefinite outcome ends it."""
        self._processes += 1
        return self._processes

    def new_stream(self) -> int:
        """A stream number that nobody has had."""
        self._streams += 1
        return self._streams

    def invoked(self, process: int, client: str, member: str, method: str, request: bytes, metadata: Metadata = ()) -> int:
        """Record a request that is about to be sent, and return its operation id.

        `request` is the exact message that will be sent; the password of an Authenticate is left out of the record.
        """
        operation = self.operations + 1
        record = record_pb.Record()
        body = record.invoked
        body.operation = operation
        body.process = process
        body.client = client
        body.member = member
        body.method = method
        body.request = _without_password(request) if method == AUTHENTICATE else request
        if metadata:
            body.metadata.extend(record_pb.Metadata(key=key, value=value) for key, value in metadata)
        self._write(record)
        self.operations = operation
        return operation

    def completed(self, operation: int, response: bytes = b"", code: int = 0, message: str = "") -> None:
        """Record how `operation` ended: the exact response, or gRPC status code and message."""
        record = record_pb.Record()
        body = record.completed
        body.operation = operation
        if code:
            body.code = code
            body.message = message
            self.errors += 1
        else:
            body.response = response
        self._write(record)

    def stream_sent(
        self, stream: int, request: bytes, method: str = "", client: str = "", member: str = "", metadata: Metadata = ()
    ) -> None:
        """Record a message that is about to be sent on `stream`; the first one names method, client, member and metadata."""
        body = record_pb.StreamSent(stream=stream, request=request, method=method, client=client, member=member)
        if metadata:
            body.metadata.extend(record_pb.Metadata(key=key, value=value) for key, value in metadata)
        self.messages += 1
        self._write(record_pb.Record(stream_sent=body))

    def stream_received(self, stream: int, response: bytes) -> None:
        """Record a message that came on `stream`."""
        record = record_pb.Record()
        body = record.stream_received
        body.stream = stream
        body.response = response
        self.messages += 1
        self._write(record)

    def stream_ended(self, stream: int, code: int, message: str, *, by_client: bool) -> None:
        """Record the end of `stream` with its gRPC status; `by_client` where we closed it."""
        self._write(record_pb.Record(stream_ended=record_pb.StreamEnded(stream=stream, code=code, message=message, by_client=by_client)))

    def fault_armed(
        self,
        kind: str,
        target: str,
        parameters: Mapping[str, object] | None = None,
        *,
        promise: str,
        required: bool = False,
        fault_class: str = "",
    ) -> int:
        """Record that a fault is about to be injected, and return its id.

        `target` is the member (or link) chosen; `promise` is what the fault leaves of etcd's promises: within | liveness | lease-time |
        outside.
        """
        fault = self._faults + 1
        body = record_pb.FaultArmed(
            fault=fault,
            kind=kind,
            target=target,
            parameters=_json(parameters),
            promise=promise,
            required=required,
            fault_class=fault_class,
        )
        self._write(record_pb.Record(fault_armed=body))
        self._faults = fault
        return fault

    def fault_fired(self, fault: int, evidence: Mapping[str, object] | None = None) -> None:
        """Record that the fault has had its effect, with what proves it (wait status, hit counter, ...)."""
        self._write(record_pb.Record(fault_fired=record_pb.FaultFired(fault=fault, evidence=_json(evidence))))

    def fault_healed(self, fault: int, evidence: Mapping[str, object] | None = None) -> None:
        """Record that the fault has been undone."""
        self._write(record_pb.Record(fault_healed=record_pb.FaultHealed(fault=fault, evidence=_json(evidence))))

    def mark(self, kind: str, member: str = "", **detail: object) -> None:
        """Record something worth knowing that is no request; `detail` must survive JSON."""
        self._write(record_pb.Record(mark=record_pb.Mark(kind=kind, member=member, detail=_json(detail))))

    def close(self) -> None:
        """Flush and close the file; idempotent."""
        try:
            self._writer.close()
        except RecorderFailure as failure:
            self._fail(failure)
            raise

    def _write(self, record: record_pb.Record) -> None:
        record.time_ns = time.monotonic_ns()
        try:
            self._writer.write(record)
        except RecorderFailure as failure:
            self._fail(failure)
            raise

    def _fail(self, failure: RecorderFailure) -> None:
        if self.failure is None:
            self.failure = failure
            self.failed.set()


def boot_id() -> str:
    """What names this boot of the machine; times of two records are of one clock where both have the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"unknown-{time.time_ns()}"


def _json(data: Mapping[str, object] | None) -> str:
    return json.dumps(data, separators=(",", ":")) if data else "{}"


def _without_password(request: bytes) -> bytes:
    message = pb.AuthenticateRequest.FromString(request)
    message.ClearField("password")
    return message.SerializeToString()
