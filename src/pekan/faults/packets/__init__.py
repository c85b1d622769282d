"""Packets between members lost, doubled, late and out of order, by a switch between network namespaces."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = ()
EQUIPMENT: tuple[type[Equipment], ...] = ()
