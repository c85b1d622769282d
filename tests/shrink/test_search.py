"""The whole search with oracles that need no cluster: certain ones, chancy ones, ones that stop."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.errors import EnvironmentFailure
from pekan.plan import Fault, Plan, Schedule, Trigger
from pekan.shrink import REDUCTIONS, Measured, Progress, Reduction, Shrunk, Stopped, shrink
from pekan.shrink.rates import FAR_WORSE
from pekan.shrink.search import CANDIDATES_MAX, FIRST_HITS, FIRST_RUNS_MAX, LAST_RUNS
from pekan.workloads.kinds import left_in


def plan_of(faults: int, **fields: Any) -> Plan:
    """A plan with so many faults, told apart by when they come."""
    every = tuple(Fault("kill", "any", Trigger(5_000 + number), required=True) for number in range(faults))
    return replace(Plan(etcd="3.5.1", seed=1, schedule=Schedule(3_000, 57_000, 60_000, every)), **fields)


def numbers(plan: Plan) -> frozenset[int]:
    """Which faults are left, where their times were not scaled."""
    return frozenset(fault.trigger.at_ms - 5_000 for fault in plan.schedule.faults)


class Oracle:
    """Hits with the chance that `rate` says of a plan; counts its runs."""

    def __init__(self, rate: Callable[[Plan], float], seed: int = 0) -> None:
        self.rate, self.rng, self.runs = rate, random.Random(seed), Counter[str]()

    def __call__(self, plan: Plan) -> bool:
        self.runs[plan.to_text()] += 1
        return self.rng.random() < self.rate(plan)


def only_faults(plan: Plan, shows: Callable[[Plan], bool], **options: Any) -> Shrunk:
    """`shrink` with the first of its reductions alone."""
    return shrink(plan, shows, reductions=REDUCTIONS[:1], **options)


@settings(max_examples=100)
@given(size=st.integers(0, 7), needed=st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=3))
def test_certain_and_monotone_is_the_least(size: int, needed: list[set[int]]) -> None:
    """Where the answer is certain and more faults never hide it, the faults that are left are one of the least sets of a full search."""
    causes = [frozenset(each) & frozenset(range(size)) for each in needed]
    hits = [frozenset(each) for count in range(size + 1) for each in combinations(range(size), count)]
    hits = [each for each in hits if any(cause <= each for cause in causes)]
    least = [each for each in hits if not any(other < each for other in hits)]
    result = only_faults(plan_of(size), Oracle(lambda plan: float(any(cause <= numbers(plan) for cause in causes))))
    assert numbers(result.plan) in least
    assert (result.ended, result.undone) == ("", 0)
    assert result.first == Measured(FIRST_HITS, FIRST_HITS)
    assert result.last.rate == 1.0


@settings(max_examples=100)
@given(size=st.integers(1, 6), data=st.data())
def test_certain_and_arbitrary_still_hits(size: int, data: st.DataObject) -> None:
    """Whatever hits and whatever does not, the result hits, and no fault can go by itself."""
    table = [frozenset(each) for count in range(size + 1) for each in combinations(range(size), count)]
    hits = {each for each in table if data.draw(st.booleans())} | {frozenset(range(size))}
    result = only_faults(plan_of(size), Oracle(lambda plan: float(numbers(plan) in hits)))
    left = numbers(result.plan)
    assert left in hits
    assert not any(left - {one} in hits for one in left)


def test_every_dimension_at_once() -> None:
    """One needed fault, three members, two clients, one kind of operation and half the time: exactly these are left."""

    def rate(plan: Plan) -> float:
        kinds = left_in(plan)
        return float(
            any(fault.target == "leader" for fault in plan.schedule.faults)
            and plan.members >= 3
            and plan.concurrency >= 5
            and "txn-nested" in kinds.get("kv", ())
            and "tombstone" in kinds.get("maintenance", ())
            and plan.time_ms >= 30_000
            and ("snapshot-count", "100") in plan.flags
        )

    plan = plan_of(6, members=5, concurrency=32, tls=True, flags=(("quota-backend-bytes", "9"), ("snapshot-count", "100")))
    faults = (*plan.schedule.faults, Fault("pause", "leader", Trigger(20_000), required=True))
    plan = replace(plan, schedule=replace(plan.schedule, faults=faults))
    oracle = Oracle(rate)
    result = shrink(plan, oracle)
    left = result.plan
    assert [fault.kind for fault in left.schedule.faults] == ["pause"]
    assert (left.members, left.concurrency, left.rate, left.tls, left.time_ms) == (3, 6, 20, False, 30_000)
    assert left.flags == (("snapshot-count", "100"),)
    assert left_in(left) == {"kv": ("txn-nested",), "maintenance": ("tombstone",)}
    assert (result.ended, result.last) == ("", Measured(LAST_RUNS, LAST_RUNS))
    assert result.runs == oracle.runs.total()
    assert result.candidates < 100


def test_no_candidate_is_run_twice() -> None:
    """A plan that was refused once is known: it is run as often as its rule needed to decide, and never again."""
    oracle = Oracle(lambda plan: float(len(numbers(plan) & {1, 4, 6}) == 3))
    result = only_faults(plan_of(8), oracle)
    assert result.rule is not None
    refused = [count for text, count in oracle.runs.items() if not {1, 4, 6} <= numbers(Plan.from_text(text))]
    assert set(refused) == {result.rule.runs - result.rule.needed + 1}, "refused as soon as no hits could change it"
    taken = [count for text, count in oracle.runs.items() if {1, 4, 6} < numbers(Plan.from_text(text)) < set(range(8))]
    assert set(taken) <= {result.rule.needed}


@pytest.mark.parametrize(("rate", "runs"), [(0.9, None), (0.6, None), (0.3, None), (0.5, 6)])
def test_by_chance_the_needed_stays_and_most_of_the_rest_goes(rate: float, runs: int | None) -> None:
    """Over 20 seeds with a chancy oracle: what is needed is never lost, and what is not needed goes in nearly all of them."""
    needed = {2, 5}
    left = 0
    for seed in range(20):
        result = only_faults(plan_of(8), Oracle(lambda plan: rate if needed <= numbers(plan) else 0.0, seed), runs=runs)
        if result.ended == "never":
            continue
        assert needed <= numbers(result.plan)
        left += len(numbers(result.plan) - needed)
    # Each refusal by mistake (5 % of decisions, by the rule) leaves a fault or, rarely, a half.
    assert left <= 20


@pytest.mark.parametrize("seed", range(30))
def test_a_rate_that_falls_with_every_fault_is_not_lost(seed: int) -> None:
    """Where each fault dropped costs a part of the rate, small losses do not add up: the result is not far worse than the first plan."""

    def rate(plan: Plan) -> float:
        return float(0.95 * 0.8 ** (12 - len(numbers(plan))))

    result = only_faults(plan_of(12), Oracle(rate, seed))
    # A quarter is what the rule calls far worse; the half of that is what chance may add over all decisions of 30 searches.
    assert rate(result.plan) >= FAR_WORSE * 0.95 / 2
    assert result.last.hits > 0


def test_a_result_that_turns_out_far_worse_is_undone() -> None:
    """A smaller plan that hit while it was a candidate and hardly ever afterwards gives way to the one before it."""

    class Fading:
        """Without fault 0 or 3 a plan hits twice, and then no more."""

        def __init__(self) -> None:
            self.seen = Counter[str]()

        def __call__(self, plan: Plan) -> bool:
            text = plan.to_text()
            self.seen[text] += 1
            return {0, 3} <= numbers(plan) or self.seen[text] <= 2

    result = shrink(plan_of(6), Fading(), reductions=[reduction_by_one()])
    assert numbers(result.plan) >= {0, 3}
    assert result.undone >= 1
    assert result.last.rate == 1.0


def reduction_by_one() -> Reduction:
    """Drops the last fault, again and again: a trail of known order."""

    def reduce(plan: Plan, keeps: Callable[[Plan], bool]) -> Plan:
        while plan.schedule.faults:
            smaller = replace(plan, schedule=replace(plan.schedule, faults=plan.schedule.faults[:-1]))
            if not keeps(smaller):
                break
            plan = smaller
        return plan

    return Reduction("faults", "faults", lambda plan: len(plan.schedule.faults), reduce)


def test_a_plan_that_does_not_show_it_again_is_given_up() -> None:
    """After as many runs without a hit as the bound says the search ends and says why; with more runs asked for, later."""
    oracle = Oracle(lambda plan: 0.0)
    result = shrink(plan_of(3), oracle)
    assert (result.ended, result.first, result.rule, result.candidates) == ("never", Measured(0, FIRST_RUNS_MAX), None, 0)
    assert result.plan == plan_of(3)
    assert shrink(plan_of(3), oracle, runs=30).first == Measured(0, 60)


@pytest.mark.parametrize("error", [Stopped(), KeyboardInterrupt(), EnvironmentFailure("disk full")])
def test_stopped_at_any_run_the_best_plan_so_far_is_left(error: BaseException) -> None:
    """Whichever run is the last one, what comes back has hit, and is the smallest that was taken until then."""
    needed = {2, 5}
    whole = only_faults(plan_of(8), Oracle(lambda plan: float(needed <= numbers(plan)))).runs
    sizes = []
    for last in range(1, whole):
        runs, hit = 0, set()

        def shows(plan: Plan, last: int = last, hit: set[str] = hit) -> bool:
            nonlocal runs
            runs += 1
            if runs > last:
                raise error
            if needed <= numbers(plan):
                hit.add(plan.to_text())
            return needed <= numbers(plan)

        result = only_faults(plan_of(8), shows)
        assert result.plan.to_text() in hit
        assert result.ended == ("failed" if isinstance(error, EnvironmentFailure) else "stopped")
        assert (result.failure is error) == isinstance(error, EnvironmentFailure)
        assert result.runs == last
        sizes.append(len(numbers(result.plan)))
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (8, 2)


def test_bugs_are_raised() -> None:
    """What is no PekanError is not swallowed."""

    def shows(plan: Plan) -> bool:
        raise ValueError(plan.seed)

    with pytest.raises(ValueError, match="1"):
        shrink(plan_of(2), shows)


def test_candidates_are_bounded() -> None:
    """A search without end ends at its bound with what it has, measured."""

    def reduce(plan: Plan, keeps: Callable[[Plan], bool]) -> Plan:
        for number in itertools.count():
            keeps(replace(plan, rate=number + 1))
        raise AssertionError("endless")

    result = shrink(plan_of(1), Oracle(lambda plan: float(plan.rate in (0, 3))), reductions=[Reduction("rate", "", lambda _: 0, reduce)])
    assert (result.ended, result.candidates, result.plan.rate) == ("many", CANDIDATES_MAX, 3)
    assert result.last == Measured(LAST_RUNS, LAST_RUNS)


def test_runs_asked_for_are_kept_to() -> None:
    """With one run for each candidate the first plan is run until it hits once, and the result twice."""
    oracle = Oracle(lambda plan: float(1 in numbers(plan)))
    result = only_faults(plan_of(2), oracle, runs=1)
    assert (result.first, result.last, numbers(result.plan)) == (Measured(1, 1), Measured(2, 2), {1})
    assert result.runs == 1 + 3 + 2, "nothing, the first fault, the second fault"


def test_progress_tells_every_run_and_every_plan_that_is_taken() -> None:
    """One report a run, one for each plan taken, sizes that only fall, and hits that never outnumber the runs."""
    told: list[Progress] = []
    result = only_faults(plan_of(5), Oracle(lambda plan: float(3 in numbers(plan))), tell=told.append)
    assert sum(not each.taken for each in told) == result.runs
    taken = [len(numbers(each.best)) for each in told if each.taken]
    assert taken[0] == 5
    assert taken == sorted(set(taken), reverse=True)
    assert all(each.seen.hits <= each.seen.runs <= each.runs for each in told)
    assert max(each.candidate for each in told) == result.candidates
