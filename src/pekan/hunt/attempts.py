"""Attempts at something expected: one plan for seed after seed, each run judged as ever, and asked whether it shows what was expected.

::

    conduct ──> judge ──> verdict ── an expected finding counts ───────────────────────────> shown
                   │              ├─ cluster not up, not recovered, run not finished ──────> not counted    tried again, a few times
                   │              ├─ a required fault did not fire, a script was not done ─> did not fire
                   │              ├─ a checker came to its bound ──────────────────────────> undecided
                   │              └─ none of these ────────────────────────────────────────> not shown
                   └ history

    shown in one attempt              shown           1
    not shown in all of them          not shown       0
    fired in fewer                    did not fire    3     so many of so many
    nothing could be counted          not counted     4

What is expected is a predicate over findings that the caller brings along; no run is judged differently for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pekan.checkers.run import unmet
from pekan.etcd.binaries import Binary
from pekan.hunt.series import Judged, Show, hunt_once, room_for_another
from pekan.plan import Plan
from pekan.verdict import Finding

Answer = Literal["shown", "not shown", "did not fire", "undecided", "not counted", "interrupted"]
EXIT_CODES: dict[Answer, int] = {"shown": 1, "not shown": 0, "did not fire": 3, "undecided": 3, "not counted": 4, "interrupted": 130}
SPARE = 3
"""Attempts beyond those asked for, where a cluster did not come up or back: a busy machine spoils one now and then, and a machine that
spoils more than these will spoil the next as well."""
WORST_FIRST = ("broken", "undecided", "holds")
RUN_CHECKER = "run"
"""Of its reasons to be undecided, those about faults, script and recovery are asked for one by one here; the rest (how much of the traffic
was answered) is about runs whose traffic is drawn."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run and what it says of the expectation.

    shown      the findings that were expected
    other      the other findings that count
    masked_by  what is known to show as one of these other findings, where nothing expected showed
    answer     of this run alone
    why        why it is not counted, did not fire or is undecided; empty otherwise
    """

    judged: Judged
    shown: tuple[Finding, ...]
    other: tuple[Finding, ...]
    masked_by: tuple[str, ...]
    answer: Answer
    why: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        return self.answer not in ("not counted", "interrupted")

    @property
    def fired(self) -> bool:
        """Whether the conditions of the plan were met; a run that shows what was expected has met them."""
        return self.answer in ("shown", "not shown", "undecided")

    def to_json(self) -> dict[str, Any]:
        judged = self.judged
        return {
            "seed": judged.plan.seed,
            "run": str(judged.path),
            "verdict": judged.verdict.verdict if judged.verdict is not None else None,
            "ended": judged.conducted.reason,
            "answer": self.answer,
            "counted": self.counted,
            "fired": self.fired,
            "why": list(self.why),
            "codes": list(dict.fromkeys(finding.code for finding in self.shown)),
            "other": list(dict.fromkeys(finding.code for finding in self.other)),
            "masked_by": list(self.masked_by),
            "seconds": round(judged.seconds, 3),
        }


def look(judged: Judged, expects: Callable[[Finding], bool], known_as: Callable[[Finding], Sequence[str]]) -> Attempt:
    """What one run says of the expectation. `known_as`: the names of what else is known to show as a finding."""
    findings = [finding for finding in judged.verdict.findings if finding.status == "counts"] if judged.verdict is not None else []
    shown = tuple(finding for finding in findings if expects(finding))
    other = tuple(finding for finding in findings if not expects(finding))
    answer, why = _answer(judged, bool(shown))
    masked_by = () if shown else tuple(dict.fromkeys(name for finding in other for name in known_as(finding)))
    return Attempt(judged, shown, other, masked_by, answer, why)


def _answer(judged: Judged, shown: bool) -> tuple[Answer, tuple[str, ...]]:
    if judged.conducted.reason == "interrupted":
        return "interrupted", ()
    if shown:
        return "shown", ()
    if judged.conducted.failure is not None:
        return "not counted", (str(judged.conducted.failure),)
    if judged.verdict is None or judged.history is None:
        return "not counted", ("the record could not be judged",)
    failed = [mark.detail for mark in judged.history.marks if mark.kind == "recovery" and not mark.detail.get("ok", True)]
    if failed:
        states = ", ".join(f"{member} {state}" for member, state in (failed[-1].get("states") or {}).items())
        return "not counted", (f"the cluster did not recover within {failed[-1].get('within_s', '?')} s ({states})",)
    if reasons := unmet(judged.history):
        return "did not fire", tuple(reason.reason for reason in reasons)
    if bounds := [reason.reason for reason in judged.verdict.undecided if reason.checker != RUN_CHECKER]:
        return "undecided", tuple(bounds)
    return "not shown", ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all attempts together say. `asked`: how many were to be counted."""

    attempts: tuple[Attempt, ...]
    asked: int

    @property
    def counted(self) -> int:
        return sum(attempt.counted for attempt in self.attempts)

    @property
    def fired(self) -> int:
        return sum(attempt.fired for attempt in self.attempts)

    @property
    def shown(self) -> int:
        return sum(attempt.answer == "shown" for attempt in self.attempts)

    @property
    def masked_by(self) -> tuple[str, ...]:
        """What may have hidden the expectation; nothing where it showed."""
        return () if self.shown else tuple(dict.fromkeys(name for attempt in self.attempts for name in attempt.masked_by))

    @property
    def median_s(self) -> float | None:
        """Wall time, s, of an attempt that shows what was expected, from the start of its cluster to the verdict; None where none does."""
        seconds = [attempt.judged.seconds for attempt in self.attempts if attempt.answer == "shown"]
        return statistics.median(seconds) if seconds else None

    @property
    def answer(self) -> Answer:
        if self.shown:
            return "shown"
        answers = [attempt.answer for attempt in self.attempts]
        if "interrupted" in answers:
            return "interrupted"
        if not self.counted:
            return "not counted"
        if self.fired < self.asked:
            return "did not fire"
        return "undecided" if "undecided" in answers else "not shown"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.answer]

    @property
    def words(self) -> str:
        """The answer with its counts, for a person."""
        tries = f"{self.asked} attempt{'s' if self.asked != 1 else ''}"
        match self.answer:
            case "shown":
                return f"shown in {self.shown} of {self.counted} attempt{'s' if self.counted != 1 else ''}"
            case "not shown":
                masked = f", masked by {', '.join(self.masked_by)}" if self.masked_by else ""
                return f"not shown in {tries}, the conditions fired in each{masked}"
            case "did not fire":
                return f"did not fire: {self.asked - self.fired} of {self.asked}"
            case "undecided":
                return f"undecided: {sum(attempt.answer == 'undecided' for attempt in self.attempts)} of {self.asked}"
            case "not counted":
                return "not counted: no cluster came up and recovered"
            case "interrupted":
                return f"interrupted, not shown in {self.counted} of {tries}"

    @property
    def expected(self) -> list[Found]:
        """The findings that were expected."""
        return _grouped([attempt.shown for attempt in self.attempts])

    @property
    def other(self) -> list[Found]:
        """The other findings that count."""
        return _grouped([attempt.other for attempt in self.attempts])

    def to_json(self) -> dict[str, Any]:
        """What the JSON form says besides the findings."""
        verdicts = [attempt.judged.verdict for attempt in self.attempts if attempt.judged.verdict is not None]
        words = [verdict.verdict for verdict in verdicts]
        return {
            "verdict": next((word for word in WORST_FIRST if word in words), "undecided"),
            "order": "real-time",
            "answer": self.answer,
            "words": self.words,
            "asked": self.asked,
            "counted": self.counted,
            "fired": self.fired,
            "shown": self.shown,
            "median_seconds": None if self.median_s is None else round(self.median_s, 3),
            "masked_by": list(self.masked_by),
            "undecided": [asdict(reason) for verdict in verdicts for reason in verdict.undecided],
            "operations": sum(verdict.operations for verdict in verdicts),
            "seconds": round(sum(attempt.judged.seconds for attempt in self.attempts), 3),
            "exit_code": self.exit_code,
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }


class Found(NamedTuple):
    """Findings of one signature over attempts: the first of them, how many in all, and in how many attempts."""

    first: Finding
    times: int
    attempts: int


def _grouped(per_attempt: Iterable[Iterable[Finding]]) -> list[Found]:
    """Those of most attempts first."""
    seen: dict[str, Found] = {}
    for findings in per_attempt:
        for finding in findings:
            first, times, tries = seen.get(finding.signature, (finding, 0, 0))
            seen[finding.signature] = Found(first, times + finding.count, tries + 1)
    return sorted(seen.values(), key=lambda row: (-row.attempts, row.first.code))


def attempts(
    plan_of: Callable[[int], Plan],
    binary: Binary,
    place: Callable[[Plan], Path],
    show: Show,
    *,
    first_seed: int,
    wanted: int,
    expects: Callable[[Finding], bool],
    known_as: Callable[[Finding], Sequence[str]],
    until_shown: bool = False,
    keep: bool = False,
    budget_s: float | None = None,
) -> Iterator[Attempt]:
    """Attempts for seeds from `first_seed` on, until `wanted` are counted, SPARE beyond that are not, or one was interrupted.

    `until_shown`: the first that shows what was expected is the last. Raises what `hunt_once` raises, and EnvironmentFailure before an
    attempt for which the disk has no room.
    """
    counted = tried = 0
    while counted < wanted and tried < wanted + SPARE:
        plan = plan_of(first_seed + tried)
        directory = place(plan)
        if tried:
            room_for_another(directory)
        attempt = look(hunt_once(plan, binary, directory, show, keep=keep, budget_s=budget_s), expects, known_as)
        tried += 1
        counted += attempt.counted
        yield attempt
        if attempt.answer == "interrupted" or (until_shown and attempt.answer == "shown"):
            return
