"""The wall clock of one member is wrong for a time, then right again.

etcd stamps its log by it, compares it with its peers' ("prober found high clock drift") and checks certificates by it; leases do not
depend on it. `lease-time`: whatever does depend on a clock is not promised while one is wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.clock.shifting import WALL, Clock
from pekan.faults.drawing import of_any_size
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

SKEW_MS = (200, 600_000)
"""Between what a tired time daemon leaves and ten minutes: above it, fresh certificates would be refused, which is no fault of etcd's."""
HOLD_MS = (1_000, 6_000)
DIRECTIONS = ("ahead", "behind")


class ClockSkew(Injector):
    """The wall clock shifted, and put right."""

    kind: ClassVar[str] = "clock-skew"
    summary: ClassVar[str] = "one member's wall clock is ahead or behind for a time"
    promise: ClassVar[str] = "lease-time"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "skew_ms": Parameter(60_000, "ms", "by how much the wall clock is wrong"),
        "direction": Parameter("ahead", "text", "whether it is ahead or behind", DIRECTIONS),
        "hold_ms": Parameter(3_000, "ms", "how long it is wrong"),
    }
    duration: ClassVar[str] = "hold_ms"
    open_end: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"wall-clock"})
    needs: ClassVar[tuple[str, ...]] = (Clock.name,)

    def draw(self, rng: random.Random) -> Drawn:
        skew = of_any_size(rng, SKEW_MS)
        return Drawn("any", {"skew_ms": skew, "direction": rng.choice(DIRECTIONS), "hold_ms": rng.randint(*HOLD_MS)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Shift, wait until the member has read the shifted clock (the evidence), hold, shift back."""
        clock = armed.equipment(Clock)
        shift = armed.number("skew_ms") * 1_000_000 * (-1 if armed.text("direction") == "behind" else 1)
        before = clock.readings(victim.name, WALL)
        clock.shift(victim.name, WALL, shift)
        try:
            try:
                async with asyncio.timeout(armed.context.left_ms() / 1000):
                    readings = await clock.until_read(victim.name, WALL, before) - before
            except TimeoutError:
                return
            armed.fired({"clock": "wall", "shifted_ns": shift, "readings": readings, "pid": victim.pid, "incarnation": victim.incarnation})
            await armed.stay()
        finally:
            clock.shift(victim.name, WALL, -shift)
            if armed.has_fired:
                readings = clock.readings(victim.name, WALL) - before
                armed.healed({"clock": "wall", "offset_ns": clock.offset_ns(victim.name, WALL), "readings": readings})
