"""SIGTERM, and a start on the same data: the restart that every operator does, leadership handed over and files closed.

A member with open streams (watchers have them) takes its time: from 3.5.35 to 3.7.3 it answers nothing new, waits 7 s for them to end (5 s
and two election timeouts, etcd's request timeout), and only then hands over leadership and closes. Without streams it takes about 1 s.
`within`: a graceful restart may cost nothing but a moment of unavailability.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import Armed, down_and_up

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member


GRACE_MS_MIN = 1_000
"""What a member without streams takes to end by itself (measured: 0.7 to 1.1 s from 3.5.1 to 3.7.3)."""


class Restart:
    """`grace_ms`: how long it may take to end by itself; then it is killed, as a supervisor does (the wait status in the evidence says so).
    `down_ms`: from the reported end of the process to its next start.
    """

    kind: ClassVar[str] = "restart"
    promise: ClassVar[str] = "within"
    defaults: ClassVar[dict[str, int]] = {"grace_ms": 10_000, "down_ms": 0}
    duration: ClassVar[str] = "down_ms"

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Stop, hold, start again. Evidence of firing is the wait status that the kernel reported."""
        await down_and_up(victim, armed, self._stop(victim, armed), armed.parameter("down_ms", self.defaults["down_ms"]))

    @staticmethod
    async def _stop(victim: Member, armed: Armed) -> None:
        # In one piece even under cancellation: once the signal is out, its end is waited for and recorded as this fault's doing.
        grace_ms = armed.parameter("grace_ms", Restart.defaults["grace_ms"])
        # Nor does it outlast the faults' phase: what is left of it then, and a moment where nothing is left.
        end = await victim.stop(min(grace_ms, max(GRACE_MS_MIN, armed.context.left_ms())) / 1000)
        armed.fired({"pid": end.pid, "signal": signal.Signals.SIGTERM.name, "wait_status": end.wait_status, "incarnation": end.incarnation})
