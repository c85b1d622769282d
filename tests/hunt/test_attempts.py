"""What attempts say of something expected: which are counted, which fired, what hides what, and the exit code of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan.errors import ClusterFailure, PekanError
from pekan.history.run import RunDirectory
from pekan.history.types import FaultSpan, History, Mark
from pekan.hunt.attempts import Attempt, Outcome, look
from pekan.hunt.run import Conducted
from pekan.hunt.series import Judged
from pekan.plan import Fault, Lane, Plan, Schedule, Step, Trigger
from pekan.verdict import Exhibit, Finding, Undecided, Verdict

EXPECTED = Finding("WATCH-RESUMABLE", "s", "e", (Exhibit("a"),), {}, ("watch",))
OTHER = Finding("KV-CONTENT", "s", "e", (Exhibit("a"),), {}, ("put",), count=3)
FOLLOWS = Finding("WATCH-RESUMABLE", "s", "e", (Exhibit("a"),), {}, ("watch",), status="follows", because="KV-CONTENT")
KILL = Fault("kill", "m1", Trigger(at_ms=100), {}, required=True)
SCRIPT = (Lane("a", "m1", (Step("Put", {"key": "k"}),)),)
START = Mark(0, "start", "", {})
DONE = Mark(9, "script", "", {"done": True})
RECOVERED = Mark(8, "recovery", "", {"ok": True})


def span(fired: int | None) -> FaultSpan:
    return FaultSpan(1, "kill", "m1", {}, "within", True, "", 1, fired, 3)


def judged(
    *findings: Finding,
    marks: tuple[Mark, ...] = (START, RECOVERED, DONE),
    faults: tuple[FaultSpan, ...] = (span(2),),
    undecided: tuple[Undecided, ...] = (),
    reason: str = "finished",
    failure: PekanError | None = None,
    seconds: float = 1.0,
) -> Judged:
    """A run of a plan with one kill and a script, and what the checkers said."""
    plan = Plan("3.5.1", 1, script=SCRIPT, schedule=Schedule(0, 10, 10, (KILL,)))
    verdict = Verdict(findings, undecided, "real-time", 1, 0.0)
    conducted = Conducted(RunDirectory(Path("run")), reason, failure)
    return Judged(plan, conducted, History((), plan=plan, marks=marks, faults=faults), verdict, seconds)


def tried(run: Judged) -> Attempt:
    return look(run, lambda finding: finding.code == EXPECTED.code, lambda finding: ["#18089"] if finding.code == OTHER.code else [])


@pytest.mark.parametrize(
    ("run", "answer"),
    [
        (judged(EXPECTED), "shown"),
        (judged(EXPECTED, faults=(span(None),)), "shown"),
        (judged(), "not shown"),
        (judged(OTHER), "not shown"),
        (judged(FOLLOWS), "not shown"),
        (judged(faults=(span(None),)), "did not fire"),
        (judged(faults=()), "did not fire"),
        (judged(marks=(START, RECOVERED)), "did not fire"),
        (judged(marks=(START, RECOVERED, Mark(9, "script", "", {"done": False, "stopped": {"a": "refused"}}))), "did not fire"),
        (judged(undecided=(Undecided("a search was given up", "more time", "kv"),)), "undecided"),
        (judged(undecided=(Undecided("traffic failed", "a cluster that serves", "run"),)), "not shown"),
        (judged(marks=(START, Mark(8, "recovery", "", {"ok": False, "states": {"m1": "down"}}), DONE)), "not counted"),
        (judged(EXPECTED, marks=(START, Mark(8, "recovery", "", {"ok": False}), DONE)), "shown"),
        (judged(failure=ClusterFailure("no start"), reason="failed"), "not counted"),
        (judged(EXPECTED, reason="interrupted"), "interrupted"),
        (Judged(judged().plan, judged().conducted, None, None, 1.0), "not counted"),
    ],
)
def test_answer_of_an_attempt(run: Judged, answer: str) -> None:
    """What is expected has to count; else the run has to have come up, recovered, met its conditions and been judged to be a miss."""
    attempt = tried(run)
    assert attempt.answer == answer
    assert bool(attempt.why) == (answer in ("did not fire", "undecided", "not counted"))


def test_other_findings_mask_only_what_is_not_shown() -> None:
    """Another finding that is known as another issue masks an attempt that shows nothing, and none that shows what was expected."""
    assert tried(judged(OTHER)).masked_by == ("#18089",)
    assert tried(judged(OTHER, EXPECTED)).masked_by == ()
    assert tried(judged(OTHER, EXPECTED)).other == (OTHER,)


MISS, HIT, NO_FIRE, NO_START = judged(), judged(EXPECTED, seconds=4.0), judged(faults=()), judged(failure=ClusterFailure("no start"))
UNDECIDED, INTERRUPTED = judged(undecided=(Undecided("a", "b", "kv"),)), judged(reason="interrupted")


@pytest.mark.parametrize(
    ("runs", "code", "words"),
    [
        ([HIT, MISS, NO_FIRE], 1, "shown in 1 of 3 attempts"),
        ([HIT, INTERRUPTED], 1, "shown in 1 of 1 attempt"),
        ([MISS, MISS], 0, "not shown in 2 attempts, the conditions fired in each"),
        ([MISS, judged(OTHER)], 0, "masked by #18089"),
        ([MISS, NO_FIRE, MISS, NO_FIRE], 3, "did not fire: 2 of 4"),
        ([MISS, UNDECIDED], 3, "undecided: 1 of 2"),
        ([NO_START, NO_START], 4, "not counted"),
        ([MISS, INTERRUPTED], 130, "interrupted"),
    ],
)
def test_exit_code_and_words_of_all_attempts(runs: list[Judged], code: int, words: str) -> None:
    """1 where one shows it, 0 where all fired and none does, 3 where fewer fired, 4 where none came up, 130 where somebody stopped it."""
    outcome = Outcome(tuple(map(tried, runs)), len(runs))
    assert outcome.exit_code == code
    assert words in outcome.words


def test_attempts_that_are_not_counted_are_missing() -> None:
    """Where fewer came up than were asked for, their conditions fired in fewer: that is not a release that holds."""
    outcome = Outcome((tried(MISS), tried(NO_START)), 2)
    assert (outcome.counted, outcome.exit_code) == (1, 3)


def test_median_is_of_attempts_that_show_it() -> None:
    """The time to a finding is that of the attempts that show it; there is none where none does."""
    assert Outcome((tried(HIT), tried(MISS)), 2).median_s == 4.0
    assert Outcome((tried(MISS),), 1).median_s is None


def test_findings_are_grouped_over_attempts() -> None:
    """The same signature in several attempts is one row, told with its times and attempts, expected ones and others apart."""
    outcome = Outcome((tried(judged(EXPECTED, OTHER)), tried(judged(OTHER))), 2)
    assert [(found.first.code, found.times, found.attempts) for found in outcome.other] == [("KV-CONTENT", 6, 2)]
    assert [(found.first.code, found.times, found.attempts) for found in outcome.expected] == [("WATCH-RESUMABLE", 1, 1)]
    assert outcome.to_json()["verdict"] == "broken"
