"""What acts at points of a member's program, by whatever means: one interface, three mechanisms (`failpoint` says which takes what).

::

    use(member) ── arm(member, point, nth, action) ──> fired ── held? ── release ──> settle, where its process has ended
                          └────────────────────────────────────────────── disarm: nothing fires any more, whoever is held goes on

A member has one arming at a point at a time. Whoever arms disarms.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pekan.errors import UsageError
from pekan.faults.equipment import Equipment, Site
from pekan.faults.hooks.asked import is_reached, points_by, points_of_faults
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.points import Points

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.spec import EtcdBinary

POLL_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Firing:
    """One firing of a hook, as the member's own thread wrote it down. `hits` counts from the member's first start; `time_ns` is
    CLOCK_MONOTONIC."""

    hits: int
    tid: int
    time_ns: int


class Mechanism(Equipment):
    """One means of it. A member and a point are named; `UsageError` where there can be nothing at that point of that member."""

    holds: ClassVar[bool] = True
    """Whether it can hold a thread."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.environment: Mapping[str, str] = {}
        """What members were started with because of long holds; for the evidence."""

    @abstractmethod
    def can(self, member: Member, name: str) -> bool:
        """Whether it can be at that point of that member."""

    @abstractmethod
    def use(self, member: Member) -> None:
        """The process that `member` has now is the one to be armed by its name."""

    @abstractmethod
    async def arm(self, member: str, name: str, nth: int, action: int, hold_ms: int = 0) -> None:
        """Fire at the `nth` hit from now on. `action` is `stub.HOLD`, `stub.KILL`, both (first the hold) or 0.

        Raises `UsageError` where another fault waits there, or it cannot be done; `ClusterFailure` where the process has ended.
        """

    @abstractmethod
    async def fired(self, member: str, name: str) -> Firing:
        """Wait until what was armed there has fired; the caller bounds the wait."""

    @abstractmethod
    def firings(self, member: str, name: str) -> int:
        """How often that point has fired in `member`."""

    @abstractmethod
    def hits(self, member: str, name: str) -> int:
        """How often `member` has come by the point, as far as that was counted: since its first start, or since the last arming."""

    @abstractmethod
    def held(self, member: str, name: str) -> bool:
        """Whether a thread is inside a firing of that point, or others are not let go yet."""

    @abstractmethod
    def ended_ns(self, member: str, name: str) -> int:
        """When the last firing there came to its end, CLOCK_MONOTONIC."""

    @abstractmethod
    def release(self, member: str, name: str) -> None:
        """Let the thread that is held there go on at once; the rest of its action follows."""

    @abstractmethod
    def disarm(self, member: str, name: str) -> None:
        """No firing any more; a thread that is held there goes on, and lives. Idempotent."""

    @abstractmethod
    def settle(self, member: str, name: str) -> None:
        """The process that fired there has ended: nobody is held any more."""


class Placed(Mechanism):
    """A mechanism that comes to a point only when it is armed, in the process that the member has then."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._members: dict[str, Member] = {}
        self._places: dict[tuple[Path, str], tuple[int, ...]] = {}

    async def prepare(self) -> None:
        """Raises `UsageError` for a point that this etcd does not have, or where it can never be, and for what only hooks can tell."""
        if any(map(is_reached, points_of_faults(self.site.plan, (self.name,)))):
            raise UsageError("only hooks can tell what is reached: name a point, or ask for no mechanism")
        await asyncio.to_thread(self._find, self.site.binary)

    def can(self, member: Member, name: str) -> bool:
        return bool(self._places_in(member, name))

    def use(self, member: Member) -> None:
        self._members[member.name] = member

    @abstractmethod
    def _placed(self, executable: GoBinary, name: str, addresses: tuple[int, ...], version: str) -> tuple[int, ...]:
        """Where it would be for a point at these addresses; empty where it cannot be, `UsageError` where the plan asks for just that."""

    def _places_in(self, member: Member, name: str) -> tuple[int, ...]:
        return self._places.get((Path(member.spec.binary.path), name), ())

    def _find(self, binary: EtcdBinary) -> None:
        """Find the points that the plan names in an executable, each once."""
        path = Path(binary.path)
        wanted = {name for names in points_by(self.site.plan).values() for name in names}
        wanted -= {name for known, name in self._places if known == path}
        if not wanted:
            return
        executable = GoBinary(path)
        table = Points(executable, binary.version)
        for name in wanted:
            self._places[path, name] = self._placed(executable, name, table.find(name).addresses, binary.version)
