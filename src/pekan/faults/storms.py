"""When a storm may begin: at its time, and not before the calm that is due to it has been seen.

::

    plan      storm ████████   calm   ████████   calm   ████
    really    storm ████████▒▒▒▒▒▒▒ calm ████████   calm   ████        ▒ heals that took longer than drawn: a busy machine, a slow election
                                    └─ the second storm begins later, and in it every fault by as much

Without that a run under many faults would never be whole again once a heal takes long: no fault window would end, and members would not
be compared before the end. A storm waits a bounded time; then it begins all the same: being stuck is a state worth testing as well.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING

from pekan.plan import Fault, Schedule

if TYPE_CHECKING:
    from pekan.faults.injector import Context

CALM_WAIT_MS = 20_000
"""How long a storm waits for the calm before it: two slow elections, a replay and a comparison of members on a machine that has too much
to do."""
CALM_WAIT_SHARE = 1 / 6
"""And no longer than this part of the faults' phase: a short run would else consist of waiting."""


class Storms:
    """The storms of one run, each a gate that opens once."""

    def __init__(self, schedule: Schedule, context: Context) -> None:
        self._starts = schedule.storms
        self._context = context
        self._wait_ms = min(CALM_WAIT_MS, (schedule.heal_ms - schedule.quiet_ms) * CALM_WAIT_SHARE)
        self._opened = [asyncio.Event() for _ in self._starts]
        self._late_ms = [0 for _ in self._starts]

    async def open(self) -> None:
        """Open one gate after the other; returns when all are open or the faults' phase is over."""
        for number, start in enumerate(self._starts):
            await asyncio.sleep(max(0, min(start, self._context.heal_ms) - self._context.elapsed_ms()) / 1000)
            if number and self._context.left_ms():
                try:
                    async with asyncio.timeout(min(self._wait_ms, self._context.left_ms()) / 1000):
                        await self._context.calm.wait()
                except TimeoutError:
                    pass
            self._late_ms[number] = max(0, self._context.elapsed_ms() - start)
            self._opened[number].set()

    async def late_ms(self, fault: Fault) -> int:
        """By how much `fault` comes later than planned, once its storm has begun. What is asked for by name belongs to no storm."""
        number = bisect_right(self._starts, fault.trigger.at_ms) - 1
        if fault.required or number < 0:
            return 0
        await self._opened[number].wait()
        return self._late_ms[number]
