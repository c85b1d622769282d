"""Packets of one member's links lost, doubled, overtaken or late.

TCP hides all of it from etcd, at the price of time: a lost packet is sent again after a round trip or, where nothing follows it, after
200 ms and twice that each time (RFC 6298, Linux's minimum). With a few percent lost throughput falls by a third (measured); with 20 %
raft's messages come so late that leaders step down, so that such a victim counts as out of the majority. `within`: nothing is changed
or lost for good, a majority can return.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded
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

    frequency: ClassVar[Frequency] = "day"
    needs: ClassVar[tuple[str, ...]] = (Packets.name,)
    duration: ClassVar[str] = "hold_ms"
    open_end: ClassVar[bool] = True
    shared: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(3_000, "ms", "for how long"),
        "traffic": Parameter("peers", "text", "which of the victim's links", tuple(TRAFFIC)),
        "direction": Parameter("both", "text", "to the victim, from it, or both", tuple(DIRECTION)),
    }
    effects: ClassVar[Mapping[str, str]]
    """What the switch is told, and the parameter that says how much of it."""
    drawn: ClassVar[Mapping[str, tuple[int, ...]]]
    """What a random schedule chooses from for its own parameters."""
    proof: ClassVar[str]
    """The counter of the switch that shows the effect."""

    def draw(self, rng: random.Random) -> Drawn:
        parameters: dict[str, int | str] = {
            "hold_ms": rng.randint(*HOLD_MS),
            "traffic": weighted(rng, TRAFFIC),
            "direction": weighted(rng, DIRECTION),
            **{name: rng.choice(choices) for name, choices in self.drawn.items()},
        }
        return Drawn(weighted(rng, TARGETS), parameters)

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Add the rule, hold, remove it. Evidence of firing is the first packet that the switch counts as changed."""
        packets = armed.equipment(Packets)
        others = [member.name for member in armed.context.cluster.members if member.name != victim.name]
        pairs = _pairs(victim.name, others, armed.text("traffic"), armed.text("direction"))
        effects: dict[str, float] = {effect: armed.number(parameter) for effect, parameter in self.effects.items()}
        rule = packets.number()

        async def heal() -> None:
            counts = await packets.remove(rule)
            if counts[self.proof]:
                armed.fired(counts)
            if armed.has_fired:
                armed.healed(counts)

        try:
            await shielded(packets.add(rule, pairs, effects, f"{armed.context.seed}/{armed.id}"))
            holding = asyncio.ensure_future(armed.stay())
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
    effects: ClassVar[Mapping[str, str]] = {"lose": "percent"}
    drawn: ClassVar[Mapping[str, tuple[int, ...]]] = {"percent": (1, 2, 5, 5, 10, 20, 40)}
    proof: ClassVar[str] = "lost"

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS if int(parameters["percent"]) >= DOWN_PERCENT else 0


class PacketDuplicate(PacketFault):
    """Packets arrive twice."""

    kind: ClassVar[str] = "packet-duplicate"
    summary: ClassVar[str] = "a share of the packets of its links arrives twice"
    parameters: ClassVar[Mapping[str, Parameter]] = {"percent": Parameter(20, "percent", "of the packets"), **PacketFault.shared}
    effects: ClassVar[Mapping[str, str]] = {"double": "percent"}
    drawn: ClassVar[Mapping[str, tuple[int, ...]]] = {"percent": (5, 20, 50, 100)}
    proof: ClassVar[str] = "doubled"


class PacketReorder(PacketFault):
    """Packets are overtaken by later ones."""

    kind: ClassVar[str] = "packet-reorder"
    summary: ClassVar[str] = "a share of the packets of its links is held until later ones have overtaken it"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "percent": Parameter(10, "percent", "of the packets"),
        "by_ms": Parameter(10, "ms", "how much later a held packet arrives"),
        **PacketFault.shared,
    }
    effects: ClassVar[Mapping[str, str]] = {"hold": "percent", "by_ms": "by_ms"}
    drawn: ClassVar[Mapping[str, tuple[int, ...]]] = {"percent": (5, 10, 30), "by_ms": (2, 10, 50)}
    proof: ClassVar[str] = "overtaken"


class PacketDelay(PacketFault):
    """Packets arrive late, in order."""

    kind: ClassVar[str] = "packet-delay"
    summary: ClassVar[str] = "every packet of its links is late, by a delay and up to a jitter, in order"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "delay_ms": Parameter(20, "ms", "each way"),
        "jitter_ms": Parameter(0, "ms", "at most so much more"),
        **PacketFault.shared,
    }
    effects: ClassVar[Mapping[str, str]] = {"delay_ms": "delay_ms", "jitter_ms": "jitter_ms"}
    drawn: ClassVar[Mapping[str, tuple[int, ...]]] = {"delay_ms": (2, 10, 20, 50, 100), "jitter_ms": (0, 0, 5, 30)}
    proof: ClassVar[str] = "delayed"

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        slow = int(parameters["delay_ms"]) + int(parameters["jitter_ms"]) >= DOWN_DELAY_MS
        return int(parameters["hold_ms"]) + RECOVERY_MS if slow else 0
