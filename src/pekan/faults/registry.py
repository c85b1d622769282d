"""Every kind of fault and every mechanism, by name. A new one is a line in the `__init__` of its family.

::

    process      kill, pause, restart ...        network      cut, delay, rate, reset ...      membership    add, remove, promote ...
    resources    processor, memory, files        packets      loss, duplication, reordering    maintenance   compaction, defragmentation ...
    clock        skew, jump                      disk         errors, slow, torn, power loss   images        crash states without a crash
    hooks        kill or hold at a failpoint                                                   corruption    flipped bytes, cut files
"""

from __future__ import annotations

from pekan.faults import clock, corruption, disk, hooks, images, maintenance, membership, network, packets, process, resources
from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.triggers import Points
from pekan.plan import Fault, Schedule

FAMILIES = (process, resources, clock, hooks, disk, network, packets, membership, maintenance, images, corruption)
INJECTORS: dict[str, Injector] = {each.kind: each for family in FAMILIES for each in family.INJECTORS}
EQUIPMENT: dict[str, type[Equipment]] = {each.name: each for family in FAMILIES for each in family.EQUIPMENT}
"""What injectors may need around the members. Their order is that in which they surround: later ones see what earlier ones changed."""


def needs_of(fault: Fault) -> frozenset[str]:
    """The equipment that `fault` and its trigger need, by name."""
    counting = (name for name, kind in EQUIPMENT.items() if fault.trigger.failpoint and issubclass(kind, Points))
    return frozenset((*INJECTORS[fault.kind].needs_for(fault.parameters), *counting))


def equipment_for(schedule: Schedule) -> tuple[type[Equipment], ...]:
    """What the faults of `schedule` need, each once, in the order of `EQUIPMENT`."""
    needed = {name for fault in schedule.faults for name in needs_of(fault)}
    return tuple(kind for name, kind in EQUIPMENT.items() if name in needed)
