"""Faults against a running cluster: a family a package, a file a mechanism; a schedule that a seed draws, a life that the record keeps.

::

    schedule.draw(seed, classes, members, time_ms) ─┐
    schedule.parse("pause leader 2s at 10s") ───────┴─> Schedule ── inject(schedule, Context(...)) ──> FaultArmed, FaultFired, FaultHealed

    families of faults, and the equipment that has to be around members before they start: `registry`
    what an injector is, and the life of a fault: `injector`

Faults know clusters and records; of traffic they know nothing.
"""

from __future__ import annotations

from pekan.faults.ability import Ability
from pekan.faults.equipment import Equipment, Site
from pekan.faults.injector import Armed, Context, Injector, carry_out
from pekan.faults.journal import Journal, Swept, sweep
from pekan.faults.registry import EQUIPMENT, INJECTORS, equipment_for
from pekan.faults.schedule import CLASSES, draw, kinds_of, parse, phases, show, with_faults
from pekan.plan import Schedule


async def inject(schedule: Schedule, context: Context) -> None:
    """Carry out `schedule`; returns when every fault has been healed or has expired, by `context.heal_ms` plus the time heals take.

    Cancelled, it heals what it holds and then ends. Raises `UsageError` before anything happens where a kind is unknown.
    """
    kinds_of(tuple(fault.kind for fault in schedule.faults))
    await carry_out(schedule, context, INJECTORS)


__all__ = [
    "CLASSES",
    "EQUIPMENT",
    "INJECTORS",
    "Ability",
    "Armed",
    "Context",
    "Equipment",
    "Injector",
    "Journal",
    "Site",
    "Swept",
    "carry_out",
    "draw",
    "equipment_for",
    "inject",
    "kinds_of",
    "parse",
    "phases",
    "show",
    "sweep",
    "with_faults",
]
