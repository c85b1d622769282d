"""Report directories of etcd's robustness tests (etcd tests/robustness/{report,model}, read at main of 2026-08 and release-3.6).

::

    report/
      client-N/operations.json   values of JSON one after another: {"ClientId", "Input", "Call", "Output", "Return"}
      client-N/watch.json        the same: {"Request", "Responses": [...]}
      server-NAME/               data directories of the members: kept, not used here
      traffic.json, history.html not used

    operations.json ── requests and answers ──┐                  ┌─> Operation (pekan.wire values)
    watch.json ─────── events ────────────────┴─ slots, facts ───┴─> Stream    (one for each watch, or for each piece of it)

What these tests record is less than what went over the wire, and it is put back as far as it follows:

=======================  =========================================================================================================
recorded                 becomes
=======================  =========================================================================================================
value of 20 bytes up     a 32-bit hash of it. Here: a text that names the hash, the same for requests, answers and events
key-values without       create revision and lease, and of events the version too. They follow from the revisions before, where a
                         watch of the whole keyspace or acknowledged writes tell every one of them. Where they do not follow, an
                         answer counts for its revision and its count alone, and an event is left out (the watch goes on behind it)
put, delete              a transaction of one operation. Here: the request that it was
error                    its text alone. Texts of etcd that are in no doubt get their code; all others are indefinite for a write
clientv3's watch         reconnects by itself, in silence: no create reply, no member, no cancellation of a lost stream. Here: a stream
                         of its own, created when its first message came; progress that would take something back is left out; an
                         error ends the stream
compact, defragment      no header
lease                    no TTL, so that nothing is said about when it may end
=======================  =========================================================================================================

What is put back is what a right etcd would have sent. Where etcd was right it is what etcd did send: it never makes a finding of its own.
All clients of a report share one clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pekan.errors import EvidenceError
from pekan.history.foreign.json_text import values
from pekan.history.foreign.pairing import Malformed, is_int, located, shown, text_of
from pekan.history.reading import outcome_of
from pekan.history.recorded import RecordedOperations, recorded_streams
from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation, Outcome, Stream, StreamMessage
from pekan.native import core
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    DELETE,
    EQUAL,
    MOD,
    PUT,
    VERSION,
    WATCH,
    CompactionRequest,
    CompactionResponse,
    Compare,
    Decoder,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    Header,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
    method_of,
    pb,
)

_NO_HEADER = Header(0, 0, 0, 0)
_NEVER = (1 << 63) - 1
"""Return of an operation that never returned, in reports of the main branch; release-3.6 writes -1."""
_CODES = {
    "Canceled": errors.CANCELLED,
    "Unknown": errors.UNKNOWN,
    "InvalidArgument": errors.INVALID_ARGUMENT,
    "DeadlineExceeded": errors.DEADLINE_EXCEEDED,
    "NotFound": errors.NOT_FOUND,
    "AlreadyExists": errors.ALREADY_EXISTS,
    "PermissionDenied": errors.PERMISSION_DENIED,
    "ResourceExhausted": errors.RESOURCE_EXHAUSTED,
    "FailedPrecondition": errors.FAILED_PRECONDITION,
    "Aborted": errors.ABORTED,
    "OutOfRange": errors.OUT_OF_RANGE,
    "Unimplemented": errors.UNIMPLEMENTED,
    "Internal": errors.INTERNAL,
    "Unavailable": errors.UNAVAILABLE,
    "DataLoss": errors.DATA_LOSS,
    "Unauthenticated": errors.UNAUTHENTICATED,
}
"""Go's names of gRPC's codes, as they stand in the text of an error that etcd's client could not translate."""
_TEXT_CODES = {
    errors.COMPACTED: errors.OUT_OF_RANGE,
    errors.FUTURE_REVISION: errors.OUT_OF_RANGE,
    errors.LEASE_NOT_FOUND: errors.NOT_FOUND,
    errors.DUPLICATE_KEY: errors.INVALID_ARGUMENT,
    "context deadline exceeded": errors.DEADLINE_EXCEEDED,
    "context canceled": errors.CANCELLED,
}
"""The code that etcd gives to a text (api/v3rpc/rpctypes/error.go); its client drops it."""
_CLIENT_TEXTS = {
    "mvcc: required revision has been compacted": errors.COMPACTED,
    "mvcc: required revision is a future revision": errors.FUTURE_REVISION,
}
"""`ClientError` of a compaction -> what came over the wire (tests/robustness/model/history.go)."""
_CLIENT = re.compile(r"client-([0-9]{1,9})")
_STATUS = re.compile(r"rpc error: code = (\w+) desc = (.*)\Z", re.DOTALL)


# ---- fields ----


class _Place(NamedTuple):
    """Where a value stands; its text is kept for the number of its line, which only a message needs."""

    path: Path
    text: str
    offset: int


class _Fields:
    """One JSON object: fields by name and kind; what Go leaves out is its zero. Raises EvidenceError naming file, line and field."""

    __slots__ = ("fields", "place", "where")

    def __init__(self, value: Any, place: _Place, where: str) -> None:
        self.place = place
        self.where = where
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.refuse(f"expected an object as {where}; found {shown(value)}")
        self.fields: dict[str, Any] = value

    def _refuse(self, name: str, expected: str) -> NoReturn:
        self.refuse(f"expected {expected} as {self.where}.{name}; found {shown(self.fields[name])}")

    def number(self, name: str) -> int:
        value = self.fields.get(name)
        if value is None:
            return 0
        if not is_int(value):
            if type(value) is int and value == _NEVER:
                return _NEVER
            self._refuse(name, "a whole number of 64 bits")
        return int(value)

    def text(self, name: str) -> str:
        value = self.fields.get(name, "")
        if not isinstance(value, str):
            self._refuse(name, "a text")
        return value

    def flag(self, name: str) -> bool:
        value = self.fields.get(name, False)
        if not isinstance(value, bool):
            self._refuse(name, "true or false")
        return value

    def inner(self, name: str) -> _Fields:
        return _Fields(self.fields.get(name), self.place, f"{self.where}.{name}")

    def items(self, name: str) -> list[_Fields]:
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self._refuse(name, "an array")
        return [_Fields(each, self.place, f"{self.where}.{name}[]") for each in value]

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def only(self, *known: str) -> None:
        """A request may only have fields that are known: another one may be an option that changes what it asks for."""
        for name, value in self.fields.items():
            if name not in known and value:
                self.refuse(f"{self.where} has a field {name!r}; this release knows {', '.join(known)}")

    def refuse(self, what: str) -> NoReturn:
        path, text, offset = self.place
        raise located(path, text, Malformed(offset, what)) from None


def _value(fields: _Fields) -> bytes:
    """ValueOrHash."""
    number = fields.number("Hash")
    if number:
        return b"\xffhash %08x" % (number & 0xFFFFFFFF)
    return fields.text("Value").encode()


# ---- requests ----


def _request(f: _Fields) -> Any:
    """EtcdRequest as the request on the wire."""
    f.only("Type", "LeaseGrant", "LeaseRevoke", "Range", "Txn", "Defragment", "Compact")
    kind = f.text("Type")
    if kind == "range":
        inner = f.inner("Range")
        inner.only("Start", "End", "Limit", "KeysOnly", "Revision")
        return _range(inner, inner.number("Revision"))
    if kind == "txn":
        return _txn(f.inner("Txn"))
    if kind == "leaseGrant":
        f.inner("LeaseGrant").only("LeaseID")
        return LeaseGrantRequest(0)
    if kind == "leaseRevoke":
        inner = f.inner("LeaseRevoke")
        inner.only("LeaseID")
        return LeaseRevokeRequest(inner.number("LeaseID"))
    if kind == "compact":
        inner = f.inner("Compact")
        inner.only("Revision")
        return CompactionRequest(inner.number("Revision"))
    if kind != "defragment":
        f.refuse(f"expected a Type of range, txn, leaseGrant, leaseRevoke, compact or defragment; found {shown(kind)}")
    return pb.DefragmentRequest()


def _range(f: _Fields, revision: int) -> RangeRequest:
    return RangeRequest(f.text("Start").encode(), f.text("End").encode(), f.number("Limit"), revision, keys_only=f.flag("KeysOnly"))


def _txn(f: _Fields) -> Any:
    f.only("Conditions", "OperationsOnSuccess", "OperationsOnFailure")
    compare = tuple(map(_condition, f.items("Conditions")))
    success = tuple(map(_operation, f.items("OperationsOnSuccess")))
    failure = tuple(map(_operation, f.items("OperationsOnFailure")))
    if not compare and not failure and len(success) == 1 and type(success[0]) is not RangeRequest:
        return success[0]
    return TxnRequest(compare, success, failure)


def _condition(f: _Fields) -> Compare:
    f.only("Key", "ExpectedRevision", "ExpectedVersion")
    key, revision, version = f.text("Key").encode(), f.number("ExpectedRevision"), f.number("ExpectedVersion")
    if revision and version:
        f.refuse("a condition on a revision and a version at once")
    return Compare(EQUAL, VERSION, key, version) if version else Compare(EQUAL, MOD, key, revision)


def _operation(f: _Fields) -> Any:
    f.only("Type", "Range", "Put", "Delete")
    kind = f.text("Type")
    if kind == "put-operation":
        put = f.inner("Put")
        put.only("Key", "Value", "LeaseID")
        return PutRequest(put.text("Key").encode(), _value(put.inner("Value")), put.number("LeaseID"))
    if kind == "delete-operation":
        delete = f.inner("Delete")
        delete.only("Key")
        return DeleteRangeRequest(delete.text("Key").encode())
    if kind != "range-operation":
        f.refuse(f"expected a Type of range-operation, put-operation or delete-operation; found {shown(kind)}")
    inner = f.inner("Range")
    inner.only("Start", "End", "Limit", "KeysOnly")
    return _range(inner, 0)


# ---- what happened at each revision ----


class _Change(NamedTuple):
    """One key at one revision. `value` is None for a deletion; `creates` and `lease` are None where nothing tells."""

    key: bytes
    value: bytes | None
    creates: bool | None
    lease: int | None
    prev_mod: int | None


class _Fact(NamedTuple):
    """What a put at one revision left of a key. `lease` is None where nothing tells."""

    create: int
    version: int
    lease: int | None


@dataclass(slots=True)
class _Raw:
    """One operation, its answer not yet a response.

    `lease` is the id that a grant was answered with.
    """

    process: int
    call: int
    end: int | None
    request: Any
    output: _Fields
    client: str
    lease: int
    error: WireError | None


@dataclass(slots=True)
class _Report:
    """Everything of a report, and what follows from it.

    facts   (key, mod revision) -> what that put left of the key, where it follows
    whole   up to this revision all is told: a key-value of it or below that no fact knows never was
    """

    operations: list[_Raw] = field(default_factory=list)
    watches: list[tuple[str, WatchCreateRequest, list[_Fields]]] = field(default_factory=list)
    facts: dict[tuple[bytes, int], _Fact] = field(default_factory=dict)
    whole: int = 1
    weakened: int = 0
    left_out: int = 0


def _slots(report: _Report) -> dict[int, list[_Change]]:
    """Revision -> all that it changed, where a watch of the whole keyspace or an acknowledged write tells it."""
    leases: dict[tuple[bytes, bytes], set[int]] = {}
    by_request: dict[int, list[_Change]] = {}
    for raw in report.operations:
        for put in _puts(raw.request):
            leases.setdefault((put.key, put.value), set()).add(put.lease)
        if raw.error is None:
            changes = _changes(raw)
            if changes:
                by_request.setdefault(raw.output.number("Revision"), changes)
    slots: dict[int, list[_Change]] = {}
    for _, request, responses in report.watches:
        if request.range_end == b"\0" and request.key == b"\0":
            for response in responses:
                told: dict[int, list[_Change]] = {}
                for event in response.items("Events"):
                    revision = event.number("Revision")
                    mine = {change.key: change.lease for change in by_request.get(revision, ()) if change.value is not None}
                    told.setdefault(revision, []).append(_told(event, mine, leases))
                for revision, changes in told.items():
                    slots.setdefault(revision, changes)
    for revision, changes in by_request.items():
        slots.setdefault(revision, changes)
    return slots


def _told(event: _Fields, mine: dict[bytes, int | None], leases: dict[tuple[bytes, bytes], set[int]]) -> _Change:
    key = event.text("Key").encode()
    prev_mod = event.inner("PrevValue").number("ModRevision") if event.has("PrevValue") else None
    if event.text("Type") == "delete-operation":
        return _Change(key, None, False, 0, prev_mod)
    value = _value(event.inner("Value"))
    lease = mine.get(key)
    if lease is None:
        possible = leases.get((key, value), set())
        lease = next(iter(possible)) if len(possible) == 1 else None
    return _Change(key, value, event.flag("IsCreate"), lease, prev_mod)


def _puts(request: Any) -> Iterator[PutRequest]:
    if type(request) is PutRequest:
        yield request
    elif type(request) is TxnRequest:
        for op in (*request.success, *request.failure):
            if type(op) is PutRequest:
                yield op


def _changes(raw: _Raw) -> list[_Change]:
    """What an acknowledged write changed at its revision; empty where it changed nothing."""
    request = raw.request
    operations: tuple[Any, ...]
    if type(request) in (PutRequest, DeleteRangeRequest):
        operations = (request,)
    elif type(request) is TxnRequest:
        operations = request.failure if raw.output.inner("Txn").flag("Failure") else request.success
    else:
        return []
    results = raw.output.inner("Txn").items("Results")
    changes = []
    for op, result in zip(operations, results, strict=False):
        if type(op) is PutRequest:
            changes.append(_Change(op.key, op.value, None, op.lease, None))
        elif type(op) is DeleteRangeRequest and result.number("Deleted"):
            changes.append(_Change(op.key, None, False, 0, None))
    return changes


def _facts(slots: dict[int, list[_Change]], empty: bool) -> dict[tuple[bytes, int], _Fact]:
    """What each put left of its key, as far as it follows from `slots`; `empty` says that the store held nothing before revision 2."""
    facts: dict[tuple[bytes, int], _Fact] = {}
    now: dict[bytes, tuple[int, _Fact | None]] = {}
    """key -> (revision, what it left): None where it deleted the key."""
    gap = 1 if not empty else 0
    """The last revision that nothing tells of: what was known before it may have changed."""
    before = 1
    for revision in sorted(slots):
        if revision > before + 1:
            gap = revision - 1
        before = revision
        for change in slots[revision]:
            if change.value is None:
                now[change.key] = (revision, None)
                continue
            since, old = now.get(change.key, (1, None))
            sure = since > gap or (old is not None and change.prev_mod == since) or (since == 1 and gap == 0)
            if change.creates or (change.creates is None and sure and old is None):
                fact = _Fact(revision, 1, change.lease)
            elif old is not None and sure:
                fact = _Fact(old.create, old.version + 1, change.lease)
            else:
                now.pop(change.key, None)
                continue
            facts[change.key, revision] = fact
            now[change.key] = (revision, fact)
    return facts


# ---- answers ----


class _UnknownError(Exception):
    """A key-value of which something does not follow."""


def _key_value(report: _Report, key: bytes, f: _Fields, keys_only: bool) -> KeyValue:
    mod, version = f.number("ModRevision"), f.number("Version")
    fact = report.facts.get((key, mod))
    if fact is None and 0 < mod <= report.whole:
        fact = _Fact(min(mod, 2), 0, 0)  # Never was: what is put back need not fit, for nothing does.
    create = mod if version == 1 else fact.create if fact is not None else None
    lease = fact.lease if fact is not None else None
    if create is None or lease is None:
        raise _UnknownError
    return KeyValue(key, create, mod, version, b"" if keys_only else _value(f.inner("Value")), lease)


def _range_answer(report: _Report, request: RangeRequest, f: _Fields, header: Header) -> tuple[RangeRequest, RangeResponse]:
    """The request and its answer; both reduced to the count where the key-values cannot be put back."""
    count = f.number("Count")
    items = f.items("KVs")
    try:
        kvs = tuple(_key_value(report, item.text("Key").encode(), item, request.keys_only) for item in items)
    except _UnknownError:
        report.weakened += 1
        reduced = RangeRequest(request.key, request.range_end, revision=request.revision, count_only=True)
        return reduced, RangeResponse(header, (), False, count)
    return request, RangeResponse(header, kvs, request.limit > 0 and count > len(kvs), count)


def _answered(report: _Report, raw: _Raw) -> tuple[Any, Any]:
    """(request, response) of an operation that was answered."""
    request, output = raw.request, raw.output
    header = Header(0, _member(output), max(output.number("Revision"), 0), 0)
    kind = type(request)
    if kind is RangeRequest:
        return _range_answer(report, request, output.inner("Range"), header)
    if kind is LeaseGrantRequest:
        return request, LeaseGrantResponse(header, raw.lease, 0, "")
    if kind is LeaseRevokeRequest:
        return request, LeaseRevokeResponse(header)
    if kind is CompactionRequest:
        return request, CompactionResponse(header)
    if kind is pb.DefragmentRequest:
        return request, pb.DefragmentResponse()
    told = output.inner("Txn")
    results = told.items("Results")
    succeeded = not told.flag("Failure")
    if kind is not TxnRequest:
        if succeeded and len(results) == 1:
            if kind is PutRequest:
                return request, PutResponse(header, None)
            return request, DeleteRangeResponse(header, results[0].number("Deleted"), ())
        # No answer to a single put or delete: as the transaction that it was recorded as, it is one that the checkers can judge.
        request = TxnRequest((), (request,), ())
    operations = list(request.success if succeeded else request.failure)
    responses: list[Any] = []
    for index, result in enumerate(results):
        op = operations[index] if index < len(operations) else None
        if type(op) is PutRequest:
            responses.append(PutResponse(_NO_HEADER, None))
        elif type(op) is DeleteRangeRequest:
            responses.append(DeleteRangeResponse(_NO_HEADER, result.number("Deleted"), ()))
        elif type(op) is RangeRequest:
            operations[index], response = _range_answer(report, op, result, _NO_HEADER)
            responses.append(response)
        else:
            responses.append(RangeResponse(_NO_HEADER, (), False, result.number("Count")))  # An answer to nothing.
    branch = tuple(operations)
    request = request._replace(success=branch) if succeeded else request._replace(failure=branch)
    return request, TxnResponse(header, succeeded, tuple(responses))


def _member(output: _Fields) -> int:
    text = output.text("MemberID")
    if text and not re.fullmatch(r"[0-9a-f]{1,16}", text):
        output.refuse(f"expected a hexadecimal member id; found {shown(text)}")
    return int(text, 16) if text else 0


def _error(text: str) -> WireError:
    status = _STATUS.match(text)
    if status is not None:
        return WireError(_CODES.get(status[1], errors.UNKNOWN), status[2])
    return WireError(_TEXT_CODES.get(text, errors.UNKNOWN), text)


# ---- watches ----


def _event(report: _Report, f: _Fields, with_prev: bool) -> Event:
    """The event on the wire. Raises _UnknownError where it cannot be put back."""
    key, revision = f.text("Key").encode(), f.number("Revision")
    prev = _key_value(report, key, f.inner("PrevValue"), False) if with_prev and f.has("PrevValue") else None
    kind = f.text("Type")
    if kind == "delete-operation":
        return Event(DELETE, KeyValue(key, 0, revision, 0, b"", 0), prev)
    if kind != "put-operation":
        f.refuse(f"expected a Type of put-operation or delete-operation; found {shown(kind)}")
    fact = report.facts.get((key, revision))
    if fact is None or fact.lease is None:
        raise _UnknownError
    value = _value(f.inner("Value"))
    if f.flag("IsCreate"):
        return Event(PUT, KeyValue(key, revision, revision, 1, value, fact.lease), prev)
    # Another watch may have told that the same put created the key: two stories, and this one keeps its own.
    return Event(PUT, KeyValue(key, fact.create, revision, max(fact.version, 2), value, fact.lease), prev)


def _previous_follow(report: _Report, responses: list[_Fields]) -> bool:
    for response in responses:
        for f in response.items("Events"):
            if f.has("PrevValue"):
                try:
                    _key_value(report, f.text("Key").encode(), f.inner("PrevValue"), False)
                except _UnknownError:
                    return False
    return True


class _Piece:
    """A stream of one watch under construction; see `_streams`."""

    def __init__(self, request: WatchCreateRequest) -> None:
        self.request = request
        self.messages: list[StreamMessage] = []

    def add(self, time: int, message: WatchResponse) -> None:
        if not self.messages:
            first = message.events[0].kv.mod_revision - 1 if message.events else message.header.revision
            start = self.request.start_revision
            header = Header(0, 0, min(first, start - 1) if start > 0 else first, 0)
            self.messages.append(StreamMessage(time, True, self.request))
            self.messages.append(StreamMessage(time, False, WatchResponse(header, 0, True, False, 0, "", False, ())))
        self.messages.append(StreamMessage(time, False, message))


def _streams(report: _Report, client: str, request: WatchCreateRequest, responses: list[_Fields]) -> Iterator[Stream]:
    """One watch as streams: a new one begins behind events that cannot be put back."""
    with_prev = request.prev_kv and _previous_follow(report, responses)
    piece = _Piece(request._replace(prev_kv=with_prev))
    pieces = [piece]
    last = 0
    now = 0
    ended: tuple[int, str] | None = None
    for response in responses:
        time, revision = response.number("Time"), response.number("Revision")
        if time < now:
            response.refuse(f"time runs backwards: {time} ns after {now} ns")
        now = time
        text = response.text("Error")
        if text:
            ended = (time, text)
            break
        items = response.items("Events")
        header = Header(0, 0, max(revision, 0), 0)
        if not items:
            if revision >= max(last, piece.request.start_revision - 1, 1):
                piece.add(time, WatchResponse(header, 0, False, False, 0, "", False, ()))
                last = max(last, revision)
            continue
        newest = items[-1].number("Revision")
        try:
            events = tuple(_event(report, item, with_prev) for item in items)
        except _UnknownError:
            report.left_out += len(items)
            last = max(last, newest)
            piece = _Piece(request._replace(start_revision=last + 1, prev_kv=with_prev))
            pieces.append(piece)
            continue
        piece.add(time, WatchResponse(header, 0, False, False, 0, "", False, events))
        last = max(last, newest)
    for each in pieces:
        if each.messages:
            end = ended if each is pieces[-1] else (each.messages[-1].time, "")
            yield Stream(
                0,
                WATCH,
                client,
                client,
                "",
                tuple(each.messages),
                end[0] if end else None,
                errors.UNKNOWN if ended is end and end else 0,
                end[1] if end else "",
                each is not pieces[-1],
            )


# ---- reading ----


def read_robustness(path: Path) -> History:
    """The history in the report directory at `path`. Raises EvidenceError naming file and line."""
    names, files = _files(path)
    report = _Report()
    for client, file, watches in files:
        for fields in _objects(file):
            if watches:
                report.watches.append((client, _watch_request(fields.inner("Request")), fields.items("Responses")))
            else:
                report.operations.append(_raw(fields, client))
    report.operations.sort(key=lambda raw: raw.call)
    empty = any(map(_shows_an_empty_store, report.operations))
    slots = _slots(report)
    report.facts = _facts(slots, empty)
    while empty and report.whole + 1 in slots:
        report.whole += 1
    operations = tuple(_operations(report))
    streams = sorted(
        (stream for name, request, responses in report.watches for stream in _streams(report, name, request, responses)),
        key=lambda stream: stream.messages[0].time,
    )
    return History(
        operations=operations,
        streams=tuple(replace(stream, id=number) for number, stream in enumerate(streams)),
        start="empty" if empty else "unknown",
        path=path,
        format="robustness",
        notes=tuple(_notes(report.weakened, report.left_out, names)),
    )


def read_held_report(path: Path) -> History | None:
    """The same history as the core holds it; None where the core is not there or leaves it to `read_robustness`."""
    if core is None:
        return None
    names, files = _files(path)
    decoder = Decoder()
    try:
        session, empty, weakened, left_out = core.Session.report(path, files, _is_definite)
        operations = RecordedOperations(session, decoder)
        operations.decode_what_the_core_does_not()
        streams = recorded_streams(session, decoder)
    except (core.Declined, OSError, ValueError):
        return None
    return History(
        operations=operations,
        streams=streams,
        start="empty" if empty else "unknown",
        path=path,
        format="robustness",
        notes=tuple(_notes(weakened, left_out, names)),
    )


def _is_definite(code: int, message: str) -> bool:
    return errors.is_definite(WireError(code, message))


def _files(path: Path) -> tuple[list[str], list[tuple[str, Path, bool]]]:
    """The names in a report directory, and its files: (client, file, whether it holds watches). Raises EvidenceError where it is none."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read as a robustness report: {error.strerror}") from None
    clients = sorted((int(match[1]), name) for name in names if (match := _CLIENT.fullmatch(name)))
    if not clients:
        raise EvidenceError(f"{path}: expected directories client-N of a robustness report; found {', '.join(names[:8]) or 'nothing'}")
    files = [(name, path / name / file, file == "watch.json") for _, name in clients for file in ("operations.json", "watch.json")]
    return names, [each for each in files if each[1].exists()]


def _shows_an_empty_store(raw: _Raw) -> bool:
    """Whether an answer shows that the store held nothing at first: it is of revision 1, or that of the write that made revision 2."""
    if raw.error is not None or type(raw.request) in (CompactionRequest, pb.DefragmentRequest):
        return False
    if type(raw.request) is RangeRequest and raw.request.revision:
        return False
    revision = raw.output.number("Revision")
    return revision == 1 or (revision == 2 and any(change.value is not None for change in _changes(raw)))


def _notes(weakened: int, left_out: int, names: list[str]) -> Iterator[str]:
    servers = [name for name in names if name.startswith("server-")]
    if servers:
        yield f"the data directories {', '.join(servers)} are kept and not used: their write-ahead logs could decide more"
    if weakened:
        yield f"{weakened} answers count for their revision and count alone: the create revisions of their keys do not follow"
    if left_out:
        yield f"{left_out} watch events are left out: the versions of their keys do not follow"


def _objects(path: Path) -> Iterator[_Fields]:
    text = text_of(path)
    try:
        for offset, value in values(text):
            yield _Fields(value, _Place(path, text, offset), path.stem)
    except Malformed as error:
        raise located(path, text, error) from None


def _raw(f: _Fields, client: str) -> _Raw:
    process, call, end = f.number("ClientId"), f.number("Call"), f.number("Return")
    input_, output = f.inner("Input"), f.inner("Output")
    request = _request(input_)
    if call == _NEVER:
        f.refuse("an operation that was never called")
    returned = None if end in (-1, _NEVER) else end
    if returned is not None and returned < call:
        f.refuse(f"time runs backwards: the operation returns at {end} ns and was called at {call} ns")
    lease = input_.inner("LeaseGrant").number("LeaseID")
    text, own = output.text("Error"), output.text("ClientError")
    if own in _CLIENT_TEXTS:
        error: WireError | None = WireError(errors.OUT_OF_RANGE, _CLIENT_TEXTS[own])
    else:
        error = _error(text or own) if text or own else None
    if error is None and returned is None:
        f.refuse("an operation that was answered and never returned")
    return _Raw(process, call, returned, request, output, client, lease, error)


def _watch_request(f: _Fields) -> WatchCreateRequest:
    f.only("Key", "Revision", "WithPrefix", "WithProgressNotify", "WithPrevKV")
    key, end = f.text("Key").encode(), b""
    if f.flag("WithPrefix"):
        end = _prefix_end(key)
        key = key or b"\0"
    return WatchCreateRequest(key, end, f.number("Revision"), f.flag("WithProgressNotify"), (), f.flag("WithPrevKV"))


def _prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with `prefix` (etcd client/v3/op.go, getPrefix)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0"


def _operations(report: _Report) -> Iterator[Operation]:
    busy: dict[int, int] = {}
    """process -> when its last answered operation returned."""
    for number, raw in enumerate(report.operations, 1):
        until = busy.get(raw.process)
        if until is not None and raw.call < until:
            raw.output.refuse(f"client {raw.process} calls at {raw.call} ns, and its operation before returns at {until} ns")
        request, answer = (raw.request, raw.error) if raw.error is not None else _answered(report, raw)
        outcome: Outcome = OK if raw.error is None else outcome_of(request, raw.error)
        gave_up = None
        ret = raw.end
        if outcome == INDEFINITE:
            ret, gave_up = None, raw.end
            # Reports of release-3.6 do not tell when a write failed: it is as if the report ended before.
            answer = answer if raw.end is not None else None
        elif outcome == FAILED and ret is None:
            # Nothing proves when it was refused; that it never happened does not depend on it.
            ret = raw.call
        if ret is not None:
            busy[raw.process] = ret
        member_id = _member(raw.output)
        member = f"{member_id:x}" if member_id else ""
        yield Operation(
            number, raw.process, raw.call, ret, outcome, request, answer, method_of(request), raw.client, member, gave_up=gave_up
        )
