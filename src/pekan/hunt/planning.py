"""From what was asked for on the command line to a plan with its schedule drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pekan.errors import UsageError
from pekan.faults import draw, parse, with_faults
from pekan.plan import Plan
from pekan.workloads import WORKLOADS

SIZES = (1, 3, 5)
TIME_MS_MIN = 5_000
"""A shorter run has no room for a quiet start, a fault and a recovery."""
CONCURRENCY_MAX = 512
RATE_MAX = 1_000_000


def make_plan(asked: Plan, fault_classes: Sequence[str], fault_specs: Sequence[str]) -> Plan:
    """`asked` with the schedule for its seed: faults of `fault_classes` drawn, those of `fault_specs` required.

    Raises UsageError naming the option that makes no sense.
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
    schedule = draw(asked.seed, classes, asked.members, asked.time_ms)
    names = tuple(f"m{number + 1}" for number in range(asked.members))
    required = tuple(parse(spec, names) for spec in fault_specs)
    return replace(asked, fault_classes=classes, schedule=with_faults(schedule, required))


def workloads_of(seed: int) -> tuple[str, ...]:
    """The workload whose turn it is where none was named: in turn by seed."""
    names = tuple(WORKLOADS)
    return (names[seed % len(names)],)


def with_seed(plan: Plan, seed: int) -> Plan:
    """The same run for another seed: its drawn faults are drawn anew, the required ones stay."""
    schedule = draw(seed, plan.fault_classes, plan.members, plan.time_ms)
    required = tuple(fault for fault in plan.schedule.faults if fault.required)
    return replace(plan, seed=seed, schedule=with_faults(schedule, required))
