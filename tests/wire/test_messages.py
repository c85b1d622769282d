"""The wire: every value goes to bytes and back unchanged, the fast ways read what the general way reads, and nonsense is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pekan.wire import METHODS, Decoder, encode, messages, method_of, pb
from pekan.wire.messages import (
    COMPACT,
    DELETE_RANGE,
    LEASE,
    LEASE_GRANT,
    LEASE_KEEP_ALIVE,
    LEASE_REVOKE,
    LEASE_TIME_TO_LIVE,
    PUT_METHOD,
    RANGE,
    TXN,
    VALUE,
    WATCH,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    Header,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchResponse,
)

int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
data = st.binary(max_size=20)
flag = st.booleans()

headers = st.builds(Header, uint64, uint64, int64, uint64)
kvs = st.builds(KeyValue, data, int64, int64, int64, data, int64)
# A key-value with nothing in it has no bytes, which is how "none" looks on the wire.
some_kv = kvs.filter(lambda kv: kv != KeyValue(b"", 0, 0, 0, b"", 0))
maybe_kv = st.none() | some_kv
events = st.builds(Event, st.sampled_from([0, 1]), some_kv, maybe_kv)
ranges = st.builds(
    RangeRequest, data, data, int64, int64, st.integers(0, 2), st.integers(0, 4), flag, flag, flag, int64, int64, int64, int64
)
puts = st.builds(PutRequest, data, data, int64, flag, flag, flag)
deletes = st.builds(DeleteRangeRequest, data, data, flag)
compares = st.one_of(
    st.builds(Compare, st.integers(0, 3), st.sampled_from([0, 1, 2, LEASE]), data, int64, data),
    st.builds(Compare, st.integers(0, 3), st.just(VALUE), data, data, data),
)


def lists(element: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(element, max_size=3).map(tuple)


def txns(op: st.SearchStrategy[Any]) -> st.SearchStrategy[TxnRequest]:
    return st.builds(TxnRequest, lists(compares), lists(op), lists(op))


request_ops = st.recursive(ranges | puts | deletes, txns, max_leaves=5)
range_answers = st.builds(RangeResponse, headers, lists(some_kv), flag, int64)
put_answers = st.builds(PutResponse, headers, maybe_kv)
delete_answers = st.builds(DeleteRangeResponse, headers, int64, lists(some_kv))
response_ops = st.recursive(
    range_answers | put_answers | delete_answers, lambda op: st.builds(TxnResponse, headers, flag, lists(op)), max_leaves=5
)

REQUESTS: dict[str, st.SearchStrategy[Any]] = {
    RANGE: ranges,
    PUT_METHOD: puts,
    DELETE_RANGE: deletes,
    TXN: txns(request_ops),
    COMPACT: st.builds(CompactionRequest, int64, flag),
    WATCH: st.one_of(
        st.builds(WatchCreateRequest, data, data, int64, flag, lists(st.integers(0, 1)), flag, int64, flag),
        st.builds(WatchCancelRequest, int64),
        st.just(WatchProgressRequest()),
    ),
    LEASE_GRANT: st.builds(LeaseGrantRequest, int64, int64),
    LEASE_REVOKE: st.builds(LeaseRevokeRequest, int64),
    LEASE_KEEP_ALIVE: st.builds(LeaseKeepAliveRequest, int64),
    LEASE_TIME_TO_LIVE: st.builds(LeaseTimeToLiveRequest, int64, flag),
}
RESPONSES: dict[str, st.SearchStrategy[Any]] = {
    RANGE: range_answers,
    PUT_METHOD: put_answers,
    DELETE_RANGE: delete_answers,
    TXN: st.builds(TxnResponse, headers, flag, lists(response_ops)),
    COMPACT: st.builds(CompactionResponse, headers),
    WATCH: st.builds(WatchResponse, headers, int64, flag, flag, int64, st.text(max_size=9), flag, lists(events)),
    LEASE_GRANT: st.builds(LeaseGrantResponse, headers, int64, int64, st.text(max_size=9)),
    LEASE_REVOKE: st.builds(LeaseRevokeResponse, headers),
    LEASE_KEEP_ALIVE: st.builds(LeaseKeepAliveResponse, headers, int64, int64),
    LEASE_TIME_TO_LIVE: st.builds(LeaseTimeToLiveResponse, headers, int64, int64, int64, lists(data)),
}


def requests() -> st.SearchStrategy[tuple[str, Any]]:
    return st.one_of([st.tuples(st.just(method), values) for method, values in REQUESTS.items()])


def responses() -> st.SearchStrategy[tuple[str, Any]]:
    return st.one_of([st.tuples(st.just(method), values) for method, values in RESPONSES.items()])


@given(requests())
def test_requests_go_to_bytes_and_back(case: tuple[str, Any]) -> None:
    """Every request of the data path equals itself after encoding and decoding, its method is known, and a decoder that knows it agrees."""
    method, request = case
    decoder = Decoder()
    assert method_of(request) == method
    for _ in range(2):  # the second time, interned
        again = decoder.request(method, encode(request))
        assert again == request
        assert type(again) is type(request)


@given(responses())
def test_responses_go_to_bytes_and_back(case: tuple[str, Any]) -> None:
    """Every response of the data path equals itself after encoding and decoding, twice with one decoder."""
    method, response = case
    decoder = Decoder()
    for _ in range(2):
        again = decoder.response(method, encode(response))
        assert again == response
        assert type(again) is type(response)


@given(responses())
def test_a_header_in_another_place_reads_the_same(case: tuple[str, Any]) -> None:
    """The fast ways expect the header first; a message that has it last, or in two parts to be merged, reads as protobuf says."""
    method, response = case
    header = encode_header(response.header)
    whole = encode(response)
    # What comes after the header, which our encoding (like etcd's) puts first; an empty header still has its tag.
    rest = whole[len(header) :] if whole.startswith(header) else whole
    assert Decoder().response(method, rest + header) == response
    half = pb.ResponseHeader(cluster_id=response.header.cluster_id, revision=7).SerializeToString()
    first = b"\x0a" + bytes([len(half)]) + half
    expected = pb.ResponseHeader.FromString(half)
    expected.MergeFromString(header[2:])
    merged = Header(expected.cluster_id, expected.member_id, expected.revision, expected.raft_term)
    for message in (first + header + rest, first + rest + header):
        assert Decoder().response(method, message) == response._replace(header=merged)


def encode_header(header: Header) -> bytes:
    inner = pb.ResponseHeader(**header._asdict()).SerializeToString()
    return b"\x0a" + bytes([len(inner)]) + inner


@given(st.sampled_from(sorted(RESPONSES)), st.binary(max_size=40))
def test_arbitrary_bytes_read_as_the_generated_code_reads_them(method: str, noise: bytes) -> None:
    """What protobuf refuses is refused with the method named, and what it reads is read, whatever the fast ways look at."""
    message = {WATCH: "WatchResponse", COMPACT: "CompactionResponse"}.get(method, method.rpartition("/")[2] + "Response")
    try:
        getattr(pb, message).FromString(noise)
    except DecodeError:
        with pytest.raises(ValueError, match=method):
            Decoder().response(method, noise)


@given(st.sampled_from(sorted(RESPONSES)), responses(), st.integers(0, 200))
def test_a_cut_response_never_reads_as_the_whole(method: str, case: tuple[str, Any], length: int) -> None:
    """A response that lost bytes at its end is refused or reads as another value, by fast and general way alike."""
    method, response = case
    whole = encode(response)
    cut = whole[: min(length, len(whole))]
    message = {WATCH: "WatchResponse", COMPACT: "CompactionResponse"}.get(method, method.rpartition("/")[2] + "Response")
    try:
        general = getattr(pb, message).FromString(cut)
    except DecodeError:
        with pytest.raises(ValueError, match="not a response of"):
            Decoder().response(method, cut)
        return
    header = Decoder().response(method, cut).header
    assert header == (general.header.cluster_id, general.header.member_id, general.header.revision, general.header.raft_term)


def test_cold_messages_pass_through() -> None:
    """Messages asked for a few times a run stay generated messages, unknown fields included, and unknown methods are refused."""
    decoder = Decoder()
    assert len(METHODS) > len(REQUESTS)
    status = pb.StatusResponse(version="3.5.1", raftIndex=9)
    bytes_ = status.SerializeToString() + b"\xf2\x3f\x01x"
    again = decoder.response(messages.STATUS, bytes_)
    assert again.version == "3.5.1"
    assert again.SerializeToString() == bytes_
    assert method_of(pb.StatusRequest()) == messages.STATUS
    for decode in (decoder.request, decoder.response):
        with pytest.raises(ValueError, match="unknown gRPC method '/nonsense'"):
            decode("/nonsense", b"")
    with pytest.raises(KeyError):
        method_of(pb.StatusResponse())


@pytest.mark.parametrize(
    ("method", "message", "data"),
    [
        (messages.LOCK, pb.LockRequest(name=b"n", lease=7), b"\x0a\x01n\x10\x07"),
        (messages.UNLOCK, pb.UnlockRequest(key=b"n/7"), b"\x0a\x03n/7"),
        (messages.CAMPAIGN, pb.CampaignRequest(name=b"n", lease=7, value=b"v"), b"\x0a\x01n\x10\x07\x1a\x01v"),
        (
            messages.PROCLAIM,
            pb.ProclaimRequest(leader=pb.LeaderKey(name=b"n", key=b"n/7", rev=2, lease=7), value=b"v"),
            b"\x0a\x0c\x0a\x01n\x12\x03n/7\x18\x02\x20\x07\x12\x01v",
        ),
        (messages.LEADER, pb.LeaderRequest(name=b"n"), b"\x0a\x01n"),
        (messages.OBSERVE, pb.ObserveRequest(name=b"n"), b"\x0a\x01n"),
        (messages.RESIGN, pb.ResignRequest(leader=pb.LeaderKey(rev=2)), b"\x0a\x02\x18\x02"),
        (messages.HASH, pb.HashRequest(), b""),
    ],
)
def test_services_speak_as_etcd_does(method: str, message: Any, data: bytes) -> None:
    """Requests to the lock and election services have the field numbers of etcd's own files, and each is known by its type."""
    assert method_of(message) == method
    assert encode(message) == data
    assert Decoder().request(method, data) == message


def test_an_interning_decoder_forgets_in_time() -> None:
    """Equal key-values are one object, and after more distinct watch messages than are kept, messages still decode to equal values."""
    decoder = Decoder()
    kv = KeyValue(b"k", 1, 1, 1, b"v", 0)
    header = Header(1, 2, 3, 4)
    answer = encode(RangeResponse(header, (kv, kv), False, 2))
    kvs_ = decoder.response(RANGE, answer).kvs
    assert kvs_[0] is kvs_[1]
    for number in range(messages._RECENT_MAX + 10):
        message = WatchResponse(header._replace(revision=number), number, False, False, 0, "", False, ())
        assert decoder.response(WATCH, encode(message)) == message
    assert len(decoder._watch_rests) <= messages._RECENT_MAX
    assert len(decoder._headers) <= messages._RECENT_MAX
