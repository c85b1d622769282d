"""Links between members, and between clients and members: cut, held, delayed, slowed, reset, by a proxy on each."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = ()
EQUIPMENT: tuple[type[Equipment], ...] = ()
