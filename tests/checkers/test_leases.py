"""Leases: what is early, and everything that is not."""

from __future__ import annotations

from typing import Any

import pytest

from pekan.checkers.case import Case, Fork, Options, Order
from pekan.checkers.leases import check_leases
from pekan.wire.errors import OUT_OF_RANGE, WireError
from pekan.wire.messages import (
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
)

from .judging import LOST, Clock, case, codes, gone, header

LEASE = 77
EARLY = [("LEASE-EARLY", "counts")]


def granted(ttl: int = 5) -> Clock:
    """A lease granted at 0 ms, a key with it written at revision 2."""
    clock = Clock()
    clock.op("m1", LeaseGrantRequest(ttl, LEASE), LeaseGrantResponse(header(), LEASE, ttl, ""))
    clock.op("m1", PutRequest(b"k", b"v", LEASE), PutResponse(header(2), None))
    return clock


def expired(clock: Clock, **options: Any) -> Case:
    """`clock` judged against an order in which revision 3 took the key and nobody wrote that revision."""
    order = Order(2, 3, {2: (), 3: (gone(b"k", 3, LEASE),)}, written_by={2: 1})
    return case(clock, order=order, **options)


def absent(clock: Clock, at: int) -> None:
    """A linearizable read, answered 10 ms after `at`, that shows revision 3 without the key."""
    clock.at(at).op("m1", RangeRequest(b"k"), RangeResponse(header(3), (), False, 0))


def test_early_expiry_is_caught() -> None:
    """A key gone 4.9 s after a 5 s lease was asked for is early."""
    clock = granted()
    absent(clock, 4_890)
    report = check_leases(expired(clock))
    assert codes(report) == EARLY
    assert report.findings[0].subject == {"lease": LEASE, "key": "k", "revision": 3}
    assert [exhibit.operation for exhibit in report.findings[0].certificate] == [0, 2]


@pytest.mark.parametrize("at", [4_990, 5_000, 60_000])
def test_expiry_in_time_or_late_is_legal(at: int) -> None:
    """Absence first shown at the deadline or after it is never a finding."""
    clock = granted()
    absent(clock, at)
    report = check_leases(expired(clock))
    assert report.applicable
    assert report.judged["expiries"] == 1
    assert codes(report) == []


def test_the_earliest_reply_that_shows_the_revision_counts() -> None:
    """A write by somebody else at a higher revision proves as well that the deletion had happened."""
    clock = granted()
    clock.at(1_000).op("m2", PutRequest(b"other"), PutResponse(header(4, "m2"), None))
    absent(clock, 9_000)
    assert codes(check_leases(expired(clock))) == EARLY


def test_keepalive_moves_the_deadline() -> None:
    """What is in time after the grant is early after a keepalive that succeeded; one that found nothing (TTL 0) moves nothing."""
    for ttl, expected in ((5, EARLY), (0, [])):
        clock = granted()
        clock.keepalive("m1", LEASE, ttl=ttl, asked=4_000, answered=4_010)
        absent(clock, 6_000)
        assert codes(check_leases(expired(clock))) == expected


def test_keepalive_replies_answer_requests_in_order() -> None:
    """The second reply of a stream renews from the second request, not from the first and not from the reply."""
    clock = granted()
    clock.keepalive("m1", LEASE, ttl=5, asked=1_000, answered=6_100)
    absent(clock, 6_050)
    assert codes(check_leases(expired(clock))) == []


def test_not_found_is_no_absence() -> None:
    """TimeToLive saying "gone" (TTL -1) from a member that believes it leads proves nothing without a deletion."""
    clock = granted()
    clock.op("m1", LeaseTimeToLiveRequest(LEASE), LeaseTimeToLiveResponse(header(2), LEASE, -1, 0, ()))
    clock.keepalive("m1", LEASE, ttl=0, asked=200, answered=210)
    assert codes(check_leases(case(clock, order=Order(2, 2, {2: ()}, written_by={2: 1})))) == []


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (LeaseRevokeRequest(LEASE), LeaseRevokeResponse(header(3))),
        (LeaseRevokeRequest(LEASE), LOST),
        (DeleteRangeRequest(b"a", b"z"), LOST),
        (DeleteRangeRequest(b"k"), LOST),
        (DeleteRangeRequest(b"b", b"\0"), LOST),
        (TxnRequest((), (), (DeleteRangeRequest(b"k"),)), LOST),
        (TxnRequest((), (DeleteRangeRequest(b"k"), RangeRequest(b"k", b"", 0, 1)), ()), WireError(OUT_OF_RANGE, "compacted")),
    ],
)
def test_what_may_have_deleted_the_key_explains_it(request_: Any, answer: Any) -> None:
    """Revokes and deletes that may have taken the key before it was seen gone leave nothing to find, unanswered and refused ones too."""
    clock = granted()
    clock.op("m1", request_, answer)
    absent(clock, 1_000)
    assert codes(check_leases(expired(clock))) == []


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (LeaseRevokeRequest(LEASE + 1), LOST),
        (DeleteRangeRequest(b"l", b"z"), LOST),
        (DeleteRangeRequest(b"a"), LOST),
        (TxnRequest((), (), (PutRequest(b"k"),)), LOST),
    ],
)
def test_what_cannot_have_deleted_the_key_explains_nothing(request_: Any, answer: Any) -> None:
    """Revokes of other leases and deletes of other keys do not hide an early expiry."""
    clock = granted()
    clock.op("m1", request_, answer)
    absent(clock, 1_000)
    assert codes(check_leases(expired(clock))) == EARLY


def test_a_delete_sent_after_absence_was_seen_explains_nothing() -> None:
    """A revoke invoked only after the key had been seen gone cannot have caused it."""
    clock = granted()
    absent(clock, 1_000)
    clock.op("m1", LeaseRevokeRequest(LEASE), LOST)
    assert codes(check_leases(expired(clock))) == EARLY


def test_a_revoke_of_an_earlier_lease_with_the_same_id_explains_nothing() -> None:
    """A revoke answered before the lease was granted anew ended the earlier one."""
    clock = Clock()
    clock.op("m1", LeaseGrantRequest(5, LEASE), LeaseGrantResponse(header(), LEASE, 5, ""))
    clock.op("m1", LeaseRevokeRequest(LEASE), LeaseRevokeResponse(header(1)))
    clock.op("m1", LeaseGrantRequest(2, LEASE), LeaseGrantResponse(header(), LEASE, 2, ""))
    clock.op("m1", PutRequest(b"k", b"v", LEASE), PutResponse(header(2), None))
    absent(clock, 1_000)
    assert codes(check_leases(expired(clock))) == EARLY


def test_the_shorter_life_of_a_lease_granted_anew_is_legal() -> None:
    """A long first life does not make the end of a short second one early."""
    clock = Clock()
    clock.op("m1", LeaseGrantRequest(100, LEASE), LeaseGrantResponse(header(), LEASE, 100, ""))
    clock.op("m1", LeaseRevokeRequest(LEASE), LeaseRevokeResponse(header(1)))
    clock.op("m1", LeaseGrantRequest(2, LEASE), LeaseGrantResponse(header(), LEASE, 2, ""))
    clock.op("m1", PutRequest(b"k", b"v", LEASE), PutResponse(header(2), None))
    absent(clock, 3_000)
    assert codes(check_leases(expired(clock))) == []


def test_a_clock_fault_waives_timing() -> None:
    """A `lease-time` fault armed before the absence was seen waives it; a kill, and a clock fault armed later, do not."""
    for promise, armed, expected in (("lease-time", 100, []), ("within", 100, EARLY), ("lease-time", 2_000, EARLY)):
        clock = granted()
        absent(clock, 1_000)
        clock.fault("clock", "m1", armed, armed + 10, None, promise=promise)
        assert codes(check_leases(expired(clock))) == expected


def test_nothing_is_concluded_where_the_order_is_not_known() -> None:
    """No order, an unproven revision, a revision that somebody wrote, and foreign writers: no finding."""
    clock = granted()
    absent(clock, 1_000)
    events = {2: (), 3: (gone(b"k", 3, LEASE),)}
    assert codes(check_leases(case(clock))) == []
    assert codes(check_leases(case(clock, order=Order(2, 3, events, unknown={3}, written_by={2: 1})))) == []
    assert codes(check_leases(case(clock, order=Order(2, 3, events, written_by={2: 1, 3: 2})))) == []
    assert codes(check_leases(expired(clock, options=Options(writers="shared")))) == []


def test_an_early_expiry_after_a_fork_follows_it() -> None:
    """Where members' histories have parted, an expiry seen on one side follows from that."""
    clock = granted()
    absent(clock, 1_000)
    judged = expired(clock)
    judged.fork = Fork(3, "REFUSED-BUT-APPLIED", "", ())
    report = check_leases(judged)
    assert codes(report) == [("LEASE-EARLY", "follows")]
    assert report.findings[0].because == "REFUSED-BUT-APPLIED"


def test_not_applicable_without_leases() -> None:
    """A history without a lease gives the lease checker nothing to judge."""
    clock = Clock()
    clock.op("m1", PutRequest(b"k"), PutResponse(header(2), None))
    assert not check_leases(case(clock, order=Order(2, 2, {2: ()}))).applicable
