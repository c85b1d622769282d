"""From records to a history: what becomes of each request, which evidence is refused, and how files of one run are merged."""

from __future__ import annotations

import gc
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pekan.errors import EvidenceError
from pekan.history import (
    FAILED,
    INDEFINITE,
    OK,
    UNKNOWN_USER,
    RecordWriter,
    RunDirectory,
    StreamMessage,
    history_of,
    is_read,
    load,
    operations,
    outcome_of,
)
from pekan.plan import Plan
from pekan.wire import errors, pb
from pekan.wire._generated.pekan_record_pb2 import Metadata, Record
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    AUTHENTICATE,
    LEASE_KEEP_ALIVE,
    PUT_METHOD,
    SNAPSHOT,
    WATCH,
    DeleteRangeRequest,
    Event,
    Header,
    KeyValue,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
    encode,
    method_of,
)

HEADER = Header(cluster_id=1, member_id=2, revision=3, raft_term=4)
PUT = PutRequest(b"k", b"v")
PUT_ANSWER = PutResponse(HEADER, None)
CREATE = WatchCreateRequest(b"k")
CREATED = WatchResponse(HEADER, 0, True, False, 0, "", False, ())
PLAN = Plan(etcd="3.5.1", seed=7)


def token(value: str) -> tuple[Metadata, ...]:
    return (Metadata(key="token", value=value),)


def invoked(time: int, operation: int, request: Any = PUT, process: int = 1, metadata: Iterable[Metadata] = ()) -> Record:
    record = Record(time_ns=time)
    body = record.invoked
    body.operation = operation
    body.process = process
    body.client = f"kv-{process}"
    body.member = "m1"
    body.method = method_of(request)
    body.request = encode(request)
    body.metadata.extend(metadata)
    return record


def completed(time: int, operation: int, response: Any = PUT_ANSWER) -> Record:
    record = Record(time_ns=time)
    record.completed.operation = operation
    if isinstance(response, WireError):
        record.completed.code, record.completed.message = response
    else:
        record.completed.response = encode(response)
    return record


def sent(time: int, stream: int, request: Any, method: str = "", metadata: Iterable[Metadata] = ()) -> Record:
    record = Record(time_ns=time)
    body = record.stream_sent
    body.stream = stream
    body.request = encode(request)
    if method:
        body.method = method
        body.client = "watch-m1-0"
        body.member = "m1"
    body.metadata.extend(metadata)
    return record


def received(time: int, stream: int, response: Any) -> Record:
    record = Record(time_ns=time)
    record.stream_received.stream = stream
    record.stream_received.response = encode(response)
    return record


def ended(time: int, stream: int) -> Record:
    record = Record(time_ns=time)
    record.stream_ended.stream = stream
    record.stream_ended.code = 14
    record.stream_ended.message = "gone"
    return record


def mark(time: int, kind: str, member: str = "", **detail: object) -> Record:
    record = Record(time_ns=time)
    record.mark.kind = kind
    record.mark.member = member
    record.mark.detail = json.dumps(detail)
    return record


def armed(time: int, fault: int) -> Record:
    record = Record(time_ns=time)
    body = record.fault_armed
    body.fault, body.kind, body.target, body.parameters, body.promise = fault, "kill", "m1", '{"hold_ms": 5}', "within"
    body.required = True
    return record


def fired(time: int, fault: int) -> Record:
    record = Record(time_ns=time)
    record.fault_fired.fault = fault
    record.fault_fired.evidence = '{"pid": 9}'
    return record


def healed(time: int, fault: int) -> Record:
    record = Record(time_ns=time)
    record.fault_healed.fault = fault
    record.fault_healed.evidence = '{"pid": 10}'
    return record


def write(path: Path, records: Iterable[Record]) -> Path:
    writer = RecordWriter(path)
    for record in records:
        writer.write(record)
    writer.close()
    return path


def test_an_answered_request_is_ok() -> None:
    """An answer makes the operation ok, with both times, the decoded request and response and everything that names it."""
    [operation] = operations([invoked(10, 1), completed(20, 1)])
    assert operation == (1, 1, 10, 20, OK, PUT, PUT_ANSWER, PUT_METHOD, "kv-1", "m1", "", None)


@pytest.mark.parametrize(
    ("request_", "error", "outcome"),
    [
        (PUT, WireError(errors.OUT_OF_RANGE, errors.COMPACTED), FAILED),
        (PUT, WireError(errors.UNKNOWN, "etcdserver: too many requests"), FAILED),
        (PUT, WireError(errors.DEADLINE_EXCEEDED, "context deadline exceeded"), INDEFINITE),
        (PUT, WireError(errors.RESOURCE_EXHAUSTED, errors.NO_SPACE), INDEFINITE),
        (PUT, WireError(errors.INVALID_ARGUMENT, errors.AUTH_OLD_REVISION), INDEFINITE),
        (RangeRequest(b"k"), WireError(errors.UNAVAILABLE, ""), FAILED),
        (TxnRequest(), WireError(errors.UNAVAILABLE, ""), FAILED),
        (TxnRequest(success=(TxnRequest(failure=(RangeRequest(b"k"),)),)), WireError(errors.UNAVAILABLE, ""), FAILED),
        (TxnRequest(success=(TxnRequest(failure=(PUT,)),)), WireError(errors.UNAVAILABLE, ""), INDEFINITE),
        (TxnRequest(failure=(DeleteRangeRequest(b"k"),)), WireError(errors.UNAVAILABLE, ""), INDEFINITE),
        (pb.StatusRequest(), WireError(errors.UNAVAILABLE, ""), INDEFINITE),
    ],
)
def test_what_an_error_proves(request_: Any, error: WireError, outcome: str) -> None:
    """A read with any error and a write that etcd refuses for good have failed and keep their return; all else may still happen."""
    [operation] = operations([invoked(10, 1, request_), completed(20, 1, error)])
    assert operation.outcome == outcome
    assert operation.output == error
    assert (operation.ret, operation.gave_up) == ((20, None) if outcome == FAILED else (None, 20))


def test_a_request_without_answer_is_indefinite() -> None:
    """A request that is still open when the record ends may happen at any time: no return, no output, never given up. A read too."""
    for request in (PUT, RangeRequest(b"k")):
        [operation] = operations([invoked(10, 1, request)])
        assert (operation.outcome, operation.ret, operation.output, operation.gave_up) == (INDEFINITE, None, None, None)


def test_reads_are_told_from_writes() -> None:
    """A transaction is a read only where every operation of both branches is one, at any depth."""
    read = TxnRequest(success=(RangeRequest(b"a"), TxnRequest(success=(RangeRequest(b"b"),))))
    assert is_read(read)
    assert not is_read(read._replace(failure=(PUT,)))
    assert not is_read(PUT)
    assert not is_read(pb.AlarmRequest())


@pytest.mark.parametrize(
    ("request_", "code", "text", "outcome"),
    [
        (pb.LockRequest(), errors.OUT_OF_RANGE, errors.COMPACTED, INDEFINITE),
        (pb.LockRequest(), errors.UNKNOWN, "mutex: session is expired", INDEFINITE),
        (pb.LockRequest(), errors.UNKNOWN, errors.LEASE_NOT_FOUND, FAILED),
        (pb.LockRequest(), errors.UNIMPLEMENTED, "unknown service v3lockpb.Lock", FAILED),
        (pb.CampaignRequest(), errors.UNKNOWN, errors.LEASE_NOT_FOUND, INDEFINITE),
        (pb.CampaignRequest(), errors.PERMISSION_DENIED, "etcdserver: permission denied", INDEFINITE),
        (pb.CampaignRequest(), errors.UNKNOWN, "election: not leader", INDEFINITE),
        (pb.ProclaimRequest(), errors.UNKNOWN, "election: not leader", FAILED),
        (pb.UnlockRequest(), errors.PERMISSION_DENIED, "etcdserver: permission denied", FAILED),
        (pb.UnlockRequest(), errors.UNKNOWN, "etcdserver: request timed out", INDEFINITE),
    ],
)
def test_an_error_after_the_first_of_several_steps_proves_nothing(request_: Any, code: int, text: str, outcome: str) -> None:
    """Lock and Campaign have put their key before most of what can fail; letting go is one write, and its errors say what they say."""
    assert outcome_of(request_, WireError(code, text)) == outcome


def test_operations_are_in_order_of_call() -> None:
    """Operations come in the order in which they were invoked, whatever the order of their answers."""
    records = [
        invoked(1, 1, process=1),
        invoked(2, 2, process=2),
        completed(3, 2),
        invoked(3, 3, process=2),
        completed(4, 3),
        completed(5, 1),
    ]
    assert [(operation.id, operation.call, operation.ret) for operation in operations(records)] == [(1, 1, 5), (2, 2, 3), (3, 3, 4)]


def test_tokens_tell_the_user() -> None:
    """A token sent as metadata names the user whose recorded Authenticate returned it; one from elsewhere is an unknown user."""
    answer = pb.AuthenticateResponse(token="t-alice")
    records = [
        invoked(1, 1, pb.AuthenticateRequest(name="alice")),
        completed(2, 1, answer),
        invoked(3, 2, metadata=token("t-alice")),
        completed(4, 2),
        invoked(5, 3, metadata=token("t-else")),
        completed(6, 3),
        invoked(7, 4),
        sent(8, 1, WatchCreateRequest(b"k"), WATCH, token("t-alice")),
        sent(8, 2, WatchCreateRequest(b"k"), WATCH, token("t-else")),
    ]
    history = history_of(records)
    assert [operation.user for operation in history.operations] == ["", "alice", UNKNOWN_USER, ""]
    assert [stream.user for stream in history.streams] == ["alice", UNKNOWN_USER]
    assert history.operations[0].method == AUTHENTICATE


def test_streams_keep_every_message_in_order() -> None:
    """Messages of interleaved streams of three kinds are kept apart, decoded, in order and with their times and directions."""
    event = Event(0, KeyValue(b"k", 3, 3, 1, b"v", 0), None)
    create = WatchCreateRequest(b"\0", b"\0", start_revision=1)
    answers = [
        WatchResponse(HEADER, 0, True, False, 0, "", False, ()),
        WatchResponse(HEADER, 0, False, False, 0, "", False, (event,)),
    ]
    alive = LeaseKeepAliveResponse(HEADER, 5, 30)
    records = [
        sent(1, 1, create, WATCH),
        sent(2, 2, LeaseKeepAliveRequest(5), LEASE_KEEP_ALIVE),
        received(3, 1, answers[0]),
        received(4, 2, alive),
        sent(5, 3, pb.SnapshotRequest(), SNAPSHOT),
        received(6, 3, pb.SnapshotResponse(blob=b"page", remaining_bytes=7)),
        received(7, 1, answers[1]),
        ended(8, 1),
    ]
    watch, lease, snapshot = history_of(records).streams
    assert watch.messages == (StreamMessage(1, True, create), StreamMessage(3, False, answers[0]), StreamMessage(7, False, answers[1]))
    assert (watch.id, watch.method, watch.client, watch.member) == (1, WATCH, "watch-m1-0", "m1")
    assert (watch.ended, watch.code, watch.reason, watch.by_client) == (8, 14, "gone", False)
    assert lease.messages == (StreamMessage(2, True, LeaseKeepAliveRequest(5)), StreamMessage(4, False, alive))
    assert lease.ended is None
    assert snapshot.messages[1].message == pb.SnapshotResponse(blob=b"page", remaining_bytes=7)


def test_faults_and_marks_are_told() -> None:
    """A fault spans armed, fired and healed with the evidence of both; one that never fired says so; marks keep their JSON."""
    records = [
        mark(1, "start", start="empty"),
        armed(2, 1),
        armed(3, 2),
        fired(4, 1),
        healed(5, 1),
        mark(6, "member", "m1", state="started", pid=10),
    ]
    history = history_of(records)
    first, second = history.faults
    assert (first.armed, first.fired, first.healed) == (2, 4, 5)
    assert (first.kind, first.target, first.parameters, first.promise, first.required) == ("kill", "m1", {"hold_ms": 5}, "within", True)
    assert first.evidence == {"pid": 9, "healed": {"pid": 10}}
    assert (second.armed, second.fired, second.healed) == (3, None, None)
    assert history.marks[1] == (6, "member", "m1", {"state": "started", "pid": 10})
    assert history.start == "empty"
    assert not history.complete


MALFORMED: list[tuple[str, Callable[[], list[Record]], str]] = [
    ("answer without request", lambda: [completed(1, 1)], "record 1: operation 1 completes without having been invoked"),
    ("two answers", lambda: [invoked(1, 1), completed(2, 1), completed(3, 1)], "record 3: operation 1 completes a second time"),
    ("two open", lambda: [invoked(1, 1), invoked(2, 2)], "record 2: process 1 invokes operation 2 while its operation 1 is open"),
    ("same number", lambda: [invoked(1, 1), completed(2, 1), invoked(3, 1)], "record 3: operation 1 is invoked after operation 1"),
    ("back in time", lambda: [invoked(2, 1), completed(1, 1)], "record 2: time runs backwards"),
    ("no body", lambda: [Record(time_ns=1)], "record 1: a kind of record that this release of Pekan does not know"),
    ("sent after the end", lambda: [sent(1, 1, CREATE, WATCH), ended(2, 1), sent(3, 1, CREATE)], "record 3: stream 1 sends after its end"),
    (
        "received after the end",
        lambda: [sent(1, 1, CREATE, WATCH), ended(2, 1), received(3, 1, CREATED)],
        "record 3: stream 1 receives after",
    ),
    ("two ends", lambda: [sent(1, 1, CREATE, WATCH), ended(2, 1), ended(3, 1)], "record 3: stream 1 ends a second time"),
    ("nameless stream", lambda: [sent(1, 1, CREATE)], "record 1: stream 1 begins without naming its method"),
    ("received first", lambda: [received(1, 1, CREATED)], "record 1: stream 1 receives before anything was sent on it"),
    ("ended first", lambda: [ended(1, 1)], "record 1: stream 1 ends before anything was sent on it"),
    ("armed twice", lambda: [armed(1, 1), armed(2, 1)], "record 2: fault 1 is armed a second time"),
    ("fired unarmed", lambda: [fired(1, 1)], "record 1: fault 1 fires or is healed without having been armed"),
    ("fired twice", lambda: [armed(1, 1), fired(2, 1), fired(3, 1)], "record 3: fault 1 fires a second time"),
    ("fired after healing", lambda: [armed(1, 1), healed(2, 1), fired(3, 1)], "record 3: fault 1 fires after it was healed"),
    ("healed twice", lambda: [armed(1, 1), healed(2, 1), healed(3, 1)], "record 3: fault 1 is healed a second time"),
]


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize(("build", "expected"), [pytest.param(build, expected, id=name) for name, build, expected in MALFORMED])
def test_evidence_that_contradicts_itself_is_refused(
    tmp_path: Path, build: Callable[[], list[Record]], expected: str, through_a_file: bool
) -> None:
    """Each impossible sequence is an EvidenceError that names record and reason (and file and byte, read from one)."""
    if not through_a_file:
        with pytest.raises(EvidenceError, match=expected):
            history_of(build())
        return
    path = write(tmp_path / "history.pb", build())
    with pytest.raises(EvidenceError, match=expected.replace(":", r" at byte \d+:", 1)) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("invoked.request", b"\xff", f"request of operation 1: not a request of {PUT_METHOD}"),
        ("invoked.method", "/etcdserverpb.KV/Nonsense", "request of operation 1: unknown gRPC method '/etcdserverpb.KV/Nonsense'"),
        ("completed.response", b"\x0a\x7f", f"response of operation 1: not a response of {PUT_METHOD}"),
        ("stream_sent.request", b"\xff", f"message sent on stream 1: not a request of {WATCH}"),
        ("stream_received.response", b"\x0a\x02\xff\xff", f"message received on stream 1: not a response of {WATCH}"),
        ("mark.detail", "{", "mark 'start': not JSON"),
        ("mark.detail", "[]", "mark 'start': expected a JSON object, found list"),
        ("fault_armed.parameters", "{", "parameters of fault 1: not JSON"),
        ("fault_fired.evidence", "1", "evidence of fault 1: expected a JSON object, found int"),
    ],
)
def test_bytes_that_are_no_message_are_refused(part: str, value: Any, expected: str) -> None:
    """Undecodable bytes in any record are an EvidenceError that names the record and what they should have been."""
    kind, _, name = part.partition(".")
    records = [
        mark(1, "start"),
        invoked(2, 1),
        completed(3, 1),
        sent(4, 1, WatchCreateRequest(b"k"), WATCH),
        received(5, 1, WatchResponse(HEADER, 0, True, False, 0, "", False, ())),
        armed(6, 1),
        fired(7, 1),
    ]
    assert len(history_of(records).operations) == 1
    [(number, record)] = [(n, r) for n, r in enumerate(records, 1) if r.WhichOneof("body") == kind]
    setattr(getattr(record, kind), name, value)
    with pytest.raises(EvidenceError, match=f"record {number}: {expected}"):
        history_of(records)


def test_a_record_in_another_order_reads_the_same(tmp_path: Path) -> None:
    """A record whose fields another writer put in another order is read by the general way, with the same result."""
    records = [invoked(10, 1), completed(20, 1)]
    usual = history_of(records).operations
    path = tmp_path / "history.pb"
    with open(path, "wb") as file:
        for record in records:
            data = record.SerializeToString()
            swapped = data[9:] + data[:9]  # the body before the time
            file.write(bytes([len(swapped) + 5]) + swapped + b"\x7d" + zlib.crc32(swapped).to_bytes(4, "little"))
    assert load(path).operations == usual


def test_a_run_is_loaded_with_its_plan(tmp_path: Path) -> None:
    """A run directory, and a history file in one, come with the plan; the end mark makes the history complete."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    write(
        run.history_path, [mark(1, "start", start="empty", boot_id="b"), invoked(2, 1), completed(3, 1), mark(4, "end", reason="finished")]
    )
    history = load(run.path)
    assert (history.plan, history.start, history.order, history.complete, history.cut) == (PLAN, "empty", "real-time", True, 0)
    assert history.path == run.path
    assert load(run.history_path).plan == PLAN
    assert load(run.history_path).operations == history.operations


def test_a_cut_or_interrupted_run_is_not_complete(tmp_path: Path) -> None:
    """Without an end mark, with an end for another reason, or with a cut tail, a history is not complete, and is still read."""
    records = [mark(1, "start", start="empty"), invoked(2, 1), completed(3, 1)]
    assert not load(write(tmp_path / "a.pb", records)).complete
    assert not load(write(tmp_path / "b.pb", [*records, mark(4, "end", reason="interrupted")])).complete
    path = write(tmp_path / "c.pb", [*records, mark(4, "end", reason="finished")])
    assert load(path).complete
    with open(path, "ab") as file:
        file.write(b"\x20\x09")
    history = load(path)
    assert (history.complete, history.cut, len(history.operations)) == (False, 2, 1)


def test_files_of_one_run_are_merged_by_time(tmp_path: Path) -> None:
    """Further files keep their own numbers apart, everything is in order of time, and a token of one file is known in the other."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    write(
        run.history_path,
        [
            mark(1, "start", start="empty", boot_id="b"),
            invoked(2, 1, metadata=token("t")),
            completed(6, 1),
            sent(7, 1, WatchCreateRequest(b"k"), WATCH),
            armed(8, 1),
            mark(20, "end", reason="finished"),
        ],
    )
    write(
        tmp_path / "run" / "history-2.pb",
        [
            mark(1, "start", boot_id="b"),
            sent(1, 1, WatchCreateRequest(b"k"), WATCH),
            armed(2, 1),
            invoked(3, 1, pb.AuthenticateRequest(name="alice")),
            completed(4, 1, pb.AuthenticateResponse(token="t")),
            invoked(5, 2),
            mark(6, "end", reason="finished"),
        ],
    )
    history = load(run.path)
    shift = 1 << 48
    assert [(operation.id, operation.process, operation.call) for operation in history.operations] == [
        (1, 1, 2),
        (1 + shift, 1 + shift, 3),
        (2 + shift, 1 + shift, 5),
    ]
    assert [operation.user for operation in history.operations] == ["alice", "", ""]
    assert [stream.id for stream in history.streams] == [1 + shift, 1]
    assert [fault.id for fault in history.faults] == [1 + shift, 1]
    assert [each.time for each in history.marks] == [1, 1, 6, 20]
    assert (history.order, history.start, history.complete) == ("real-time", "empty", True)


@pytest.mark.parametrize("second", ["another", None])
def test_clocks_of_two_boots_are_two_domains(tmp_path: Path, second: str | None) -> None:
    """Where two files name different boots, or one names none, only the order within a process counts."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    write(run.history_path, [mark(1, "start", boot_id="b"), invoked(2, 1)])
    write(run.path / "history-2.pb", [mark(1, "start", **({"boot_id": second} if second else {})), invoked(2, 1)])
    assert load(run.path).order == "per-process"


def test_damage_is_named_with_its_file(tmp_path: Path) -> None:
    """Of several files the damaged one is named, and a missing one of a run too."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    with pytest.raises(EvidenceError, match=r"history\.pb missing"):
        load(run.path)
    write(run.history_path, [mark(1, "start")])
    (run.path / "history-2.pb").write_bytes(b"nonsense")
    with pytest.raises(EvidenceError, match=r"history-2\.pb: byte 0"):
        load(run.path)
    with pytest.raises(EvidenceError, match=r"none: cannot be read"):
        load(tmp_path / "none")


def test_what_recurs_is_one_object() -> None:
    """A key-value in a list and in the watches of two members is decoded once for the whole history."""
    kv = KeyValue(b"k", 3, 3, 1, b"v", 0)
    answer = RangeResponse(HEADER, (kv,), False, 1)
    message = WatchResponse(HEADER, 0, False, False, 0, "", False, (Event(0, kv, None),))
    other = message._replace(header=HEADER._replace(member_id=9))
    create = WatchCreateRequest(b"k")
    history = history_of(
        [
            invoked(1, 1, RangeRequest(b"k")),
            completed(2, 1, answer),
            sent(3, 1, create, WATCH),
            sent(3, 2, create, WATCH),
            received(4, 1, message),
            received(5, 2, other),
        ]
    )
    one, two = (stream.messages[1].message for stream in history.streams)
    assert (one, two) == (message, other)
    assert one.events[0] is two.events[0]
    assert one.events[0].kv is history.operations[0].output.kvs[0]


def test_garbage_collection_is_as_it_was() -> None:
    """Loading leaves the garbage collector enabled or disabled as it found it, after a failure too."""
    assert gc.isenabled()
    operations([invoked(1, 1)])
    assert gc.isenabled()
    with pytest.raises(EvidenceError):
        operations([completed(1, 1)])
    assert gc.isenabled()
    gc.disable()
    try:
        operations([invoked(1, 1)])
        assert not gc.isenabled()
    finally:
        gc.enable()
