"""What explains a finding, and what does not."""

from __future__ import annotations

from pekan.checkers.case import Fork
from pekan.checkers.causes import excuse, follows, timing_waived
from pekan.verdict import Exhibit, Finding

from .judging import MS, Clock, case


def finding(*times: int) -> Finding:
    return Finding("KV-CONTENT", "", "", tuple(Exhibit("", start=time * MS, end=time * MS) for time in times))


def test_an_outside_fault_excuses_what_comes_after_it() -> None:
    """Evidence from its firing on is excused, with the fault named; evidence from before counts."""
    clock = Clock()
    clock.fault("flip", "m2", 90, 100, None, promise="outside")
    before, across, after = excuse(case(clock), [finding(50, 99), finding(50, 100), finding(200)])
    assert before.status == "counts"
    assert (across.status, across.because) == ("excused", "flip on m2")
    assert after.status == "excused"


def test_faults_within_the_promises_excuse_nothing() -> None:
    """Kills and lost majorities leave safety as it is, and an outside fault that did not fire broke nothing."""
    clock = Clock()
    clock.fault("kill", "m1", 10, 20, 30)
    clock.fault("partition", "m1", 10, 20, 30, promise="liveness")
    clock.fault("flip", "m2", 10, None, None, promise="outside")
    assert [each.status for each in excuse(case(clock), [finding(200)])] == ["counts"]


def test_evidence_without_a_time_is_excused_in_such_a_run() -> None:
    """It cannot be shown to lie before the fault."""
    clock = Clock()
    clock.fault("flip", "m2", 10, 20, None, promise="outside")
    assert [each.status for each in excuse(case(clock), [finding()])] == ["excused"]


def test_a_fork_is_followed_from_its_revision_on() -> None:
    """Below the fork nothing is explained by it; where no revision is known, everything may be."""
    judged = case(Clock())
    assert follows(judged, finding(1), 9).status == "counts"
    judged.fork = Fork(7, "KV-LOST-WRITE", "", ())
    assert follows(judged, finding(1), 6).status == "counts"
    assert follows(judged, finding(1), 7).status == "follows"
    assert follows(judged, finding(1)).because == "KV-LOST-WRITE"


def test_only_clock_faults_waive_timing() -> None:
    """A `lease-time` fault, fired or not, from its arming on."""
    clock = Clock()
    clock.fault("kill", "m1", 10, 20, 30)
    assert timing_waived(case(clock), 500 * MS) == ""
    clock.fault("clock", "m1", 100, None, None, promise="lease-time")
    assert timing_waived(case(clock), 100 * MS) == ""
    assert timing_waived(case(clock), 101 * MS) == "clock on m1"
