"""A NOSPACE alarm without want of space: writes are refused by the whole cluster until somebody takes it away.

What the alarm does is the same whatever raised it; `quota` is the honest way there. A write refused so has an indefinite outcome: the one
that trips a quota is applied and refused. `within`: reads, deletions and compactions go on, and nothing is lost.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.maintenance.asking import ALARM, ASK_S, alarms, disarm, insist, message_of, repeat
from pekan.wire.errors import NO_SPACE
from pekan.wire.messages import PutRequest, pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

KEY = b"fault/alarm"
HOLD_MS = (100, 1_000)


class Alarm(Injector):
    """Alarm, and its end."""

    kind: ClassVar[str] = "alarm"
    summary: ClassVar[str] = "a NOSPACE alarm is raised for the member: the cluster refuses writes until it is taken away"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": Parameter(500, "ms", "how long the alarm holds")}
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({ALARM})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"hold_ms": rng.randint(*HOLD_MS)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is the alarm as it is listed, and a write that is refused for it."""
        await repeat(armed, lambda: self._once(victim, armed))

    @staticmethod
    async def _once(victim: Member, armed: Armed) -> bool:
        status = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
        if status.outcome != "ok":
            return False
        member_id = status.output.header.member_id
        try:
            raised = await armed.context.ask(
                victim.name, pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member_id, alarm=pb.NOSPACE), ASK_S
            )
            listed = await alarms(armed) or []
            put = await armed.context.ask(victim.name, PutRequest(KEY, b"%d" % armed.id), ASK_S)
            if any(each.memberID == member_id for each in listed) and message_of(put) == NO_SPACE:
                armed.fired({"operation": raised.operation, "member_id": f"{member_id:x}", "refused": put.operation})
                await armed.hold(armed.number("hold_ms"))
        finally:
            await shielded(_heal(armed, member_id))
        return armed.has_fired


async def _heal(armed: Armed, member_id: int) -> None:
    gone = await disarm(armed, member_id)
    written = await insist(armed, PutRequest(KEY, b"healed %d" % armed.id))
    if armed.has_fired:
        armed.healed({"disarmed": gone, "written": 0 if written is None else written.operation})
