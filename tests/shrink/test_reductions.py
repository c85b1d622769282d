"""Candidates are plans that somebody could have written, and smaller."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pekan.faults import parse, with_faults
from pekan.hunt.planning import make_plan, with_seed
from pekan.plan import Fault, Lane, Plan, Schedule, Step, Trigger
from pekan.shrink import REDUCTIONS, Reduction, minimal, spelled_out
from pekan.shrink.reductions import scaled, with_faults_left, with_operations, with_steps_left
from pekan.workloads.kinds import kinds_of, left_in

DRAWN = make_plan(Plan(etcd="3.5.1", seed=7, workloads=("kv", "auth"), flags=(("snapshot-count", "100"),), tls=True), ("kill", "pause"), ())
SCRIPT = Plan(
    etcd="3.5.1",
    seed=1,
    workloads=("script",),
    schedule=Schedule(0, 50_000, 60_000, (Fault("kill", "m1", Trigger(step="written"), required=True),)),
    script=(
        Lane(
            "writer",
            "m1",
            (
                Step("Put", {"key": "a", "value": "1"}, name="first"),
                Step("Put", {"key": "a", "value": "2"}, name="written", times=100, clients=8),
                Step("Compact", {"revision": {"reply": "first.header.revision"}}),
                Step("Put", {"key": "b", "value": "3"}),
            ),
        ),
        Lane(
            "watcher",
            "m2",
            (
                Step("watch", {"key": "a"}, name="eyes", wait=Trigger(step="first")),
                Step("cancel", {"stream": "eyes"}, wait=Trigger(after="kill")),
            ),
        ),
    ),
)


def named(name: str) -> Reduction:
    return next(each for each in REDUCTIONS if each.name == name)


def waits_for(fault: Fault) -> list[tuple[str, int]]:
    parts = [text.partition("#") for text in (fault.trigger.after, fault.trigger.healed) if text]
    return [(kind, int(number or 1)) for kind, _, number in parts]


def is_possible(plan: Plan) -> bool:
    """The reference for what may be tried: every name that something waits for or refers to is there, often enough."""
    for fault in plan.schedule.faults:
        others = [other for other in plan.schedule.faults if other is not fault]
        if any(sum(other.kind == kind for other in others) < number for kind, number in waits_for(fault)):
            return False
    steps = [step for lane in plan.script for step in lane.steps]
    names = {step.name for step in steps}
    wanted = {step.wait.step for step in steps if step.wait} | {fault.trigger.step for fault in plan.schedule.faults}
    wanted |= {step.request["stream"] for step in steps if "stream" in step.request}
    wanted |= {"first"} if any("reply" in str(step.request) for step in steps) else set()
    kinds = {fault.kind for fault in plan.schedule.faults}
    return wanted - {""} <= names and {step.wait.after for step in steps if step.wait} - {""} <= kinds


def test_a_drawn_plan_is_spelled_out() -> None:
    """Spelled out, a plan keeps every fault whatever its seed becomes."""
    plan = spelled_out(DRAWN)
    assert len(plan.schedule.faults) == len(DRAWN.schedule.faults) > 3
    again = with_seed(plan, 8)
    assert again.schedule.faults == plan.schedule.faults
    assert with_seed(DRAWN, 8).schedule.faults != DRAWN.schedule.faults


def test_who_waited_for_the_third_waits_for_the_last_that_is_left() -> None:
    """A trigger that counts faults of a kind is kept in step with how many there are, and a fault never waits for itself."""
    texts = ("kill m1 at 5s", "kill m2 at 6s", "kill m3 at 7s", "pause m1 after kill#3", "kill m1 after kill#2")
    faults = tuple(parse(text, ("m1", "m2", "m3")) for text in texts)
    plan = replace(DRAWN, schedule=with_faults(replace(DRAWN.schedule, faults=()), faults))
    left = with_faults_left(plan, (faults[0], faults[3]))
    assert left is not None
    assert left.schedule.faults[1].trigger.after == "kill"
    left = with_faults_left(plan, (faults[0], faults[1], faults[3]))
    assert left is not None
    assert left.schedule.faults[2].trigger.after == "kill#2"
    assert with_faults_left(plan, (faults[3],)) is None
    assert with_faults_left(plan, (faults[4],)) is None
    left = with_faults_left(plan, (faults[4], faults[2]))
    assert left is not None
    assert left.schedule.faults[0].trigger.after == "kill"


def test_a_script_that_waits_for_a_fault_keeps_it() -> None:
    """A fault for which a step waits cannot go before the step does."""
    assert with_faults_left(SCRIPT, ()) is None
    assert with_faults_left(with_steps_left(SCRIPT, ((0, 1), (0, 3))) or SCRIPT, ()) is not None


@pytest.mark.parametrize(
    ("left", "possible"),
    [
        (((0, 1),), True),
        ((), False),
        (((0, 3),), False),  # the kill waits for "written"
        (((0, 1), (0, 2)), False),  # the compaction refers to a reply of "first"
        (((0, 0), (0, 1), (0, 2)), True),
        (((0, 1), (1, 1)), False),  # cancels a stream that nobody opened
        (((0, 1), (1, 0)), False),  # waits for "first"
        (((0, 0), (0, 1), (1, 0), (1, 1)), True),
    ],
)
def test_steps_that_others_need_stay(left: tuple[tuple[int, int], ...], possible: bool) -> None:
    """Steps go only together with what refers to them; lanes without steps go as well."""
    plan = with_steps_left(SCRIPT, left)
    assert (plan is not None) == possible
    if plan is not None:
        assert sum(len(lane.steps) for lane in plan.script) == len(left)
        assert all(lane.steps for lane in plan.script)
        assert is_possible(plan)


@pytest.mark.parametrize("time_ms", [5_000, 7_500, 15_000, 30_000, 60_000])
def test_a_shorter_run_keeps_the_order_and_heals_everything(time_ms: int) -> None:
    """Scaled, every fault comes within the faults' phase and in the same order, and the plan is one that `--seed` can be changed of."""
    plan = scaled(spelled_out(DRAWN), time_ms)
    assert (plan.time_ms, plan.schedule.end_ms) == (time_ms, time_ms)
    assert 0 < plan.schedule.quiet_ms < plan.schedule.heal_ms < time_ms
    at = [fault.trigger.at_ms for fault in plan.schedule.faults]
    assert at == sorted(at)
    assert all(plan.schedule.quiet_ms <= each < plan.schedule.heal_ms for each in at)
    assert with_seed(plan, 9).schedule.faults == plan.schedule.faults
    assert with_seed(plan, 9).schedule == plan.schedule


def test_the_same_time_is_the_same_plan() -> None:
    """Scaled to the time that it has, a plan stays what it is."""
    plan = spelled_out(DRAWN)
    assert scaled(plan, plan.time_ms) == plan


@pytest.mark.parametrize(
    ("fault", "least"),
    [("kill any", 1), ("kill m3", 3), ("cut m1 peer=m5", 5), ("cut m1 peer=m2", 3), ("partition leader", 3)],
)
def test_members_that_a_fault_needs_stay(fault: str, least: int) -> None:
    """The cluster gets no smaller than what its faults name and need."""
    five = tuple(f"m{number}" for number in range(1, 6))
    plan = replace(DRAWN, members=5, schedule=with_faults(replace(DRAWN.schedule, faults=()), (parse(f"{fault} at 5s", five),)))
    assert named("members").reduce(plan, lambda candidate: True).members == least


def test_members_that_a_script_names_stay() -> None:
    """A lane's member is a member of the cluster."""
    assert named("members").reduce(replace(SCRIPT, members=5), lambda candidate: True).members == 3


def test_what_is_left_out_is_written_short() -> None:
    """A workload of which nothing is left is left out by its name; a plan of which nothing is left is none."""
    everything = kinds_of(DRAWN)
    assert with_operations(DRAWN, everything) == DRAWN
    assert with_operations(DRAWN, {}) is None
    plan = with_operations(DRAWN, {**everything, "watching": (), "maintenance": ("head",), "auth": ("put",)})
    assert plan is not None
    assert "watching" in plan.without
    assert "maintenance:defragment" in plan.without
    assert left_in(plan) == {"kv": everything["kv"], "auth": ("put",), "maintenance": ("head",), "deviations": everything["deviations"]}


@pytest.mark.parametrize("plan", [spelled_out(DRAWN), SCRIPT], ids=["drawn", "script"])
@pytest.mark.parametrize("seed", range(10))
def test_every_candidate_is_possible_and_what_comes_back_was_taken(plan: Plan, seed: int) -> None:
    """Whatever the answers: every candidate of every reduction survives JSON and is possible, and the last one taken comes back."""
    rng = random.Random(f"{plan.seed}/{seed}")
    scripted = bool(plan.script)
    for reduction in REDUCTIONS:
        best = plan

        def keeps(candidate: Plan) -> bool:
            nonlocal best
            assert Plan.from_text(candidate.to_text()) == candidate
            assert is_possible(candidate)
            assert candidate != best
            assert bool(candidate.script) == scripted
            assert bool(left_in(candidate)) != scripted
            if rng.random() < 0.4:
                best = candidate
                return True
            return False

        before = plan
        plan = reduction.reduce(plan, keeps)
        assert plan == best
        assert reduction.size(plan) <= reduction.size(before)


def test_everything_goes_that_may() -> None:
    """With an oracle that takes everything, what is left is the smallest plan there is."""
    plan = spelled_out(DRAWN)
    for reduction in REDUCTIONS:
        plan = reduction.reduce(plan, lambda candidate: True)
    assert plan.schedule.faults == ()
    assert (plan.members, plan.concurrency, plan.rate, plan.tls, plan.flags, plan.time_ms) == (1, 1, 20, False, (), 5_000)
    assert sum(map(len, left_in(plan).values())) == 1
    script = SCRIPT
    for reduction in REDUCTIONS:
        script = reduction.reduce(script, lambda candidate: True)
    assert [(step.name, step.times, step.clients) for lane in script.script for step in lane.steps] == [("written", 1, 1)]
    assert minimal(script.schedule.faults, lambda left: with_faults_left(script, left) is not None) == ()
