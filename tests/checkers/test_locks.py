"""Locks and elections: a grant without a key, two holders at a time, and everything that is neither."""

from __future__ import annotations

from typing import Any

import pytest

from pekan.checkers.case import Case, Fork, Options, Order
from pekan.checkers.locks import check_locks
from pekan.checkers.services import with_requests
from pekan.wire import pb
from pekan.wire.messages import (
    PUT,
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
)

from .judging import LOST, Clock, case, codes, gone, header, pb_header

A, B = 10, 11
KEY_A, KEY_B = b"n/a", b"n/b"
WITHOUT_KEY = [("LOCK-WITHOUT-KEY", "counts")]
TWO_HOLDERS = [("LOCK-TWO-HOLDERS", "counts")]


def there(key: bytes, revision: int, lease: int) -> Event:
    return Event(PUT, KeyValue(key, revision, revision, 1, b"", lease), None)


def order(*revisions: Event, first: int = 2, unknown: set[int] | None = None) -> Order:
    """The events of one revision each, from `first` on."""
    return Order(first, first + len(revisions) - 1, {first + n: (event,) for n, event in enumerate(revisions)}, unknown=unknown or set())


def judged(clock: Clock, proven: Order | None, **options: Any) -> Case:
    """A case as the judge makes it: with what members wrote on behalf of their callers."""
    made = case(clock, **options)
    return Case(with_requests(made.history).history, made.options, order=proven)


def granted(clock: Clock, *, ttl: int = 60) -> None:
    for lease in (A, B):
        clock.op("m1", LeaseGrantRequest(ttl, lease), LeaseGrantResponse(header(), lease, ttl, ""))


def lock(clock: Clock, lease: int, revision: int, *, name: bytes = b"n", **how: Any) -> None:
    key = name + b"/" + format(lease, "x").encode()
    clock.op("m1", pb.LockRequest(name=name, lease=lease), pb.LockResponse(header=pb_header(revision), key=key), **how)


def campaign(clock: Clock, lease: int, created: int, **how: Any) -> None:
    key = b"n/" + format(lease, "x").encode()
    leader = pb.LeaderKey(name=b"n", key=key, rev=created, lease=lease)
    answer = pb.CampaignResponse(header=pb_header(created), leader=leader)
    clock.op("m1", pb.CampaignRequest(name=b"n", lease=lease, value=b"v"), answer, **how)


def unlock(clock: Clock, key: bytes, revision: int) -> None:
    clock.op("m1", pb.UnlockRequest(key=key), pb.UnlockResponse(header=pb_header(revision)))


LOST_WHILE_WAITING = order(there(KEY_A, 2, A), there(KEY_B, 3, B), gone(KEY_B, 4, B), gone(KEY_A, 5, A))
RELEASED_FIRST = order(there(KEY_A, 2, A), there(KEY_B, 3, B), gone(KEY_A, 4, A), gone(KEY_B, 5, B))


def waiting(*, answered: int = 5) -> Clock:
    """A holds the lock; B asks for it and is answered ok at revision `answered`, after A let go."""
    clock = Clock()
    granted(clock)
    lock(clock, A, 2)
    lock(clock, B, answered, took=1_000, stay=True)
    unlock(clock.at(800), KEY_A, 5)
    return clock


def test_a_lock_granted_after_its_key_was_gone_is_caught() -> None:
    """The key was there only while somebody else held the lock, so no moment of the call was right (#11456)."""
    report = check_locks(judged(waiting(), LOST_WHILE_WAITING))
    assert codes(report) == WITHOUT_KEY
    assert report.judged == {"granted": 2, "placed": 2}
    assert report.findings[0].subject["operations"] == [2, 3]
    assert [exhibit.operation for exhibit in report.findings[0].certificate] == [2, None, 3]


def test_a_lock_that_was_free_while_its_key_was_there_is_legal() -> None:
    """A lease that runs out between the grant and its answer takes the lock away and makes no grant wrong."""
    assert codes(check_locks(judged(waiting(), RELEASED_FIRST))) == []


def test_a_holder_that_lost_its_key_holds_nothing() -> None:
    """Where the holder's own lease ended before the other's, the other may be granted."""
    ended = order(there(KEY_A, 2, A), there(KEY_B, 3, B), gone(KEY_A, 4, A), gone(KEY_B, 5, B), there(b"x", 6, 0))
    assert codes(check_locks(judged(waiting(answered=6), ended))) == []


def test_a_lock_whose_key_was_never_there_is_caught() -> None:
    """A grant without any put of its key."""
    report = check_locks(judged(waiting(), order(there(KEY_A, 2, A), there(b"x", 3, 0), there(b"x", 4, 0), gone(KEY_A, 5, A))))
    assert codes(report) == WITHOUT_KEY
    assert "never there" in report.findings[0].summary


def test_a_key_that_was_gone_before_the_call_counts_for_nothing() -> None:
    """What anybody had been shown before the call bounds its moments from below."""
    proven = order(there(KEY_B, 2, B), gone(KEY_B, 3, B), there(b"x", 4, 0))
    for shown, expected in ((True, WITHOUT_KEY), (False, [])):
        clock = Clock()
        granted(clock)
        if shown:
            clock.op("m1", RangeRequest(KEY_B), RangeResponse(header(3), (), False, 0))
        lock(clock, B, 4)
        assert codes(check_locks(judged(clock, proven))) == expected


def test_two_holders_by_revisions_are_caught() -> None:
    """A grant at a revision at which another holder's key is there."""
    clock = Clock()
    granted(clock)
    lock(clock, A, 2)
    lock(clock, B, 3)
    report = check_locks(judged(clock, order(there(KEY_A, 2, A), there(KEY_B, 3, B))))
    assert codes(report) == TWO_HOLDERS
    assert report.findings[0].shape == ("lock", "holder")
    assert report.findings[0].subject["operations"] == [2, 3]


def test_who_waits_does_not_hold() -> None:
    """An older key of somebody who was never answered is no holder's."""
    clock = Clock()
    granted(clock)
    clock.op("m1", pb.LockRequest(name=b"n", lease=A), LOST)
    lock(clock, B, 3)
    assert codes(check_locks(judged(clock, order(there(KEY_A, 2, A), there(KEY_B, 3, B))))) == []


def test_locking_again_with_the_same_lease_is_legal() -> None:
    """The same owner may ask twice."""
    clock = Clock()
    granted(clock)
    lock(clock, A, 2)
    lock(clock, A, 2)
    assert codes(check_locks(judged(clock, order(there(KEY_A, 2, A))))) == []


def test_locks_of_other_names_are_others() -> None:
    """Two holders of two locks."""
    clock = Clock()
    granted(clock)
    lock(clock, A, 2)
    lock(clock, B, 3, name=b"m")
    assert codes(check_locks(judged(clock, order(there(KEY_A, 2, A), there(b"m/b", 3, B))))) == []


@pytest.mark.parametrize(
    ("proven", "start"),
    [
        (None, "empty"),
        (LOST_WHILE_WAITING, "unknown"),
        (order(there(KEY_B, 3, B), gone(KEY_B, 4, B), gone(KEY_A, 5, A), first=3), "empty"),
        (order(*(e[0] for e in LOST_WHILE_WAITING.events.values()), unknown={4}), "empty"),
        (order(there(KEY_A, 2, A), there(KEY_B, 3, B), gone(KEY_B, 4, B)), "empty"),
    ],
    ids=["no order", "began with unknown content", "begins later", "a revision unknown", "ends before the answer"],
)
def test_what_is_not_proven_is_not_judged(proven: Order | None, start: str) -> None:
    """Only an order that is known from an empty store to the revision of the answer says when keys were there."""
    assert codes(check_locks(judged(waiting(), proven, start=start))) == []


# ---- elections ----


def succession() -> Clock:
    """A leads; B's campaign waits, A resigns, and B is answered ok."""
    clock = Clock()
    granted(clock)
    campaign(clock, A, 2)
    campaign(clock, B, 3, took=1_000, stay=True)
    clock.op("m1", pb.ResignRequest(leader=pb.LeaderKey(key=KEY_A, rev=2)), LOST)
    return clock


def test_a_campaign_won_after_its_key_was_gone_is_caught() -> None:
    """The candidate's key was there only while the other led, and nothing can have put it again."""
    clock = succession()
    report = check_locks(judged(clock, LOST_WHILE_WAITING))
    assert codes(report) == WITHOUT_KEY
    assert report.findings[0].shape == ("campaign", "holder")
    assert codes(check_locks(judged(clock, RELEASED_FIRST))) == []


def test_a_campaign_that_another_put_may_have_served_is_not_judged() -> None:
    """Where somebody else may have put the key again, it may have been there at a revision that nobody saw."""
    clock = succession()
    clock.op("m1", PutRequest(KEY_B), None, client="kv-1")
    assert codes(check_locks(judged(clock, LOST_WHILE_WAITING))) == []


def test_a_leader_that_was_told_so_late_may_have_led_late() -> None:
    """A campaign answered after the other was called says nothing about who led when the other's key was put."""
    clock = Clock()
    granted(clock)
    campaign(clock, A, 2, took=500, stay=True)
    campaign(clock.at(100), B, 3, took=1_000)
    assert codes(check_locks(judged(clock, LOST_WHILE_WAITING))) == []


# ---- by answers alone ----


def together(*, ttl: int = 60, between: Any = None, first: Any = lock, second: Any = lock) -> Clock:
    """A is answered ok at 50 ms, B at 5 s, and nobody let go."""
    clock = Clock()
    granted(clock, ttl=ttl)
    first(clock, A, 2)
    if between is not None:
        between(clock)
    second(clock.at(4_990), B, 3)
    return clock


@pytest.mark.parametrize("grant", [lock, campaign])
def test_two_holders_by_answers_alone_are_caught(grant: Any) -> None:
    """The first one's lease lives and nothing can have deleted its key when the second is granted."""
    report = check_locks(judged(together(first=grant, second=grant), None))
    assert codes(report) == TWO_HOLDERS
    assert report.findings[0].shape[1] == "answers"


def _deleted(clock: Clock) -> None:
    clock.op("m1", DeleteRangeRequest(b"n/", b"n0"), DeleteRangeResponse(header(4), 1, ()))


def _lost(request: Any) -> Any:
    return lambda clock: clock.op("m1", request, None, client="kv-1")


@pytest.mark.parametrize(
    "between",
    [
        lambda clock: unlock(clock, KEY_A, 4),
        _lost(pb.UnlockRequest(key=KEY_A)),
        lambda clock: clock.op("m1", LeaseRevokeRequest(A), LeaseRevokeResponse(header(4))),
        _lost(LeaseRevokeRequest(A)),
        _deleted,
        _lost(pb.LockRequest(name=b"n", lease=A)),
        _lost(LeaseGrantRequest(5, A)),
        lambda clock: clock.fault("clock-jump", "m1", 100, 200, 300, promise="lease-time"),
    ],
    ids=["unlock", "lost unlock", "revoke", "lost revoke", "delete", "lost lock of the same key", "granted again", "clock moved"],
)
def test_who_may_have_let_go_is_no_holder(between: Any) -> None:
    """Whatever may have ended the first holding makes the second grant legal."""
    assert codes(check_locks(judged(together(between=between), None))) == []


def test_a_lease_that_may_be_over_ends_the_holding() -> None:
    """A lease of 4 s that was asked for 5 s ago holds nothing; a keepalive since then makes it live."""
    assert codes(check_locks(judged(together(ttl=4), None))) == []
    renewed = together(ttl=4)
    renewed.keepalive("m1", A, ttl=4, asked=2_000, answered=2_010)
    assert codes(check_locks(judged(renewed, None))) == TWO_HOLDERS


def test_an_unlock_from_before_the_lock_ends_nothing() -> None:
    """A deletion that was answered before the lock was asked for took nothing of it."""
    clock = Clock()
    granted(clock)
    clock.op("m1", DeleteRangeRequest(KEY_A), DeleteRangeResponse(header(), 0, ()))
    lock(clock, A, 2)
    lock(clock, B, 3)
    assert codes(check_locks(judged(clock, None))) == TWO_HOLDERS


def test_without_a_common_clock_or_with_foreign_writers_answers_say_nothing() -> None:
    """Others may have let go for the holder."""
    shared = Options(writers="shared")
    assert codes(check_locks(judged(together(), None, options=shared))) == []


# ---- what explains it ----


def test_a_fork_explains_two_holders() -> None:
    """After members have parted each has an order of its own."""
    made = judged(waiting(), LOST_WHILE_WAITING)
    made.fork = Fork(3, "MEMBER-DIVERGED", "members differ", ())
    assert codes(check_locks(made)) == [("LOCK-WITHOUT-KEY", "follows")]


def test_without_grants_there_is_nothing_to_judge() -> None:
    """Histories without locks are not applicable."""
    clock = Clock()
    clock.op("m1", PutRequest(b"k"), PutResponse(header(2), None))
    clock.op("m1", pb.LockRequest(name=b"n", lease=1), None)
    assert not check_locks(case(clock)).applicable
