"""What the differential fuzzing once found, by hand and as small as it gets. Each history is put before the oracle, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oracle.both import agree
from oracle.brute import legal
from oracle.fuzz import checked
from oracle.small import at, history, watch_of_all
from pekan.history.types import FAILED, INDEFINITE, OK, History
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    DELETE,
    NOT_EQUAL,
    PUT,
    VERSION,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
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
)
from simulator.machine import COMPACTED, FUTURE, LEASE_NOT_FOUND

LOST = WireError(errors.UNAVAILABLE, "etcdserver: request timed out")
PUT_K = PutRequest(b"k", b"1")
ONE = KeyValue(b"k", 2, 2, 1, b"1", 0)
GONE = KeyValue(b"k", 0, 3, 0, b"", 0)
GRANT = (0, 10, OK, LeaseGrantRequest(60, 7), LeaseGrantResponse(at(1), 7, 60, ""))
PUT_AND_DELETE = TxnRequest((), (PutRequest(b"k", b"2"), DeleteRangeRequest(b"k", b"\x00")))
"""An open range is not seen to meet the put, so etcd takes both: one revision, two events of one key."""
DONE_BOTH = TxnResponse(at(3), True, (PutResponse(at(3), None), DeleteRangeResponse(at(3), 1, ())))
TWO = KeyValue(b"k", 2, 3, 2, b"2", 0)

LEGAL: dict[str, History] = {
    "an acknowledged revoke owns the revision that a lost put could fill": history(
        GRANT,
        (5, None, INDEFINITE, PutRequest(b"other", b"x"), LOST),
        (20, 30, OK, PutRequest(b"k", b"1", lease=7), PutResponse(at(2), None)),
        (40, 50, OK, LeaseRevokeRequest(7), LeaseRevokeResponse(at(3))),
    ),
    "one lost transaction deletes and puts a key": history(
        (0, 10, OK, PUT_K, PutResponse(at(2), None)),
        (20, None, INDEFINITE, TxnRequest((), (DeleteRangeRequest(b"k", b"\x00"), PutRequest(b"k", b"2"))), LOST),
        (30, 40, OK, RangeRequest(b"k"), RangeResponse(at(3), (KeyValue(b"k", 3, 3, 1, b"2", 0),), False, 1)),
    ),
    "one revision puts and deletes a key, and its watch sees both": history(
        (0, 10, OK, PUT_K, PutResponse(at(2), None)),
        (20, 30, OK, PUT_AND_DELETE, DONE_BOTH),
        streams=(watch_of_all((11, 2, (Event(PUT, ONE, None),)), (31, 3, (Event(PUT, TWO, ONE), Event(DELETE, GONE, ONE)))),),
    ),
    "a lease id is granted again after its lease ran out": history(
        (0, 10, OK, LeaseGrantRequest(1, 7), LeaseGrantResponse(at(1), 7, 1, "")),
        (2_000_000_000, 2_000_000_010, OK, LeaseGrantRequest(1, 7), LeaseGrantResponse(at(1), 7, 1, "")),
    ),
}

ILLEGAL: dict[str, History] = {
    "older than what a compaction's answer had shown": history(
        (0, None, INDEFINITE, PUT_K, LOST),
        (10, 20, OK, CompactionRequest(1), CompactionResponse(at(2))),
        (30, 40, OK, RangeRequest(b"k"), RangeResponse(at(1), (), False, 0)),
    ),
    "older than what a compaction's answer had shown, written slowly": history(
        (0, 50, OK, PUT_K, PutResponse(at(2), None)),
        (10, 20, OK, CompactionRequest(1), CompactionResponse(at(2))),
        (30, 40, OK, RangeRequest(b"k"), RangeResponse(at(1), (), False, 0)),
    ),
    "refused for a future revision, and names none": history((0, 10, FAILED, TxnRequest((), (PUT_K,)), FUTURE)),
    "refused for a compacted revision, and names none": history(
        (0, 10, OK, CompactionRequest(1), CompactionResponse(at(1))),
        (5, None, INDEFINITE, PutRequest(b"other", b"x"), LOST),
        (20, 30, FAILED, TxnRequest((Compare(NOT_EQUAL, VERSION, b"k", 0),), (PUT_K,), (RangeRequest(b"k"),)), COMPACTED),
    ),
    "the first revision is not in the future": history((0, 10, FAILED, CompactionRequest(1), FUTURE)),
    "a lease just granted is there to be revoked": history(GRANT, (20, 30, FAILED, LeaseRevokeRequest(7), LEASE_NOT_FOUND)),
    "a put with a lease that nobody granted has no effect": history(
        (0, None, INDEFINITE, PutRequest(b"k", b"1", lease=999), LOST),
        (20, 30, OK, RangeRequest(b"other"), RangeResponse(at(2), (), False, 0)),
    ),
    "two lost puts, three revisions": history(
        (0, None, INDEFINITE, PUT_K, LOST),
        (0, None, INDEFINITE, PUT_K, LOST),
        (20, 30, OK, DeleteRangeRequest(b"other"), DeleteRangeResponse(at(4), 0, ())),
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_history_holds(name: str) -> None:
    """Once a false alarm."""
    one = LEGAL[name]
    assert legal(one, evidence=True)
    agree(one)
    assert checked(one, "answers") == ("holds", ())
    assert checked(one, "evidence") == ("holds", ())


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_history_is_broken(name: str) -> None:
    """Once a miss."""
    one = ILLEGAL[name]
    assert not legal(one, evidence=False)
    agree(one)
    assert checked(one, "answers")[0] == "broken"


def test_a_key_never_seen_may_be_absent_before_the_first_known_state() -> None:
    """Of a store found running, a refusal from before anything was read whole is no contradiction. Once a false alarm."""
    refused = WireError(errors.INVALID_ARGUMENT, errors.KEY_NOT_FOUND)
    found = history(
        (0, 10, FAILED, PutRequest(b"k", ignore_value=True), refused),
        (20, 30, OK, PUT_K, PutResponse(at(8), None)),
        (40, 50, OK, RangeRequest(b"\x00", b"\x00"), RangeResponse(at(8), (KeyValue(b"k", 8, 8, 1, b"1", 0),), False, 1)),
    )
    assert checked(replace(found, start="unknown"), "answers")[0] != "broken"


def test_a_compaction_that_was_refused_takes_no_previous_value() -> None:
    """A missing prev_kv is excused by a compaction that may have happened, and by no other. Once a miss."""
    told = watch_of_all((11, 2, (Event(PUT, ONE, None),)), (61, 3, (Event(DELETE, GONE, None),)))
    write = (0, 10, OK, PUT_K, PutResponse(at(2), None))
    delete = (50, 60, OK, DeleteRangeRequest(b"k"), DeleteRangeResponse(at(3), 1, ()))
    refused = history(write, (20, 30, FAILED, CompactionRequest(50), FUTURE), delete, streams=(told,))
    assert [f.code for f in checked(refused, "evidence")[1]] == ["WATCH-PREV-KV"]
    lost = history(write, (20, None, INDEFINITE, CompactionRequest(3), LOST), delete, streams=(told,))
    assert checked(lost, "evidence") == ("holds", ())
