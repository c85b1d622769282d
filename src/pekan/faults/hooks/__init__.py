"""Failpoints in an unmodified etcd: points of its program found through its own tables, hooked at the exec stop."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.hooks.breakpoints import Breakpoints
from pekan.faults.hooks.equipment import Hooks
from pekan.faults.hooks.failpoint import Failpoint
from pekan.faults.hooks.uprobes import Uprobes
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = (Failpoint(),)
EQUIPMENT: tuple[type[Equipment], ...] = (Hooks, Breakpoints, Uprobes)
