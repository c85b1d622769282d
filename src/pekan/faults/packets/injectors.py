"""Packets of one member's links lost, doubled, overtaken or late.

TCP hides all of it from etcd, at the price of time: a lost packet is sent again after a round trip or, where nothing follows it, after
200 ms and twice that each time (RFC 6298, Linux's minimum). With a few percent lost throughput falls by a third (measured); with 20 %
raft's messages come so late that leaders step down, so that such a victim counts as out of the majority. `within`: nothing is changed
or lost for good, a majority can return.
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pekan.faults.injector import Armed, Drawn, Injector, Parameter, shielded
from pekan.faults.packets.equipment import CLIENTS, Packets

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 40, "follower": 25, "any": 35}
HOLD_MS = (800, 4_000)
TRAFFIC = {"peers": 60, "clients": 15, "all": 25}
DIRECTION = {"both": 60, "outgoing": 20, "incoming": 20}
POLL_S = 0.05
"""Between two looks at the counters: half of etcd's heartbeat."""
RECOVERY_MS = 3_500
"""After many losses TCP waits long before it tries again: 0.7 to 3.3 s until every member answered (measured)."""
DOWN_PERCENT = 15
"""Share of packets lost from which a member counts as out of its majority."""
DOWN_DELAY_MS = 300
"""The same for a delay: heartbeats of 100 ms and an election timeout of 1,000 ms leave a message so much, three messages a round."""


class PacketFault(Injector):
    """What the four have in common: a rule in the switch, for a time."""

    frequency: ClassVar[Literal["day", "week", "year", "century"]] = "day"
    needs: ClassVar[tuple[str, ...]] = (Packets.name,)
    duration: ClassVar[str] = "hold_ms"
    shared: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(3_000, "ms", "for how long"),
        "traffic": Parameter("peers", "text", "which of the victim's links", tuple(TRAFFIC)),
        "direction": Parameter("both", "text", "to the victim, from it, or both", tuple(DIRECTION)),
    }
    proof: ClassVar[str]
    """The counter of the switch that shows the effect."""

    @abstractmethod
    def effects(self, armed: Armed) -> dict[str, float]:
        """The rule's effects."""

    @abstractmethod
    def own(self, rng: random.Random) -> dict[str, int | str]:
        """What a random schedule asks of its own parameters."""

    def draw(self, rng: random.Random) -> Drawn:
        parameters: dict[str, int | str] = {
            "hold_ms": rng.randint(*HOLD_MS),
            "traffic": rng.choices(list(TRAFFIC), list(TRAFFIC.values()))[0],
            "direction": rng.choices(list(DIRECTION), list(DIRECTION.values()))[0],
            **self.own(rng),
        }
        return Drawn(rng.choices(list(TARGETS), list(TARGETS.values()))[0], parameters)

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Add the rule, hold, remove it. Evidence of firing is the first packet that the switch counts as changed."""
        packets = armed.equipment(Packets)
        others = [member.name for member in armed.context.cluster.members if member.name != victim.name]
        pairs = _pairs(victim.name, others, armed.text("traffic"), armed.text("direction"))
        rule = await shielded(packets.add(pairs, self.effects(armed), f"{armed.context.seed}/{armed.id}"))

        async def heal() -> None:
            counts = await packets.remove(rule)
            if counts[self.proof]:
                armed.fired(counts)
            if armed.has_fired:
                armed.healed(counts)

        try:
            holding = asyncio.ensure_future(armed.hold(armed.number("hold_ms")))
            try:
                while not holding.done():
                    counts = await packets.counts(rule)
                    if counts[self.proof]:
                        armed.fired(counts)
                        break
                    await asyncio.wait({holding}, timeout=POLL_S)
                await holding
            finally:
                holding.cancel()
        finally:
            await shielded(heal())


def _pairs(victim: str, others: list[str], traffic: str, direction: str) -> list[tuple[str, str]]:
    """The directed pairs that `traffic` and `direction` mean."""
    ends = [*(others if traffic != "clients" else ()), *((CLIENTS,) if traffic != "peers" else ())]
    outgoing = [(victim, end) for end in ends] if direction != "incoming" else []
    incoming = [(end, victim) for end in ends] if direction != "outgoing" else []
    return [*outgoing, *incoming]


class PacketLoss(PacketFault):
    """Packets vanish."""

    kind: ClassVar[str] = "packet-loss"
    summary: ClassVar[str] = "a share of the packets of its links vanishes"
    parameters: ClassVar[Mapping[str, Parameter]] = {"percent": Parameter(5, "percent", "of the packets"), **PacketFault.shared}
    proof: ClassVar[str] = "lost"

    def effects(self, armed: Armed) -> dict[str, float]:
        return {"lose": armed.number("percent")}

    def own(self, rng: random.Random) -> dict[str, int | str]:
        return {"percent": rng.choice((1, 2, 5, 5, 10, 20, 40))}

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS if int(parameters["percent"]) >= DOWN_PERCENT else 0


class PacketDuplicate(PacketFault):
    """Packets arrive twice."""

    kind: ClassVar[str] = "packet-duplicate"
    summary: ClassVar[str] = "a share of the packets of its links arrives twice"
    parameters: ClassVar[Mapping[str, Parameter]] = {"percent": Parameter(20, "percent", "of the packets"), **PacketFault.shared}
    proof: ClassVar[str] = "doubled"

    def effects(self, armed: Armed) -> dict[str, float]:
        return {"double": armed.number("percent")}

    def own(self, rng: random.Random) -> dict[str, int | str]:
        return {"percent": rng.choice((5, 20, 50, 100))}


class PacketReorder(PacketFault):
    """Packets are overtaken by later ones."""

    kind: ClassVar[str] = "packet-reorder"
    summary: ClassVar[str] = "a share of the packets of its links is held until later ones have overtaken it"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "percent": Parameter(10, "percent", "of the packets"),
        "by_ms": Parameter(10, "ms", "how much later a held packet arrives"),
        **PacketFault.shared,
    }
    proof: ClassVar[str] = "overtaken"

    def effects(self, armed: Armed) -> dict[str, float]:
        return {"hold": armed.number("percent"), "by_ms": armed.number("by_ms")}

    def own(self, rng: random.Random) -> dict[str, int | str]:
        return {"percent": rng.choice((5, 10, 30)), "by_ms": rng.choice((2, 10, 50))}


class PacketDelay(PacketFault):
    """Packets arrive late, in order."""

    kind: ClassVar[str] = "packet-delay"
    summary: ClassVar[str] = "every packet of its links is late, by a delay and up to a jitter, in order"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "delay_ms": Parameter(20, "ms", "each way"),
        "jitter_ms": Parameter(0, "ms", "at most so much more"),
        **PacketFault.shared,
    }
    proof: ClassVar[str] = "delayed"

    def effects(self, armed: Armed) -> dict[str, float]:
        return {"delay_ms": armed.number("delay_ms"), "jitter_ms": armed.number("jitter_ms")}

    def own(self, rng: random.Random) -> dict[str, int | str]:
        return {"delay_ms": rng.choice((2, 10, 20, 50, 100)), "jitter_ms": rng.choice((0, 0, 5, 30))}

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        slow = int(parameters["delay_ms"]) + int(parameters["jitter_ms"]) >= DOWN_DELAY_MS
        return int(parameters["hold_ms"]) + RECOVERY_MS if slow else 0
