"""The run itself: what makes it undecided, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from pekan.checkers.case import Case
from pekan.checkers.run import check_run
from pekan.history.types import Mark
from pekan.plan import Fault, Plan, Schedule, Trigger
from pekan.wire.errors import FUTURE_REVISION, OUT_OF_RANGE, UNAVAILABLE, WireError
from pekan.wire.messages import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)

from .judging import LOST, MS, Clock, case, header

PLAN = Plan("3.6", 1)


def traffic(clock: Clock, count: int = 10, *, lost: int = 0, client: str = "kv-0") -> Clock:
    """`count` puts, the first `lost` of them without an answer."""
    for number in range(count):
        answer = LOST if number < lost else PutResponse(header(2 + number), None)
        clock.op("m1", PutRequest(b"k"), answer, client=client)
    return clock


def reasons(judged: Case) -> list[str]:
    return [reason.reason for reason in check_run(judged).undecided]


def of(clock: Clock, plan: Plan = PLAN, **how: Any) -> list[str]:
    return reasons(case(clock, plan=plan, **how))


def test_a_plain_run_is_decided() -> None:
    """Traffic that succeeds, and nothing missing: no reason to be undecided."""
    clock = traffic(Clock())
    clock.mark("end", reason="finished")
    report = check_run(case(clock, plan=PLAN))
    assert report.applicable
    assert report.undecided == ()
    assert report.judged["ok"] == 10


# ---- faults ----


def healed() -> Clock:
    """Traffic after every member answered at 900 ms."""
    clock = Clock().at(900)
    clock.mark("healthy")
    return traffic(clock.at(1_000))


def planned(kind: str, *, required: bool = False, fault_class: str = "") -> Plan:
    fault = Fault(kind, "any", Trigger(0), required=required, fault_class=fault_class)
    return Plan("3.6", 1, fault_classes=(fault_class,) if fault_class else (), schedule=Schedule(0, 0, 0, (fault,)))


@pytest.mark.parametrize(("fired", "expected"), [(None, 1), (110, 0)])
def test_a_required_fault_has_to_fire(fired: int | None, expected: int) -> None:
    """One asked for by name that was armed and did not fire makes the run undecided."""
    clock = healed()
    clock.fault("kill", "m1", 100, fired, 120, required=True)
    found = of(clock, planned("kill", required=True))
    assert len(found) == expected
    assert not found or "kill on m1 was asked for by name and did not fire" in found[0]


def test_a_required_fault_that_was_never_armed_is_missing() -> None:
    """A run that ends before the fault is due did not show what it was to show; a drawn one may be missing."""
    assert "never armed" in of(traffic(Clock()), planned("kill", required=True))[0]
    assert of(traffic(Clock()), planned("kill")) == []


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        ({"revision": 900}, "a reply that names revision 900"),
        ({"log": "elected"}, "a line with 'elected' in a log"),
        ({"after": "pause#2"}, "a fault pause#2 that fires"),
        ({"failpoint": "raftBeforeSave", "hit": 3}, "hit 3 of raftBeforeSave"),
    ],
)
def test_a_trigger_that_never_came_is_named(trigger: dict[str, Any], told: str) -> None:
    """A required fault whose trigger never came makes the run undecided, by that reason and no other; a drawn one does not."""
    for required in (True, False):
        clock = healed()
        clock.mark("untriggered", fault="kill", required=required, trigger=trigger)
        found = of(clock, planned("kill", required=required))
        assert found == ([f"the fault kill was asked for by name and its trigger never came ({told})"] if required else [])


@pytest.mark.parametrize(
    ("name", "promise", "counts"),
    [
        ("all", "within", True),
        ("all", "outside", False),
        ("outside", "outside", True),
        ("century", "outside", True),
        ("outside", "within", False),
    ],
)
def test_a_class_is_what_its_faults_leave_of_the_promises(name: str, promise: str, counts: bool) -> None:
    """`all` is answered by a fault inside etcd's promises, `outside` and `century` by one that is not."""
    clock = healed()
    clock.fault("kill", "m1", 100, 110, 120, fault_class="year", promise=promise)
    found = of(clock, planned("kill", fault_class=name))
    assert any(reason.startswith(f"no fault of the class {name} fired") for reason in found) is not counts


def test_a_requested_class_has_to_fire_once() -> None:
    """Single faults of a class may expire; all of them may not."""
    for fired, expected in (((None, 210), 0), ((None, None), 1)):
        clock = healed()
        clock.fault("pause", "m1", 100, fired[0], None, fault_class="pause")
        clock.fault("pause", "m1", 200, fired[1], 220, fault_class="pause")
        found = of(clock, planned("pause", fault_class="pause"))
        assert len(found) == expected
        assert not found or found[0].startswith("no fault of the class pause fired (2 armed)")


def test_faults_are_counted_by_kind() -> None:
    """The report tells how many of each kind were armed, fired and expired."""
    clock = traffic(Clock())
    clock.fault("kill", "m1", 1, 2, 3)
    clock.fault("kill", "any", 4, None, None)
    judged = check_run(case(clock, plan=PLAN)).judged
    assert (judged["kill_armed"], judged["kill_fired"], judged["kill_expired"]) == (2, 1, 1)


# ---- watches ----


def event(revision: int) -> Event:
    return Event(0, KeyValue(b"k", revision, revision, 1, b"v", 0), None)


def watching(*, events: bool, request: WatchCreateRequest | None = None, ended: int | None = None, created: int = 5) -> Clock:
    """Ten puts in the first 200 ms, traffic again at 10 s, and a watch of m1 created at 5 ms."""
    clock = traffic(Clock())
    request = request or WatchCreateRequest(b"\0", b"\0", 1)
    messages: list[tuple[int, bool, Any]] = [
        (created - 1, True, request),
        (created, False, WatchResponse(header(1), 0, True, False, 0, "", False, ())),
    ]
    if events:
        messages.append((created + 40, False, WatchResponse(header(2), 0, False, False, 0, "", False, (event(2),))))
    clock.watch("m1", messages, ended=ended)
    return traffic(clock.at(10_000), 1)


def test_a_silent_watch_of_everything_is_no_evidence() -> None:
    """A whole-keyspace watch that received none of the writes while connected makes the run undecided; one event is enough."""
    found = of(watching(events=False))
    assert len(found) == 1
    assert "on m1 received none of the 10 writes" in found[0]
    assert of(watching(events=True)) == []


@pytest.mark.parametrize(
    "request_",
    [
        WatchCreateRequest(b"k", b"l", 1),
        WatchCreateRequest(b"\0", b"\0", 1, filters=(0,)),
        WatchCreateRequest(b"\0", b"\0", 5_000),
    ],
)
def test_a_watch_that_need_not_see_anything_may_be_silent(request_: WatchCreateRequest) -> None:
    """Watches of part of the keyspace, with filters, or from the future."""
    assert of(watching(events=False, request=request_)) == []


def test_a_short_watch_may_be_silent() -> None:
    """A stream that broke right after the writes, or was created after them, need not have delivered any."""
    assert of(watching(events=False, ended=250)) == []
    assert of(watching(events=False, created=9_000)) == []


def test_a_member_that_is_removed_is_due_nothing_more() -> None:
    """Writes after its removal began are due to no watch of it; where etcd did not remove it after all, they are."""
    clock = watching(events=False)
    clock.marks.append(Mark(50 * MS, "part", "m1", {"part": "leaving"}))
    assert of(clock) == []
    clock.mark("part", "m1", part="voter")
    assert len(of(clock)) == 1


def test_watches_of_a_member_count_together() -> None:
    """A stream that stayed silent beside one of the same member that did not is no reason."""
    clock = watching(events=False)
    clock.streams += watching(events=True).streams
    assert of(clock) == []


def test_deletes_and_transactions_that_changed_something_are_writes() -> None:
    """A watch is due what changes keys; deletions of nothing and transactions that took the other branch are no writes."""
    for request, answer, expected in (
        (DeleteRangeRequest(b"k"), DeleteRangeResponse(header(2), 1, ()), 1),
        (DeleteRangeRequest(b"k"), DeleteRangeResponse(header(1), 0, ()), 0),
        (TxnRequest((), (PutRequest(b"k"),)), TxnResponse(header(2), True, (PutResponse(header(2), None),)), 1),
        (TxnRequest((), (PutRequest(b"k"),)), TxnResponse(header(1), False, ()), 0),
    ):
        clock = Clock()
        clock.watch(
            "m1",
            [
                (1, True, WatchCreateRequest(b"\0", b"\0", 1)),
                (2, False, WatchResponse(header(1), 0, True, False, 0, "", False, ())),
            ],
        )
        clock.at(10).op("m1", request, answer)
        clock.at(10_000).op("m1", RangeRequest(b"k"), WireError(OUT_OF_RANGE, FUTURE_REVISION))
        assert len(of(clock)) == expected


# ---- traffic ----


def test_under_half_succeeding_is_failed_traffic() -> None:
    """Five of ten are enough, four are not."""
    assert of(traffic(Clock(), lost=5)) == []
    assert "4 of 10 operations sent outside fault windows succeeded" in of(traffic(Clock(), lost=6))[0]


def test_deliberate_refusals_are_service() -> None:
    """A refusal that etcd decided counts as success; a lost connection of a read does not."""
    clock = Clock()
    for _ in range(4):
        clock.op("m1", RangeRequest(b"k", revision=99), WireError(OUT_OF_RANGE, FUTURE_REVISION))
    assert of(clock) == []
    clock = Clock()
    for _ in range(4):
        clock.op("m1", RangeRequest(b"k"), WireError(UNAVAILABLE, "gone"))
    assert len(of(clock)) == 1


def test_what_fails_inside_a_fault_window_is_not_held_against_the_run() -> None:
    """From armed to the first linearizable read through every member after the heal; without that read the window does not end."""
    for healthy, expected in ((True, 0), (False, 1)):
        clock = traffic(Clock(), 2)
        clock.fault("kill", "m1", 40, 45, 900)
        traffic(clock, 40, lost=40)
        clock.at(1_000)
        if healthy:
            clock.mark("healthy")
        traffic(clock, 2, lost=0 if healthy else 2)
        found = of(clock)
        # Without the read only the two before the fault are outside: under 5 %, and no phase was noted.
        assert len(found) == expected


def test_a_fault_that_never_fired_opens_no_window() -> None:
    """Failures beside an expired fault are the cluster's own."""
    clock = traffic(Clock(), lost=9)
    clock.fault("kill", "any", 0, None, None)
    assert len(of(clock)) == 1


def test_few_operations_outside_windows_are_replaced_by_the_steady_phases() -> None:
    """Where faults cover nearly everything, the quiet start and the recovery phase are looked at."""
    for lost, expected in ((0, 0), (30, 1)):
        clock = Clock()
        clock.mark("phase", phase="quiet")
        traffic(clock, 1)
        clock.fault("kill", "m1", clock.now, clock.now + 1, None)
        clock.mark("phase", phase="faults")
        traffic(clock, 30, lost=30)
        clock.mark("phase", phase="recovery")
        traffic(clock, 30, lost=lost)
        clock.mark("phase", phase="final")
        found = of(clock)
        assert len(found) == expected
        assert not found or "in the quiet start and the recovery phase" in found[0]


def test_the_hunts_own_questions_are_no_traffic() -> None:
    """Probes of members that are down fail by nature; a run of nothing but probes sent no request."""
    clock = traffic(Clock(), 2)
    traffic(clock, 20, lost=20, client="probe-m1")
    assert of(clock) == []
    assert of(traffic(Clock(), 5, client="probe-m1")) == ["no request was sent"]


# ---- record and recovery ----


def test_a_record_without_its_end_is_undecided() -> None:
    """Killed in the middle, or interrupted: what the rest would have shown is not known."""
    assert "ends before its end mark" in of(traffic(Clock()), complete=False)[0]
    for reason, expected in (("finished", 0), ("interrupted", 1), ("recorder", 1)):
        clock = traffic(Clock())
        clock.mark("end", reason=reason)
        assert len(of(clock)) == expected


def test_not_recovered_in_time_is_undecided() -> None:
    """With the state of each member; a recovery that worked is nothing to speak of."""
    for ok, expected in ((False, 1), (True, 0)):
        clock = traffic(Clock())
        clock.mark("recovery", ok=ok, within_s=30, states={"m1": "running", "m2": "stopped"})
        found = of(clock)
        assert len(found) == expected
        assert not found or "not recovered within 30 s" in found[0]
        assert not found or "m1: running, m2: stopped" in found[0]


def test_a_foreign_history_owes_no_faults() -> None:
    """Without plan, phases and faults nothing but completeness is asked."""
    assert not check_run(case(traffic(Clock(), lost=10))).applicable
    assert len(reasons(case(traffic(Clock(), lost=10), complete=False))) == 1
