"""In which ways a plan gets smaller, one after the other.

::

    faults ──> time ──> members ──> clients ──> operations ──> script
    ddmin      all of   5, 3, 1     concurrency,  workloads,   ddmin over steps,
               it       where       rate, TLS,    then kinds   then how often each
               scaled   nobody      flags         of choices
                        is named

Faults come first: what is left of them decides how short and how small the rest can be. Every candidate is a plan that somebody could have
written: a trigger that waits for what is not there any more is not tried. Nothing here runs anything.

A candidate never changes what a client's n-th choice is: clients, rates and left-out kinds take away, and what stays is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pekan.errors import UsageError
from pekan.faults import INJECTORS
from pekan.faults.schedule import phases
from pekan.hunt.planning import SIZES, TIME_MS_MIN
from pekan.plan import Fault, Plan, Step, Trigger
from pekan.shrink.ddmin import minimal, smallest
from pekan.workloads import check_script, kinds_of, left_in

Keeps = Callable[[Plan], bool]
"""Whether a candidate is taken."""
RATES = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Operations a second that are tried: about every doubling, from what a reader can follow to what a cluster on one machine answers."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """One way. `size` of a plan in `unit` is for the progress line; `reduce` returns a plan that was taken, or the one it was given."""

    name: str
    unit: str
    size: Callable[[Plan], int]
    reduce: Callable[[Plan, Keeps], Plan]


def spelled_out(plan: Plan) -> Plan:
    """`plan` with its drawn faults asked for by name, so that it says by itself what happens: another seed draws none anew."""
    faults = tuple(replace(fault, required=True, fault_class="") for fault in plan.schedule.faults)
    return replace(plan, fault_classes=(), schedule=replace(plan.schedule, faults=faults, storms=()))


# ---- faults ----


def fewer_faults(plan: Plan, keeps: Keeps) -> Plan:
    """As few faults as are needed."""
    faults = plan.schedule.faults

    def build(numbers: tuple[int, ...]) -> Plan | None:
        return with_faults_left(plan, tuple(faults[number] for number in numbers))

    return _subset(plan, tuple(range(len(faults))), build, keeps)


def with_faults_left(plan: Plan, left: tuple[Fault, ...]) -> Plan | None:
    """`plan` with only these of its faults; None where something waits for one that is gone.

    Who waits for the third of a kind waits for the last one that is left of it.
    """
    kinds = [fault.kind for fault in left]
    faults = []
    for fault in left:
        others = list(kinds)
        others.remove(fault.kind)
        trigger = _trigger_left(fault.trigger, others)
        if trigger is None:
            return None
        faults.append(replace(fault, trigger=trigger))
    lanes = []
    for lane in plan.script:
        steps = []
        for step in lane.steps:
            wait, until = (trigger and _trigger_left(trigger, kinds) for trigger in (step.wait, step.until))
            if (wait is None) != (step.wait is None) or (until is None) != (step.until is None):
                return None
            steps.append(replace(step, wait=wait, until=until))
        lanes.append(replace(lane, steps=tuple(steps)))
    return replace(plan, schedule=replace(plan.schedule, faults=tuple(faults)), script=tuple(lanes))


def _trigger_left(trigger: Trigger, kinds: list[str]) -> Trigger | None:
    for name in ("after", "healed"):
        kind, _, number = getattr(trigger, name).partition("#")
        if kind:
            there = kinds.count(kind)
            if not there:
                return None
            if int(number or 1) > there:
                fewer: dict[str, Any] = {name: kind if there == 1 else f"{kind}#{there}"}
                trigger = replace(trigger, **fewer)
    return trigger


# ---- time ----


def less_time(plan: Plan, keeps: Keeps) -> Plan:
    """A shorter run in which everything comes at the same part of it. A script ends by itself and keeps its bound."""
    if plan.script:
        return plan
    times = [plan.time_ms]
    while times[0] > TIME_MS_MIN:
        times.insert(0, max(TIME_MS_MIN, times[0] // 2))
    return smallest([*(scaled(plan, time_ms) for time_ms in times[:-1]), plan], keeps)


def scaled(plan: Plan, time_ms: int) -> Plan:
    """`plan` in `time_ms` of traffic: faults at the same part of their phase, as long as they were."""
    quiet, heal = phases(time_ms)
    was = plan.schedule

    def moved(at_ms: int) -> int:
        if at_ms < was.quiet_ms or was.heal_ms <= was.quiet_ms:
            return at_ms * time_ms // max(1, plan.time_ms)
        # A fault has to come before everything is healed.
        return min(heal - 1, quiet + (at_ms - was.quiet_ms) * (heal - quiet) // (was.heal_ms - was.quiet_ms))

    faults = tuple(replace(fault, trigger=replace(fault.trigger, at_ms=moved(fault.trigger.at_ms))) for fault in was.faults)
    return replace(plan, time_ms=time_ms, schedule=replace(was, quiet_ms=quiet, heal_ms=heal, end_ms=time_ms, faults=faults))


# ---- members ----


def fewer_members(plan: Plan, keeps: Keeps) -> Plan:
    """A smaller cluster, where no fault and no step needs or names a member that would be gone."""
    least = max([_last_member(plan), *(INJECTORS[fault.kind].members_min for fault in plan.schedule.faults)])
    sizes = [size for size in SIZES if least <= size < plan.members]
    return smallest([*(replace(plan, members=size) for size in sizes), plan], keeps)


def _last_member(plan: Plan) -> int:
    """The number of the last member that the plan names; 1 where it names none."""
    names = {f"m{number + 1}": number + 1 for number in range(plan.members)}
    named = [fault.target for fault in plan.schedule.faults]
    named += [text for fault in plan.schedule.faults for value in fault.parameters.values() for text in str(value).split(",")]
    named += [name for lane in plan.script for name in (lane.member, *(step.member for step in lane.steps))]
    return max((names.get(name, 1) for name in named), default=1)


# ---- clients ----


def fewer_clients(plan: Plan, keeps: Keeps) -> Plan:
    """Fewer clients, slower, without TLS and without flags."""
    if kinds_of(plan):
        # Every member has a client of its own however few are asked for.
        numbers = _doublings(plan.concurrency, plan.members)
        plan = smallest([*(replace(plan, concurrency=number) for number in numbers), plan], keeps)
        rates = [rate for rate in RATES if rate < plan.rate or not plan.rate]
        plan = smallest([*(replace(plan, rate=rate) for rate in rates), plan], keeps)
    if plan.tls and keeps(without_tls := replace(plan, tls=False)):
        plan = without_tls
    return _subset(plan, plan.flags, lambda flags: replace(plan, flags=flags), keeps)


def _doublings(number: int, least: int = 1) -> list[int]:
    """`least`, twice, four times, ... as much, below `number`."""
    return [least << power for power in range(number.bit_length()) if least << power < number]


# ---- operations ----


def fewer_operations(plan: Plan, keeps: Keeps) -> Plan:
    """Whole workloads and what runs beside them left out, then kinds of choices of those that are left."""
    works = left_in(plan)
    plan = _subset(plan, tuple(works), lambda left: with_operations(plan, {name: works[name] for name in left}), keeps)
    for name in left_in(plan):
        works = left_in(plan)
        others = {other: kinds for other, kinds in works.items() if other != name}

        def build(kinds: tuple[str, ...], name: str = name, others: dict[str, tuple[str, ...]] = others, plan: Plan = plan) -> Plan | None:
            return with_operations(plan, {**others, name: kinds})

        plan = _subset(plan, works[name], build, keeps)
    return plan


def with_operations(plan: Plan, left: dict[str, tuple[str, ...]]) -> Plan | None:
    """`plan` with only these kinds of choices; a workload of which none is left is left out by its name. None where nothing is left."""
    without: list[str] = []
    for name, kinds in kinds_of(plan).items():
        gone = [kind for kind in kinds if kind not in left.get(name, ())]
        without += [name] if len(gone) == len(kinds) else [f"{name}:{kind}" for kind in gone]
    return replace(plan, without=tuple(without)) if any(left.values()) else None


# ---- scripts ----


def shorter_script(plan: Plan, keeps: Keeps) -> Plan:
    """As few steps as are needed, each done by as few clients and as seldom as will do."""
    places = tuple((lane, step) for lane, each in enumerate(plan.script) for step in range(len(each.steps)))
    plan = _subset(plan, places, lambda left: with_steps_left(plan, left), keeps)
    for lane, each in enumerate(plan.script):
        for number in range(len(each.steps)):
            step = plan.script[lane].steps[number]
            smaller = [replace(step, clients=clients) for clients in _doublings(step.clients)]
            plan = smallest([*(_with_step(plan, lane, number, each) for each in smaller), plan], keeps)
            step = plan.script[lane].steps[number]
            smaller = [replace(step, times=times) for times in _doublings(step.times)]
            plan = smallest([*(_with_step(plan, lane, number, each) for each in smaller), plan], keeps)
    return plan


def with_steps_left(plan: Plan, left: tuple[tuple[int, int], ...]) -> Plan | None:
    """`plan` with only the steps at these places (number of the lane, number of the step); None where something refers to one that is gone,
    or where nothing is left."""
    lanes = []
    for number, lane in enumerate(plan.script):
        steps = tuple(step for place, step in enumerate(lane.steps) if (number, place) in left)
        if steps:
            lanes.append(replace(lane, steps=steps))
    there = {step.name for lane in lanes for step in lane.steps}
    candidate = replace(plan, script=tuple(lanes))
    try:
        check_script(candidate)
    except UsageError:
        return None
    return candidate if {fault.trigger.step for fault in plan.schedule.faults} - {""} <= there else None


def _with_step(plan: Plan, lane: int, number: int, step: Step) -> Plan:
    steps = plan.script[lane].steps
    changed = replace(plan.script[lane], steps=(*steps[:number], step, *steps[number + 1 :]))
    return replace(plan, script=(*plan.script[:lane], changed, *plan.script[lane + 1 :]))


# ---- all of them ----


def _subset(plan: Plan, items: tuple[Any, ...], build: Callable[[tuple[Any, ...]], Plan | None], keeps: Keeps) -> Plan:
    """The plan that `build` makes of as few `items` as are needed; of all of them it is `plan` itself. None from `build`: not a plan."""

    def tried(left: tuple[Any, ...]) -> bool:
        candidate = build(left)
        return candidate is not None and keeps(candidate)

    kept = minimal(items, tried)
    return plan if len(kept) == len(items) else build(kept) or plan


REDUCTIONS = (
    Reduction("faults", "faults", lambda plan: len(plan.schedule.faults), fewer_faults),
    Reduction("time", "seconds", lambda plan: plan.time_ms // 1_000, less_time),
    Reduction("members", "members", lambda plan: plan.members, fewer_members),
    Reduction("clients", "clients", lambda plan: plan.concurrency, fewer_clients),
    Reduction("operations", "kinds of operations", lambda plan: sum(map(len, left_in(plan).values())), fewer_operations),
    Reduction("script", "steps", lambda plan: sum(len(lane.steps) for lane in plan.script), shorter_script),
)
"""In this order. Under a `keeps` that goes on to be true when a plan grows, no reduction finds anything in a second round."""
