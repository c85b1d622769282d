"""One member's wall and monotonic clock, skewed or jumped."""

from __future__ import annotations

from pekan.faults.clock.jump import ClockJump
from pekan.faults.clock.shifting import Clock
from pekan.faults.clock.skew import ClockSkew
from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = (ClockSkew(), ClockJump())
EQUIPMENT: tuple[type[Equipment], ...] = (Clock,)
