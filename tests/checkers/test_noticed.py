"""Did etcd notice? Each way in which it may, and silence."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.checkers.noticed import noticed
from pekan.history.types import FaultSpan, History
from pekan.report import print_verdict
from pekan.verdict import Noticed
from pekan.wire import pb

from .judging import MS, Clock, case, pb_header

FIRED = 100


def fault(kind: str = "flip-byte", fired: int | None = FIRED, promise: str = "outside", **healed: Any) -> FaultSpan:
    return FaultSpan(1, kind, "m2", {}, promise, False, "", 50 * MS, None if fired is None else fired * MS, 400 * MS, {"healed": healed})


def answers(clock: Clock, *faults: FaultSpan) -> tuple[Noticed, ...]:
    clock.faults += faults
    return noticed(case(clock).history)


def alarm(clock: Clock, at: int) -> None:
    clock.at(at).op("m1", pb.AlarmRequest(), pb.AlarmResponse(header=pb_header(), alarms=[pb.AlarmMember(memberID=2, alarm=pb.CORRUPT)]))


def ended(clock: Clock, at: int, member: str = "m2", *, asked: bool = True, crash: str = "panic: freepages") -> None:
    clock.at(at).mark("member", member, state="exited", incarnation=2, asked=asked, wait_status=512, crash=crash)


def test_silence() -> None:
    """A member that goes on serving and says nothing has noticed nothing, whatever its end afterwards by a kill."""
    clock = Clock()
    ended(clock, 200, crash="")
    (answer,) = answers(clock, fault(noticed=False, how="", left="replaced"))
    assert answer == Noticed("flip-byte on m2", False, "", "replaced", FIRED * MS)


def test_what_the_fault_saw_itself() -> None:
    """A refusal to start or a complaint that the fault has seen is told in its words."""
    (answer,) = answers(Clock(), fault(noticed=True, how="did not start: panic: invalid checksum", left="put back"))
    assert (answer.noticed, answer.how, answer.left) == (True, "did not start: panic: invalid checksum", "put back")


def test_a_panic_afterwards() -> None:
    """A panic of its member after it fired is noticing, even where the fault had predicted an end; one before is not."""
    clock = Clock()
    ended(clock, 50, crash="panic: an older matter")
    ended(clock, 200)
    (answer,) = answers(clock, fault())
    assert (answer.noticed, answer.how) == (True, "m2 ended: panic: freepages")


def test_a_panic_of_somebody_else() -> None:
    """Another member that gives up unasked counts; one that a fault of its own was to end does not."""
    clock = Clock()
    ended(clock, 200, "m3")
    assert [each.noticed for each in answers(clock, fault())] == [False]
    clock = Clock()
    ended(clock, 200, "m3", asked=False)
    assert [each.how for each in answers(clock, fault())] == ["m3 ended: panic: freepages"]


def test_an_alarm() -> None:
    """A CORRUPT alarm after the fault is noticing; one that was there before is not."""
    clock = Clock()
    alarm(clock, 200)
    assert [each.how for each in answers(clock, fault())] == ["a CORRUPT alarm for member 2"]
    clock = Clock()
    alarm(clock, 10)
    assert [each.noticed for each in answers(clock, fault())] == [False]


def test_only_what_is_outside_and_fired_is_asked_about() -> None:
    """Faults within etcd's promises, and those that never fired, have no such answer."""
    assert answers(Clock(), fault(promise="within"), fault(fired=None)) == ()


def test_the_verdict_tells() -> None:
    """Verdict, its JSON form and the terminal have the answer, and a silent fault breaks nothing."""
    history = replace(History(()), faults=(fault(noticed=False, how="", left="as it is"),))
    verdict = judge(history, Options(), "reference")
    assert verdict.verdict != "broken"
    (told,) = verdict.to_json()["outside"]
    assert (told["fault"], told["noticed"], told["how"], told["left"]) == ("flip-byte on m2", False, "", "as it is")
    text = io.StringIO()
    print_verdict(Console(file=text, width=200), verdict, history)
    assert "flip-byte on m2  silent (the member was left: as it is)" in text.getvalue()
