"""A further member, under load: added as a voter or as a learner, caught up, promoted, and gone again at the heal.

A voter counts from the moment its addition is committed, before its process has been started: of four members three have to agree, and one
of them knows nothing yet. That is why operators add learners. `within`: a majority can return, so every promise holds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter
from pekan.faults.membership.changing import JOIN_MS, MEMBERSHIP, changing

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

HOLD_MS = (500, 4_000)
LEARNER_SHARE = 0.5


class MemberAdd(Injector):
    """MemberAdd, a time with one member more, MemberRemove."""

    kind: ClassVar[str] = "member-add"
    summary: ClassVar[str] = "a further member joins, as a voter or as a learner that is promoted; after a while it is removed again"
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(2_000, "ms", "how long the cluster has one voter more, from the moment it serves"),
        "as": Parameter("voter", "text", "what it is added as; a learner is promoted as soon as etcd agrees", ("voter", "learner")),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({MEMBERSHIP})

    def draw(self, rng: random.Random) -> Drawn:
        kind = "learner" if rng.random() < LEARNER_SHARE else "voter"
        return Drawn("any", {"hold_ms": rng.randint(*HOLD_MS), "as": kind})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        """Until the newcomer serves, one voter is missing."""
        return JOIN_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Add, start, promote, hold, settle. Evidence of firing is etcd's answer to MemberAdd: the new member's id."""
        learner = armed.text("as") == "learner"
        async with changing(armed) as steps:
            spec = await steps.add(learner=learner)
            if spec is None:
                return
            member = await steps.start(spec, learner=learner)
            if member is not None and (not learner or await steps.promote(member)):
                steps.evidence["served"] = member.name
                await armed.hold(armed.number("hold_ms"))


class Learner(Injector):
    """A learner for a while, then a voter for a while."""

    kind: ClassVar[str] = "learner"
    summary: ClassVar[str] = "a learner joins, is refused promotion while it is behind, is read from, promoted, and after a while removed"
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "learn_ms": Parameter(1_000, "ms", "how long it stays a learner, from the moment it answers; local reads are sent to it"),
        "hold_ms": Parameter(1_000, "ms", "how long it votes before it is removed"),
    }
    duration: ClassVar[str] = "learn_ms"
    claims: ClassVar[frozenset[str]] = frozenset({MEMBERSHIP})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"learn_ms": rng.randint(*HOLD_MS), "hold_ms": rng.randint(*HOLD_MS)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Add, ask for promotion at once (refused), start, read, promote, hold, settle. Evidence of firing is the answer to MemberAdd."""
        async with changing(armed) as steps:
            spec = await steps.add(learner=True)
            if spec is None:
                return
            steps.evidence["promoted_before_its_start"] = await steps.promote_early(spec)
            member = await steps.start(spec, learner=True)
            if member is None:
                return
            steps.evidence["revision_read"] = [await steps.read(member)]
            await armed.hold(armed.number("learn_ms"))
            steps.evidence["revision_read"].append(await steps.read(member))
            if await steps.promote(member):
                steps.evidence["promoted"] = member.name
                await armed.hold(armed.number("hold_ms"))
