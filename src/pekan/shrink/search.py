"""The search for a smaller plan that still shows what the first one showed.

::

    plan ──> measured ──> rule ──> reductions, one candidate after the other ──> best ──> measured ──> Shrunk
             until HITS    k runs,                                                  │        │
             hits          h hits     the last one taken, further back where <──────┘        │
                                      the last ones turn out far worse       <───────────────┘

A candidate is run until its rule has decided, and never twice. What is taken has hit, so that the best plan is at every moment a plan that
has shown it: whatever ends the search early leaves that one.

Whether a run hits is asked of `shows`, one run a call; nothing here knows of clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pekan.errors import PekanError
from pekan.plan import Plan
from pekan.shrink.rates import Measured, Rule, rule_for, rule_of
from pekan.shrink.reductions import REDUCTIONS, Reduction

FIRST_HITS = 4
"""Of the first plan, before the search begins: with four of four a rule of two hits in four runs keeps its errors. With a number of runs
asked for it is no more than that."""
FIRST_RUNS_MAX = 20
"""Runs without a hit after which it is given up: with 95 % confidence the plan hits in fewer than one run of six."""
LAST_RUNS = 10
"""Of the result; its rate is then known to about 15 % where it nearly always hits, to 30 % in the middle. With a number of runs asked for
it is twice that."""
CANDIDATES_MAX = 400
"""A plan of a dozen faults, all kinds of operations and every option takes between 20 and 100."""


class Stopped(Exception):
    """Raised by `shows`: somebody wants no further run."""


class Progress(NamedTuple):
    """Where the search is: after each run, and once for each plan that is taken.

    reduction  what is being reduced; None while a plan is measured
    best, first  the smallest plan so far and the one that it began with
    candidate  its number, from 1; 0 while a plan is measured
    seen       of the plan that is being run
    runs       how many runs it may take
    taken      the plan that is being run is the best one from now on
    """

    reduction: Reduction | None
    best: Plan
    first: Plan
    candidate: int
    seen: Measured
    runs: int
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What came out.

    first, last    how often the first plan hit, and how often `plan`; of a search that ended early: as far as it was measured
    rule           by which candidates were taken; None where the first plan was not measured
    ended          why it ended early: "" (it did not), "never" (the first plan did not hit), "many" (CANDIDATES_MAX),
                   "stopped" (by `Stopped` or Ctrl-C), "failed" (`failure` says how)
    undone         plans that were taken and turned out far worse than the first one
    """

    plan: Plan
    first: Measured
    last: Measured
    rule: Rule | None
    candidates: int
    runs: int
    ended: str = ""
    failure: PekanError | None = None
    undone: int = 0


def shrink(
    plan: Plan,
    shows: Callable[[Plan], bool],
    *,
    runs: int | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
    reductions: Sequence[Reduction] = REDUCTIONS,
) -> Shrunk:
    """A smaller plan that shows what `plan` shows.

    shows       does one run of a plan and says whether it hit. It may raise `Stopped`, or a PekanError where it cannot go on
    runs        for each candidate; without it as many as keep the errors of the rule small
    reductions  in which ways, in this order

    Each candidate is compared with the first plan and not with the one before it, so that small losses do not add up. Nothing is raised
    once the first run has been made, but bugs.
    """
    search = _Search(plan, shows, runs, tell)
    try:
        return search.result(search.go(reductions))
    except (Stopped, KeyboardInterrupt):
        return search.result("stopped")
    except PekanError as error:
        return search.result("failed", error)


class _Many(Exception):
    """As many candidates were tried as may be."""


class _Search:
    """The state of one search.

    trail   the plans that were taken, the first one first
    seen    what each plan has shown since it was last measured from the start, by its text
    taken   what became of each candidate, by its text
    """

    def __init__(self, plan: Plan, shows: Callable[[Plan], bool], runs: int | None, tell: Callable[[Progress], None]) -> None:
        self.shows = shows
        self.asked = runs
        self.tell = tell
        self.trail = [plan]
        self.seen: dict[str, Measured] = {}
        self.taken: dict[str, bool] = {}
        self.rule: Rule | None = None
        self.reduction: Reduction | None = None
        self.runs = 0
        self.first = Measured(0, 0)
        self.undone = 0

    @property
    def best(self) -> Plan:
        return self.trail[-1]

    def go(self, reductions: Sequence[Reduction]) -> str:
        """The whole search; returns why it ended early."""
        if not self.measure_first():
            return "never"
        ended = ""
        try:
            for reduction in reductions:
                self.reduction = reduction
                reduction.reduce(self.best, self.keeps)
        except _Many:
            ended = "many"
        self.measure_last()
        return ended

    def result(self, ended: str, failure: PekanError | None = None) -> Shrunk:
        last = self.seen.get(self.best.to_text(), Measured(0, 0))
        return Shrunk(self.best, self.first, last, self.rule, len(self.taken), self.runs, ended, failure, self.undone)

    def measure_first(self) -> bool:
        """Run the first plan until it has hit often enough; False where it never does."""
        plan = self.best
        runs = max(FIRST_RUNS_MAX, 2 * (self.asked or 0))
        hits = min(FIRST_HITS, self.asked or FIRST_HITS)
        while self.first.hits < hits and self.first.runs < runs:
            self.first = self.run(plan, plan.to_text(), runs)
        if not self.first.hits:
            return False
        self.rule = rule_for(self.first, self.asked)
        self.tell(Progress(None, plan, plan, 0, self.first, runs, taken=True))
        return True

    def keeps(self, plan: Plan) -> bool:
        """Whether `plan` is taken: run now, or known from before."""
        text = plan.to_text()
        if text == self.best.to_text():
            return True
        if text not in self.taken:
            if len(self.taken) >= CANDIDATES_MAX:
                raise _Many
            assert self.rule is not None, "measured before anything is reduced"
            seen = Measured(0, 0)
            while (decided := self.rule.decided(*seen)) is None:
                seen = self.run(plan, text, self.rule.runs, len(self.taken) + 1)
            self.taken[text] = decided
            if decided:
                self.trail.append(plan)
                self.tell(Progress(self.reduction, plan, self.trail[0], len(self.taken), seen, self.rule.runs, taken=True))
        return self.taken[text]

    def measure_last(self) -> None:
        """Measure the best plan; where it is far worse than the first one, that from before it, from two, from four before it."""
        assert self.rule is not None, "measured before anything is reduced"
        self.reduction = None
        back = 1
        while len(self.trail) > 1:
            rule = rule_of(self.first.careful, 2 * self.asked if self.asked else max(LAST_RUNS, self.rule.runs))
            # Runs in which it was taken do not count: it was taken because they hit.
            text = self.best.to_text()
            self.seen.pop(text, None)
            seen = Measured(0, 0)
            while seen.runs < rule.runs:
                seen = self.run(self.best, text, rule.runs)
            if seen.hits >= rule.needed:
                break
            self.undone += min(back, len(self.trail) - 1)
            del self.trail[max(1, len(self.trail) - back) :]
            back *= 2
            self.tell(Progress(None, self.best, self.trail[0], 0, Measured(0, 0), rule.runs, taken=True))

    def run(self, plan: Plan, text: str, runs: int, candidate: int = 0) -> Measured:
        """One run of `plan`, told; what has been seen of it since it was last measured from the start. `text` is the plan's."""
        hit = self.shows(plan)
        self.runs += 1
        before = self.seen.get(text, Measured(0, 0))
        seen = self.seen[text] = Measured(before.hits + hit, before.runs + 1)
        self.tell(Progress(self.reduction if candidate else None, self.best, self.trail[0], candidate, seen, runs))
        return seen
