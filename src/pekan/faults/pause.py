"""SIGSTOP, and after a while SIGCONT: a process that stands still and does not know it.

Longer than the election timeout (etcd's default 1 s), a paused leader is deposed and finds out late; what clients sent to it meanwhile
waits in its sockets and is answered the moment it continues. `within`: nothing is lost, a majority can return.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

from pekan.etcd.spec import MemberState
from pekan.faults.injector import Armed, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member


class Pause:
    """`hold_ms`: how long every thread stands still."""

    kind: ClassVar[str] = "pause"
    promise: ClassVar[str] = "within"
    defaults: ClassVar[dict[str, int]] = {"hold_ms": 1_500}
    duration: ClassVar[str] = "hold_ms"

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Stop, hold, continue. Evidence of firing is that the kernel reported every thread stopped."""
        pid, incarnation = victim.pid, victim.incarnation
        try:
            await shielded(self._pause(victim, armed))
            await armed.hold(armed.parameter("hold_ms", self.defaults["hold_ms"]))
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
