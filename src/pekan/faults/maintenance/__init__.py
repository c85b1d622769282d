"""Compaction, defragmentation, snapshots, alarms, quota, auth turned on and off: an operator's doings, under load."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.maintenance.alarming import Alarm
from pekan.faults.maintenance.auth import AuthToggle, CheapLogins
from pekan.faults.maintenance.compacting import Compact
from pekan.faults.maintenance.defragmenting import Defragment
from pekan.faults.maintenance.quota import Quota
from pekan.faults.maintenance.snapshot import SnapshotRestore, SnapshotSave

INJECTORS: tuple[Injector, ...] = (Compact(), Defragment(), SnapshotSave(), SnapshotRestore(), Alarm(), Quota(), AuthToggle())
EQUIPMENT: tuple[type[Equipment], ...] = (CheapLogins,)
