"""SIGKILL, and after a while a start on the same data: a process that dies without closing anything.

The page cache survives: this is a crash of the process, not of the machine. `within`: a majority can return, so every promise holds.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import Armed, down_and_up

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member


class Kill:
    """`down_ms`: from the reported end of the process to its next start."""

    kind: ClassVar[str] = "kill"
    promise: ClassVar[str] = "within"
    defaults: ClassVar[dict[str, int]] = {"down_ms": 500}
    duration: ClassVar[str] = "down_ms"

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Kill, hold, start again. Evidence of firing is the wait status that the kernel reported."""
        await down_and_up(victim, armed, self._kill(victim, armed), armed.parameter("down_ms", self.defaults["down_ms"]))

    @staticmethod
    async def _kill(victim: Member, armed: Armed) -> None:
        # In one piece even under cancellation: once the signal is out, its end is waited for and recorded as this fault's doing.
        end = await victim.kill()
        armed.fired({"pid": end.pid, "signal": signal.Signals.SIGKILL.name, "wait_status": end.wait_status, "incarnation": end.incarnation})
