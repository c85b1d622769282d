"""Faults against a running cluster: one file a mechanism, a schedule that a seed draws, a life that the record keeps.

::

    schedule.draw(seed, classes, members, time_ms) ─┐
    schedule.parse("pause leader 2s at 10s") ───────┴─> Schedule ── inject(schedule, Context(...)) ──> FaultArmed, FaultFired, FaultHealed

    kill      SIGKILL, start again          ┐
    pause     SIGSTOP, SIGCONT              ├ INJECTORS; every further mechanism is a file and a line there
    restart   SIGTERM, start again          ┘

Faults know clusters and records; of traffic they know nothing.
"""

from __future__ import annotations

from pekan.faults.injector import Armed, Context, Injector, carry_out
from pekan.faults.schedule import CLASSES, INJECTORS, draw, kinds_of, parse, phases, show, with_faults
from pekan.plan import Schedule


async def inject(schedule: Schedule, context: Context) -> None:
    """Carry out `schedule`; returns when every fault has been healed or has expired, by `context.heal_ms` plus the time heals take.

    Cancelled, it heals what it holds and then ends. Raises `UsageError` before anything happens where a kind is unknown.
    """
    kinds_of(tuple(fault.kind for fault in schedule.faults))
    await carry_out(schedule, context, INJECTORS)


__all__ = [
    "CLASSES",
    "INJECTORS",
    "Armed",
    "Context",
    "Injector",
    "carry_out",
    "draw",
    "inject",
    "kinds_of",
    "parse",
    "phases",
    "show",
    "with_faults",
]
