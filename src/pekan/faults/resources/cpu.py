"""Processor time taken away from one member: it does everything it should, much later.

Where control groups can be made, the kernel's own bandwidth limit does it and other faults can hit the member meanwhile. Elsewhere the
member is stopped and continued ten times a second, which is Pekan's own doing and needs its process for itself. `within`: nothing is
lost, and what the others do not get in time from it they decide without it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.errors import ClusterFailure
from pekan.etcd.spec import MemberState
from pekan.faults.ability import Ability, able
from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.resources.groups import Group, Hierarchy, hierarchy, limit_cpu

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 50, "follower": 20, "any": 30}
HOLD_MS = (1_000, 5_000)
PERCENT = (2, 5, 10, 10, 20)
QUOTA_US = 2_000
"""What it may run at a stretch, about one request: with the kernel's default period of 100 ms a member that does little is never kept from
running. The kernel takes no quota under 1,000 us."""
STOP_PERIOD_MS = 100
"""Of stops by Pekan: etcd's heartbeat."""
LOOK_MS = 20
CPU = "cpu"
"""The claim: two limits on one member are one."""
RECOVERY_MS = 600
DOWN_PERCENT = 10
"""Under that share of one processor a member does not keep up: a leader with 10 % does a third of its work (measured)."""


class CpuStarve(Injector):
    """A few percent of one processor, for a time."""

    kind: ClassVar[str] = "cpu-starve"
    summary: ClassVar[str] = "the member gets a few percent of one processor"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "percent": Parameter(10, "percent", "of one processor that it gets"),
        "hold_ms": Parameter(3_000, "ms", "for how long"),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({CPU})

    def probe(self) -> Ability:
        found = hierarchy("cpu")
        if isinstance(found, Hierarchy):
            return able(self.kind, f"by a control group (version {found.version}, {found.root})")
        return able(self.kind, f"by stopping and continuing it ten times a second; no control group: {found}")

    def draw(self, rng: random.Random) -> Drawn:
        target = weighted(rng, TARGETS)
        return Drawn(target, {"percent": rng.choice(PERCENT), "hold_ms": rng.randint(*HOLD_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS if int(parameters["percent"]) <= DOWN_PERCENT else 0

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Starve, hold, feed. Evidence of firing is the first period in which the kernel, or Pekan, has kept it from running."""
        found = hierarchy("cpu")
        if isinstance(found, Hierarchy):
            await self._by_quota(victim, armed, found)
        else:
            await self._by_stops(victim, armed)

    @staticmethod
    async def _by_quota(victim: Member, armed: Armed, found: Hierarchy) -> None:
        pid = victim.pid
        if pid is None:
            return
        group = await shielded(Group.make(found, armed.context.journal, pid))

        async def heal() -> None:
            throttled = group.count("cpu.stat", "nr_throttled")
            await group.remove()
            if armed.has_fired:
                armed.healed({"periods_throttled": throttled, "pid": victim.pid})

        try:
            limit_cpu(group, QUOTA_US, QUOTA_US * 100 // max(1, armed.number("percent")))
            end = time.monotonic() + armed.number("hold_ms") / 1000
            while time.monotonic() < end and armed.context.left_ms():
                group.keep(victim.pid)
                throttled = group.count("cpu.stat", "nr_throttled")
                if throttled:
                    armed.fired({"periods_throttled": throttled, "group": str(group.path), "pid": victim.pid})
                await armed.hold(LOOK_MS)
        finally:
            await shielded(heal())

    @staticmethod
    async def _by_stops(victim: Member, armed: Armed) -> None:
        claim = frozenset({PROCESS})
        while not armed.context.claim(victim.name, claim):
            if not armed.context.left_ms():
                return
            await armed.hold(LOOK_MS)
        incarnation, stops = victim.incarnation, 0
        stopped_ms = STOP_PERIOD_MS * (100 - armed.number("percent")) / 100

        async def heal() -> None:
            if victim.state is MemberState.PAUSED and victim.incarnation == incarnation:
                await victim.resume()
            armed.context.release(victim.name, claim)
            if armed.has_fired:
                armed.healed({"stops": stops, "state": str(victim.state)})

        try:
            end = time.monotonic() + armed.number("hold_ms") / 1000
            while time.monotonic() < end and armed.context.left_ms() and victim.incarnation == incarnation and victim.alive:
                await shielded(victim.pause())
                stops += 1
                armed.fired({"stops": stops, "stopped_ms": stopped_ms, "pid": victim.pid})
                await armed.hold(int(stopped_ms))
                await shielded(victim.resume())
                await armed.hold(int(STOP_PERIOD_MS - stopped_ms))
        except ClusterFailure:
            # It ended by itself, which is for the hunt to judge; there is nobody left to starve.
            if victim.alive:
                raise
        finally:
            await shielded(heal())
