"""Files of a stopped member altered behind its back."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = ()
EQUIPMENT: tuple[type[Equipment], ...] = ()
