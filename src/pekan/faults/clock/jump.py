"""The clock of one member jumps forward, and what it measured by it was too long.

Leases live by the monotonic clock of the leader: it ends them early by as much as it has jumped. There is no way back, because a monotonic
clock must not go backwards: the offset stays until the end of the run, and jumps add up. `lease-time`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.clock.shifting import MONOTONIC, WALL, Clock
from pekan.faults.drawing import of_any_size, weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

JUMP_MS = (50, 20_000)
"""From half a heartbeat to beyond any lease that workloads take: jumps add up over a run, and the time to live of a token is minutes."""
TARGETS = {"leader": 60, "any": 40}
"""Weights. The leader's clock is the one that leases live by."""
CLOCKS = {"monotonic": (MONOTONIC,), "both": (MONOTONIC, WALL)}


class ClockJump(Injector):
    """The monotonic clock, or with it the wall clock, set forward for good."""

    kind: ClassVar[str] = "clock-jump"
    summary: ClassVar[str] = "one member's monotonic clock jumps forward, for good; leases end early by as much"
    promise: ClassVar[str] = "lease-time"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "jump_ms": Parameter(5_000, "ms", "by how much the clock jumps forward"),
        "clock": Parameter("monotonic", "text", "which: the monotonic one, or both that and the wall clock", tuple(CLOCKS)),
    }
    duration: ClassVar[str] = "jump_ms"
    needs: ClassVar[tuple[str, ...]] = (Clock.name,)

    def draw(self, rng: random.Random) -> Drawn:
        jump = of_any_size(rng, JUMP_MS)
        target = weighted(rng, TARGETS)
        return Drawn(target, {"jump_ms": jump, "clock": rng.choice(tuple(CLOCKS))})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Jump, and wait until the member has read the clock after it: the evidence. Healed at once: a jump has no length."""
        clock = armed.equipment(Clock)
        jump = armed.number("jump_ms") * 1_000_000
        before = clock.readings(victim.name, MONOTONIC)
        for which in CLOCKS[armed.text("clock")]:
            clock.shift(victim.name, which, jump)
        try:
            async with asyncio.timeout(armed.context.left_ms() / 1000):
                readings = await clock.until_read(victim.name, MONOTONIC, before) - before
        except TimeoutError:
            return
        what = {"clock": armed.text("clock"), "shifted_ns": jump, "readings": readings}
        armed.fired({**what, "pid": victim.pid, "incarnation": victim.incarnation})
        armed.healed({"offset_ns": clock.offset_ns(victim.name, MONOTONIC), "stays": True})
