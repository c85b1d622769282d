"""What a script of a plan is told of the run around it: moments, roles, leadership (`pekan.workloads.traffic.Moments`).

The moments are those that faults wait for: `pekan.faults.triggers` says how each is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from pekan.errors import ClusterFailure
from pekan.etcd.client import Reply
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Recorder
from pekan.faults import Context, until
from pekan.plan import ROLES, Trigger
from pekan.wire.messages import Request, pb

LEADER_S = 10.0
"""How long whoever asks for a role waits for an election to end: several, with default timeouts."""
ASK_S = 3.0
"""etcd gives up a transfer of leadership after an election timeout or two."""
AGAIN_S = 0.05


class RunMoments:
    """Those of one run."""

    def __init__(
        self, context: Context, cluster: Cluster, recorder: Recorder, ask: Callable[[str, Request, float], Awaitable[Reply]]
    ) -> None:
        self.context, self.cluster, self.recorder, self.ask = context, cluster, recorder, ask

    async def until(self, trigger: Trigger, target: str) -> str:
        return await until(trigger, target, self.context)

    def done(self, step: str, lane: str) -> None:
        self.recorder.mark("step", step=step, lane=lane)
        self.context.has_done(step)

    async def who(self, role: str) -> str:
        if role not in ROLES:
            return role
        if role == "any":
            return self.cluster.members[0].name
        try:
            leader = await self.cluster.leader(LEADER_S)
        except ClusterFailure:
            return self.cluster.members[0].name  # asked all the same: what comes of it is recorded
        return leader.name if role == "leader" else next(member.name for member in self.cluster.members if member is not leader)

    async def lead(self, member: str) -> None:
        while True:
            with contextlib.suppress(ClusterFailure):
                leader = await self.cluster.leader(LEADER_S)
                if leader.name == member:
                    return
                heir = (await self.cluster.statuses()).get(member)
                if heir is not None:
                    await self.ask(leader.name, pb.MoveLeaderRequest(targetID=heir.member_id), ASK_S)
            await asyncio.sleep(AGAIN_S)

    async def ready(self, member: str) -> None:
        while True:
            with contextlib.suppress(ClusterFailure):
                await self.cluster.member(member).wait_ready(LEADER_S)
                return
            await asyncio.sleep(AGAIN_S)  # its process has ended once more, and is started again

    def ended(self, stopped: dict[str, str]) -> None:
        self.recorder.mark("script", done=not stopped, stopped=stopped)
