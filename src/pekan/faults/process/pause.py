"""SIGSTOP, and after a while SIGCONT: a process that stands still and does not know it.

Longer than the election timeout (etcd's default 1 s), a paused leader is deposed and finds out late; what clients sent to it meanwhile
waits in its sockets and is answered the moment it continues. `within`: nothing is lost, a majority can return.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.etcd.spec import MemberState
from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 45, "follower": 35, "any": 20}
"""Weights. A paused leader is deposed and does not know it."""
SHORT_MS = (300, 900)
LONG_MS = (1_300, 3_800)
"""Below and above etcd's default election timeout of 1,000 ms (which raft randomizes up to twice that)."""
LONG_SHARE = 0.4
RECOVERY_MS = 600


class Pause(Injector):
    """SIGSTOP, a time, SIGCONT."""

    kind: ClassVar[str] = "pause"
    summary: ClassVar[str] = "SIGSTOP, and after a while SIGCONT: every thread stands still and does not know it"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": Parameter(1_500, "ms", "how long every thread stands still")}
    duration: ClassVar[str] = "hold_ms"
    open_end: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        target = weighted(rng, TARGETS)
        return Drawn(target, {"hold_ms": rng.randint(*(LONG_MS if rng.random() < LONG_SHARE else SHORT_MS))})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Stop, hold, continue. Evidence of firing is that the kernel reported every thread stopped."""
        pid, incarnation = victim.pid, victim.incarnation
        try:
            await shielded(self._pause(victim, armed))
            await armed.stay()
        finally:
            # It may have ended while it stood still (somebody else's SIGKILL): then there is nothing to continue.
            if victim.state is MemberState.PAUSED and victim.incarnation == incarnation:
                await shielded(victim.resume())
            if armed.has_fired:
                armed.healed({"pid": pid, "signal": signal.Signals.SIGCONT.name, "state": str(victim.state)})

    @staticmethod
    async def _pause(victim: Member, armed: Armed) -> None:
        await victim.pause()
        armed.fired({"pid": victim.pid, "signal": signal.Signals.SIGSTOP.name, "incarnation": victim.incarnation})
