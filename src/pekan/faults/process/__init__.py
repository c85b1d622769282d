"""A member's process ended, stopped, started again."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.process.kill import Kill
from pekan.faults.process.pause import Pause
from pekan.faults.process.restart import Restart

INJECTORS: tuple[Injector, ...] = (Kill(), Pause(), Restart())
EQUIPMENT: tuple[type[Equipment], ...] = ()
