"""From what was asked for on the command line to a plan with its schedule drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from pekan import native
from pekan.errors import EnvironmentFailure, UsageError
from pekan.faults import INJECTORS, Ability, ability_of, draw, fault_ability, kinds_of, left_out, parse, probe, scripted, show, with_faults
from pekan.history.memory import available_bytes
from pekan.plan import Plan, Schedule
from pekan.workloads import DRAWN, WORKLOADS, check_script, left_in

SIZES = (1, 3, 5)
TIME_MS_MIN = 5_000
"""A shorter run has no room for a quiet start, a fault and a recovery."""
CONCURRENCY_MAX = 512
RATE_MAX = 1_000_000
RATE_USUAL = 5_000
"""Operations a second that no cluster on one machine has answered so far, with the record written beside it."""
OPERATION_BYTES = {True: 1_024, False: 3_072}
"""What judging an operation takes with the native core and without, its part of the mapped record included (docs/benchmarks.md: 790 and
2,700 bytes), and some more."""


def make_plan(asked: Plan, fault_classes: Sequence[str], fault_specs: Sequence[str]) -> Plan:
    """`asked` with the schedule for its seed: faults of `fault_classes` drawn, those of `fault_specs` required.

    Of the classes, what cannot be injected here is left out (`left_out_here` tells). Raises UsageError naming the option that makes no
    sense, EnvironmentFailure where nothing that was asked for can be injected here.
    """
    if asked.members not in SIZES:
        raise UsageError(f"--members {asked.members}: a cluster has {', '.join(map(str, SIZES))} members here")
    if asked.time_ms < TIME_MS_MIN:
        raise UsageError(f"--time: a run needs at least {TIME_MS_MIN // 1000}s for a quiet start, a fault and a recovery")
    if not 1 <= asked.concurrency <= CONCURRENCY_MAX:
        raise UsageError(f"--concurrency {asked.concurrency}: choose between 1 and {CONCURRENCY_MAX}")
    if not 0 <= asked.rate <= RATE_MAX:
        raise UsageError(f"--rate {asked.rate}: choose between 1 and {RATE_MAX} operations a second, or 0 for no limit")
    if not asked.workloads:
        raise UsageError("--workload: name at least one")
    for name in asked.workloads:
        if name not in WORKLOADS:
            raise UsageError(f"--workload {name}: not known; choose from {', '.join(WORKLOADS)}")
    classes = tuple(name for name in fault_classes if name != "none")
    schedule = _draw(asked, classes)
    names = tuple(f"m{number + 1}" for number in range(asked.members))
    required = tuple(parse(spec, names) for spec in fault_specs)
    for fault in required:
        if (least := INJECTORS[fault.kind].members_min) > asked.members:
            raise UsageError(f"--fault {show(fault)!r}: {fault.kind} needs a cluster of at least {least} members")
    plan = replace(asked, fault_classes=classes, schedule=with_faults(schedule, required))
    return possible_here(plan)


def judgeable_rate(time_ms: int, free_bytes: int | None = None) -> int:
    """Operations a second, 0 for no limit, so that the record of a run that long can be judged in half of the memory that is free.

    `free_bytes`: the machine's own where it is not given.
    """
    operations = (_free_bytes() if free_bytes is None else free_bytes) // 2 // OPERATION_BYTES[native.core is not None]
    rate = max(1, operations * 1_000 // time_ms)
    return rate if rate < RATE_USUAL else 0


def _free_bytes() -> int:
    """What the kernel would give to this process without swapping."""
    there = available_bytes()
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if there is None else there


def workloads_of(seed: int) -> tuple[str, ...]:
    """The workload whose turn it is where none was named: in turn by seed."""
    return (DRAWN[seed % len(DRAWN)],)


def with_seed(plan: Plan, seed: int) -> Plan:
    """The same run for another seed: its drawn faults are drawn anew, the required ones stay."""
    schedule = _draw(replace(plan, seed=seed), plan.fault_classes)
    required = tuple(fault for fault in plan.schedule.faults if fault.required)
    return replace(plan, seed=seed, schedule=with_faults(schedule, required))


def _draw(plan: Plan, classes: tuple[str, ...]) -> Schedule:
    if not classes and not any(name in DRAWN for name in plan.workloads):
        return scripted(plan.time_ms)
    kinds = kinds_of(classes)
    probe(name for kind in kinds for name in INJECTORS[kind].needs)
    possible = tuple(kind for kind in kinds if ability_of(kind).possible)
    if kinds and not possible:
        raise EnvironmentFailure(f"--faults {','.join(classes)}: none of them can be injected here: {_told(left_out(classes))}")
    befalling = tuple(kind for kind in possible if INJECTORS[kind].members_min <= plan.members)
    if possible and not befalling:
        raise UsageError(f"--faults {','.join(classes)}: none of them can befall a cluster of {plan.members}")
    return draw(plan.seed, befalling, plan.members, plan.time_ms)


def possible_here(plan: Plan) -> Plan:
    """`plan` without drawn faults that cannot be injected on this machine (a plan may come from another one).

    Raises EnvironmentFailure for one asked for by name, UsageError for traffic that cannot be.
    """
    check_script(plan)
    left_in(plan)
    kept = []
    for fault in plan.schedule.faults:
        found = fault_ability(fault)
        if found.possible:
            kept.append(fault)
        elif fault.required:
            raise EnvironmentFailure(f"--fault {show(fault)!r} cannot be injected here: {found.why_not}. Would help: {found.remedy}")
    return replace(plan, schedule=replace(plan.schedule, faults=tuple(kept)))


def left_out_here(plan: Plan) -> tuple[Ability, ...]:
    """What `plan` asks for by class and this machine cannot do, and why."""
    return left_out(plan.fault_classes)


def _told(abilities: Sequence[Ability]) -> str:
    return "; ".join(f"{found.name}: {found.why_not} (would help: {found.remedy})" for found in abilities)
