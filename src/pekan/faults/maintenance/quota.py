"""The quota of a member's database used up by real writes, and the way back that etcd's documentation tells.

::

    restarted with a quota just above what it holds ──> written to until a write is refused: NOSPACE, the alarm listed      fired
    ──> hold ──> what was written deleted ──> compacted ──> defragmented ──> alarm taken away ──> a write is taken again
    ──> restarted with the quota it had                                                                                     healed

One member is enough: the alarm that it raises for itself goes through raft, and all of them refuse. The write that trips the quota is
applied and refused, so its outcome is indefinite. `within`: nothing is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.errors import ClusterFailure
from pekan.etcd.spec import MemberSpec, MemberState
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.maintenance.asking import ALARM, ASK_S, REPEAT_S, TRIES, alarms, disarm, insist, message_of, repeat
from pekan.faults.maintenance.defragmenting import DEFRAGMENT_S
from pekan.wire.errors import NO_SPACE
from pekan.wire.messages import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

KEY = b"fault/quota/"
KEY_END = b"fault/quota0"
VALUE_BYTES = 200_000
"""Well below the 1.5 MiB that etcd takes in one request, large enough to be done in some ten writes."""
ROOM_BYTES = 1_500_000
"""Between what the database holds and the quota: other clients write too, and the recovery has to find room."""
WRITES_MAX = 60
GRACE_S = 1.0
READY_S = 15.0
HOLD_MS = (0, 800)
RESTARTS_MS = 5_000
"""Two restarts and what is between them, for the failure budget of a schedule."""
COMPACT_S = 10.0


class Quota(Injector):
    """A quota used up, and recovered from."""

    kind: ClassVar[str] = "quota"
    summary: ClassVar[str] = "the member's quota is used up by writes (NOSPACE), then compacted, defragmented and disarmed"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": Parameter(300, "ms", "how long the cluster is left without space")}
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS, ALARM})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"hold_ms": rng.randint(*HOLD_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RESTARTS_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is a real write that is refused for want of space, and the alarm as it is listed."""
        await repeat(armed, lambda: self._once(victim, armed))

    @staticmethod
    async def _once(victim: Member, armed: Armed) -> bool:
        spec = victim.spec
        status = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
        if status.outcome != "ok":
            return False
        member_id, quota = status.output.header.member_id, status.output.dbSize + ROOM_BYTES
        evidence: dict[str, Any] = {}
        try:
            await shielded(_restart(victim, replace(spec, options={**spec.options, "quota-backend-bytes": str(quota)})))
            await _exhaust(victim, armed, member_id, quota)
            if armed.has_fired:
                await armed.hold(armed.number("hold_ms"))
        finally:
            evidence = await shielded(_recover(victim, armed, member_id, spec))
            if armed.has_fired:
                armed.healed(evidence)
        return True


async def _restart(victim: Member, spec: MemberSpec) -> None:
    if victim.alive:
        await victim.stop(GRACE_S)
    if victim.state is MemberState.STOPPED:  # not after an exit that nobody asked for: that is the hunt's to judge
        await victim.start(spec)


async def _exhaust(victim: Member, armed: Armed, member_id: int, quota: int) -> None:
    try:
        await victim.wait_ready(READY_S)
    except ClusterFailure:
        return
    for number in range(WRITES_MAX):
        if not armed.context.left_ms():
            return
        key = KEY + b"%d/%d" % (armed.id, number)
        put = await armed.context.ask(victim.name, PutRequest(key, b"%d/%d/" % (armed.id, number) + bytes(VALUE_BYTES)), ASK_S)
        if message_of(put) == NO_SPACE:
            listed = await alarms(armed) or []
            if any(each.memberID == member_id and each.alarm == pb.NOSPACE for each in listed):
                armed.fired({"refused": put.operation, "writes": number + 1, "quota_bytes": quota, "member_id": f"{member_id:x}"})
                return


async def _takes_writes(victim: Member, armed: Armed) -> bool:
    """Whether it does, through itself; asked again while it answers something else than that it has no space."""
    for _ in range(TRIES):
        written = await armed.context.ask(victim.name, PutRequest(KEY + b"%d" % armed.id, b"recovered"), ASK_S)
        if written.outcome == "ok" or message_of(written) == NO_SPACE:
            return written.outcome == "ok"
        await asyncio.sleep(REPEAT_S)
    return False


async def _recover(victim: Member, armed: Armed, member_id: int, spec: MemberSpec) -> dict[str, Any]:
    """The documented way; and whatever became of that, the member with its old quota and no alarm."""
    evidence: dict[str, Any] = {}
    deleted = await insist(armed, DeleteRangeRequest(KEY, KEY_END))
    head = await insist(armed, RangeRequest(KEY), first=victim.name)
    if armed.has_fired and deleted is not None and head is not None and victim.alive:
        compacted = await armed.context.ask(victim.name, CompactionRequest(head.output.header.revision, True), COMPACT_S)
        defragmented = await armed.context.ask(victim.name, pb.DefragmentRequest(), DEFRAGMENT_S)
        status = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
        evidence["compacted"] = compacted.operation
        evidence["defragmented"] = defragmented.operation
        evidence["bytes"] = status.output.dbSize if status.outcome == "ok" else 0
        await disarm(armed, member_id)
        evidence["written_under_the_quota"] = await _takes_writes(victim, armed)
    if victim.spec is not spec:
        await _restart(victim, spec)
    evidence["disarmed"] = await disarm(armed, member_id)
    written_again = await insist(armed, DeleteRangeRequest(KEY, KEY_END)) and await insist(armed, PutRequest(KEY, b"%d" % armed.id))
    evidence["written"] = 0 if written_again is None else written_again.operation
    return evidence
