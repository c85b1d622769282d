"""Rates from few runs: intervals against published figures, rules against every outcome there can be."""

from __future__ import annotations

import itertools
import random

import pytest

from pekan.shrink import Measured, Rule, rule_for, rule_of
from pekan.shrink.rates import FAR_WORSE, REFUSES_MAX, RUNS_MAX, TAKES_MAX, fewer


@pytest.mark.parametrize(
    ("hits", "runs", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_interval_as_published(hits: int, runs: int, low: float, high: float) -> None:
    """Wilson's interval gives the four examples of Newcombe (Statistics in Medicine 17, 1998, table I, method 3) to four places."""
    assert Measured(hits, runs).interval == pytest.approx((low, high), abs=6e-5)


def test_interval_of_nothing_says_nothing() -> None:
    """Without a run every rate is possible; with one, the interval holds the share that was seen and lies between 0 and 1."""
    assert Measured(0, 0).interval == (0.0, 1.0)
    for runs in range(1, 40):
        for hits in range(runs + 1):
            low, high = Measured(hits, runs).interval
            assert 0.0 <= low <= hits / runs <= high <= 1.0
            assert low < high


def enumerated(rule: Rule, rate: float) -> float:
    """The reference: the chance that `rule` takes a plan of this rate, over every outcome of all its runs."""
    chance = 0.0
    for outcome in itertools.product((True, False), repeat=rule.runs):
        one = 1.0
        for hit in outcome:
            one *= rate if hit else 1 - rate
        hits = runs = 0
        while (decided := rule.decided(hits, runs)) is None:
            hits, runs = hits + outcome[runs], runs + 1
        assert decided == (sum(outcome) >= rule.needed), "a rule that decides early decides as it would have in the end"
        chance += one * decided
    return chance


@pytest.mark.parametrize("runs", range(1, 9))
def test_errors_are_what_every_outcome_says(runs: int) -> None:
    """Both errors that a rule states are those of deciding run by run, summed over all outcomes."""
    for rate in (0.05, 0.3, 0.5, 0.83, 0.99):
        rule = rule_of(rate, runs)
        assert 1 - enumerated(rule, rate) == pytest.approx(rule.refuses)
        assert enumerated(rule, FAR_WORSE * rate) == pytest.approx(rule.takes)
        assert rule.needed >= 1
        stricter = Rule(runs, rule.needed + 1, 0, 0)
        assert rule.needed == runs or 1 - enumerated(stricter, rate) > REFUSES_MAX, "the strictest that refuses little enough"


@pytest.mark.parametrize(("hits", "runs"), [(4, 4), (4, 5), (4, 8), (4, 20), (2, 20), (1, 20)])
def test_without_a_number_of_runs_both_errors_are_small(hits: int, runs: int) -> None:
    """The rule found by itself keeps both errors, or runs as often as it may; no rule of fewer runs would do."""
    rule = rule_for(Measured(hits, runs))
    assert rule.refuses <= REFUSES_MAX
    assert rule.takes <= TAKES_MAX or rule.runs == RUNS_MAX
    for number in range(1, rule.runs):
        fewer_runs = rule_of(Measured(hits, runs).careful, number)
        assert fewer_runs.refuses > REFUSES_MAX or fewer_runs.takes > TAKES_MAX


def test_a_plan_that_always_hits_is_cheap() -> None:
    """Four hits of four ask for two hits in four runs: two runs take a good candidate, three refuse a bad one."""
    assert rule_for(Measured(4, 4))[:2] == (4, 2)


def test_one_hit_is_enough_where_runs_are_few() -> None:
    """With a number of runs that is too small for its error, one hit is needed, and the error is told."""
    rule = rule_for(Measured(1, 18), runs=3)
    assert rule.needed == 1
    assert rule.refuses == pytest.approx(0.9**3)


def test_fewer_is_what_chance_does() -> None:
    """The tail of the distribution comes within a hundredth of what 20,000 draws show."""
    rng = random.Random(1)
    for needed, runs, rate in ((2, 4, 0.8), (3, 10, 0.2), (1, 5, 0.5)):
        seen = sum(sum(rng.random() < rate for _ in range(runs)) < needed for _ in range(20_000)) / 20_000
        assert fewer(needed, runs, rate) == pytest.approx(seen, abs=0.012)
