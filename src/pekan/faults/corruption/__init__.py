"""Silent corruption of a stopped member's files."""

from __future__ import annotations

from pekan.faults.corruption.consistent_index import ConsistentIndex
from pekan.faults.corruption.flip_byte import FlipByte
from pekan.faults.corruption.lost_rename import LostRename
from pekan.faults.corruption.truncate_wal import TruncateWal
from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = (FlipByte(), TruncateWal(), LostRename(), ConsistentIndex())
EQUIPMENT: tuple[type[Equipment], ...] = ()
