"""The recorder: exact bytes, times that can only err to the safe side, the password left out, and a full disk that stops everything."""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path

import pytest

from pekan.errors import RecorderFailure
from pekan.etcd.recorder import Recorder
from pekan.history import RecordWriter, history_of, read_records
from pekan.wire import pb
from pekan.wire.errors import UNAVAILABLE
from pekan.wire.messages import AUTHENTICATE, PUT_METHOD, WATCH, PutRequest, WatchCreateRequest, encode


def new(directory: Path) -> tuple[Recorder, Path]:
    path = directory / "history.pb"
    return Recorder(RecordWriter(path)), path


def test_requests_and_answers_are_recorded_exactly(tmp_path: Path) -> None:
    """Bytes go into the record as they are, unknown fields and nonsense included, and counters follow."""
    recorder, path = new(tmp_path)
    first = recorder.invoked(3, "kv-0", "m1", PUT_METHOD, b"\x0a\x01k\xf2\x3f\x01x", (("token", "t"), ("hasleader", "true")))
    second = recorder.invoked(4, "kv-1", "m2", PUT_METHOD, b"")
    recorder.completed(second, code=UNAVAILABLE, message="gone")
    recorder.completed(first, b"\xff\x00")
    records = read_records(path).records
    assert [record.WhichOneof("body") for record in records] == ["invoked", "invoked", "completed", "completed"]
    assert (records[0].invoked.operation, records[1].invoked.operation) == (first, second) == (1, 2)
    assert (records[0].invoked.process, records[0].invoked.client, records[0].invoked.member) == (3, "kv-0", "m1")
    assert records[0].invoked.request == b"\x0a\x01k\xf2\x3f\x01x"
    assert [(pair.key, pair.value) for pair in records[0].invoked.metadata] == [("token", "t"), ("hasleader", "true")]
    assert (records[2].completed.code, records[2].completed.message) == (UNAVAILABLE, "gone")
    assert records[3].completed.response == b"\xff\x00"
    assert (recorder.operations, recorder.errors, recorder.bytes_written) == (2, 1, path.stat().st_size)
    recorder.close()


def test_times_are_taken_before_the_write_and_never_run_back(tmp_path: Path) -> None:
    """Each record's time lies between the moments before and after the call that wrote it, on CLOCK_MONOTONIC."""
    recorder, path = new(tmp_path)
    limits = []
    for _ in range(50):
        before = time.monotonic_ns()
        recorder.mark("phase", phase="quiet")
        limits.append((before, time.monotonic_ns()))
    times = [record.time_ns for record in read_records(path).records]
    assert all(before <= at <= after for (before, after), at in zip(limits, times, strict=True))
    assert times == sorted(times)
    recorder.close()


def test_the_password_of_authenticate_is_left_out(tmp_path: Path) -> None:
    """The one thing that is not recorded as sent: the name stays, unknown fields stay, the password is nowhere in the file."""
    recorder, path = new(tmp_path)
    request = pb.AuthenticateRequest(name="alice", password="opensesame").SerializeToString() + b"\xf2\x3f\x01x"
    recorder.invoked(1, "auth-0", "m1", AUTHENTICATE, request)
    [record] = read_records(path).records
    assert record.invoked.request == pb.AuthenticateRequest(name="alice").SerializeToString() + b"\xf2\x3f\x01x"
    assert b"opensesame" not in path.read_bytes()
    recorder.close()


def test_everything_recorded_is_a_history(tmp_path: Path) -> None:
    """Streams, faults and marks written by the recorder are read back as such."""
    recorder, path = new(tmp_path)
    create = WatchCreateRequest(b"k")
    recorder.mark("start", start="empty", boot_id="b")
    stream = recorder.new_stream()
    recorder.stream_sent(stream, encode(create), WATCH, "watch-m1-0", "m1", (("token", "t"),))
    recorder.stream_received(stream, b"")
    fault = recorder.fault_armed("kill", "m1", {"hold_ms": 800}, promise="within", required=True, fault_class="process")
    recorder.fault_fired(fault, {"wait_status": 9})
    recorder.fault_healed(fault)
    recorder.stream_ended(stream, UNAVAILABLE, "gone", by_client=False)
    recorder.mark("member", "m1", state="exited", wait_status=9)
    recorder.mark("end", reason="finished")
    recorder.close()
    history = history_of(read_records(path).records)
    [span] = history.faults
    assert (span.kind, span.target, span.parameters, span.promise, span.required, span.fault_class) == (
        "kill",
        "m1",
        {"hold_ms": 800},
        "within",
        True,
        "process",
    )
    assert span.evidence == {"wait_status": 9}
    assert span.fired is not None
    assert span.healed is not None
    [watch] = history.streams
    assert [message.sent for message in watch.messages] == [True, False]
    assert (watch.messages[0].message, watch.code, watch.by_client) == (create, UNAVAILABLE, False)
    assert [mark.kind for mark in history.marks] == ["start", "member", "end"]
    assert history.marks[1].detail == {"state": "exited", "wait_status": 9}
    assert (history.complete, history.start) == (True, "empty")


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Processes and streams get numbers that nobody has had."""
    recorder, _ = new(tmp_path)
    assert len({recorder.new_process() for _ in range(100)}) == 100
    assert len({recorder.new_stream() for _ in range(100)}) == 100
    recorder.close()


def test_a_full_disk_raises_the_flag(tmp_path: Path) -> None:
    """When the file cannot be written, whoever waits for `failed` wakes, every later method raises, and what was written stays readable."""
    recorder, path = new(tmp_path)
    request = encode(PutRequest(b"k", b"v" * 100))
    operation = recorder.invoked(1, "kv-0", "m1", PUT_METHOD, request)
    whole = recorder.bytes_written

    async def fill() -> None:
        waiting = asyncio.create_task(recorder.failed.wait())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 20, hard))
        try:
            with pytest.raises(RecorderFailure, match=r"history\.pb: cannot be written after"):
                recorder.invoked(2, "kv-1", "m1", PUT_METHOD, request)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        async with asyncio.timeout(5):
            assert await waiting

    asyncio.run(fill())
    assert recorder.failure is not None
    assert recorder.operations == 1
    for later in (
        lambda: recorder.invoked(3, "kv-2", "m1", PUT_METHOD, request),
        lambda: recorder.completed(operation),
        lambda: recorder.stream_sent(1, b""),
        lambda: recorder.mark("end", reason="recorder"),
    ):
        with pytest.raises(RecorderFailure, match="EFBIG"):
            later()
    recorder.close()
    reading = read_records(path)
    assert [record.WhichOneof("body") for record in reading.records] == ["invoked"]
    assert reading.cut == 20
