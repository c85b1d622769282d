"""A simulated history as a report directory of etcd's robustness tests would hold it: less than went over the wire.

Told as etcd's tests tell it (tests/robustness/{client,model,report}): puts and deletes as transactions, long values as hashes, no create
revisions, leases, times of life and headers, errors as text, watches as etcd's client shows them: one goes on over lost streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pekan.history.types import OK, History, Operation, Stream
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    DELETE,
    EQUAL,
    MOD,
    NOT_EQUAL,
    VERSION,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
)
from simulator.traffic import Mix

Dialect = Literal["main", "3.6"]

MIX = Mix(
    put=30, get=12, list=10, old=5, local=0, delete=8, delete_range=0, cas=10, txn=0, nested=0, read_txn=0, ranged_txn=0, open_delete=0,
    grant=2, put_lease=2, revoke=0.3, ignore=0, compact=1, compact_refused=0.5,
)  # fmt: skip
"""What these tests can record."""


class _UnrecordedError(Exception):
    """A request with options that these tests do not use."""


def write_report(history: History, directory: Path, dialect: Dialect = "main") -> bool:
    """Writes `history` as a report to the new `directory`; False where it holds a write that such a report cannot tell.

    Reads that it cannot tell are left out, which changes nothing of what is right.
    """
    granted = {o.output.id for o in history.operations if type(o.input) is LeaseGrantRequest and o.outcome == OK}
    lines: dict[int, list[dict[str, Any]]] = {}
    stream_of: dict[int, int] = {}
    fresh = max((o.process for o in history.operations), default=0) + 1
    for operation in history.operations:
        try:
            line = _operation(operation, dialect)
        except _UnrecordedError:
            if type(operation.input) is RangeRequest:
                continue
            return False
        if any(put.lease and put.lease not in granted for put in _puts(operation.input)):
            return False  # a client cannot know the id of a lease that it never heard of
        process = stream_of.setdefault(operation.process, operation.process)
        line["ClientId"] = process
        lines.setdefault(operation.process, []).append(line)
        if operation.outcome != OK and type(operation.input) is not RangeRequest:
            stream_of[operation.process], fresh = fresh, fresh + 1
    directory.mkdir(parents=True)
    for number, written in lines.items():
        _write(directory / f"client-{number}" / "operations.json", written, dialect)
    for number, watch in enumerate(_watches(history.streams), max(lines, default=0) + 1):
        _write(directory / f"client-{number}" / "watch.json", [watch], dialect)
    (directory / "server-m0" / "member" / "wal").mkdir(parents=True)
    return True


def _write(path: Path, values: list[dict[str, Any]], dialect: Dialect) -> None:
    path.parent.mkdir(exist_ok=True)
    indent = 2 if dialect == "main" else None
    separators = None if dialect == "main" else (",", ":")
    path.write_text("".join(json.dumps(value, indent=indent, separators=separators) + "\n" for value in values))


def _puts(request: Any) -> Iterator[PutRequest]:
    if type(request) is PutRequest:
        yield request
    elif type(request) is TxnRequest:
        for op in (*request.success, *request.failure):
            yield from _puts(op)


# ---- operations ----


def _operation(o: Operation, dialect: Dialect) -> dict[str, Any]:
    request, output = _request(o), _zero()
    ret = o.ret if o.ret is not None else o.gave_up
    if o.outcome == OK:
        output.update(_output(o))
    elif isinstance(o.output, WireError):
        text = o.output.message
        if type(o.input) is CompactionRequest and "mvcc: required revision" in text:
            output["ClientError"] = text.removeprefix("etcdserver: ")
        else:
            output["Error"] = text or "context deadline exceeded"
    else:
        output["Error"] = "context deadline exceeded"
    failed_write = bool(output["Error"]) and type(o.input) is not RangeRequest
    if ret is None or (dialect == "3.6" and failed_write):
        ret = -1
    return {"ClientId": 0, "Input": request, "Call": o.call, "Output": output, "Return": ret, "Metadata": output}


def _zero() -> dict[str, Any]:
    kinds = dict.fromkeys(("Txn", "Range", "LeaseGrant", "LeaseRevoke", "Defragment", "Compact"))
    return {**kinds, "ClientError": "", "Revision": 0, "MemberID": "0", "Persisted": False, "PersistedRevision": 0, "Error": ""}


def _request(o: Operation) -> dict[str, Any]:
    request = o.input
    told: dict[str, Any] = dict.fromkeys(("LeaseGrant", "LeaseRevoke", "Range", "Txn", "Defragment", "Compact"))
    if type(request) is RangeRequest:
        return {**told, "Type": "range", "Range": {**_range(request), "Revision": request.revision}}
    if type(request) is LeaseGrantRequest:
        return {**told, "Type": "leaseGrant", "LeaseGrant": {"LeaseID": o.output.id if o.outcome == OK else 0}}
    if type(request) is LeaseRevokeRequest:
        return {**told, "Type": "leaseRevoke", "LeaseRevoke": {"LeaseID": request.id}}
    if type(request) is CompactionRequest:
        return {**told, "Type": "compact", "Compact": {"Revision": request.revision}}
    if type(request) is TxnRequest:
        flipped = _flipped(request)
        success, failure = (request.failure, request.success) if flipped else (request.success, request.failure)
        txn = {
            "Conditions": list(map(_condition, request.compare)),
            "OperationsOnSuccess": list(map(_op, success)),
            "OperationsOnFailure": list(map(_op, failure)),
        }
    else:
        txn = {"Conditions": None, "OperationsOnSuccess": [_op(request)], "OperationsOnFailure": None}
    return {**told, "Type": "txn", "Txn": txn}


def _flipped(request: TxnRequest) -> bool:
    """Whether it is told with its branches exchanged: these tests know no "not equal"."""
    return len(request.compare) == 1 and request.compare[0].result == NOT_EQUAL


def _condition(compare: Compare) -> dict[str, Any]:
    if compare.result not in (EQUAL, NOT_EQUAL) or compare.target not in (MOD, VERSION) or compare.range_end:
        raise _UnrecordedError
    of_mod = compare.target == MOD
    key = compare.key.decode()
    return {"Key": key, "ExpectedRevision": compare.operand if of_mod else 0, "ExpectedVersion": 0 if of_mod else compare.operand}


def _op(request: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "Range": {"Start": "", "End": "", "Limit": 0, "KeysOnly": False},
        "Put": {"Key": "", "Value": {}, "LeaseID": 0},
        "Delete": {"Key": ""},
    }
    if type(request) is PutRequest and not (request.ignore_value or request.ignore_lease):
        put = {"Key": request.key.decode(), "Value": _value(request.value), "LeaseID": request.lease}
        return {**told, "Type": "put-operation", "Put": put}
    if type(request) is DeleteRangeRequest and not request.range_end:
        return {**told, "Type": "delete-operation", "Delete": {"Key": request.key.decode()}}
    if type(request) is RangeRequest and not request.revision:
        return {**told, "Type": "range-operation", "Range": _range(request)}
    raise _UnrecordedError


def _range(request: RangeRequest) -> dict[str, Any]:
    plain = RangeRequest(request.key, request.range_end, request.limit, request.revision, keys_only=request.keys_only)
    if request != plain:
        raise _UnrecordedError
    return {"Start": request.key.decode(), "End": request.range_end.decode(), "Limit": request.limit, "KeysOnly": request.keys_only}


def _output(o: Operation) -> dict[str, Any]:
    request, response = o.input, o.output
    head = {"Revision": response.header.revision, "MemberID": f"{response.header.member_id:x}"}
    if type(request) is RangeRequest:
        return {**head, "Range": _ranged(response)}
    if type(request) is LeaseGrantRequest:
        return {**head, "LeaseGrant": {"LeaseID": 0}}
    if type(request) is LeaseRevokeRequest:
        return {**head, "LeaseRevoke": {}}
    if type(request) is CompactionRequest:
        return {"Revision": -1, "Compact": {}}
    if type(request) is TxnRequest:
        succeeded = response.succeeded is not _flipped(request)
        return {**head, "Txn": {"Failure": not succeeded, "Results": list(map(_result, response.responses))}}
    return {**head, "Txn": {"Failure": False, "Results": [_result(response)]}}


def _result(response: Any) -> dict[str, Any]:
    if hasattr(response, "kvs"):
        return {**_ranged(response), "Deleted": 0}
    return {"KVs": None, "Count": 0, "Deleted": response.deleted if type(response) is DeleteRangeResponse else 0}


def _ranged(response: Any) -> dict[str, Any]:
    return {"KVs": [{"Key": kv.key.decode(), **_of(kv)} for kv in response.kvs], "Count": response.count}


def _of(kv: KeyValue) -> dict[str, Any]:
    return {"Value": _value(kv.value), "ModRevision": kv.mod_revision, "Version": kv.version}


def _value(value: bytes) -> dict[str, Any]:
    if len(value) < 20:
        return {"Value": value.decode()} if value else {}
    number = 0x811C9DC5  # FNV-1a of 32 bits
    for byte in value:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return {"Hash": number}


# ---- watches ----


def _watches(streams: tuple[Stream, ...]) -> list[dict[str, Any]]:
    """Watches as etcd's client shows them: a stream that goes on where a lost one ended is the same watch."""
    watches = []
    resumable: dict[tuple[WatchCreateRequest, int], list[dict[str, Any]]] = {}
    for stream in streams:
        request = stream.messages[0].message
        if request.filters or request.fragment:
            continue
        # A watch that goes on has everything up to a revision and asks for the next.
        responses = resumable.pop((request._replace(start_revision=0), request.start_revision), None)
        fresh = responses is None or (bool(responses) and responses[-1]["Time"] > stream.messages[0].time)
        if fresh or responses is None:
            responses = []
        last = request.start_revision - 1
        for time, sent, message in stream.messages:
            if sent or message.created:
                continue
            told: dict[str, Any] = {"Time": time, "Revision": message.header.revision}
            if message.canceled:
                told["Error"] = message.cancel_reason or "etcdserver: watch canceled"
            elif message.events:
                told["Events"] = list(map(_event, message.events))
                last = message.events[-1].kv.mod_revision
            else:
                told["IsProgressNotify"] = True
                last = max(last, message.header.revision)
            responses.append(told)
        if stream.ended is not None and request.start_revision and not (responses and "Error" in responses[-1]):
            resumable[request._replace(start_revision=0), last + 1] = responses
        if fresh:
            watches.append({"Request": _watch_request(request), "Responses": responses})
    return watches


def _watch_request(request: WatchCreateRequest) -> dict[str, Any]:
    key, prefix = request.key, bool(request.range_end)
    if key == b"\0" and request.range_end == b"\0":
        key = b""
    return {
        "Key": key.decode(),
        "Revision": request.start_revision,
        "WithPrefix": prefix,
        "WithProgressNotify": request.progress_notify,
        "WithPrevKV": request.prev_kv,
    }


def _event(event: Event) -> dict[str, Any]:
    kv, prev = event.kv, event.prev_kv
    told: dict[str, Any] = {
        "Type": "delete-operation" if event.type == DELETE else "put-operation",
        "Key": kv.key.decode(),
        "Value": _value(kv.value),
        "Revision": kv.mod_revision,
    }
    if event.type != DELETE and kv.create_revision == kv.mod_revision:
        told["IsCreate"] = True
    told["PrevValue"] = _of(prev) if prev is not None else None
    return told
