"""SIGTERM, and a start on the same data: the restart that every operator does, leadership handed over and files closed.

A member with open streams (watchers have them) takes its time: from 3.5.35 to 3.7.3 it answers nothing new, waits 7 s for them to end (5 s
and two election timeouts, etcd's request timeout), and only then hands over leadership and closes. Without streams it takes about 1 s.
`within`: a graceful restart may cost nothing but a moment of unavailability.
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


GRACE_MS_MIN = 1_000
"""What a member without streams takes to end by itself (measured: 0.7 to 1.1 s from 3.5.1 to 3.7.3)."""
TARGETS = {"leader": 40, "follower": 20, "any": 40}
DOWN_MS = (0, 400)
GRACE_MS = 9_000
"""What a member with watchers needs to end by itself (7 to 8 s), and one more."""
IMPATIENT_MS = (200, 1_500)
IMPATIENT_SHARE = 0.5
"""Of restarts drawn: those whose supervisor loses patience and kills. A run is too short to wait 9 s each time."""
RECOVERY_MS = 1_000


class Restart(Injector):
    """SIGTERM, a start on the same data."""

    kind: ClassVar[str] = "restart"
    summary: ClassVar[str] = "SIGTERM, and a start on the same data: leadership handed over, files closed"
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "grace_ms": Parameter(10_000, "ms", "how long it may take to end by itself; then it is killed, as a supervisor does"),
        "down_ms": down(0),
    }
    duration: ClassVar[str] = "down_ms"
    open_end: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        target = weighted(rng, TARGETS)
        grace_ms = rng.randint(*IMPATIENT_MS) if rng.random() < IMPATIENT_SHARE else GRACE_MS
        return Drawn(target, {"grace_ms": grace_ms, "down_ms": rng.randint(*DOWN_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["grace_ms"]) + int(parameters["down_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Stop, hold, start again. Evidence of firing is the wait status that the kernel reported."""
        await down_and_up(victim, armed, self._stop(victim, armed))

    @staticmethod
    async def _stop(victim: Member, armed: Armed) -> None:
        # In one piece even under cancellation: once the signal is out, its end is waited for and recorded as this fault's doing.
        grace_ms = armed.number("grace_ms")
        # Nor does it outlast the faults' phase: what is left of it then, and a moment where nothing is left.
        end = await victim.stop(min(grace_ms, max(GRACE_MS_MIN, armed.context.left_ms())) / 1000)
        armed.fired({"pid": end.pid, "signal": signal.Signals.SIGTERM.name, "wait_status": end.wait_status, "incarnation": end.incarnation})
