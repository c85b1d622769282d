"""Members added, removed, replaced, promoted; leadership moved."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.membership.adding import Learner, MemberAdd
from pekan.faults.membership.leading import MoveLeader
from pekan.faults.membership.removing import MemberRemove, MemberReplace

INJECTORS: tuple[Injector, ...] = (MemberAdd(), Learner(), MemberRemove(), MemberReplace(), MoveLeader())
EQUIPMENT: tuple[type[Equipment], ...] = ()
