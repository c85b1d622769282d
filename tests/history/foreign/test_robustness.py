"""Robustness reports: what etcd's tests record of a cluster is read back so that it can be judged, and is judged rightly."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.errors import EvidenceError
from pekan.history import FAILED, INDEFINITE, OK, History
from pekan.history.foreign import load_any
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    EQUAL,
    MOD,
    PUT,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    Header,
    KeyValue,
    LeaseGrantResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    WatchCreateRequest,
)
from simulator.cluster import Config, simulate
from simulator.mutations import MUTATIONS
from simulator.robustness import MIX, Dialect, write_report

INVISIBLE = {
    "wrong create revision",
    "wrong lease",
    "wrong more",
    "wrong prev_kv",
    "watch: cancelled without reason",
    "reused lease",
}
"""What a report does not record, so that a lie about it cannot be seen."""


def operation(call: int, kind: str, asked: dict[str, Any], told: dict[str, Any], end: int | None = None, client: int = 0) -> dict[str, Any]:
    """One operation as it is in operations.json."""
    return {"ClientId": client, "Input": {"Type": kind, **asked}, "Call": call, "Output": told, "Return": call + 5 if end is None else end}


def put(key: str, value: str, lease: int = 0) -> dict[str, Any]:
    """A put as these tests record it."""
    op = {"Type": "put-operation", "Put": {"Key": key, "Value": {"Value": value}, "LeaseID": lease}}
    return {"Txn": {"Conditions": None, "OperationsOnSuccess": [op], "OperationsOnFailure": None}}


def report(tmp_path: Path, operations: list[dict[str, Any]], watch: list[dict[str, Any]] | None = None) -> History:
    """The history of a report with one client that sends and one that watches."""
    (tmp_path / "client-1").mkdir()
    (tmp_path / "client-1" / "operations.json").write_text("".join(json.dumps(each, indent=2) + "\n" for each in operations))
    if watch is not None:
        (tmp_path / "client-2").mkdir()
        (tmp_path / "client-2" / "watch.json").write_text("".join(json.dumps(each) for each in watch))
    return load_any(tmp_path)


DONE = {"Txn": {"Failure": False, "Results": [{"KVs": None, "Count": 0, "Deleted": 0}]}}


def test_requests_and_outcomes(tmp_path: Path) -> None:
    """Every kind of request comes back as it went over the wire, and every error proves what its text proves."""
    compare = {**put("a", "2")["Txn"], "Conditions": [{"Key": "a", "ExpectedRevision": 2}]}
    delete = {"OperationsOnSuccess": [{"Type": "delete-operation", "Delete": {"Key": "a"}}]}
    history = report(
        tmp_path,
        [
            operation(10, "txn", put("a", "1"), {**DONE, "Revision": 2, "MemberID": "8e9e05c52164694d"}),
            operation(20, "range", {"Range": {"Start": "a", "End": "b", "Limit": 3}}, {"Range": {"KVs": None, "Count": 0}, "Revision": 2}),
            operation(30, "txn", {"Txn": compare}, {"Error": "etcdserver: request timed out"}, end=-1),
            operation(40, "txn", {"Txn": delete}, {"Error": 'rpc error: code = Unavailable desc = "gone"'}, client=1),
            operation(
                50, "compact", {"Compact": {"Revision": 9}}, {"ClientError": "mvcc: required revision is a future revision"}, client=2
            ),
            operation(60, "leaseGrant", {"LeaseGrant": {"LeaseID": 7}}, {"LeaseGrant": {"LeaseID": 0}, "Revision": 2}, client=2),
            operation(70, "defragment", {"Defragment": {}}, {"Defragment": {}, "Revision": -1}, client=2),
            operation(80, "range", {"Range": {"Start": "a"}}, {"Error": "context deadline exceeded"}, client=2),
        ],
    )
    requests = [o.input for o in history.operations]
    assert requests[:5] == [
        PutRequest(b"a", b"1"),
        RangeRequest(b"a", b"b", 3),
        TxnRequest((Compare(EQUAL, MOD, b"a", 2),), (PutRequest(b"a", b"2"),), ()),
        DeleteRangeRequest(b"a"),
        CompactionRequest(9),
    ]
    assert [o.outcome for o in history.operations] == [OK, OK, INDEFINITE, INDEFINITE, FAILED, OK, OK, FAILED]
    assert (history.operations[2].gave_up, history.operations[2].output) == (None, None)
    assert history.operations[3].output == WireError(14, '"gone"')
    assert history.operations[3].gave_up == 45
    assert history.operations[4].output == WireError(11, "etcdserver: mvcc: required revision is a future revision")
    assert history.operations[5].output == LeaseGrantResponse(Header(0, 0, 2, 0), 7, 0, "")
    assert history.operations[0].member == "8e9e05c52164694d"
    assert (history.start, history.order, history.format) == ("empty", "real-time", "robustness")


def event(key: str, value: str, revision: int, create: bool) -> dict[str, Any]:
    """A put as it is in watch.json."""
    return {"Type": "put-operation", "Key": key, "Value": {"Value": value}, "Revision": revision, "IsCreate": create, "PrevValue": None}


def test_what_is_not_recorded_is_put_back(tmp_path: Path) -> None:
    """Create revisions, versions and leases of what replies and watches show follow from the revisions before."""
    history = report(
        tmp_path,
        [
            operation(10, "leaseGrant", {"LeaseGrant": {"LeaseID": 7}}, {"LeaseGrant": {}, "Revision": 1}),
            operation(20, "txn", put("a", "1"), {**DONE, "Revision": 2}),
            operation(30, "txn", put("a", "2", 7), {"Error": "timeout"}, client=1),
            operation(
                40,
                "range",
                {"Range": {"Start": "a"}},
                {"Range": {"KVs": [{"Key": "a", "Value": {"Value": "2"}, "ModRevision": 3, "Version": 2}], "Count": 1}, "Revision": 3},
                client=2,
            ),
        ],
        [
            {
                "Request": {"Key": "", "Revision": 2, "WithPrefix": True, "WithProgressNotify": True, "WithPrevKV": False},
                "Responses": [
                    {"Events": [event("a", "1", 2, True)], "Revision": 2, "Time": 27},
                    {"Events": [event("a", "2", 3, False)], "Revision": 3, "Time": 41},
                    {"IsProgressNotify": True, "Revision": 1, "Time": 50},
                ],
            }
        ],
    )
    second = KeyValue(b"a", 2, 3, 2, b"2", 7)
    assert history.operations[3].output == RangeResponse(Header(0, 0, 3, 0), (second,), False, 1)
    (stream,) = history.streams
    assert stream.messages[0].message == WatchCreateRequest(b"\0", b"\0", 2, True)
    assert [e for m in stream.messages[2:] for e in m.message.events] == [
        (PUT, KeyValue(b"a", 2, 2, 1, b"1", 0), None),
        (PUT, second, None),
    ]
    assert [m.message.header.revision for m in stream.messages if not m.sent] == [1, 2, 3]
    assert judge(history, Options()).verdict == "holds"


def test_what_does_not_follow_is_not_claimed(tmp_path: Path) -> None:
    """Behind a revision that nobody tells, an answer about a key that may have changed counts for its revision and count alone."""
    shown = {"Key": "a", "Value": {"Value": "3"}, "ModRevision": 4, "Version": 2}
    history = report(
        tmp_path,
        [
            operation(20, "txn", put("a", "1"), {**DONE, "Revision": 2}),
            operation(30, "txn", put("a", "3"), {**DONE, "Revision": 4}),
            operation(40, "range", {"Range": {"Start": "a"}}, {"Range": {"KVs": [shown], "Count": 1}, "Revision": 4}),
        ],
    )
    assert history.operations[2].input == RangeRequest(b"a", count_only=True)
    assert history.operations[2].output == RangeResponse(Header(0, 0, 4, 0), (), False, 1)
    assert any("1 answers count for their revision" in note for note in history.notes)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"Call": "now"}, "a whole number of 64 bits as operations.Call"),
        ({"Return": 3}, "time runs backwards"),
        ({"Input": {"Type": "watch"}}, "expected a Type of range"),
        ({"Input": {"Type": "range", "Range": {"Start": "a", "Serializable": True}}}, "a field 'Serializable'"),
        ({"Input": []}, "expected an object as operations.Input"),
        ({"Output": {"Range": {"KVs": 7}, "Revision": 1}}, "expected an array"),
        ({"Output": {"Range": {"KVs": [{"Key": 7}]}, "Revision": 1}}, "expected a text"),
        ({"Output": {"Range": {"Count": 1 << 70}, "Revision": 1}}, "a whole number of 64 bits"),
        ({"Output": {"Revision": 1, "MemberID": "m1"}}, "hexadecimal"),
        ({"Return": -1}, "answered and never returned"),
    ],
)
def test_malformed_reports_are_named(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    """What cannot be is refused with file, line and field."""
    first = operation(10, "range", {"Range": {"Start": "a"}}, {"Range": {"KVs": None}, "Revision": 1})
    with pytest.raises(EvidenceError, match=rf"client-1/operations\.json: line 18: .*{what}"):
        report(tmp_path, [first, {**first, "Call": 20, "Return": 25, **change}])


def test_overlapping_operations_of_one_client_are_refused(tmp_path: Path) -> None:
    """One client of these tests has one operation open at a time."""
    first = operation(10, "range", {"Range": {"Start": "a"}}, {"Range": {"KVs": None}, "Revision": 1})
    with pytest.raises(EvidenceError, match="client 0 calls at 12 ns"):
        report(tmp_path, [first, {**first, "Call": 12}])


def test_data_directories_are_named_as_unused(tmp_path: Path) -> None:
    """A report with the members' data says that they were not used."""
    (tmp_path / "server-m0").mkdir()
    assert any("server-m0 are kept and not used" in note for note in report(tmp_path, []).notes)


@pytest.mark.parametrize("dialect", ["main", "3.6"])
def test_simulated_reports_are_judged_as_the_history_would_be(dialect: Dialect, tmp_path: Path) -> None:
    """Reports of legal histories are never called broken, and most lies that a report can hold are found."""
    answers: Counter[tuple[str, str]] = Counter()
    number = 0
    for seed in range(14):
        rng = Random(seed)
        mix = MIX if seed % 3 == 0 else replace(MIX, grant=0, put_lease=0, revoke=0)
        config = Config(
            seed=seed,
            operations=60,
            clients=rng.randint(1, 6),
            watch=3,
            mix=mix,
            indefinite=rng.choice((0.0, 0.1)),
            reconnect=rng.choice((0.0, 0.1)),
            progress=rng.choice((0.0, 0.3)),
        )
        simulated = simulate(config)
        for mutation in (None, *rng.sample(MUTATIONS, 8)):
            history = simulated.history if mutation is None else mutation.change(simulated, rng)
            number += 1
            if history is None or not write_report(history, tmp_path / str(number), dialect):
                continue
            verdict = judge(load_any(tmp_path / str(number)), Options(budget_s=5))
            kind = "legal" if mutation is None or mutation.kind == "legal" else "illegal"
            assert kind == "illegal" or verdict.verdict != "broken", (seed, mutation, verdict.findings[:1])
            if mutation is None or mutation.name not in INVISIBLE:
                answers[kind, verdict.verdict] += 1
    assert answers["legal", "holds"] >= 10, answers
    assert answers["illegal", "broken"] >= 4 * answers["illegal", "holds"] > 0, answers
