"""What a member runs out of: processor time, memory, file descriptors."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.resources.cpu import CpuStarve
from pekan.faults.resources.descriptors import DescriptorLimit
from pekan.faults.resources.memory import MemoryLimit

INJECTORS: tuple[Injector, ...] = (CpuStarve(), MemoryLimit(), DescriptorLimit())
EQUIPMENT: tuple[type[Equipment], ...] = ()
