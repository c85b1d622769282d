"""What faults of maintenance ask members, again where an election or a restart is in between.

The companion `maintenance` of every workload compacts and defragments too: in the background of every run, unhurried,
by choices of its own clients, so that reads of the past and watches always meet compactions. Here the same requests are sent at the moment
that a schedule says - in the middle of another fault, at a revision - through the member that it names, and with proof that they had their
effect. Alarms, quotas, snapshots and turning auth on and off belong here alone: they are an operator's doing, not traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pekan.etcd.spec import MemberState
from pekan.wire.errors import WireError
from pekan.wire.messages import Request, pb

if TYPE_CHECKING:
    from pekan.etcd.client import Reply
    from pekan.faults.injector import Armed

ALARM = "cluster:alarm"
"""The claim of whatever raises or lowers an alarm: one holds for the whole cluster."""
ASK_S = 3.0
AGAIN_S = 0.1
TRIES = 8
REPEAT_S = 0.4
"""Together about 3 s: a restart, or two elections."""
HEAL_S = 30.0
"""How long undoing is tried: ten election timeouts, and other faults may only just have been healed."""


def done(reply: Reply) -> bool:
    """etcd did it."""
    return reply.outcome == "ok"


def message_of(reply: Reply) -> str:
    """What etcd said against it; empty where it did it."""
    return reply.output.message if isinstance(reply.output, WireError) else ""


async def insist(armed: Armed, request: Request, enough: Callable[[Reply], bool] = done, *, first: str = "") -> Reply | None:
    """Ask one running voter after the other, `first` first, until the answer is `enough`; None where none was within `HEAL_S`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HEAL_S
    name = first
    while loop.time() < until:
        running = [member.name for member in armed.context.cluster.voters if member.state is MemberState.RUNNING]
        name = name if name in running else armed.rng.choice(running) if running else ""
        if name:
            reply = await armed.context.ask(name, request, ASK_S)
            if enough(reply):
                return reply
            name = ""
        await asyncio.sleep(AGAIN_S)
    return None


async def repeat(armed: Armed, once: Callable[[], Awaitable[bool]]) -> None:
    """Try `once` until it has worked: its victim may be in the middle of an election or a restart. Not beyond the faults' phase."""
    for number in range(TRIES):
        if number:
            await asyncio.sleep(REPEAT_S)
        if not armed.context.left_ms() or await once():
            return


async def alarms(armed: Armed) -> list[pb.AlarmMember] | None:
    """The alarms that hold, asked through raft; None where nobody answered."""
    reply = await insist(armed, pb.AlarmRequest())
    return None if reply is None else list(reply.output.alarms)


async def disarm(armed: Armed, member_id: int) -> bool:
    """Take that member's NOSPACE alarm away, until it is listed no more. One that is raised again by itself is taken away again."""
    for _ in range(DISARM_TRIES):
        listed = await alarms(armed)
        if listed is None:
            return False
        if not any(each.memberID == member_id and each.alarm == pb.NOSPACE for each in listed):
            return True
        await insist(armed, pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=pb.NOSPACE))
    return False


DISARM_TRIES = 20
"""A member over its quota raises its alarm anew with the next write that it is asked for."""
