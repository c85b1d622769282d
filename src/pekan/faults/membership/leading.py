"""Leadership moved by request: away from the victim where it leads, to the victim where it does not.

What a graceful restart does at its beginning, without the restart. The old leader stops taking proposals until the other one has caught up
and has called an election (raft's leadership transfer); requests on their way are cut. `within`: nothing is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.errors import ClusterFailure
from pekan.etcd.spec import MemberState
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter
from pekan.wire.messages import pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.spec import MemberStatus

ASK_S = 3.0
"""etcd gives up a transfer after an election timeout or two."""
LOOK_S = 1.0
AGAIN_S = 0.1
TRIES = 10
"""Between two elections there is nobody to ask."""


class MoveLeader(Injector):
    """MoveLeader."""

    kind: ClassVar[str] = "move-leader"
    summary: ClassVar[str] = "leadership is moved away from the member, or to it where it does not lead"
    frequency: ClassVar[Frequency] = "week"
    members_min: ClassVar[int] = 2
    parameters: ClassVar[Mapping[str, Parameter]] = {}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("leader" if rng.random() < 0.5 else "follower", {})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Ask the leader. Evidence of firing is the next leader in a later term, as it says itself."""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(AGAIN_S)
            if armed.context.left_ms() <= 0 or await self._move(victim, armed):
                return

    async def _move(self, victim: Member, armed: Armed) -> bool:
        cluster = armed.context.cluster
        try:
            leader = await cluster.leader(LOOK_S)
        except ClusterFailure:
            return False
        before = await cluster.statuses(LOOK_S)
        others = [member for member in cluster.voters if member.state is MemberState.RUNNING and member is not leader]
        chosen = [member for member in others if member.name in before and (leader is victim or member is victim)]
        if not chosen or leader.name not in before:
            return False
        heir = armed.rng.choice(chosen)
        reply = await armed.context.ask(leader.name, pb.MoveLeaderRequest(targetID=before[heir.name].member_id), ASK_S)
        if reply.outcome != "ok":
            return False
        # etcd answers when the old leader knows of the new one; that one tells the new term once it has applied an entry of it.
        after: MemberStatus | None = None
        for number in range(TRIES):
            if number:
                await asyncio.sleep(AGAIN_S)
            after = (await cluster.statuses(LOOK_S)).get(heir.name)
            if after is not None and after.believes_it_leads and after.raft_term > before[leader.name].raft_term:
                break
        else:
            return False
        armed.fired({"operation": reply.operation, "from": leader.name, "to": heir.name, "term": after.raft_term})
        armed.healed({"leader": heir.name})
        return True
