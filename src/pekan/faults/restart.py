"""SIGTERM, and a start on the same data: the restart that every operator does, leadership handed over and files closed.

`within`: a graceful restart may cost nothing but a moment of unavailability.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

from pekan.etcd.spec import MemberState
from pekan.faults.injector import Armed, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

GRACE_S = 5.0
"""etcd closes within tens of ms when idle; after this the cluster sends SIGKILL, and the wait status in the evidence says so."""


class Restart:
    """`down_ms`: from the reported end of the process to its next start."""

    kind: ClassVar[str] = "restart"
    promise: ClassVar[str] = "within"
    defaults: ClassVar[dict[str, int]] = {"down_ms": 0}
    duration: ClassVar[str] = "down_ms"

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Stop, hold, start again. Evidence of firing is the wait status that the kernel reported."""
        try:
            await shielded(self._stop(victim, armed))
            await armed.hold(armed.parameter("down_ms", self.defaults["down_ms"]))
        finally:
            # Not after an exit that nobody asked for: that is the hunt's to judge, and to start again.
            if victim.state is MemberState.STOPPED:
                await shielded(victim.start())
            if armed.has_fired:
                armed.healed({"pid": victim.pid, "incarnation": victim.incarnation, "state": str(victim.state)})

    @staticmethod
    async def _stop(victim: Member, armed: Armed) -> None:
        # In one piece even under cancellation: once the signal is out, its end is waited for and recorded as this fault's doing.
        end = await victim.stop(GRACE_S)
        armed.fired({"pid": end.pid, "signal": signal.Signals.SIGTERM.name, "wait_status": end.wait_status, "incarnation": end.incarnation})
