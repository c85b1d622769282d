"""A member removed under load, for a while or for good: its place is taken by a fresh one with another name and an empty directory.

::

    member-remove    removed ── one fewer for hold_ms ── a newcomer joins
    member-replace   remove-first: removed, a newcomer joins at once       add-first: a learner joins, is promoted, then the old one goes

The removed member serves on for about a second until it learns of its removal; its clients stay with it that long, and so meet what a
removed member answers. Its directory and its name are never used again: a member wiped and brought back under its old identity would be
`outside` etcd's promises. `within`: a majority can return.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter
from pekan.faults.membership.changing import JOIN_MS, MEMBERSHIP, changing

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 40, "follower": 25, "any": 35}
"""Weights. A leader that is removed hands over in the middle of what it does."""
HOLD_MS = (0, 3_000)
ADD_FIRST_SHARE = 0.5


class MemberRemove(Injector):
    """MemberRemove, a time with one member fewer, a fresh member."""

    kind: ClassVar[str] = "member-remove"
    summary: ClassVar[str] = "the member is removed and its process ends; after a while a fresh one joins in its place"
    members_min: ClassVar[int] = 2
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(2_000, "ms", "how long the cluster has one member fewer, from the end of the removed one's process"),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({MEMBERSHIP, PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"hold_ms": rng.randint(*HOLD_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        """A cluster of three has to be whole without it: until the newcomer serves, nobody else may be missing."""
        return int(parameters["hold_ms"]) + JOIN_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Remove, hold, settle. Evidence of firing is etcd's answer to MemberRemove."""
        if len(armed.context.cluster.voters) < 2:
            return  # etcd keeps its last member
        async with changing(armed, victim) as steps:
            if await steps.remove(victim):
                await armed.hold(armed.number("hold_ms"))


class MemberReplace(Injector):
    """A member and its data exchanged for a fresh one."""

    kind: ClassVar[str] = "member-replace"
    summary: ClassVar[str] = "the member is exchanged for a fresh one with another name and an empty directory"
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "order": Parameter("remove-first", "text", "which of the two goes first; add-first adds a learner", ("remove-first", "add-first")),
    }
    claims: ClassVar[frozenset[str]] = frozenset({MEMBERSHIP, PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        order = "add-first" if rng.random() < ADD_FIRST_SHARE else "remove-first"
        return Drawn(weighted(rng, TARGETS), {"order": order})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return JOIN_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Remove and add, or add and remove; settle. Evidence of firing is etcd's answer to the first of the two."""
        async with changing(armed, victim) as steps:
            # The only member of a cluster cannot go first.
            if armed.text("order") == "add-first" or len(armed.context.cluster.voters) < 2:
                spec = await steps.add(learner=True)
                if spec is None:
                    return
                member = await steps.start(spec, learner=True)
                if member is None or not await steps.promote(member):
                    return
            await steps.remove(victim)
