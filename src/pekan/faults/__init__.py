"""Faults against a running cluster: a family a package, a file a mechanism; a schedule that a seed draws, a life that the record keeps.

::

    schedule.draw(seed, kinds, members, time_ms) ─┐
    grammar.parse("pause leader 2s at 10s") ──────┴─> Schedule ── inject(schedule, Context(...)) ──> FaultArmed, FaultFired, FaultHealed

    families of faults, and the equipment that has to be around members before they start: `registry`
    classes of faults, and what can be injected here: `classes`
    what an injector is, and the life of a fault: `injector`; what it waits for: `triggers`
    what lies in members' files, for the families that read or alter them: `stored`

Faults know clusters and records; of traffic they know nothing.
"""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.faults.ability import Ability
from pekan.faults.classes import CLASSES, ability_of, class_of, equipment_ability, fault_ability, kinds_of, left_out, probe
from pekan.faults.equipment import Equipment, Site
from pekan.faults.grammar import parse, show, show_trigger
from pekan.faults.images.album import Album, Image
from pekan.faults.injector import Armed, Context, Injector, carry_out
from pekan.faults.journal import Journal, Swept, sweep
from pekan.faults.registry import EQUIPMENT, INJECTORS, equipment_for
from pekan.faults.schedule import draw, phases, scripted, with_faults
from pekan.faults.triggers import until
from pekan.plan import Schedule


async def inject(schedule: Schedule, context: Context) -> None:
    """Carry out `schedule`; returns when every fault has been healed or has expired, by `context.heal_ms` plus the time heals take.

    Cancelled, it heals what it holds and then ends. Raises `UsageError` before anything happens where a kind is unknown.
    """
    for fault in schedule.faults:
        if fault.kind not in INJECTORS:
            raise UsageError(f"no fault is called {fault.kind!r}; there are {', '.join(INJECTORS)}")
    await carry_out(schedule, context, INJECTORS)


__all__ = [
    "CLASSES",
    "EQUIPMENT",
    "INJECTORS",
    "Ability",
    "Album",
    "Armed",
    "Context",
    "Equipment",
    "Image",
    "Injector",
    "Journal",
    "Site",
    "Swept",
    "ability_of",
    "carry_out",
    "class_of",
    "draw",
    "equipment_ability",
    "equipment_for",
    "fault_ability",
    "inject",
    "kinds_of",
    "left_out",
    "parse",
    "phases",
    "probe",
    "scripted",
    "show",
    "show_trigger",
    "sweep",
    "until",
    "with_faults",
]
