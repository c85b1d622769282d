"""etcd's requests and responses as small immutable values, to and from the exact bytes on the wire.

::

    bytes ── Decoder.request(method, bytes) ──> PutRequest(...)     ── encode() ──> bytes
    bytes ── Decoder.response(method, bytes) ─> PutResponse(...)

The messages of the data path (KV, Watch, Lease) are named tuples with etcd's own field names: cheap to make, to compare and to keep a
million of. Everything asked for a few times a run (auth, maintenance, cluster, locks, elections) stays a generated protobuf message
(``pekan.wire.pb``).

A `Decoder` interns key-values and events by their encoding: a pair that comes back in a hundred lists and in the watches of three
members is decoded once and is *the same object*, so that comparing a list with a replayed state is mostly pointer comparison.
Equality stays by value; interning is never needed for a right answer.

Unknown fields are not visible here; they survive in the record's bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from pekan.errors import UsageError
from pekan.wire._generated import pekan_wire_pb2

pb = pekan_wire_pb2
"""The generated module, for messages that are asked for a few times a run."""

PUT, DELETE = 0, 1
"""Event.type."""
EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3
"""Compare.result."""
VERSION, CREATE, MOD, VALUE, LEASE = 0, 1, 2, 3, 4
"""Compare.target (and, but for LEASE and with KEY in front, RangeRequest.sort_target)."""
SORT_NONE, SORT_ASCEND, SORT_DESCEND = 0, 1, 2
SORT_BY_KEY, SORT_BY_VERSION, SORT_BY_CREATE, SORT_BY_MOD, SORT_BY_VALUE = 0, 1, 2, 3, 4
NOPUT, NODELETE = 0, 1
"""WatchCreateRequest.filters."""


class Header(NamedTuple):
    """ResponseHeader: who answered, and its key-value store's revision."""

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int


class KeyValue(NamedTuple):
    """mvccpb.KeyValue. In a DELETE event only `key` and `mod_revision` (the deletion's revision) are set."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes
    lease: int


class Event(NamedTuple):
    """mvccpb.Event. `type` is PUT or DELETE; `prev_kv` is None where the message had none."""

    type: int
    kv: KeyValue
    prev_kv: KeyValue | None


# ---- requests ----


class RangeRequest(NamedTuple):
    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: int = 0
    sort_target: int = 0
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class PutRequest(NamedTuple):
    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRangeRequest(NamedTuple):
    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Compare(NamedTuple):
    """One guard of a Txn: `target` of every key in [key, range_end) compared by `result` with `operand`.

    `operand` is bytes for VALUE and int for all others; absent on the wire means zero or empty, as etcd reads it.
    """

    result: int
    target: int
    key: bytes
    operand: int | bytes
    range_end: bytes = b""


class TxnRequest(NamedTuple):
    compare: tuple[Compare, ...] = ()
    success: tuple[RequestOp, ...] = ()
    failure: tuple[RequestOp, ...] = ()


class CompactionRequest(NamedTuple):
    revision: int
    physical: bool = False


class LeaseGrantRequest(NamedTuple):
    ttl: int
    id: int = 0


class LeaseRevokeRequest(NamedTuple):
    id: int


class LeaseKeepAliveRequest(NamedTuple):
    id: int


class LeaseTimeToLiveRequest(NamedTuple):
    id: int
    keys: bool = False


class WatchCreateRequest(NamedTuple):
    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    progress_notify: bool = False
    filters: tuple[int, ...] = ()
    prev_kv: bool = False
    watch_id: int = 0
    fragment: bool = False


class WatchCancelRequest(NamedTuple):
    watch_id: int


class WatchProgressRequest(NamedTuple):
    pass


RequestOp: TypeAlias = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest

# ---- responses ----


class RangeResponse(NamedTuple):
    header: Header
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int  # type: ignore[assignment]  # etcd names it so; tuple.count is never used here


class PutResponse(NamedTuple):
    header: Header
    prev_kv: KeyValue | None


class DeleteRangeResponse(NamedTuple):
    header: Header
    deleted: int
    prev_kvs: tuple[KeyValue, ...]


class TxnResponse(NamedTuple):
    """`responses` holds one answer per operation of the branch taken, in order."""

    header: Header
    succeeded: bool
    responses: tuple[ResponseOp, ...]


class CompactionResponse(NamedTuple):
    header: Header


class LeaseGrantResponse(NamedTuple):
    header: Header
    id: int
    ttl: int
    error: str


class LeaseRevokeResponse(NamedTuple):
    header: Header


class LeaseKeepAliveResponse(NamedTuple):
    header: Header
    id: int
    ttl: int


class LeaseTimeToLiveResponse(NamedTuple):
    header: Header
    id: int
    ttl: int
    granted_ttl: int
    keys: tuple[bytes, ...]


class WatchResponse(NamedTuple):
    header: Header
    watch_id: int
    created: bool
    canceled: bool
    compact_revision: int
    cancel_reason: str
    fragment: bool
    events: tuple[Event, ...]


ResponseOp: TypeAlias = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse

Request: TypeAlias = (
    RangeRequest
    | PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactionRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | LeaseKeepAliveRequest
    | LeaseTimeToLiveRequest
    | WatchCreateRequest
    | WatchCancelRequest
    | WatchProgressRequest
    | Message
)
Response: TypeAlias = (
    RangeResponse
    | PutResponse
    | DeleteRangeResponse
    | TxnResponse
    | CompactionResponse
    | LeaseGrantResponse
    | LeaseRevokeResponse
    | LeaseKeepAliveResponse
    | LeaseTimeToLiveResponse
    | WatchResponse
    | Message
)

_PREFIX = {
    "kv": "/etcdserverpb.KV/",
    "watch": "/etcdserverpb.Watch/",
    "lease": "/etcdserverpb.Lease/",
    "cluster": "/etcdserverpb.Cluster/",
    "maintenance": "/etcdserverpb.Maintenance/",
    "auth": "/etcdserverpb.Auth/",
    "lock": "/v3lockpb.Lock/",
    "election": "/v3electionpb.Election/",
}
RANGE = _PREFIX["kv"] + "Range"
PUT_METHOD = _PREFIX["kv"] + "Put"
DELETE_RANGE = _PREFIX["kv"] + "DeleteRange"
TXN = _PREFIX["kv"] + "Txn"
COMPACT = _PREFIX["kv"] + "Compact"
WATCH = _PREFIX["watch"] + "Watch"
LEASE_GRANT = _PREFIX["lease"] + "LeaseGrant"
LEASE_REVOKE = _PREFIX["lease"] + "LeaseRevoke"
LEASE_KEEP_ALIVE = _PREFIX["lease"] + "LeaseKeepAlive"
LEASE_TIME_TO_LIVE = _PREFIX["lease"] + "LeaseTimeToLive"
LEASE_LEASES = _PREFIX["lease"] + "LeaseLeases"
MEMBER_LIST = _PREFIX["cluster"] + "MemberList"
MEMBER_ADD = _PREFIX["cluster"] + "MemberAdd"
MEMBER_REMOVE = _PREFIX["cluster"] + "MemberRemove"
MEMBER_PROMOTE = _PREFIX["cluster"] + "MemberPromote"
ALARM = _PREFIX["maintenance"] + "Alarm"
STATUS = _PREFIX["maintenance"] + "Status"
DEFRAGMENT = _PREFIX["maintenance"] + "Defragment"
HASH = _PREFIX["maintenance"] + "Hash"
HASH_KV = _PREFIX["maintenance"] + "HashKV"
MOVE_LEADER = _PREFIX["maintenance"] + "MoveLeader"
SNAPSHOT = _PREFIX["maintenance"] + "Snapshot"
AUTH_STATUS = _PREFIX["auth"] + "AuthStatus"
AUTHENTICATE = _PREFIX["auth"] + "Authenticate"
LOCK = _PREFIX["lock"] + "Lock"
UNLOCK = _PREFIX["lock"] + "Unlock"
CAMPAIGN = _PREFIX["election"] + "Campaign"
PROCLAIM = _PREFIX["election"] + "Proclaim"
LEADER = _PREFIX["election"] + "Leader"
OBSERVE = _PREFIX["election"] + "Observe"
RESIGN = _PREFIX["election"] + "Resign"

ON_BEHALF: frozenset[str] = frozenset({LOCK, UNLOCK, CAMPAIGN, PROCLAIM, RESIGN})
"""gRPC paths by which a member writes to the key-value store on its caller's behalf, in requests of its own that no record shows."""


_new = tuple.__new__
"""Makes a named tuple from its fields at half the cost of calling the class; the hot paths below make millions."""
_RECENT_MAX = 1 << 13
"""Entries kept of what is only worth keeping for a moment: the same revision comes from every member within the lag between members.
More would fall out of the processor's caches and cost more than it saves (measured with benchmarks/reading.py: 2**16 is 8 % slower)."""
_HEADER_TAG = 0x0A
"""Field 1, length-delimited: how every response of etcd begins."""
_EVENT_TAG, _KV_TAG = 0x5A, 0x12
"""WatchResponse.events and Event.kv: what a message with a single event consists of beside its header."""


def _header_end(data: bytes) -> int:
    """Where the header that `data` begins with ends; 0 where it does not begin with one (a header is at most 44 bytes long)."""
    if len(data) > 1 and data[0] == _HEADER_TAG:
        end = 2 + data[1]
        if end <= 0x80 and end <= len(data):
            return end
    return 0


_Value = TypeVar("_Value")
_WatchRest: TypeAlias = tuple[int, bool, bool, int, str, bool, tuple[Event, ...]]
"""A WatchResponse without its header."""


class _Interned(dict[bytes, _Value]):
    """Values by their encoding, each made from it at the first look; all are forgotten where there would be more than `most`.

    A mapping and not a function, so that finding what is known (which is nearly always) calls nothing that is written in Python.
    """

    __slots__ = ("_make", "_most")

    def __init__(self, make: Callable[[bytes], _Value], most: int) -> None:
        self._make = make
        self._most = most

    def __missing__(self, data: bytes) -> _Value:
        value = self._make(data)
        if len(self) >= self._most:
            self.clear()
        self[data] = value
        return value


class Decoder:
    """Turns wire bytes into the values above, interning what recurs. One per history; not thread-safe.

    Raises `ValueError` naming the method where bytes are not that message.

    Responses are cut after their header, which differs from member to member while the rest of a watch message does not: header and rest
    are each decoded once per distinct encoding.
    """

    def __init__(self) -> None:
        self._kvs = _Interned(_key_value_from, sys.maxsize)
        self._events = _Interned(self._event_from, _RECENT_MAX)
        self._headers = _Interned(_header_from, _RECENT_MAX)
        self._ranges = _Interned(_range_request_from, _RECENT_MAX)
        self._watch_rests = _Interned(self._watch_rest_from, _RECENT_MAX)
        self.key_value: Callable[[bytes], KeyValue] = self._kvs.__getitem__
        """The key-value that the bytes encode, the same object for the same bytes."""
        self.event: Callable[[bytes], Event] = self._events.__getitem__
        """The watch event that the bytes encode, the same object for the same bytes (as long as they come within a while)."""
        self._header_from: Callable[[bytes], Header] = self._headers.__getitem__
        self._decode_request: dict[str, Callable[[bytes], Any]] = {
            RANGE: self._ranges.__getitem__,
            PUT_METHOD: _put_request_from,
            DELETE_RANGE: self._parser(pb.DeleteRangeRequest, _delete_range_request),
            TXN: self._parser(pb.TxnRequest, self._txn_request),
            COMPACT: self._parser(pb.CompactionRequest, lambda m: CompactionRequest(m.revision, m.physical)),
            WATCH: self._parser(pb.WatchRequest, _watch_request),
            LEASE_GRANT: self._parser(pb.LeaseGrantRequest, lambda m: LeaseGrantRequest(m.TTL, m.ID)),
            LEASE_REVOKE: self._parser(pb.LeaseRevokeRequest, lambda m: LeaseRevokeRequest(m.ID)),
            LEASE_KEEP_ALIVE: self._parser(pb.LeaseKeepAliveRequest, lambda m: LeaseKeepAliveRequest(m.ID)),
            LEASE_TIME_TO_LIVE: self._parser(pb.LeaseTimeToLiveRequest, lambda m: LeaseTimeToLiveRequest(m.ID, m.keys)),
        }
        self._decode_response: dict[str, Callable[[bytes], Any]] = {
            RANGE: self._range_response_from,
            PUT_METHOD: self._put_response_from,
            DELETE_RANGE: self._parser(pb.DeleteRangeResponse, self._delete_range_response),
            TXN: self._txn_response_from,
            COMPACT: self._parser(pb.CompactionResponse, lambda m: CompactionResponse(self._header(m.header))),
            WATCH: self._watch_response_from,
            LEASE_GRANT: self._parser(
                pb.LeaseGrantResponse,
                lambda m: LeaseGrantResponse(self._header(m.header), m.ID, m.TTL, m.error),
            ),
            LEASE_REVOKE: self._parser(pb.LeaseRevokeResponse, lambda m: LeaseRevokeResponse(self._header(m.header))),
            LEASE_KEEP_ALIVE: self._parser(
                pb.LeaseKeepAliveResponse,
                lambda m: LeaseKeepAliveResponse(self._header(m.header), m.ID, m.TTL),
            ),
            LEASE_TIME_TO_LIVE: self._parser(
                pb.LeaseTimeToLiveResponse,
                lambda m: LeaseTimeToLiveResponse(self._header(m.header), m.ID, m.TTL, m.grantedTTL, tuple(m.keys)),
            ),
        }
        for method, (request, response) in _COLD.items():
            self._decode_request[method] = self._parser(request, lambda m: m)
            self._decode_response[method] = self._parser(response, lambda m: m)

    def forget(self) -> None:
        """Let go of every value, and of every way to make one: nothing can be decoded any more."""
        for interned in (self._kvs, self._events, self._headers, self._ranges, self._watch_rests):
            interned.clear()
        del self._kvs, self._events, self._headers, self._ranges, self._watch_rests, self.key_value, self.event, self._header_from
        self._decode_request.clear()
        self._decode_response.clear()

    def request(self, method: str, data: bytes) -> Any:
        """The request that `data` encodes, a value of `Request`; ValueError where it is none or the method is unknown."""
        decode = self._decode_request.get(method)
        if decode is None:
            raise ValueError(f"unknown gRPC method {method!r}")
        try:
            return decode(data)
        except DecodeError as error:
            raise ValueError(f"not a request of {method}: {error}") from None

    def response_decoder(self, method: str) -> Callable[[bytes], Any]:
        """What `response` does for `method`, for many of them. Raises ValueError for an unknown method; what it returns, DecodeError."""
        decode = self._decode_response.get(method)
        if decode is None:
            raise ValueError(f"unknown gRPC method {method!r}")
        return decode

    def response(self, method: str, data: bytes) -> Any:
        """The response that `data` encodes, a value of `Response`; ValueError where it is none or the method is unknown."""
        try:
            return self.response_decoder(method)(data)
        except DecodeError as error:
            raise ValueError(f"not a response of {method}: {error}") from None

    @staticmethod
    def _parser(message: type[Message], convert: Callable[[Any], Any]) -> Callable[[bytes], Any]:
        parse: Callable[[bytes], Any] = message.FromString
        return lambda data: convert(parse(data))

    def _event_from(self, data: bytes) -> Event:
        if len(data) > 2 and data[0] == _KV_TAG and data[1] < 0x80 and len(data) == 2 + data[1]:
            return _new(Event, (PUT, self._kvs[data[2:]], None))  # nothing but a key-value
        m = pb.Event.FromString(data)
        prev = m.prev_kv
        kvs = self._kvs
        return _new(Event, (m.type, kvs[m.kv], kvs[prev] if prev else None))

    def _header(self, m: Any) -> Header:
        return self._headers[m.SerializeToString()]

    def _request_op(self, m: pb.RequestOp) -> RequestOp:
        which = m.WhichOneof("request")
        if which == "request_range":
            return self._ranges[m.request_range.SerializeToString()]  # half the cost of reading its thirteen fields
        if which == "request_put":
            return _put_request(m.request_put)
        if which == "request_delete_range":
            return _delete_range_request(m.request_delete_range)
        return self._txn_request(m.request_txn)

    def _txn_request(self, m: pb.TxnRequest) -> TxnRequest:
        op = self._request_op
        return _new(TxnRequest, (tuple(map(_compare, m.compare)), tuple(map(op, m.success)), tuple(map(op, m.failure))))

    def _range_response_from(self, data: bytes) -> RangeResponse:
        end = _header_end(data)
        if end:
            m = pb.RangeResponse.FromString(data[end:])
            if not m.HasField("header"):  # a second header would have to be merged with the first
                return _new(RangeResponse, (self._header_from(data[2:end]), tuple(map(self.key_value, m.kvs)), m.more, m.count))
        return self._range_response(pb.RangeResponse.FromString(data))

    def _put_response_from(self, data: bytes) -> PutResponse:
        end = _header_end(data)
        if end and end == len(data):  # nothing but a header: no prev_kv
            return _new(PutResponse, (self._header_from(data[2:]), None))
        return self._put_response(pb.PutResponse.FromString(data))

    def _watch_response_from(self, data: bytes) -> WatchResponse:
        end = _header_end(data)
        if end:
            known = self._watch_rests[data[end:]]
            if known is not None:
                return _new(WatchResponse, (self._headers[data[2:end]], *known))
        m = pb.WatchResponse.FromString(data)
        header = self._header(m.header)
        m.ClearField("header")
        known = self._watch_rest(m)
        assert known is not None, "a message without header"
        return _new(WatchResponse, (header, *known))

    def _watch_rest_from(self, data: bytes) -> _WatchRest | None:
        if len(data) > 2 and data[0] == _EVENT_TAG and data[1] < 0x80 and len(data) == 2 + data[1]:
            return 0, False, False, 0, "", False, (self._events[data[2:]],)  # nothing but one event: watch 0, as most streams have
        return self._watch_rest(pb.WatchResponse.FromString(data))

    def _watch_rest(self, m: pb.WatchResponse) -> _WatchRest | None:
        """All but the header of a watch message; None where it has one (a second one, to be merged with the first)."""
        if m.HasField("header"):
            return None
        events = m.events
        return (
            m.watch_id,
            m.created,
            m.canceled,
            m.compact_revision,
            m.cancel_reason,
            m.fragment,
            tuple(map(self.event, events)) if events else (),
        )

    def _range_response(self, m: pb.RangeResponse) -> RangeResponse:
        return RangeResponse(self._header(m.header), tuple(map(self.key_value, m.kvs)), m.more, m.count)

    def _put_response(self, m: pb.PutResponse) -> PutResponse:
        prev = m.prev_kv
        return PutResponse(self._header(m.header), self.key_value(prev) if prev else None)

    def _delete_range_response(self, m: pb.DeleteRangeResponse) -> DeleteRangeResponse:
        return DeleteRangeResponse(self._header(m.header), m.deleted, tuple(map(self.key_value, m.prev_kvs)))

    def _txn_response_from(self, data: bytes) -> TxnResponse:
        end = _header_end(data)
        if end:
            m = pb.TxnResponse.FromString(data[end:])
            if not m.HasField("header"):
                return _new(TxnResponse, (self._headers[data[2:end]], m.succeeded, tuple(map(self._response_op, m.responses))))
        return self._txn_response(pb.TxnResponse.FromString(data))

    def _txn_response(self, m: pb.TxnResponse) -> TxnResponse:
        return TxnResponse(self._header(m.header), m.succeeded, tuple(map(self._response_op, m.responses)))

    def _response_op(self, m: pb.ResponseOp) -> ResponseOp:
        which = m.WhichOneof("response")
        if which == "response_range":
            return self._range_response(m.response_range)
        if which == "response_put":
            return self._put_response(m.response_put)
        if which == "response_delete_range":
            return self._delete_range_response(m.response_delete_range)
        return self._txn_response(m.response_txn)


def _key_value_from(data: bytes) -> KeyValue:
    m = pb.KeyValue.FromString(data)
    return _new(KeyValue, (m.key, m.create_revision, m.mod_revision, m.version, m.value, m.lease))


def _header_from(data: bytes) -> Header:
    m = pb.ResponseHeader.FromString(data)
    return _new(Header, (m.cluster_id, m.member_id, m.revision, m.raft_term))


def _put_request_from(data: bytes) -> PutRequest:
    return _put_request(pb.PutRequest.FromString(data))


def _range_request_from(data: bytes) -> RangeRequest:
    return _range_request(pb.RangeRequest.FromString(data))


def _range_request(m: pb.RangeRequest) -> RangeRequest:
    return RangeRequest(
        m.key,
        m.range_end,
        m.limit,
        m.revision,
        m.sort_order,
        m.sort_target,
        m.serializable,
        m.keys_only,
        m.count_only,
        m.min_mod_revision,
        m.max_mod_revision,
        m.min_create_revision,
        m.max_create_revision,
    )


def _put_request(m: pb.PutRequest) -> PutRequest:
    return _new(PutRequest, (m.key, m.value, m.lease, m.prev_kv, m.ignore_value, m.ignore_lease))


def _delete_range_request(m: pb.DeleteRangeRequest) -> DeleteRangeRequest:
    return DeleteRangeRequest(m.key, m.range_end, m.prev_kv)


_OPERAND = ("version", "create_revision", "mod_revision", "value", "lease")


def _compare(m: pb.Compare) -> Compare:
    # etcd reads the union member that belongs to the target; another one, or none, counts as zero or empty.
    target = m.target
    if not 0 <= target < len(_OPERAND):
        raise ValueError(f"a compare of the unknown target {target}")
    return _new(Compare, (m.result, target, m.key, getattr(m, _OPERAND[target]), m.range_end))


def _watch_request(m: pb.WatchRequest) -> WatchCreateRequest | WatchCancelRequest | WatchProgressRequest:
    which = m.WhichOneof("request_union")
    if which == "create_request":
        c = m.create_request
        return WatchCreateRequest(
            c.key, c.range_end, c.start_revision, c.progress_notify, tuple(c.filters), c.prev_kv, c.watch_id, c.fragment
        )
    if which == "cancel_request":
        return WatchCancelRequest(m.cancel_request.watch_id)
    return WatchProgressRequest()


# ---- encoding ----


def encode(message: Request | Response | KeyValue | Event) -> bytes:
    """The bytes of `message` on the wire. Accepts requests, responses, key-values, events and generated messages."""
    return to_pb(message).SerializeToString()


def to_pb(message: Any) -> Message:
    """The generated protobuf message that says the same as `message`."""
    if isinstance(message, Message):
        return message
    return _TO_PB[type(message)](message)


def _op_to_pb(op: RequestOp) -> pb.RequestOp:
    if type(op) is RangeRequest:
        return pb.RequestOp(request_range=_range_to_pb(op))
    if type(op) is PutRequest:
        return pb.RequestOp(request_put=_put_to_pb(op))
    if type(op) is DeleteRangeRequest:
        return pb.RequestOp(request_delete_range=_delete_to_pb(op))
    assert type(op) is TxnRequest
    return pb.RequestOp(request_txn=_txn_to_pb(op))


def _range_to_pb(r: RangeRequest) -> pb.RangeRequest:
    return pb.RangeRequest(**r._asdict())


def _put_to_pb(r: PutRequest) -> pb.PutRequest:
    return pb.PutRequest(
        key=r.key,
        value=r.value,
        lease=r.lease,
        prev_kv=r.prev_kv,
        ignore_value=r.ignore_value,
        ignore_lease=r.ignore_lease,
    )


def _delete_to_pb(r: DeleteRangeRequest) -> pb.DeleteRangeRequest:
    return pb.DeleteRangeRequest(key=r.key, range_end=r.range_end, prev_kv=r.prev_kv)


def _compare_to_pb(c: Compare) -> pb.Compare:
    operand: dict[str, Any] = {_OPERAND[c.target]: c.operand}
    return pb.Compare(result=c.result, target=c.target, key=c.key, range_end=c.range_end, **operand)  # type: ignore[arg-type]


def _txn_to_pb(r: TxnRequest) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[_compare_to_pb(c) for c in r.compare],
        success=[_op_to_pb(o) for o in r.success],
        failure=[_op_to_pb(o) for o in r.failure],
    )


def _watch_create_to_pb(r: WatchCreateRequest) -> pb.WatchRequest:
    return pb.WatchRequest(create_request=pb.WatchCreateRequest(**r._asdict()))


def _header_to_pb(h: Header) -> pb.ResponseHeader:
    return pb.ResponseHeader(cluster_id=h.cluster_id, member_id=h.member_id, revision=h.revision, raft_term=h.raft_term)


def _kv_bytes(kv: KeyValue | None) -> bytes:
    return b"" if kv is None else pb.KeyValue(**kv._asdict()).SerializeToString()


def _event_to_pb(e: Event) -> pb.Event:
    return pb.Event(type=e.type, kv=_kv_bytes(e.kv), prev_kv=_kv_bytes(e.prev_kv))  # type: ignore[arg-type]


# An operation inside a Txn carries a header with nothing but a revision, or none at all.
def _maybe_header(h: Header) -> pb.ResponseHeader | None:
    return _header_to_pb(h) if h != Header(0, 0, 0, 0) else None


def _range_response_to_pb(r: RangeResponse) -> pb.RangeResponse:
    return pb.RangeResponse(header=_maybe_header(r.header), kvs=[_kv_bytes(kv) for kv in r.kvs], more=r.more, count=r.count)


def _put_response_to_pb(r: PutResponse) -> pb.PutResponse:
    return pb.PutResponse(header=_maybe_header(r.header), prev_kv=_kv_bytes(r.prev_kv))


def _delete_response_to_pb(r: DeleteRangeResponse) -> pb.DeleteRangeResponse:
    return pb.DeleteRangeResponse(header=_maybe_header(r.header), deleted=r.deleted, prev_kvs=[_kv_bytes(kv) for kv in r.prev_kvs])


def _response_op_to_pb(r: ResponseOp) -> pb.ResponseOp:
    if type(r) is RangeResponse:
        return pb.ResponseOp(response_range=_range_response_to_pb(r))
    if type(r) is PutResponse:
        return pb.ResponseOp(response_put=_put_response_to_pb(r))
    if type(r) is DeleteRangeResponse:
        return pb.ResponseOp(response_delete_range=_delete_response_to_pb(r))
    assert type(r) is TxnResponse
    return pb.ResponseOp(response_txn=_txn_response_to_pb(r))


def _txn_response_to_pb(r: TxnResponse) -> pb.TxnResponse:
    return pb.TxnResponse(
        header=_maybe_header(r.header),
        succeeded=r.succeeded,
        responses=[_response_op_to_pb(o) for o in r.responses],
    )


def _watch_response_to_pb(r: WatchResponse) -> pb.WatchResponse:
    return pb.WatchResponse(
        header=_header_to_pb(r.header),
        watch_id=r.watch_id,
        created=r.created,
        canceled=r.canceled,
        compact_revision=r.compact_revision,
        cancel_reason=r.cancel_reason,
        fragment=r.fragment,
        events=[_event_to_pb(e).SerializeToString() for e in r.events],
    )


_TO_PB: dict[type, Callable[[Any], Message]] = {
    RangeRequest: _range_to_pb,
    PutRequest: _put_to_pb,
    DeleteRangeRequest: _delete_to_pb,
    TxnRequest: _txn_to_pb,
    CompactionRequest: lambda r: pb.CompactionRequest(revision=r.revision, physical=r.physical),
    LeaseGrantRequest: lambda r: pb.LeaseGrantRequest(TTL=r.ttl, ID=r.id),
    LeaseRevokeRequest: lambda r: pb.LeaseRevokeRequest(ID=r.id),
    LeaseKeepAliveRequest: lambda r: pb.LeaseKeepAliveRequest(ID=r.id),
    LeaseTimeToLiveRequest: lambda r: pb.LeaseTimeToLiveRequest(ID=r.id, keys=r.keys),
    WatchCreateRequest: _watch_create_to_pb,
    WatchCancelRequest: lambda r: pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=r.watch_id)),
    WatchProgressRequest: lambda r: pb.WatchRequest(progress_request=pb.WatchProgressRequest()),
    RangeResponse: _range_response_to_pb,
    PutResponse: _put_response_to_pb,
    DeleteRangeResponse: _delete_response_to_pb,
    TxnResponse: _txn_response_to_pb,
    CompactionResponse: lambda r: pb.CompactionResponse(header=_header_to_pb(r.header)),
    LeaseGrantResponse: lambda r: pb.LeaseGrantResponse(header=_header_to_pb(r.header), ID=r.id, TTL=r.ttl, error=r.error),
    LeaseRevokeResponse: lambda r: pb.LeaseRevokeResponse(header=_header_to_pb(r.header)),
    LeaseKeepAliveResponse: lambda r: pb.LeaseKeepAliveResponse(header=_header_to_pb(r.header), ID=r.id, TTL=r.ttl),
    LeaseTimeToLiveResponse: lambda r: pb.LeaseTimeToLiveResponse(
        header=_header_to_pb(r.header), ID=r.id, TTL=r.ttl, grantedTTL=r.granted_ttl, keys=r.keys
    ),
    WatchResponse: _watch_response_to_pb,
    KeyValue: lambda kv: pb.KeyValue(**kv._asdict()),
    Event: _event_to_pb,
}

_AUTH = _PREFIX["auth"]
_COLD: dict[str, tuple[type[Message], type[Message]]] = {
    LEASE_LEASES: (pb.LeaseLeasesRequest, pb.LeaseLeasesResponse),
    MEMBER_LIST: (pb.MemberListRequest, pb.MemberListResponse),
    MEMBER_ADD: (pb.MemberAddRequest, pb.MemberAddResponse),
    MEMBER_REMOVE: (pb.MemberRemoveRequest, pb.MemberChangeResponse),
    MEMBER_PROMOTE: (pb.MemberPromoteRequest, pb.MemberChangeResponse),
    ALARM: (pb.AlarmRequest, pb.AlarmResponse),
    STATUS: (pb.StatusRequest, pb.StatusResponse),
    DEFRAGMENT: (pb.DefragmentRequest, pb.DefragmentResponse),
    HASH: (pb.HashRequest, pb.HashResponse),
    HASH_KV: (pb.HashKVRequest, pb.HashKVResponse),
    MOVE_LEADER: (pb.MoveLeaderRequest, pb.MoveLeaderResponse),
    SNAPSHOT: (pb.SnapshotRequest, pb.SnapshotResponse),
    AUTH_STATUS: (pb.AuthStatusRequest, pb.AuthStatusResponse),
    AUTHENTICATE: (pb.AuthenticateRequest, pb.AuthenticateResponse),
    _AUTH + "AuthEnable": (pb.AuthEnableRequest, pb.AuthChangeResponse),
    _AUTH + "AuthDisable": (pb.AuthDisableRequest, pb.AuthChangeResponse),
    _AUTH + "UserAdd": (pb.AuthUserAddRequest, pb.AuthChangeResponse),
    _AUTH + "UserGet": (pb.AuthUserGetRequest, pb.AuthUserGetResponse),
    _AUTH + "UserList": (pb.AuthUserListRequest, pb.AuthUserListResponse),
    _AUTH + "UserDelete": (pb.AuthUserDeleteRequest, pb.AuthChangeResponse),
    _AUTH + "UserChangePassword": (pb.AuthUserChangePasswordRequest, pb.AuthChangeResponse),
    _AUTH + "UserGrantRole": (pb.AuthUserGrantRoleRequest, pb.AuthChangeResponse),
    _AUTH + "UserRevokeRole": (pb.AuthUserRevokeRoleRequest, pb.AuthChangeResponse),
    _AUTH + "RoleAdd": (pb.AuthRoleAddRequest, pb.AuthChangeResponse),
    _AUTH + "RoleGet": (pb.AuthRoleGetRequest, pb.AuthRoleGetResponse),
    _AUTH + "RoleList": (pb.AuthRoleListRequest, pb.AuthRoleListResponse),
    _AUTH + "RoleDelete": (pb.AuthRoleDeleteRequest, pb.AuthChangeResponse),
    _AUTH + "RoleGrantPermission": (pb.AuthRoleGrantPermissionRequest, pb.AuthChangeResponse),
    _AUTH + "RoleRevokePermission": (pb.AuthRoleRevokePermissionRequest, pb.AuthChangeResponse),
    LOCK: (pb.LockRequest, pb.LockResponse),
    UNLOCK: (pb.UnlockRequest, pb.UnlockResponse),
    CAMPAIGN: (pb.CampaignRequest, pb.CampaignResponse),
    PROCLAIM: (pb.ProclaimRequest, pb.ProclaimResponse),
    LEADER: (pb.LeaderRequest, pb.LeaderResponse),
    OBSERVE: (pb.ObserveRequest, pb.LeaderResponse),
    RESIGN: (pb.ResignRequest, pb.ResignResponse),
}

METHODS: frozenset[str] = frozenset(
    {
        RANGE, PUT_METHOD, DELETE_RANGE, TXN, COMPACT, WATCH,
        LEASE_GRANT, LEASE_REVOKE, LEASE_KEEP_ALIVE, LEASE_TIME_TO_LIVE, *_COLD,
    }
)  # fmt: skip
"""Every gRPC path that can be decoded."""


def method_of(request: Request) -> str:
    """The gRPC path that serves `request`. Raises KeyError for a message that no unary or stream method takes."""
    return _METHOD_OF[type(request)]


def method_of_type(kind: type) -> str:
    """The gRPC path that serves requests of the type `kind`. Raises KeyError as `method_of` does."""
    return _METHOD_OF[kind]


def called(name: str) -> tuple[str, type[Message]]:
    """The gRPC path of the request that etcd calls `name` ("Put", "LeaseGrant", "RoleGrantPermission"), and its generated message.

    Raises `UsageError` naming those that there are.
    """
    known = {path.rpartition("/")[2]: (path, kind) for path, kind in _UNARY.items()}
    if name not in known:
        raise UsageError(f"no request is called {name!r}; there are {', '.join(known)}")
    return known[name]


_UNARY: dict[str, type[Message]] = {
    RANGE: pb.RangeRequest,
    PUT_METHOD: pb.PutRequest,
    DELETE_RANGE: pb.DeleteRangeRequest,
    TXN: pb.TxnRequest,
    COMPACT: pb.CompactionRequest,
    LEASE_GRANT: pb.LeaseGrantRequest,
    LEASE_REVOKE: pb.LeaseRevokeRequest,
    LEASE_TIME_TO_LIVE: pb.LeaseTimeToLiveRequest,
    **{method: request for method, (request, _) in _COLD.items() if method not in (SNAPSHOT, OBSERVE)},
}

_METHOD_OF: dict[type, str] = {
    RangeRequest: RANGE,
    PutRequest: PUT_METHOD,
    DeleteRangeRequest: DELETE_RANGE,
    TxnRequest: TXN,
    CompactionRequest: COMPACT,
    WatchCreateRequest: WATCH,
    WatchCancelRequest: WATCH,
    WatchProgressRequest: WATCH,
    LeaseGrantRequest: LEASE_GRANT,
    LeaseRevokeRequest: LEASE_REVOKE,
    LeaseKeepAliveRequest: LEASE_KEEP_ALIVE,
    LeaseTimeToLiveRequest: LEASE_TIME_TO_LIVE,
    **{request: method for method, (request, _) in _COLD.items()},
}
