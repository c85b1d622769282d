"""The membership of a cluster while one fault changes it: the steps, each retried as an operator would, and the way back.

::

    add       MemberAdd ──> process started on an empty directory ──> caught up     (joining ──> voter | learner)
    promote   MemberPromote, again while it is refused for being behind             (learner ──> voter)
    remove    MemberRemove ──> its process ends by itself, or is ended              (voter ──> leaving ──> departed)
    settle    whatever has become of all this: the wanted number of voters again, every newcomer having served

etcd refuses a change as long as members have not been connected for 5 s ("unhealthy cluster", `HealthInterval`) or too few are started; it
says so before anything is proposed, and one asks again. A request without an answer may have been done all the same: then the list of
members tells, read through raft. A newcomer is known by its peer URL, which no other member ever had.

A newcomer that cannot reach the others when it starts ends with a fatal error and exit code 1; a supervisor would start it again, and so
does this. A member that learns of its removal ends by itself with exit code 0 within about a second (`server.go`, `stopWithDelay`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pekan.errors import ClusterFailure, UsageError
from pekan.etcd.spec import MemberPart, MemberState
from pekan.faults.injector import PROCESS, Armed, shielded
from pekan.wire.errors import WireError, is_decided
from pekan.wire.messages import RangeRequest, Request, pb

if TYPE_CHECKING:
    from pekan.etcd.client import Reply
    from pekan.etcd.cluster import Member
    from pekan.etcd.spec import MemberSpec

MEMBERSHIP = "cluster:membership"
"""The claim of whatever changes who belongs to the cluster: etcd takes one change at a time."""
ASK_S = 3.0
"""One request: a change is committed and applied by a majority, an election in between included."""
AGAIN_S = 0.2
"""Between two tries; refusals for want of health last seconds."""
JOIN_S = 20.0
"""How long a newcomer may take until it serves: it fetches the list of members, and the whole store."""
READY_TRY_S = 2.0
LEAVE_S = 8.0
"""How long a removed member may take to end by itself: a second, and what a busy machine adds. One that was cut off never learns of its
removal."""
GRACE_S = 1.0
SETTLE_S = 30.0
"""How long the way back may take: etcd wants 5 s of quiet connections before it takes a member, and other faults may only just have been
healed."""
SETTLE_CANCELLED_S = 20.0
"""The same where the run is being ended: somebody waits for it."""
JOIN_MS = 3_000
"""What a newcomer takes to serve, for the failure budget of a schedule."""
READ_LIMIT = 100
"""Keys that are read of a learner: enough to tell a store from another, small in the record."""


def _joining_in_vain(status: int | None) -> bool:
    """A fatal error while it starts: nobody told it who the members are."""
    return status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1


def _removed(status: int | None) -> bool:
    """A member that has learned of its removal. One that panics on the way, as it is still asked something (#21966, #17223), is told apart:
    REMOVED-MEMBER-CRASH."""
    return status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


class Changing:
    """The steps of one fault. `refused` counts what etcd refused to do, by its words; `evidence` is what is told of them in the end."""

    def __init__(self, armed: Armed) -> None:
        self.armed = armed
        self.context = armed.context
        self.cluster = armed.context.cluster
        self.refused: dict[str, int] = {}
        self.evidence: dict[str, Any] = {}
        self._settling_until: float | None = None

    # ---- asking ----

    def over(self) -> bool:
        """Whether nothing is to be begun any more: the faults' phase has ended, or the time for the way back."""
        if self._settling_until is not None:
            return asyncio.get_running_loop().time() >= self._settling_until
        return self.context.left_ms() <= 0

    async def ask(self, request: Request, avoid: Member | None = None) -> Reply | None:
        """`request` to a voter that runs, another one each time; None where there is none. A refusal is counted."""
        running = [member for member in self.cluster.voters if member.state is MemberState.RUNNING and member is not avoid]
        if not running:
            return None
        reply = await self.context.ask(self.armed.rng.choice(running).name, request, ASK_S)
        if isinstance(reply.output, WireError):
            self.refused[reply.output.message] = self.refused.get(reply.output.message, 0) + 1
        return reply

    async def listed(self) -> list[pb.Member] | None:
        """The members as a linearizable list has them (3.4: as one member has them); None where nobody answered."""
        reply = await self.ask(pb.MemberListRequest(linearizable=True))
        return list(reply.output.members) if reply is not None and reply.outcome == "ok" else None

    async def _insist(self, request: Request, done: Callable[[list[pb.Member]], bool], avoid: Member | None = None) -> Reply | bool:
        """Ask until etcd does it. The answer; True where it was done without one; False where time was over first."""
        while True:
            reply = await self.ask(request, avoid)
            if reply is not None and reply.outcome == "ok":
                return reply
            members = await self.listed()
            if members is not None and done(members):
                return True
            if self.over():
                return False
            await asyncio.sleep(AGAIN_S)

    # ---- steps ----

    async def add(self, *, learner: bool) -> MemberSpec | None:
        """MemberAdd of a newcomer, the evidence of firing; its spec, None where etcd did not do it in time. Nothing is started yet."""
        added = await self._add(learner=learner)
        if added is None:
            return None
        spec, evidence = added
        self.armed.fired(evidence)
        return spec

    async def _add(self, *, learner: bool) -> tuple[MemberSpec, dict[str, Any]] | None:
        spec = await self.cluster.arranged(self.cluster.newcomer())
        request = pb.MemberAddRequest(peerURLs=[spec.peer_url], isLearner=learner)
        answer = await self._insist(request, lambda members: any(spec.peer_url in each.peerURLs for each in members))
        if answer is False:
            return None
        evidence: dict[str, Any] = {"request": "MemberAdd", "member": spec.name, "learner": learner}
        if not isinstance(answer, bool):
            evidence |= {"operation": answer.operation, "member_id": f"{answer.output.member.ID:x}", "members": len(answer.output.members)}
        return spec, evidence

    async def start(self, spec: MemberSpec, *, learner: bool) -> Member | None:
        """Start the newcomer and wait until it serves; None where it did not in time. Until then nobody else touches its process."""
        claim = frozenset({PROCESS})
        self.context.claim(spec.name, claim)
        try:
            member = await self.cluster.join(spec, predicted=_joining_in_vain)
            return member if await self._served(member, learner=learner) else None
        finally:
            self.context.release(spec.name, claim)

    async def _served(self, member: Member, *, learner: bool) -> bool:
        deadline = asyncio.get_running_loop().time() + JOIN_S
        if self._settling_until is not None:
            deadline = min(deadline, self._settling_until)
        while asyncio.get_running_loop().time() < deadline:
            if member.state is MemberState.STOPPED:
                await asyncio.sleep(AGAIN_S)
                await member.start(predicted=_joining_in_vain)
            if not await (self._learns(member) if learner else self._answers(member)):
                await asyncio.sleep(AGAIN_S)
                continue
            member.expect_exit(None)
            self.cluster.take_part(member, MemberPart.LEARNER if learner else MemberPart.VOTER)
            return True
        return False

    @staticmethod
    async def _answers(member: Member) -> bool:
        with contextlib.suppress(ClusterFailure):
            await member.wait_ready(READY_TRY_S)
            return True
        return False

    async def _learns(self, member: Member) -> bool:
        """Whether a learner answers a local read: it refuses every other one, before 3.6 as if it were not there (UNAVAILABLE)."""
        return member.alive and await self.read_once(member) > 0

    async def promote_early(self, spec: MemberSpec) -> str:
        """Ask to promote a learner whose process has not even been started, again while that is not decided: what etcd says."""
        number = await self._known_id(spec)
        if not number:
            return "not asked"
        while True:
            reply = await self.ask(pb.MemberPromoteRequest(ID=number))
            if reply is not None and reply.outcome == "ok":
                return "promoted"
            if reply is not None and is_decided(reply.output):
                return str(reply.output.message)
            if self.over():
                return "not answered"
            await asyncio.sleep(AGAIN_S)

    async def promote(self, member: Member) -> bool:
        """Promote a learner, again while it is behind."""
        number = await self._known_id(member.spec)
        if not number or not await self._insist(pb.MemberPromoteRequest(ID=number), lambda members: _votes(members, number)):
            return False
        self.cluster.take_part(member, MemberPart.VOTER)
        return True

    async def read(self, member: Member) -> int:
        """As `read_once`, again while it is not answered; 0 where time was over first."""
        while not (revision := await self.read_once(member)) and not self.over():
            await asyncio.sleep(AGAIN_S)
        return revision

    async def read_once(self, member: Member) -> int:
        """A local read of a learner, which is all that it answers: what it holds has to have been true. The revision it stands at, or 0."""
        reply = await self.context.ask(member.name, RangeRequest(b"\0", b"\0", limit=READ_LIMIT, serializable=True), ASK_S)
        return int(reply.output.header.revision) if reply.outcome == "ok" else 0

    async def remove(self, member: Member) -> bool:
        """MemberRemove, asked of another member, the evidence of firing; then the end of its process.

        Whoever calls this holds the claim on its process, and starts nobody in its place before it returns.
        """
        return await self._remove(member, self.armed.fired)

    async def _remove(self, member: Member, told: Callable[[dict[str, Any]], None]) -> bool:
        part = member.part
        number = await self._known_id(member.spec)
        if not number:
            return False
        member.expect_exit(_removed)
        self.cluster.take_part(member, MemberPart.LEAVING)
        answer = await self._insist(
            pb.MemberRemoveRequest(ID=number), lambda members: number not in (each.ID for each in members), avoid=member
        )
        if answer is False:
            # It stays a member, unless a request without an answer is done later: then it still ends by itself, and `settle` sees it.
            self.cluster.take_part(member, part)
            return False
        evidence: dict[str, Any] = {"request": "MemberRemove", "member": member.name, "member_id": f"{number:x}"}
        if not isinstance(answer, bool):
            evidence |= {"operation": answer.operation, "members": len(answer.output.members)}
        told(evidence)
        await self._end(member)
        return True

    async def _end(self, member: Member) -> None:
        """A removed member's process ends by itself, or is ended; it is no member any more."""
        try:
            if member.alive:
                await member.wait_exit(LEAVE_S)
        except TimeoutError:
            if member.alive:
                await member.stop(GRACE_S)
        self.cluster.take_part(member, MemberPart.DEPARTED)

    async def _id(self, spec: MemberSpec) -> int:
        """The member id under which that peer URL is listed, 0 where it is not."""
        members = await self.listed() or []
        return next((int(each.ID) for each in members if spec.peer_url in each.peerURLs), 0)

    async def _known_id(self, spec: MemberSpec) -> int:
        """As `_id`, again while nobody answers; 0 where time was over first."""
        while not (number := await self._id(spec)) and not self.over():
            await asyncio.sleep(AGAIN_S)
        return number

    # ---- the way back ----

    async def settle(self, cancelled: bool = False) -> dict[str, Any]:
        """The wanted number of voters again and nobody else on the list, every newcomer having served; what it came to, as evidence.

        Every round looks at the list anew and takes one step. What is not reached within `SETTLE_S` is for the hunt to judge.
        """
        self._settling_until = asyncio.get_running_loop().time() + (SETTLE_CANCELLED_S if cancelled else SETTLE_S)
        settled = False
        while not settled and not self.over():
            with contextlib.suppress(ClusterFailure, UsageError):  # somebody ended on the way: look again
                settled = await self._step()
            if not settled:
                await asyncio.sleep(AGAIN_S)
        return {"settled": settled, "members": [member.name for member in self.cluster.members], "refused": dict(self.refused)}

    async def _step(self) -> bool:
        """One step towards the wanted membership; True where there is nothing left to do."""
        members = await self.listed()
        if members is None:
            return False
        listed = {url: each for each in members for url in each.peerURLs}
        ours = {member.spec.peer_url: member for member in self.cluster.members}
        for url, member in ours.items():
            if url not in listed:  # a removal without an answer has been done
                await self._claimed(member, self._end)
                return False
        for url, each in listed.items():
            if url not in ours:  # an addition without an answer has been done, and nothing was started for it
                await self.ask(pb.MemberRemoveRequest(ID=each.ID))
                return False
        for url, each in listed.items():
            if ours[url].part is MemberPart.JOINING or (each.isLearner and len(members) > self.cluster.spec.members):
                await self._claimed(ours[url], self._drop)
                return False
            if each.isLearner:
                await self.promote(ours[url])
                return False
            self.cluster.take_part(ours[url], MemberPart.VOTER)  # one whose removal was given up
        if len(members) > self.cluster.spec.members:
            await self._claimed(self.cluster.members[-1], self._drop)
            return False
        if len(members) < self.cluster.spec.members:
            added = await self._add(learner=False)
            if added is not None:
                await self.start(added[0], learner=False)
            return False
        return True

    async def _drop(self, member: Member) -> None:
        await self._remove(member, lambda _: None)

    async def _claimed(self, member: Member, step: Callable[[Member], Any]) -> None:
        """Do `step` to a member once no other fault holds its process; this one's own victim is claimed already."""
        claim = frozenset({PROCESS})
        if member.name == self.armed.victim and PROCESS in self.armed.injector.claims:
            await step(member)
        elif self.context.claim(member.name, claim):
            try:
                await step(member)
            finally:
                self.context.release(member.name, claim)


@asynccontextmanager
async def changing(armed: Armed, removed: Member | None = None) -> AsyncIterator[Changing]:
    """Steps inside, the way back on leaving; healed with what that came to, and with how the process of `removed` ended.

    What does not work inside (somebody ends, a request makes no sense any more) is settled as well, and not raised.
    """
    steps = Changing(armed)
    try:
        with contextlib.suppress(ClusterFailure, UsageError):
            yield steps
    finally:
        task = asyncio.current_task()
        settled = await shielded(steps.settle(cancelled=task is not None and task.cancelling() > 0))
        if armed.has_fired:
            if removed is not None and removed.exits and not removed.alive:
                steps.evidence |= {"removed": removed.name, "wait_status": removed.exits[-1].wait_status}
            armed.healed({**steps.evidence, **settled})


def _votes(members: list[pb.Member], number: int) -> bool:
    return number in (each.ID for each in members if not each.isLearner)
