"""The same history, whoever read it: held by the native core, or read into memory by the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pekan import native
from pekan.errors import EvidenceError
from pekan.history import History, RecordWriter, load
from pekan.history.recorded import in_memory
from pekan.wire import messages as wire
from pekan.wire import pb
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire._generated.pekan_record_pb2 import Record
from pekan.wire.messages import CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest, encode
from simulator.cluster import Config, simulate
from simulator.damage import changed, damaged
from simulator.recording import write_history

pytestmark = pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")

KINDS = (RangeRequest, PutRequest, DeleteRangeRequest, TxnRequest, CompactionRequest, LeaseGrantRequest)


def simulated(path: Path, seed: int = 1, operations: int = 300) -> Path:
    """A record file with everything that a simulated cluster does."""
    write_history(simulate(Config(seed=seed, operations=operations, clients=6, indefinite=0.05, watch=3, reconnect=0.05)).history, path)
    return path


def written(path: Path, *records: Record) -> Path:
    """A record file of `records`, one nanosecond after the other."""
    writer = RecordWriter(path)
    for time, record in enumerate(records, 1):
        record.time_ns = time
        writer.write(record)
    writer.close()
    return path


def invoked(operation: int, request: wire.Request, *, process: int = 1, token: str = "", method: str = "") -> Record:
    body = record_pb.Invoked(
        operation=operation, process=process, client="c", member="m1", method=method or wire.method_of(request), request=encode(request)
    )
    if token:
        body.metadata.add(key="token", value=token)
    return Record(invoked=body)


def completed(operation: int, response: wire.Response | None = None, *, raw: bytes = b"", code: int = 0, message: str = "") -> Record:
    answer = raw if response is None else encode(response)
    return Record(completed=record_pb.Completed(operation=operation, response=answer, code=code, message=message))


def both(path: Path) -> tuple[History, History]:
    """As the core holds it, and as the reference reads it."""
    held, read = load(path), load(path, engine="reference")
    assert held.session is not None, held.declined
    assert read.session is None
    return held, read


@pytest.mark.parametrize("seed", range(4))
def test_both_read_the_same(tmp_path: Path, seed: int) -> None:
    """Operations, streams, marks and all else of a simulated run are equal, whoever read them."""
    held, read = both(simulated(tmp_path / "history.pb", seed))
    assert held == read
    assert in_memory(held) == read
    assert tuple(held.operations) == read.operations
    assert len(read.operations) == 300


def test_a_part_of_it_is_made_alone(tmp_path: Path) -> None:
    """One operation, a slice, the operations of some kinds: as in memory."""
    held, read = both(simulated(tmp_path / "history.pb"))
    assert held.operations[7] == read.operations[7]
    assert held.operations[-1] == read.operations[-1]
    assert held.operations[10:20:3] == read.operations[10:20:3]
    with pytest.raises(IndexError):
        held.operations[300]
    for kinds in (*((kind,) for kind in KINDS), KINDS, (PutRequest, TxnRequest), (pb.AlarmRequest,)):
        assert list(held.of(*kinds)) == list(read.of(*kinds))
    stream = next(i for i, each in enumerate(read.streams) if len(each.messages) > 3)
    assert held.streams[stream].messages[2] == read.streams[stream].messages[2]
    assert held.streams[stream].messages[1:3] == read.streams[stream].messages[1:3]


def test_a_changed_history_is_no_longer_the_cores(tmp_path: Path) -> None:
    """Where operations or streams were replaced, the columns say something else: there is no session."""
    held, _ = both(simulated(tmp_path / "history.pb"))
    assert replace(held, streams=held.streams[:1]).session is None
    assert replace(held, operations=held.operations[:5]).session is None
    assert replace(held, marks=()).session is held.session


def test_tokens_name_users(tmp_path: Path) -> None:
    """A token is its user's, also where it is used before the record shows it issued; an unknown one is nobody known."""
    put = PutRequest(b"k", b"v")
    path = written(
        tmp_path / "history.pb",
        invoked(1, put, token="early"),
        completed(1, code=16, message="etcdserver: invalid auth token"),
        invoked(2, pb.AuthenticateRequest(name="ada")),
        completed(2, pb.AuthenticateResponse(token="early")),
        invoked(3, put, token="early"),
        invoked(4, put, process=2, token="never issued"),
        invoked(5, put, process=3),
        Record(stream_sent=record_pb.StreamSent(stream=1, method=wire.WATCH, request=encode(wire.WatchCreateRequest(b"k")))),
    )
    held, read = both(path)
    assert held == read
    assert [op.user for op in held.operations] == ["ada", "", "ada", "?", ""]


def test_what_errors_prove(tmp_path: Path) -> None:
    """A definite error, a read's error, an error that proves nothing, and no answer at all: the same outcomes."""
    put = PutRequest(b"k")
    txn = TxnRequest((), (RangeRequest(b"k"),), (put,))
    reads = TxnRequest((), (RangeRequest(b"k"), TxnRequest((), (RangeRequest(b"l"),))))
    path = written(
        tmp_path / "history.pb",
        *(
            invoked(i, request, process=i)
            for i, request in enumerate((PutRequest(b"k"), PutRequest(b"k"), txn, reads, RangeRequest(b"k")), 1)
        ),
        completed(1, code=5, message="etcdserver: requested lease not found"),
        *(completed(i, code=14, message="lost") for i in range(2, 6)),
        invoked(6, PutRequest(b"z"), process=6),
    )
    held, read = both(path)
    assert held == read
    assert [op.outcome for op in held.operations] == ["failed", "indefinite", "indefinite", "failed", "failed", "indefinite"]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([invoked(2, PutRequest(b"k")), invoked(1, PutRequest(b"k"), process=2)], id="numbers descend"),
        pytest.param([invoked(1, PutRequest(b"k")), invoked(2, PutRequest(b"k"))], id="a busy process"),
        pytest.param([completed(1)], id="never invoked"),
        pytest.param([invoked(1, PutRequest(b"k")), completed(1), completed(1)], id="completed twice"),
        pytest.param([invoked(1, PutRequest(b"k"), method="/etcdserverpb.KV/Guess")], id="an unknown method"),
        pytest.param([Record(invoked=record_pb.Invoked(operation=1, method=wire.PUT_METHOD, request=b"\x0a\x05k"))], id="no request"),
        pytest.param(
            [invoked(1, PutRequest(b"k")), Record(completed=record_pb.Completed(operation=1, response=b"\xff"))], id="no response"
        ),
        pytest.param([Record(invoked=record_pb.Invoked(operation=1, method=wire.STATUS, request=b"\xff"))], id="no request of Status"),
        pytest.param([Record(stream_sent=record_pb.StreamSent(stream=1))], id="a stream of no method"),
        pytest.param([Record(stream_received=record_pb.StreamReceived(stream=1))], id="received before sent"),
        pytest.param([Record(stream_ended=record_pb.StreamEnded(stream=1))], id="ended before sent"),
        pytest.param([Record(fault_fired=record_pb.FaultFired(fault=1))], id="fired before armed"),
        pytest.param([Record(mark=record_pb.Mark(kind="start", detail="{"))], id="a mark that is no JSON"),
        pytest.param([Record()], id="a record of nothing"),
    ],
)
def test_what_the_reference_refuses_is_refused(tmp_path: Path, records: list[Record]) -> None:
    """Evidence that contradicts itself is refused with the reference's message, whether the core is there or not."""
    path = written(tmp_path / "history.pb", *records)
    with pytest.raises(EvidenceError) as without:
        load(path, engine="reference")
    with pytest.raises(EvidenceError) as with_core:
        load(path)
    assert str(with_core.value) == str(without.value)


def outcome(path: Path, engine: str) -> History | str:
    try:
        return load(path, engine=engine)
    except EvidenceError as error:
        return str(error)


def test_every_truncation_has_the_same_outcome(tmp_path: Path) -> None:
    """A file cut anywhere gives the same history, or the same refusal, by both."""
    whole = written(
        tmp_path / "whole.pb",
        Record(mark=record_pb.Mark(kind="start", detail='{"start": "empty"}')),
        invoked(1, PutRequest(b"k", b"v" * 200), token="t"),
        Record(stream_sent=record_pb.StreamSent(stream=1, method=wire.WATCH, request=encode(wire.WatchCreateRequest(b"k")))),
        completed(1, wire.PutResponse(wire.Header(1, 2, 3, 4), None)),
        invoked(2, RangeRequest(b"k")),
        completed(2, code=14, message="lost"),
    ).read_bytes()
    path = tmp_path / "history.pb"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert outcome(path, "auto") == outcome(path, "reference"), f"cut at {end}"


def test_damage_has_the_same_outcome(tmp_path: Path) -> None:
    """2,000 random changes of a file, in its bytes or under a valid checksum, give the same history or refusal by both, and no crash."""
    whole = simulated(tmp_path / "whole.pb", operations=8).read_bytes()
    path = tmp_path / "history.pb"
    rng = Random(1)
    held = 0
    for turn in range(2_000):
        path.unlink(missing_ok=True)
        path.write_bytes(damaged(whole, rng) if turn % 2 else changed(whole, rng))
        both_say = outcome(path, "auto"), outcome(path, "reference")
        assert both_say[0] == both_say[1], f"turn {turn}"
        held += isinstance(both_say[0], History) and both_say[0].session is not None
    assert held > 100, "the core held none of the changed files: nothing was compared"


@pytest.mark.parametrize(
    ("request_", "taken"), [(pb.LockRequest(name=b"n", lease=7), False), (pb.ResignRequest(), False), (pb.LeaderRequest(name=b"n"), True)]
)
def test_what_members_write_for_their_callers_is_left_to_the_reference(tmp_path: Path, request_: wire.Request, taken: bool) -> None:
    """A file with calls that come to writes nobody recorded is read into memory, and says why; one that only reads is held."""
    history = load(written(tmp_path / "history.pb", invoked(1, request_)))
    assert (history.session is not None) == taken
    assert ("on their callers' behalf" in history.declined) != taken
    assert [op.input for op in history.operations] == [request_]
