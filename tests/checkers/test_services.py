"""Calls to the lock and election services: every write that they may come to is known, and nothing else is concluded from them."""

from __future__ import annotations

from typing import Any

import pytest

from oracle.both import both
from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.checkers.services import caller_of, waiting_key, with_requests
from pekan.history.types import History, StreamMessage
from pekan.verdict import Verdict
from pekan.wire import pb
from pekan.wire.errors import UNKNOWN, WireError
from pekan.wire.messages import (
    DELETE,
    PUT,
    DeleteRangeRequest,
    Event,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
)

from .judging import LOST, MS, Clock, header, pb_header

LEASE = 10
KEY = b"n/a"
LEADER = pb.LeaderKey(name=b"e", key=b"e/a", rev=2, lease=LEASE)


def put(key: bytes, revision: int, *, value: bytes = b"", lease: int = LEASE, created: int = 0, version: int = 1) -> Event:
    return Event(PUT, KeyValue(key, created or revision, revision, version, value, lease), None)


def deleted(key: bytes, revision: int) -> Event:
    return Event(DELETE, KeyValue(key, 0, revision, 0, b"", 0), None)


def shown(clock: Clock, *events: Event) -> History:
    """`clock` with a watch of everything that shows one event a revision from 2 on, and a last read that shows how far it went."""
    messages: list[tuple[int, bool, Any]] = [
        (clock.now, True, WatchCreateRequest(b"\0", b"\0", start_revision=1)),
        (clock.now + 1, False, WatchResponse(header(), 0, True, False, 0, "", False, ())),
    ]
    for revision, event in enumerate(events, 2):
        messages.append((clock.now + revision, False, WatchResponse(header(revision), 0, False, False, 0, "", False, (event,))))
    clock.watch("m1", messages)
    return History(tuple(clock.operations), tuple(clock.streams), start="empty")


def with_lease() -> Clock:
    clock = Clock()
    clock.op("m1", LeaseGrantRequest(60, LEASE), LeaseGrantResponse(header(), LEASE, 60, ""))
    return clock


def verdict(history: History) -> Verdict:
    """What the reference says; the engines agree about it."""
    found = both(history)
    assert found is None or found.difference is None, found
    return judge(history, Options(), "reference")


ANSWERED = [
    (pb.LockRequest(name=b"n", lease=LEASE), pb.LockResponse(header=pb_header(2), key=KEY), (put(KEY, 2),)),
    (pb.LockRequest(name=b"n", lease=LEASE), None, (put(KEY, 2),)),
    (pb.LockRequest(name=b"n", lease=LEASE), LOST, (put(KEY, 2), deleted(KEY, 3))),
    (pb.LockRequest(name=b"n", lease=LEASE), LOST, ()),
    (pb.CampaignRequest(name=b"e", lease=LEASE, value=b"v"), LOST, (put(b"e/a", 2, value=b"v"), deleted(b"e/a", 3))),
    (
        pb.CampaignRequest(name=b"e", lease=LEASE, value=b"v"),
        pb.CampaignResponse(header=pb_header(2), leader=LEADER),
        (put(b"e/a", 2, value=b"v"),),
    ),
    (pb.LockRequest(name=b"n"), pb.LockResponse(header=pb_header(2), key=b"n/7f"), (put(b"n/7f", 2, lease=0x7F),)),
]


@pytest.mark.parametrize(("request_", "answer", "events"), ANSWERED)
def test_what_a_call_writes_is_explained(request_: Any, answer: Any, events: tuple[Event, ...]) -> None:
    """Puts and deletions that a call may have come to are nobody else's, whatever it was answered."""
    clock = with_lease()
    clock.op("m1", request_, answer)
    told = verdict(shown(clock, *events))
    assert [f.summary for f in told.findings] == []
    assert [u.reason for u in told.undecided if u.checker == "kv"] == []


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        (pb.LockRequest(name=b"n", lease=LEASE), (put(b"n/b", 2),)),
        (pb.LockRequest(name=b"n", lease=LEASE), (put(KEY, 2, value=b"x"),)),
        (pb.LockRequest(name=b"n", lease=LEASE), (put(KEY, 2), deleted(KEY, 3), put(KEY, 4))),
        (pb.UnlockRequest(key=KEY), (put(KEY, 2),)),
        (pb.LeaderRequest(name=b"n"), (put(KEY, 2),)),
    ],
)
def test_what_a_call_does_not_write_is_nobodys(request_: Any, events: tuple[Event, ...]) -> None:
    """Another key, another value, a second put, or a put for a call that puts nothing."""
    clock = with_lease()
    clock.op("m1", request_, LOST)
    assert "KV-UNEXPLAINED" in verdict(shown(clock, *events)).codes


def test_letting_go_and_proclaiming_are_explained() -> None:
    """Unlock deletes, Proclaim puts a new value where the key is still the leader's, Resign deletes it."""
    clock = with_lease()
    clock.op("m1", pb.LockRequest(name=b"n", lease=LEASE), pb.LockResponse(header=pb_header(2), key=KEY))
    clock.op("m1", pb.UnlockRequest(key=KEY), pb.UnlockResponse(header=pb_header(3)))
    leader = pb.LeaderKey(name=b"e", key=b"e/a", rev=4, lease=LEASE)
    clock.op("m1", pb.CampaignRequest(name=b"e", lease=LEASE, value=b"v"), pb.CampaignResponse(header=pb_header(4), leader=leader))
    clock.op("m1", pb.ProclaimRequest(leader=leader, value=b"w"), pb.ProclaimResponse(header=pb_header(5)))
    clock.op("m1", pb.ResignRequest(leader=leader), pb.ResignResponse(header=pb_header(6)))
    clock.op("m1", RangeRequest(b"\0", b"\0"), RangeResponse(header(6), (), False, 0))
    events = (
        put(KEY, 2),
        deleted(KEY, 3),
        put(b"e/a", 4, value=b"v"),
        put(b"e/a", 5, value=b"w", created=4, version=2),
        deleted(b"e/a", 6),
    )
    told = verdict(shown(clock, *events))
    assert told.findings == ()
    assert told.undecided == ()


def test_a_refused_call_wrote_nothing() -> None:
    """A Lock that was refused for its lease explains no put."""
    clock = with_lease()
    clock.op("m1", pb.LockRequest(name=b"n", lease=LEASE), WireError(UNKNOWN, "etcdserver: requested lease not found"))
    assert "KV-UNEXPLAINED" in verdict(shown(clock, put(KEY, 2))).codes


@pytest.mark.parametrize(
    "request_", [pb.LockRequest(name=b"n"), pb.CampaignRequest(name=b"n"), pb.ProclaimRequest(leader=pb.LeaderKey(key=b"n/7f", rev=2))]
)
def test_a_key_that_nobody_was_told_may_be_anybodys(request_: Any) -> None:
    """Where the member chose the lease and its answer was lost, writes count as those of others, and the verdict says so."""
    clock = with_lease()
    clock.op("m1", request_, LOST)
    told = verdict(shown(clock, put(b"n/7f", 2, lease=0x7F)))
    assert told.findings == ()
    assert any("operation 1 may have written a key" in note for note in told.notes)


def test_only_the_clients_own_requests_are_counted() -> None:
    """What members did is no traffic: neither operations nor outcomes nor shares know of it."""
    clock = with_lease()
    clock.op("m1", pb.LockRequest(name=b"n", lease=LEASE), LOST)
    history = shown(clock, put(KEY, 2))
    assert len(with_requests(history).history.operations) == 4
    told = verdict(history)
    assert told.operations == 2
    counted = next(report for report in told.checkers if report.name == "run").judged
    assert (counted["ok"], counted["failed"], counted["indefinite"]) == (1, 0, 1)


def test_requests_have_numbers_that_lead_back() -> None:
    """Each has a number of its own, below all that clients have, from which the call's is known; and it is called when the call is."""
    clock = with_lease()
    for _ in range(3):
        clock.op("m1", pb.LockRequest(name=b"n", lease=LEASE), LOST)
    served = with_requests(shown(clock)).history.operations
    made = [op for op in served if op.id < 0]
    assert [type(op.input) for op in made] == [TxnRequest, DeleteRangeRequest] * 3
    assert len({op.id for op in made} | {op.process for op in made}) == 6
    assert [caller_of(op.id) for op in made] == [1, 1, 2, 2, 3, 3]
    assert [op.call for op in served] == sorted(op.call for op in served)
    assert all(served[0].id == caller_of(served[0].id) for _ in served)


@pytest.mark.parametrize(("lease", "key"), [(0x1F, b"n/1f"), (-0x1F, b"n/-1f"), (1 << 62, b"n/4000000000000000")])
def test_the_key_of_a_lease_is_the_members(lease: int, key: bytes) -> None:
    """Name, slash and the lease in hexadecimal digits, as Go prints it."""
    assert waiting_key(b"n", lease) == key


def test_a_history_without_such_calls_stays_as_it_is() -> None:
    """Nothing is copied."""
    clock = with_lease()
    clock.op("m1", PutRequest(b"k"), LOST)
    history = shown(clock)
    assert with_requests(history) == (history, None)
    assert with_requests(history).history is history
    assert isinstance(history.streams[0].messages[0], StreamMessage)
    assert clock.now * MS > history.operations[-1].call
