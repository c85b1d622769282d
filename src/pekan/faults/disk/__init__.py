"""What a member's writes and syncs meet: errors, slowness, torn and lying ones, power loss."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = ()
EQUIPMENT: tuple[type[Equipment], ...] = ()
