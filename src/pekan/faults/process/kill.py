"""SIGKILL, and after a while a start on the same data: a process that dies without closing anything.

The page cache survives: this is a crash of the process, not of the machine. `within`: a majority can return, so every promise holds.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, down, down_and_up

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 40, "follower": 25, "any": 35}
"""Weights. Leaders are where elections, read indexes and leases are decided."""
DOWN_MS = (100, 1_800)
RECOVERY_MS = 1_200
"""Replay and catching up, after the start."""


class Kill(Injector):
    """SIGKILL, a time down, a start."""

    kind: ClassVar[str] = "kill"
    summary: ClassVar[str] = "SIGKILL, and after a while a start on the same data"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "down_ms": down(500),
    }
    duration: ClassVar[str] = "down_ms"
    open_end: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"down_ms": rng.randint(*DOWN_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["down_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Kill, hold, start again. Evidence of firing is the wait status that the kernel reported."""
        await down_and_up(victim, armed, self._kill(victim, armed))

    @staticmethod
    async def _kill(victim: Member, armed: Armed) -> None:
        # In one piece even under cancellation: once the signal is out, its end is waited for and recorded as this fault's doing.
        end = await victim.kill()
        armed.fired({"pid": end.pid, "signal": signal.Signals.SIGKILL.name, "wait_status": end.wait_status, "incarnation": end.incarnation})
