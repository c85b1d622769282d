"""From what was asked for to a plan: pure, and refused by the name of the option that makes no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pekan.errors import UsageError
from pekan.faults import INJECTORS
from pekan.hunt.planning import judgeable_rate, make_plan, possible_here, with_seed, workloads_of
from pekan.plan import Plan
from pekan.workloads import DRAWN

ASKED = Plan(etcd="3.5.1", seed=7)
CLASSES = ("kill", "pause")


def test_a_plan_is_a_function_of_what_was_asked() -> None:
    """The same question gives the same schedule, and the plan survives its JSON form."""
    plan = make_plan(ASKED, CLASSES, ())
    assert plan == make_plan(ASKED, CLASSES, ())
    assert Plan.from_text(plan.to_text()) == plan
    assert plan.schedule.faults


def test_another_seed_draws_anew_and_keeps_what_was_required() -> None:
    """A series draws its faults per seed; what was asked for by name is in each of its runs."""
    plan = make_plan(ASKED, CLASSES, ("pause leader 2s at 10s",))
    other = with_seed(plan, 8)
    assert other.seed == 8
    assert [f for f in other.schedule.faults if f.required] == [f for f in plan.schedule.faults if f.required]
    assert [f for f in other.schedule.faults if not f.required] != [f for f in plan.schedule.faults if not f.required]
    assert with_seed(plan, plan.seed) == plan


def test_what_cannot_befall_a_cluster_is_not_drawn() -> None:
    """A cluster of one has no links between members: of `all`, none of those is drawn, and the rest is."""
    kinds = {fault.kind for fault in make_plan(replace(ASKED, members=1, time_ms=600_000), ("all",), ()).schedule.faults}
    assert kinds
    assert all(INJECTORS[kind].members_min == 1 for kind in kinds)
    assert any(injector.members_min > 1 for injector in INJECTORS.values())


def test_a_plan_that_can_be_done_here_is_taken_as_it_is() -> None:
    """A plan, from wherever, loses no fault that can be injected here."""
    plan = make_plan(ASKED, CLASSES, ("pause leader 2s at 10s",))
    assert possible_here(plan) == plan


@pytest.mark.parametrize(("free_gib", "hours", "limited"), [(64, 1 / 60, False), (4, 1, True), (8, 1 / 60, False), (0.25, 1, True)])
def test_a_long_run_is_sent_at_a_rate_that_can_be_judged(free_gib: float, hours: float, limited: bool) -> None:
    """Short runs go as fast as they can; a record of an hour has to fit half of what is free."""
    rate = judgeable_rate(int(hours * 3_600_000), int(free_gib * 2**30))
    assert (rate > 0) is limited
    assert rate * hours * 3_600 * 1_024 <= free_gib * 2**30 / 2


def test_none_is_no_class() -> None:
    """--faults none is a run without faults, not a class that never fires."""
    plan = make_plan(ASKED, ("none",), ())
    assert plan.fault_classes == ()
    assert plan.schedule.faults == ()


def test_workloads_take_turns() -> None:
    """Without --workload each workload has its turn within as many seeds as there are workloads."""
    assert {workloads_of(seed)[0] for seed in range(len(DRAWN))} == set(DRAWN)


@pytest.mark.parametrize(
    ("asked", "specs", "named"),
    [
        (replace(ASKED, members=2), (), "--members 2"),
        (replace(ASKED, time_ms=1_000), (), "--time"),
        (replace(ASKED, concurrency=0), (), "--concurrency 0"),
        (replace(ASKED, rate=-1), (), "--rate -1"),
        (replace(ASKED, workloads=()), (), "--workload"),
        (replace(ASKED, workloads=("bank",)), (), "bank"),
        (ASKED, ("kill leader at 59s",), "59s"),
        (replace(ASKED, members=1), ("isolate m1 at 5s",), "isolate needs a cluster of at least 2"),
    ],
)
def test_what_makes_no_sense_is_named(asked: Plan, specs: tuple[str, ...], named: str) -> None:
    """A size, time, rate, workload or fault that cannot be is refused by its option."""
    with pytest.raises(UsageError, match=named):
        make_plan(asked, CLASSES, specs)
