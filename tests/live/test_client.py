"""The client against real members: exactly one attempt, everything recorded, and nothing believed that no answer proves."""

from __future__ import annotations

import asyncio
import re
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pekan.errors import RecorderFailure, UsageError
from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster, Member
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec
from pekan.history import FAILED, INDEFINITE, OK, History, RecordWriter, history_of, load, read_records
from pekan.wire import errors, pb
from pekan.wire.messages import (
    EQUAL,
    LEASE_KEEP_ALIVE,
    PUT_METHOD,
    SNAPSHOT,
    VALUE,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    PutRequest,
    RangeRequest,
    Request,
    TxnRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchResponse,
    encode,
)

pytestmark = pytest.mark.live

TEST_SECONDS = 180.0
# Long enough for any answer on a loaded machine; a test that waits for a deadline sets its own.
CALL_SECONDS = 30.0
VERSION = "3.5.1"
QUICK = {"heartbeat-interval": "10", "election-timeout": "100"}
EVERYTHING = WatchCreateRequest(b"\0", b"\0", start_revision=1)


class Room:
    """One member, one recorder, and clients of the member."""

    def __init__(self, member: Member, recorder: Recorder, path: Path) -> None:
        self.member = member
        self.recorder = recorder
        self.path = path
        self.clients: list[Client] = []

    def client(self, name: str = "kv-0", **options: Any) -> Client:
        address = self.member.spec.advertise_client
        client = Client(name=name, member=self.member.spec.name, address=address, recorder=self.recorder, timeout_s=CALL_SECONDS, **options)
        self.clients.append(client)
        return client

    def history(self) -> History:
        return load(self.path)


@asynccontextmanager
async def room(directory: Path, *, options: dict[str, str] | None = None, **cluster: Any) -> AsyncIterator[Room]:
    """A started member of the oldest etcd that is always there, with a recorder; everything is closed on leaving."""
    spec = ClusterSpec(find(VERSION), directory / "cluster", members=1, options={**QUICK, **(options or {})}, **cluster)
    path = directory / "history.pb"
    recorder = Recorder(RecordWriter(path))
    async with Cluster(spec) as running:
        opened = Room(running.members[0], recorder, path)
        try:
            yield opened
        finally:
            for client in opened.clients:
                await client.close()
            recorder.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine; a test that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await test()

    find(VERSION)  # it may have to be fetched first, for which the bound is not meant
    asyncio.run(bounded())


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it became true; fail when it has not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not become true in time"
        await asyncio.sleep(0.005)


async def started(member: Member, method: str) -> int:
    """How many requests of `method` the member has seen begin since it started (its grpc_server_started_total)."""
    host, port = member.spec.advertise_client
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    await writer.wait_closed()
    match = re.search(rf'^grpc_server_started_total{{grpc_method="{method}",.*}} (\S+)$', text, re.MULTILINE)
    assert match is not None, text[:500]
    return int(float(match[1]))


def test_what_was_answered_is_what_is_recorded(tmp_path: Path) -> None:
    """Requests of all kinds come back from the record with the very requests and replies that the caller had, and within their times."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            requests: list[Request] = [
                PutRequest(b"a", b"1"),
                PutRequest(b"a", b"2", prev_kv=True),
                RangeRequest(b"a"),
                TxnRequest((Compare(EQUAL, VALUE, b"a", b"2"),), (PutRequest(b"b", b"3"), RangeRequest(b"\0", b"\0")), ()),
                DeleteRangeRequest(b"a", prev_kv=True),
                RangeRequest(b"a", revision=99),
                LeaseGrantRequest(60),
                pb.StatusRequest(),
                pb.HashKVRequest(),
            ]
            replies = []
            moments = []
            for request in requests:
                before = time.monotonic_ns()
                replies.append(await client.call(request))
                moments.append((before, time.monotonic_ns()))
            history = here.history()
            assert [operation.input for operation in history.operations] == requests
            assert [operation.output for operation in history.operations] == [reply.output for reply in replies]
            assert [operation.outcome for operation in history.operations] == [reply.outcome for reply in replies]
            assert [operation.id for operation in history.operations] == [reply.operation for reply in replies]
            assert [reply.outcome for reply in replies] == [OK] * 5 + [FAILED] + [OK] * 3
            assert replies[5].output == (errors.OUT_OF_RANGE, errors.FUTURE_REVISION)
            for (before, after), operation in zip(moments, history.operations, strict=True):
                assert operation.ret is not None
                assert before <= operation.call < operation.ret <= after
            assert {(operation.client, operation.member, operation.process) for operation in history.operations} == {("kv-0", "m1", 1)}

    run(test)


def test_a_watch_is_recorded_message_by_message(tmp_path: Path) -> None:
    """A watch stream reads back with every message sent and received, and its end, which this side made, once."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            for number in range(3):
                await client.call(PutRequest(b"k", b"%d" % number))
            got: list[WatchResponse] = []
            async with client.watch() as stream:
                assert await stream.send(EVERYTHING)
                while sum(len(message.events) for message in got) < 3:
                    message = await stream.receive(CALL_SECONDS)
                    assert message is not None
                    got.append(message)
                assert await stream.send(WatchProgressRequest())
                message = await stream.receive(CALL_SECONDS)
                assert message is not None
                got.append(message)
            assert (stream.ended, stream.by_client, stream.code) == (True, True, errors.CANCELLED)
            assert not await stream.send(WatchProgressRequest())
            assert await stream.receive(0.0) is None
            await stream.close()
            [recorded] = here.history().streams
            assert [m.message for m in recorded.messages if m.sent] == [EVERYTHING, WatchProgressRequest()]
            assert [m.message for m in recorded.messages if not m.sent] == got
            assert got[0].created
            assert [event.kv.value for message in got for event in message.events] == [b"0", b"1", b"2"]
            assert recorded.by_client
            assert recorded.ended is not None

    run(test)


def test_a_paused_member_leaves_writes_indefinite(tmp_path: Path) -> None:
    """A write to a stopped process ends at its deadline, indefinite, and ends its process; a read fails; resumed, both clients go on."""

    async def test() -> None:
        async with room(tmp_path) as here:
            writer, reader = here.client(), here.client("kv-1")
            assert (await writer.call(PutRequest(b"k", b"1"))).outcome == OK
            assert (await reader.call(RangeRequest(b"k"))).outcome == OK
            before = writer.process, reader.process
            await here.member.pause()
            begin = time.monotonic()
            write, read = await asyncio.gather(
                writer.call(PutRequest(b"k", b"2"), timeout_s=0.3), reader.call(RangeRequest(b"k"), timeout_s=0.3)
            )
            assert 0.25 < time.monotonic() - begin < CALL_SECONDS
            assert (write.outcome, write.output.code) == (INDEFINITE, errors.DEADLINE_EXCEEDED)
            assert (read.outcome, read.output.code) == (FAILED, errors.DEADLINE_EXCEEDED)
            assert writer.process not in before
            assert reader.process == before[1]
            await here.member.resume()
            assert (await writer.call(PutRequest(b"k", b"3"))).outcome == OK
            operation = here.history().operations[write.operation - 1]
            assert (operation.ret, operation.output) == (None, write.output)
            assert operation.gave_up is not None

    run(test)


def test_a_killed_member_is_unavailable_and_then_reached_again(tmp_path: Path) -> None:
    """Connection refused is UNAVAILABLE and indefinite at once; the restarted member is reached by the same client soon after."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            assert (await client.call(PutRequest(b"k", b"1"))).outcome == OK
            await here.member.kill()
            for _ in range(3):
                reply = await client.call(PutRequest(b"k", b"2"))
                assert (reply.outcome, reply.output.code) == (INDEFINITE, errors.UNAVAILABLE)
            await here.member.start()
            await here.member.wait_ready()
            begin = time.monotonic()
            while (await client.call(RangeRequest(b"k"))).outcome != OK:
                assert time.monotonic() - begin < CALL_SECONDS
                await asyncio.sleep(0.02)
            assert [operation.outcome for operation in here.history().operations[:4]] == [OK] + [INDEFINITE] * 3

    run(test)


def test_a_patient_call_waits_for_a_connection(tmp_path: Path) -> None:
    """What would fail at once while nobody listens is sent, once, when the member is there again; a stream is opened then."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            await here.member.kill()
            assert (await client.call(RangeRequest(b"k"))).output.code == errors.UNAVAILABLE
            call = asyncio.create_task(client.call(PutRequest(b"k", b"1"), patient=True))
            await until(lambda: here.recorder.operations == 2)
            assert (await here.client("kv-1").call(RangeRequest(b"k"))).output.code == errors.UNAVAILABLE
            assert not call.done()
            await here.member.start()
            assert (await call).outcome == OK
            assert await started(here.member, "Put") == 1
            await here.member.kill()
            assert (await client.call(RangeRequest(b"k"))).output.code == errors.UNAVAILABLE
            stream = client.watch(patient=True)
            opening = asyncio.create_task(stream.send(EVERYTHING))
            await until(lambda: here.recorder.messages == 1)
            await here.member.start()
            assert await opening
            assert (await stream.receive(CALL_SECONDS)) is not None
            await stream.close()

    run(test)


def test_each_call_is_one_attempt(tmp_path: Path) -> None:
    """The member has seen exactly as many requests begin as were recorded."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            for number in range(25):
                await client.call(PutRequest(b"k", b"%d" % number))
            await client.call(PutRequest(b"k", b"", lease=12345))
            assert await started(here.member, "Put") == 26
            assert here.recorder.operations == 26

    run(test)


class Refusing:
    """A listener that speaks just enough HTTP/2 to send every client away before its first request, and counts the requests.

    GOAWAY with stream 0 as the last one processed is what invites a client to a transparent retry: the server promises not to have looked
    at the request (RFC 9113, 6.8).
    """

    def __init__(self) -> None:
        self.requests = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers, settings, ping, goaway, ack = 1, 4, 6, 7, 1
        self.writers.append(writer)
        try:
            await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            writer.write(self.frame(settings, 0, 0, b""))
            while True:
                head = await reader.readexactly(9)
                body = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags = head[3], head[4]
                if kind in (settings, ping) and not flags & ack:
                    writer.write(self.frame(kind, ack, 0, body if kind == ping else b""))
                elif kind == headers:
                    self.requests += 1
                    writer.write(self.frame(goaway, 0, 0, bytes(8)))  # last stream processed 0, NO_ERROR
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @staticmethod
    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def test_there_are_no_transparent_retries(tmp_path: Path) -> None:
    """A request refused before it was looked at, which gRPC by default sends again by itself, is sent once and reported."""

    async def test() -> None:
        refusing = Refusing()
        server = await asyncio.start_server(refusing.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        recorder = Recorder(RecordWriter(tmp_path / "history.pb"))
        async with Client(name="kv-0", member="m1", address=f"127.0.0.1:{port}", recorder=recorder, timeout_s=CALL_SECONDS) as client:
            reply = await client.call(PutRequest(b"k", b"1"))
            assert (reply.outcome, reply.output.code) == (INDEFINITE, errors.UNAVAILABLE)
            assert refusing.requests == 1
        # The same server sees more than one request from gRPC as it comes: the count above could have been another.
        async with grpc.aio.insecure_channel(f"ipv4:127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(PUT_METHOD)(encode(PutRequest(b"k", b"1")), timeout=CALL_SECONDS)
        assert refusing.requests > 2
        recorder.close()
        for writer in refusing.writers:
            writer.close()
        server.close()
        await server.wait_closed()

    run(test)


def test_large_answers_and_fragments_arrive(tmp_path: Path) -> None:
    """A list beyond gRPC's default limit of 4 MiB is an answer, and a watch that allows it gets large revisions in fragments."""

    async def test() -> None:
        # etcd fragments what is larger than this and 512 KiB of slack (etcd server/etcdserver/api/v3rpc/grpc.go).
        async with room(tmp_path, options={"max-request-bytes": str(128 << 10)}) as here:
            client = here.client()
            value = b"v" * (100 << 10)
            for number in range(50):
                assert (await client.call(PutRequest(b"k%02d" % number, value))).outcome == OK
            reply = await client.call(RangeRequest(b"\0", b"\0"))
            assert len(reply.output.kvs) == 50
            got: list[WatchResponse] = []
            async with client.watch() as stream:
                await stream.send(EVERYTHING._replace(fragment=True))
                while sum(len(message.events) for message in got) < 50:
                    message = await stream.receive(CALL_SECONDS)
                    assert message is not None
                    got.append(message)
            assert any(message.fragment for message in got)
            assert [event.kv.key for message in got for event in message.events] == [b"k%02d" % number for number in range(50)]
            [recorded] = here.history().streams
            assert [m.message for m in recorded.messages if not m.sent] == got
            too_large = await client.call(PutRequest(b"k", b"v" * (200 << 10)))
            assert (too_large.outcome, too_large.output) == (FAILED, (errors.INVALID_ARGUMENT, "etcdserver: request is too large"))

    run(test)


def test_passwords_stay_out_and_tokens_name_the_user(tmp_path: Path) -> None:
    """With authentication on, the password of Authenticate is in no record of it, and the token makes later requests the user's."""

    async def test() -> None:
        auth = "/etcdserverpb.Auth/"
        async with room(tmp_path) as here:
            client = here.client("auth-0")
            for request in (
                pb.AuthUserAddRequest(name="root", password="opensesame"),
                pb.AuthRoleAddRequest(name="root"),
                pb.AuthUserGrantRoleRequest(user="root", role="root"),
                pb.AuthEnableRequest(),
            ):
                assert (await client.call(request)).outcome == OK
            assert (await client.call(PutRequest(b"k", b"1"))).output.code == errors.INVALID_ARGUMENT
            token = (await client.call(pb.AuthenticateRequest(name="root", password="opensesame"))).output.token
            client.set_token(token)
            assert (await client.call(PutRequest(b"k", b"1"))).outcome == OK
            async with client.watch() as stream:
                await stream.send(EVERYTHING)
                assert (await stream.receive(CALL_SECONDS)) is not None
            client.set_token("")
            assert (await client.call(PutRequest(b"k", b"1"))).outcome == FAILED
            records = read_records(here.path).records
            [authenticate] = [record for record in records if record.invoked.method == auth + "Authenticate"]
            assert authenticate.invoked.request == pb.AuthenticateRequest(name="root").SerializeToString()
            history = history_of(records)
            assert [operation.user for operation in history.operations] == [""] * 6 + ["root", ""]
            assert [stream.user for stream in history.streams] == ["root"]

    run(test)


def test_a_cancelled_call_is_recorded_and_cancelled(tmp_path: Path) -> None:
    """Cancelling the task of a call records it as CANCELLED, indefinite, under a process that ends with it, and goes on cancelling."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            assert (await client.call(RangeRequest(b"k"))).outcome == OK
            before = client.process
            await here.member.pause()
            call = asyncio.create_task(client.call(PutRequest(b"k", b"1")))
            await until(lambda: here.recorder.operations == 2)
            with pytest.raises(UsageError, match="one call at a time"):
                await client.call(PutRequest(b"k", b"2"))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert client.process != before
            await here.member.resume()
            assert (await client.call(RangeRequest(b"k"))).outcome == OK
            operation = here.history().operations[1]
            assert (operation.outcome, operation.output.code, operation.process) == (INDEFINITE, errors.CANCELLED, before)

    run(test)


def test_closing_the_client_ends_what_is_open(tmp_path: Path) -> None:
    """A call under which the connection is closed is indefinite, without an exception, and an open stream ends, each recorded once."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            stream = client.watch()
            await stream.send(EVERYTHING)
            assert (await stream.receive(CALL_SECONDS)) is not None
            await here.member.pause()
            call = asyncio.create_task(client.call(PutRequest(b"k", b"1")))
            await until(lambda: here.recorder.operations == 1)
            await asyncio.sleep(0)
            await client.close()
            reply = await call
            assert (reply.outcome, reply.output.code) == (INDEFINITE, errors.CANCELLED)
            assert (stream.ended, stream.by_client) == (True, True)
            await here.member.resume()
            history = here.history()
            assert history.operations[0].outcome == INDEFINITE
            assert history.streams[0].by_client

    run(test)


def test_a_receive_that_times_out_loses_nothing(tmp_path: Path) -> None:
    """Hundreds of receives that give up at once, between writes, still deliver every event, once and in order."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            timeouts = 0
            keys: list[bytes] = []
            async with client.watch() as stream:
                await stream.send(EVERYTHING)
                written = 0
                while len(keys) < 100:
                    if written < 100:
                        await client.call(PutRequest(b"%03d" % written))
                        written += 1
                    try:
                        message = await stream.receive(0.0)
                    except TimeoutError:
                        timeouts += 1
                        await asyncio.sleep(0)
                        continue
                    assert message is not None
                    keys += [event.kv.key for event in message.events]
            assert keys == [b"%03d" % number for number in range(100)]
            assert timeouts > 0
            [recorded] = here.history().streams
            assert [event.kv.key for m in recorded.messages if not m.sent for event in m.message.events] == keys

    run(test)


def test_a_slow_reader_loses_nothing(tmp_path: Path) -> None:
    """A stream that is not read while megabytes are written delivers every event afterwards; only what was read is in the record."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client, slow = here.client(), here.client("watch-m1-slow", slow=True)
            async with slow.watch() as stream:
                await stream.send(EVERYTHING)
                created = await stream.receive(CALL_SECONDS)
                assert created is not None
                assert created.created
                for number in range(60):
                    await client.call(PutRequest(b"%03d" % number, b"v" * (50 << 10)))
                assert len(here.history().streams[0].messages) == 2
                keys: list[bytes] = []
                while len(keys) < 60:
                    message = await stream.receive(CALL_SECONDS)
                    assert message is not None
                    keys += [event.kv.key for event in message.events]
            assert keys == [b"%03d" % number for number in range(60)]

    run(test)


def test_a_stream_ends_with_its_member(tmp_path: Path) -> None:
    """When the member is killed, the pending receive ends with None and the record says that the member's side ended it; so at opening."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            stream = client.watch()
            with pytest.raises(UsageError, match="send a message before receiving"):
                await stream.receive(0.0)
            await stream.send(EVERYTHING)
            assert (await stream.receive(CALL_SECONDS)) is not None
            receiving = asyncio.create_task(stream.receive(CALL_SECONDS))
            await here.member.kill()
            assert await receiving is None
            assert (stream.ended, stream.by_client, stream.code) == (True, False, errors.UNAVAILABLE)
            assert not await stream.send(WatchProgressRequest())
            async with client.watch() as dead:
                await dead.send(EVERYTHING)
                assert await dead.receive(CALL_SECONDS) is None
            assert (dead.code, dead.by_client) == (errors.UNAVAILABLE, False)
            first, second = here.history().streams
            assert (first.code, first.by_client, len(first.messages)) == (errors.UNAVAILABLE, False, 2)
            assert (second.code, second.by_client, len(second.messages)) == (errors.UNAVAILABLE, False, 1)

    run(test)


def test_a_stream_to_a_paused_member_gives_up(tmp_path: Path) -> None:
    """Opening a stream on a stopped process ends at the deadline of the send or the receive, and the stream is recorded as ended."""

    async def test() -> None:
        async with room(tmp_path) as here:
            await here.member.pause()
            async with here.client("watch-m1-0").watch() as stream:
                await stream.send(EVERYTHING, timeout_s=0.2)
                if not stream.ended:
                    with pytest.raises(TimeoutError):
                        await stream.receive(0.2)
            assert stream.ended
            [recorded] = here.history().streams
            assert recorded.by_client or recorded.code == errors.UNAVAILABLE
            await here.member.resume()

    run(test)


def test_leases_are_kept_alive_on_a_stream(tmp_path: Path) -> None:
    """Keep-alives are messages of a LeaseKeepAlive stream; the answer for a lease that is none has TTL 0."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            lease = (await client.call(LeaseGrantRequest(60))).output.id
            async with client.stream(LEASE_KEEP_ALIVE) as alive:
                for _ in range(3):
                    assert await alive.send(LeaseKeepAliveRequest(lease))
                    assert (await alive.receive(CALL_SECONDS)).ttl == 60
            async with client.stream(LEASE_KEEP_ALIVE) as nothing:
                assert await nothing.send(LeaseKeepAliveRequest(lease + 1))
                assert (await nothing.receive(CALL_SECONDS)).ttl == 0
            first, second = here.history().streams
            assert (first.method, len(first.messages), len(second.messages)) == (LEASE_KEEP_ALIVE, 6, 2)

    run(test)


def test_a_snapshot_is_a_stream_with_an_end(tmp_path: Path) -> None:
    """Snapshot's many answers are recorded and end with status OK from the member's side; together they are a database."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            await client.call(PutRequest(b"k", b"1"))
            blob = b""
            async with client.stream(SNAPSHOT) as stream:
                assert await stream.send(pb.SnapshotRequest())
                while (message := await stream.receive(CALL_SECONDS)) is not None:
                    blob += message.blob
            assert (stream.code, stream.by_client) == (errors.OK, False)
            assert len(blob) % 4096 == 32  # pages, and a SHA-256 (etcd server/etcdserver/api/v3rpc/maintenance.go)
            [recorded] = here.history().streams
            assert b"".join(m.message.blob for m in recorded.messages if not m.sent) == blob
            assert recorded.ended is not None

    run(test)


def test_nothing_leaves_when_nothing_can_be_recorded(tmp_path: Path) -> None:
    """From the moment the record cannot be written, calls and streams raise and the member sees no further request."""

    async def test() -> None:
        async with room(tmp_path) as here:
            client = here.client()
            assert (await client.call(PutRequest(b"k", b"1"))).outcome == OK
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (here.recorder.bytes_written, hard))
            try:
                with pytest.raises(RecorderFailure):
                    await client.call(PutRequest(b"k", b"2"))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert here.recorder.failed.is_set()
            for _ in range(3):
                with pytest.raises(RecorderFailure):
                    await client.call(PutRequest(b"k", b"3"))
                with pytest.raises(RecorderFailure):
                    await client.watch().send(EVERYTHING)
            assert await started(here.member, "Put") == 1
            assert await started(here.member, "Watch") == 0

    run(test)


@pytest.mark.parametrize("certificates", [False, True])
def test_tls_and_metadata_are_options(tmp_path: Path, certificates: bool) -> None:
    """The same client speaks TLS, with a certificate of its own where the member asks for one, and sends the metadata it was given."""

    async def test() -> None:
        async with room(tmp_path, tls=True, client_certificate_required=certificates) as here:
            client = here.client(tls=here.member.spec.tls, metadata=(("hasleader", "true"),))
            assert (await client.call(PutRequest(b"k", b"1"))).outcome == OK
            plain = await here.client("kv-1").call(PutRequest(b"k", b"2"))
            assert (plain.outcome, plain.output.code) == (INDEFINITE, errors.UNAVAILABLE)
            [first, _] = [record.invoked for record in read_records(here.path).records if record.WhichOneof("body") == "invoked"]
            assert [(pair.key, pair.value) for pair in first.metadata] == [("hasleader", "true")]

    run(test)
