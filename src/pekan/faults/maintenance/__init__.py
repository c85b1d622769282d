"""What operators do while traffic goes on: compaction, defragmentation, snapshots, alarms and quota, auth."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = ()
EQUIPMENT: tuple[type[Equipment], ...] = ()
