"""A client of one member that does exactly what it is told, once, and records all of it.

::

    call(request) ── encode ──> Recorder.invoked ──> gRPC ──> member        one attempt, one deadline
                                                       │
    Reply(outcome, output, operation) <── Recorder.completed <── bytes or status

    stream.send ── Recorder.stream_sent ──> gRPC ──> member
    stream.receive <── Recorder.stream_received <──┘                        one read at a time, never cancelled, so nothing is lost

Nothing is ever retried: `grpc.enable_retries` 0 keeps gRPC core's retry filter out of the channel, and with it both configured and
transparent retries (grpc_types.h, GRPC_ARG_ENABLE_RETRIES); service configs are ignored. An attempt that did not reach the member is an
UNAVAILABLE like any other: indefinite, though nothing was sent.

gRPC is imported when the first client is made: everything else of Pekan works without it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from pekan.errors import EnvironmentFailure, RecorderFailure, UsageError
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import Address, TlsFiles
from pekan.history.reading import TOKEN, outcome_of
from pekan.history.types import FAILED, INDEFINITE, OK, Outcome
from pekan.wire.errors import CANCELLED, DEADLINE_EXCEEDED, UNKNOWN, WireError, is_decided
from pekan.wire.messages import (
    OBSERVE,
    SNAPSHOT,
    WATCH,
    Decoder,
    Request,
    WatchResponse,
    encode,
    method_of,
)

RECEIVE_BYTES_MAX = 512 << 20
"""Largest reply accepted. gRPC's default of 4 MiB would turn a list of the whole keyspace into an error of our own making; etcd's
documented limit of a database is 8 GiB, of which no workload of ours lists more than a part."""
CONNECT_TIMEOUT_MS = 1_000
"""How long one attempt to connect may take. A paused member's kernel accepts, but its HTTP/2 settings never come."""
RECONNECT_BACKOFF_MS = (100, 1_000)
"""First and longest pause between attempts to connect: a member that comes back is reached within about a second."""
SLOW_WINDOW_BYTES = 64 << 10
"""Flow-control window of a client that reads slowly on purpose: HTTP/2's initial window (RFC 9113, 6.9.2), so that the member is held up
after some dozen messages instead of after megabytes."""
DECODER_CALLS_MAX = 4_096
"""Calls after which the interning decoder is renewed: what it keeps must not grow with the length of a run."""
AGAIN_S = 0.1
"""Between two tries of a request that etcd has not decided: a connection that is down refuses at once."""
CLOSE_TIMEOUT_S = 2.0
"""How long closing may wait for gRPC to let go of what was cancelled; it is a matter of milliseconds."""

# One request, many responses: the request must be followed by the end of our side.
_ONE_REQUEST = frozenset({SNAPSHOT, OBSERVE})


class Reply(NamedTuple):
    """What became of a call: `output` is the decoded response where outcome is "ok", else a `WireError`; `operation` is its record id."""

    outcome: Outcome
    output: Any
    operation: int


async def decided(ask: Callable[[], Awaitable[Reply]], within_s: float, go_on: Callable[[], bool] = lambda: True) -> Reply:
    """What etcd decides about a request that may be sent twice: `ask` again where an election, a dial or a stalled disk kept it from that.

    The last reply, whatever it is, once `within_s` are over or `go_on` says no more.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        reply = await ask()
        if reply.outcome == OK or is_decided(reply.output) or loop.time() >= end or not go_on():
            return reply
        await asyncio.sleep(AGAIN_S)


class Client:
    """One connection to one member. One call at a time; streams beside it.

    name       who calls, stable over its processes, for example "kv-0"
    member     name of the member at `address`
    address    "host:port" of a client listener
    timeout_s  deadline of each call unless the call says otherwise
    tls        certificates of the run, None for plain text
    metadata   sent with every call and stream
    slow       keep gRPC's buffers small, for streams that are read slowly on purpose

    Nothing is connected before the first call. Raises EnvironmentFailure where gRPC is not installed or a certificate cannot be read.
    """

    def __init__(
        self,
        *,
        name: str,
        member: str,
        address: Address | str,
        recorder: Recorder,
        timeout_s: float,
        tls: TlsFiles | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        slow: bool = False,
    ) -> None:
        self.name = name
        self.member = member
        self.address = str(address)
        self.recorder = recorder
        self.timeout_s = timeout_s
        self.process = recorder.new_process()
        """The current process number; an indefinite outcome ends it and the next call has another."""
        self._metadata = tuple(metadata)
        self._token = ""
        self._grpc = _import_grpc()
        self._credentials = None if tls is None else _credentials(self._grpc, tls)
        self._options = _options(slow)
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._calling = False
        self._decoder = Decoder()
        self._decoded = 0
        self._streams: set[Stream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What is sent with every call and stream opened from now on."""
        return (*self._metadata, (TOKEN, self._token)) if self._token else self._metadata

    def set_token(self, token: str) -> None:
        """Send `token` (from Authenticate) with every call and stream opened from now on; "" stops that."""
        self._token = token

    async def call(self, request: Request, timeout_s: float | None = None, *, patient: bool = False) -> Reply:
        """Send `request` once, wait for its answer for at most `timeout_s`, and record both.

        While there is no connection to the member it fails at once, unless it is `patient`: then it is sent when there is one.

        Never raises for an error of etcd or of the connection: it is the reply's outcome. Raises RecorderFailure where the record cannot
        be written (then nothing is sent), UsageError where this client's previous call is still open. When the task is cancelled the call
        is recorded as CANCELLED, which is indefinite, and the cancellation goes on.
        """
        method = method_of(request)
        data = encode(request)
        if self._calling:
            raise UsageError(f"client {self.name}: a call is open; one client makes one call at a time, make a second client")
        metadata = self.metadata
        operation = self.recorder.invoked(self.process, self.name, self.member, method, data, metadata)
        self._calling = True
        try:
            limit = self.timeout_s if timeout_s is None else timeout_s
            response, error = await self._attempt(operation, method, data, limit, metadata, patient)
        finally:
            self._calling = False
        if error is None:
            try:
                output = self._decode(method, response)
                self.recorder.saw_revision(_revision(output))
                return Reply(OK, output, operation)
            except ValueError as problem:
                # Recorded as it came; whoever reads the record will be told the same.
                error = WireError(UNKNOWN, str(problem))
        outcome = outcome_of(request, error)
        if outcome == INDEFINITE:
            self.process = self.recorder.new_process()
        return Reply(outcome, error, operation)

    async def _attempt(
        self, operation: int, method: str, data: bytes, timeout_s: float, metadata: tuple[tuple[str, str], ...], patient: bool
    ) -> tuple[bytes, WireError | None]:
        """One attempt. Whatever happens, exactly one Completed is recorded."""
        try:
            response = await self._method(method)(data, timeout=timeout_s, metadata=metadata, wait_for_ready=patient)
        except asyncio.CancelledError:
            error = WireError(CANCELLED, "cancelled by the client")
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self._completed_on_the_way_out(operation, error)
                raise
            # Nobody cancelled this task: gRPC says so of a call whose channel was closed under it.
        except Exception as problem:
            error = self._error(problem)
        except BaseException:
            self._completed_on_the_way_out(operation, WireError(CANCELLED, "the client was interrupted"))
            raise
        else:
            self.recorder.completed(operation, response)
            return response, None
        self.recorder.completed(operation, code=error.code, message=error.message)
        return b"", error

    def _completed_on_the_way_out(self, operation: int, error: WireError) -> None:
        """Record the end of a call that is being abandoned, and give its process up. The reason for leaving outranks a full disk."""
        self.process = self.recorder.new_process()
        try:
            self.recorder.completed(operation, code=error.code, message=error.message)
        except RecorderFailure:
            assert self.recorder.failed.is_set(), "the hunt learns of it from the recorder"

    def watch(self, *, patient: bool = False) -> WatchStream:
        """A Watch stream. Nothing is opened before the first message is sent; `patient` as in `call`."""
        return WatchStream(self, WATCH, patient=patient)

    def stream(self, method: str) -> Stream:
        """A stream of any streaming `method`. Nothing is opened before the first message is sent."""
        return Stream(self, method)

    async def close(self) -> None:
        """End every stream and the connection; idempotent. A call still open ends as CANCELLED."""
        for stream in tuple(self._streams):
            await stream.close()
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            await channel.close()

    def _decode(self, method: str, response: bytes) -> Any:
        self._decoded += 1
        if self._decoded > DECODER_CALLS_MAX:
            self._decoder = Decoder()
            self._decoded = 0
        return self._decoder.response(method, response)

    def _connect(self) -> Any:
        if self._channel is None:
            target = _target(self.address)
            if self._credentials is None:
                self._channel = self._grpc.aio.insecure_channel(target, options=self._options)
            else:
                self._channel = self._grpc.aio.secure_channel(target, self._credentials, options=self._options)
        return self._channel

    def _method(self, method: str) -> Any:
        known = self._methods.get(method)
        if known is None:
            # Without serializers gRPC takes and gives bytes: what is recorded is what is on the wire.
            known = self._methods[method] = self._connect().unary_unary(method)
        return known

    def _error(self, problem: Exception) -> WireError:
        """The gRPC status of `problem`; UNKNOWN, which is indefinite, for an error that has none."""
        if isinstance(problem, self._grpc.aio.AioRpcError):
            return WireError(problem.code().value[0], problem.details() or "")
        return WireError(UNKNOWN, f"{type(problem).__name__}: {problem}")


class Stream:
    """One gRPC stream, both ways; an async context manager that ends it on leaving.

    ::

        async with client.stream(method) as stream:
            await stream.send(request)              # the first one opens the stream
            await stream.receive(timeout_s=1.0)     # message, None at the end, TimeoutError when there was none yet

    Messages are taken from gRPC only when `receive` is called: a caller that does not call it is a slow reader, and flow control holds the
    member up. A `receive` that times out leaves its read pending, and the next one goes on with it: nothing is lost.
    """

    def __init__(self, client: Client, method: str, *, patient: bool = False) -> None:
        self.id = client.recorder.new_stream()
        self.method = method
        self.patient = patient
        self.ended = False
        self.code = 0
        """gRPC status code of the end, once `ended`."""
        self.reason = ""
        """gRPC status message of the end, once `ended`."""
        self.by_client = False
        """Whether the stream was ended from this side."""
        self._client = client
        self._recorder = client.recorder
        self._decoder = Decoder()
        self._decoded = 0
        self._call: Any = None
        self._reading: asyncio.Task[bytes | None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, request: Request, timeout_s: float | None = None) -> bool:
        """Send a message; the first one opens the stream. False where the stream has ended (`code` and `reason` say how).

        The message is recorded before it is handed to gRPC. Where gRPC has not taken it after `timeout_s` (default: the client's), the
        stream is ended with DEADLINE_EXCEEDED. Raises RecorderFailure.
        """
        if self.ended:
            return False
        data = encode(request)
        if self._call is None:
            client = self._client
            metadata = client.metadata
            self._recorder.stream_sent(self.id, data, self.method, client.name, client.member, metadata)
            self._call = client._connect().stream_stream(self.method)(metadata=metadata, wait_for_ready=self.patient)
            client._streams.add(self)
        else:
            self._recorder.stream_sent(self.id, data)
        limit = self._client.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit):
                await self._call.write(data)
                if self.method in _ONE_REQUEST:
                    await self._call.done_writing()
        except TimeoutError:
            await self._end(DEADLINE_EXCEEDED, f"a message was not taken within {limit:g} s", by_client=True)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await self._end(CANCELLED, "cancelled by the client", by_client=True)
        except Exception as problem:
            await self._fail(problem)
        return not self.ended

    async def receive(self, timeout_s: float) -> Any:
        """The next message, or None where the stream has ended (`code` and `reason` say how).

        Raises TimeoutError where none came within `timeout_s`, RecorderFailure, and UsageError before the first `send`.
        """
        if self._call is None and not self.ended:
            raise UsageError(f"stream of {self.method}: send a message before receiving")
        if self._reading is None:
            if self.ended:
                return None
            self._reading = asyncio.create_task(self._read(), name=f"read stream {self.id}")
        reading = self._reading
        done, _ = await asyncio.wait((reading,), timeout=timeout_s)
        if not done:
            raise TimeoutError(f"no message on stream {self.id} of {self.method} within {timeout_s:g} s")
        self._reading = None
        if reading.cancelled():
            return None
        data = reading.result()
        return None if data is None else self._decode(data)

    async def close(self) -> None:
        """End the stream from this side, unless it has ended; idempotent."""
        if self._call is None:
            self.ended = True
            self.by_client = True
            return
        await self._end(CANCELLED, "closed by the client", by_client=True)

    async def _read(self) -> bytes | None:
        """The next message, recorded the moment it is here; None after recording the end."""
        try:
            data = await self._call.read()
        except asyncio.CancelledError:
            raise
        except Exception as problem:
            await self._fail(problem)
            return None
        if self.ended:  # closed while gRPC was handing the message over: as unread as those behind it
            return None
        if not isinstance(data, bytes):  # grpc.aio.EOF, with status OK
            await self._end(0, "", by_client=False)
            return None
        self._recorder.stream_received(self.id, data)
        return data

    async def _fail(self, problem: Exception) -> None:
        grpc = self._client._grpc
        if not isinstance(problem, grpc.aio.AioRpcError) and self._call.done():
            # Writing to a stream that is over says only that; its status says how it ended.
            code = (await self._call.code()).value[0]
            await self._end(code, await self._call.details() or "", by_client=False)
            return
        error = self._client._error(problem)
        await self._end(error.code, error.message, by_client=False)

    async def _end(self, code: int, reason: str, *, by_client: bool) -> None:
        """Record the end, once, and let go of the call."""
        self._client._streams.discard(self)
        if self.ended:
            return
        self.ended = True
        self.code = code
        self.reason = reason
        self.by_client = by_client
        try:
            self._recorder.stream_ended(self.id, code, reason, by_client=by_client)
        finally:
            self._call.cancel()
            reading = self._reading
            if reading is not None and reading is not asyncio.current_task():
                reading.cancel()
                await asyncio.wait((reading,), timeout=CLOSE_TIMEOUT_S)
                if reading.done() and not reading.cancelled():
                    reading.exception()  # a recorder's failure, which whoever ends the stream learns of by itself

    def _decode(self, data: bytes) -> Any:
        self._decoded += 1
        if self._decoded > DECODER_CALLS_MAX:
            self._decoder = Decoder()
            self._decoded = 0
        message = self._decoder.response(self.method, data)
        self._recorder.saw_revision(_revision(message))
        return message


class WatchStream(Stream):
    """A Watch stream: several watches may live on it. Send `WatchCreateRequest`, `WatchCancelRequest`, `WatchProgressRequest`."""

    async def receive(self, timeout_s: float) -> WatchResponse | None:
        """The next response, or None where the stream has ended; TimeoutError where none came within `timeout_s`."""
        response: WatchResponse | None = await super().receive(timeout_s)
        return response


def _revision(message: Any) -> int:
    """The revision that the header of `message` names; 0 where it has none."""
    header = getattr(message, "header", None)
    return 0 if header is None else int(header.revision)


def _import_grpc() -> Any:
    # gRPC core writes warnings about refused connections to stderr, where a hunt has its live line; errors reach us as statuses.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import grpc
        import grpc.aio
    except ImportError as error:
        raise EnvironmentFailure(f"driving etcd needs gRPC ({error}): pip install 'pekan[hunt]'") from None
    return grpc


def _credentials(grpc: Any, tls: TlsFiles) -> Any:
    try:
        return grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.client_key.read_bytes(), tls.client_certificate.read_bytes())
    except OSError as error:
        raise EnvironmentFailure(f"{error.filename}: certificate cannot be read: {error.strerror}") from None


def _target(address: str) -> str:
    """A gRPC target: numeric addresses are taken as they are, names go to the resolver."""
    host = address.rpartition(":")[0]
    if host.startswith("["):
        return f"ipv6:{address}"
    return f"ipv4:{address}" if host.replace(".", "").isdigit() else f"dns:///{address}"


def _options(slow: bool) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        # Each client has a connection of its own: a connection shared behind our back would fail several clients at once.
        ("grpc.use_local_subchannel_pool", 1),
        # A proxy from the environment must not stand between us and a member on loopback.
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_BACKOFF_MS[0]),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MS[1]),
        # Named a backoff, this is how long an attempt to connect may take (grpc core, subchannel).
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
        # etcd answers "request is too large" by itself; a limit of ours would hide that answer.
        ("grpc.max_send_message_length", -1),
        ("grpc.primary_user_agent", "pekan"),
    ]
    if slow:
        options += [("grpc.http2.lookahead_bytes", SLOW_WINDOW_BYTES), ("grpc.http2.bdp_probe", 0)]
    return options


__all__ = ["FAILED", "INDEFINITE", "OK", "Client", "Reply", "Stream", "WatchStream", "decided"]
