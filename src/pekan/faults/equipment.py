"""What has to be around members before they start so that a fault can be injected later: hooks, a supervisor of their system calls, a
proxy between them, a namespace, a control group.

::

    plan ──> the kinds of its faults ──> what they need ──> Equipment, one a mechanism
                                                               │ surround(members, ports)   before each member's first start
                                                               │ (the run; injectors use it through `Context.equipment`)
                                                               └ close()                    after the last process has ended

Whatever the kernel does not undo by itself when processes end (a control group, a mount, a loop device) is journalled before it is made:
`pekan.faults.journal`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.ability import Ability
from pekan.faults.journal import Journal

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import EtcdBinary, MemberSpec
    from pekan.plan import Plan


@dataclass(frozen=True, slots=True)
class Site:
    """What a mechanism is told before anything starts. `directory` is the run's; what is only scratch goes below `directory/scratch`, which
    is removed at the end of the run. `options` are etcd's options as the plan gives them. `journal` is the run's: what it notes is
    undone when members and equipment have ended."""

    plan: Plan
    binary: EtcdBinary
    directory: Path
    options: Mapping[str, str]
    journal: Journal = field(default_factory=Journal)


class Equipment(ABC):
    """One mechanism, made for one run and entered before its cluster, left after it."""

    name: ClassVar[str]
    loss: ClassVar[str] = ""
    """What is lost without it, where that is less than every fault of the kinds that need it."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    @abstractmethod
    def probe(cls) -> Ability:
        """Whether it works on this machine, found by doing it in a small way. At most 200 ms, leaves nothing behind."""

    async def prepare(self) -> None:  # noqa: B027 - most have nothing to do before the members are known
        """Start what it consists of. Raises `EnvironmentFailure` with the remedy."""

    @abstractmethod
    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        """The same members with attachments, other addresses, another environment. Also called for a member that joins later."""

    def failure(self) -> str:
        """Why it can no longer be relied on, though nobody has closed it; empty while it can. What members do from then on says nothing
        about etcd, and the run ends."""
        return ""

    @abstractmethod
    async def close(self) -> None:
        """End and remove everything. Idempotent; works after a failed `prepare`."""


@functools.cache
def probed(kind: type[Equipment]) -> Ability:
    """Whether that equipment can be put around members here: found once in a process."""
    return kind.probe()
