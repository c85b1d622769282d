"""What a member's writes and syncs meet: errors, slowness, torn and lying ones, power loss.

::

    supervisor     the program that answers a member's system calls         supervision   Pekan's end of it, the equipment of a run
    errors         disk-error, disk-full                                    slow          disk-slow
    loss           power-loss, torn-write, sync-lies                        device        filesystem-shutdown, and the file systems for it

etcd's database is mapped for reading only, so that every change of its files is a system call: who answers those sees all.
"""

from __future__ import annotations

from pekan.faults.disk.device import BlockDevice, FilesystemShutdown
from pekan.faults.disk.errors import DiskError, DiskFull
from pekan.faults.disk.loss import PowerLoss, SyncLies, TornWrite
from pekan.faults.disk.slow import DiskSlow
from pekan.faults.disk.supervision import Supervision
from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = (DiskSlow(), DiskError(), DiskFull(), TornWrite(), PowerLoss(), FilesystemShutdown(), SyncLies())
EQUIPMENT: tuple[type[Equipment], ...] = (BlockDevice, Supervision)
