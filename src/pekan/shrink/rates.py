"""How often a plan shows what it is about, from few runs, and when a smaller plan is as good.

A finding that needs a moment does not come in every run. So a smaller plan is judged by a *rule*: it is taken where at least `needed` of
`runs` runs hit. A rule can err in two ways, and both are known:

===========  ============================================================  =====================================================
error        is                                                            harm
===========  ============================================================  =====================================================
`refuses`    the chance that a plan as good as the first one is refused    the result is larger than it had to be
`takes`      the chance that a plan with a quarter of its rate is taken    the result hits more rarely; it is measured at the end
===========  ============================================================  =====================================================

Whatever the rule, a plan that never hit is never taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

REFUSES_MAX = 0.05
TAKES_MAX = 0.25
"""Larger than the other one: what is taken wrongly is found out at the end, when the result is measured, and undone."""
FAR_WORSE = 0.25
"""A quarter of the rate: four times as many runs until it shows."""
RUNS_MAX = 60
"""Runs for one candidate. At a rate of 10 % that keeps both errors; at a lower one the second grows, and the rule says so."""
SUPPOSED = (1, 2)
"""Hits and runs added to what was seen (Laplace's rule of succession): four hits of four do not prove that it always hits."""
Z_95 = 1.959964
"""Of the normal distribution, between minus and plus which 95 % lie."""


class Measured(NamedTuple):
    """How often a plan hit."""

    hits: int
    runs: int

    @property
    def rate(self) -> float:
        """The share of runs that hit; 0 where there was none."""
        return self.hits / self.runs if self.runs else 0.0

    @property
    def careful(self) -> float:
        """The rate that is reckoned with: never 0 and never 1 (`SUPPOSED`)."""
        return (self.hits + SUPPOSED[0]) / (self.runs + SUPPOSED[1])

    @property
    def interval(self) -> tuple[float, float]:
        """Between what the true rate lies, with 95 % confidence: the score interval of Wilson (JASA 22, 1927)."""
        if not self.runs:
            return 0.0, 1.0
        square = Z_95**2 / self.runs
        middle = (self.rate + square / 2) / (1 + square)
        half = Z_95 / (1 + square) * math.sqrt(self.rate * (1 - self.rate) / self.runs + square / (4 * self.runs))
        # At the ends the formula is exact up to rounding, which must not leave the range of rates.
        return (0.0 if not self.hits else max(0.0, middle - half)), (1.0 if self.hits == self.runs else min(1.0, middle + half))


class Rule(NamedTuple):
    """When a candidate is taken: at least `needed` hits of `runs`. `refuses` and `takes` are its two errors."""

    runs: int
    needed: int
    refuses: float
    takes: float

    def decided(self, hits: int, runs: int) -> bool | None:
        """What is known after `runs` runs with `hits` hits: taken, refused, or None where the runs that are left decide."""
        if hits >= self.needed:
            return True
        if runs - hits > self.runs - self.needed:
            return False
        return None


def fewer(needed: int, runs: int, rate: float) -> float:
    """The chance of fewer than `needed` hits in `runs` runs, each of which hits with the chance `rate`."""
    return math.fsum(math.comb(runs, hits) * rate**hits * (1 - rate) ** (runs - hits) for hits in range(needed))


def rule_of(rate: float, runs: int) -> Rule:
    """The strictest rule for `runs` runs that refuses a plan with this `rate` in at most REFUSES_MAX of cases; one hit is always needed."""
    needed = max((n for n in range(1, runs + 1) if fewer(n, runs, rate) <= REFUSES_MAX), default=1)
    return Rule(runs, needed, fewer(needed, runs, rate), 1 - fewer(needed, runs, FAR_WORSE * rate))


def rule_for(first: Measured, runs: int | None = None) -> Rule:
    """The rule for candidates of a plan that hit so often: for `runs` runs, or for the fewest that keep both errors within their bounds."""
    if runs is not None:
        return rule_of(first.careful, runs)
    for number in range(1, RUNS_MAX + 1):
        rule = rule_of(first.careful, number)
        if rule.refuses <= REFUSES_MAX and rule.takes <= TAKES_MAX:
            return rule
    return rule_of(first.careful, RUNS_MAX)
