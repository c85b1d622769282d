"""Links between members that are slow in one way or another, or end: held, delayed, thin, reset.

::

    hold    ──████████████──>|||||||     nothing for a while, then everything, in order
    delay   ── ─ ─── ── ─ ──>            each byte late by some, and by some more at random, in order
    rate    ──▏──▏──▏──▏──▏──>           so many bytes, or messages, a second, in one line: what is said ages without any silence
    reset   ──────X────X─────>           TCP resets: connections are lost with what was on its way, and dialled again

A link that ages messages without silence is what cuts and pauses cannot make: a leader goes on in office by answers that are seconds old
(#20418). `within`, all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pekan.errors import UsageError
from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Parameter, shielded
from pekan.faults.network.equipment import Link, Proxy
from pekan.faults.network.links import (
    DIRECTION,
    DIRECTIONS,
    ELECTION_MS,
    RECOVERY_MS,
    LinkFault,
    hold,
    late,
    one_link,
    peer,
    shown,
    some_time,
)

TARGETS = {"leader": 45, "follower": 20, "any": 35}
MESSAGES = (3, 40)
"""A second. A leader says 10 heartbeats a second to each follower, and is told 10."""
BYTES = (2_000, 100_000)
"""A second. Heartbeats and their answers are about 1 kB a second."""
MESSAGES_SHARE = 0.5
ONE_LINK_SHARE = 0.5
REACH_MS = 1_500
"""How long a reset is tried again while nobody is connected: clients and members dial again within a second."""


def _drawn(rng: random.Random, settings: Mapping[str, int | str]) -> Drawn:
    """All links of somebody, or one that carries something."""
    direction = weighted(rng, DIRECTIONS)
    if rng.random() < ONE_LINK_SHARE:
        target, other = one_link(rng)
    else:
        target, other = weighted(rng, TARGETS), "all"
    return Drawn(target, {**settings, "peer": other, "direction": direction})


class Hold(LinkFault):
    """Nothing for a while, then everything in order."""

    kind: ClassVar[str] = "hold"
    does: ClassVar[str] = "hold"
    summary: ClassVar[str] = "what members send waits on its link, and arrives late, all at once and in order"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(1_500), "peer": peer("all"), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        return _drawn(rng, {"hold_ms": some_time(rng)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS


class Late(LinkFault):
    """Each byte late, on whatever links."""

    does: ClassVar[str] = "delay"

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        return {"delay_ms": armed.number("delay_ms"), "jitter_ms": armed.number("jitter_ms")}


class Delay(Late):
    """Each byte between members late."""

    kind: ClassVar[str] = "delay"
    summary: ClassVar[str] = "what members send arrives late by a fixed time and a random one, in order"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(5_000),
        **late(100),
        "peer": peer("all"),
        "direction": DIRECTION,
    }

    def draw(self, rng: random.Random) -> Drawn:
        delay_ms = int(rng.choice((rng.uniform(5, 60), rng.uniform(60, 400), rng.uniform(400, 1_500))))
        jitter_ms = rng.choice((0, delay_ms // 2, delay_ms))
        return _drawn(rng, {"hold_ms": rng.randint(1_500, 6_000), "delay_ms": delay_ms, "jitter_ms": jitter_ms})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        late_ms = int(parameters.get("delay_ms", self.parameters["delay_ms"].default)) + int(parameters.get("jitter_ms", 0))
        # Heartbeats keep coming, late: the first silence is what costs an election, and requests take two ways.
        return int(parameters["hold_ms"]) + RECOVERY_MS if late_ms >= ELECTION_MS // 2 else 0


class Rate(LinkFault):
    """So many bytes, or messages, a second."""

    kind: ClassVar[str] = "rate"
    does: ClassVar[str] = "rate"
    summary: ClassVar[str] = "a link takes only so many bytes, or raft messages, a second, first come first served: what is said on it ages"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(5_000),
        "messages": Parameter(0, "count", "raft messages a second; 0: no such limit"),
        "bytes": Parameter(0, "bytes", "bytes a second; 0: no such limit; with neither, 20,000"),
        "peer": peer("all"),
        "direction": DIRECTION,
    }
    BYTES_DEFAULT: ClassVar[int] = 20_000

    def draw(self, rng: random.Random) -> Drawn:
        by_messages = rng.random() < MESSAGES_SHARE
        limit = {"messages": rng.randint(*MESSAGES), "bytes": 0} if by_messages else {"messages": 0, "bytes": rng.randint(*BYTES)}
        return _drawn(rng, {"hold_ms": rng.randint(1_500, 6_000), **limit})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        # Under traffic appends fill the link and heartbeats wait behind them.
        return int(parameters["hold_ms"]) + RECOVERY_MS

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        messages, size = armed.number("messages"), armed.number("bytes")
        if messages < 0 or size < 0:
            raise UsageError("rate: messages and bytes a second are not negative")
        return {"messages_a_second": messages, "bytes_a_second": size or (0 if messages else self.BYTES_DEFAULT)}


class Resetting(LinkFault):
    """Connections reset, once or again and again, on whatever links."""

    does: ClassVar[str] = "reset"
    open_end: ClassVar[bool] = False
    again: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(0),
        "every_ms": Parameter(200, "ms", "from one reset to the next; once where hold_ms is shorter"),
    }

    async def keep(self, proxy: Proxy, key: int, armed: Armed, links: tuple[Link, ...], effect: asyncio.Future[dict[str, Any]]) -> None:
        """Reset them now, and every `every_ms` until `hold_ms` are over; again while nobody is connected."""
        context = armed.context
        began_ms = context.elapsed_ms()
        while True:
            if did := await shielded(proxy.reset(key)):
                armed.fired({"links": shown(links), **did})
            end_ms = min(began_ms + max(armed.number("hold_ms"), 0 if armed.has_fired else REACH_MS), context.heal_ms)
            if context.elapsed_ms() >= end_ms:
                return
            await armed.hold(min(max(1, armed.number("every_ms")), end_ms - context.elapsed_ms()))


class Reset(Resetting):
    """Connections between members reset."""

    kind: ClassVar[str] = "reset"
    summary: ClassVar[str] = "the connections between a member and others are reset (TCP RST), again and again for a while"
    parameters: ClassVar[Mapping[str, Parameter]] = {**Resetting.again, "peer": peer("all")}

    def draw(self, rng: random.Random) -> Drawn:
        again = rng.random() < 0.5
        return Drawn(
            weighted(rng, TARGETS),
            {"hold_ms": rng.randint(500, 3_000) if again else 0, "every_ms": rng.randint(50, 500), "peer": "all"},
        )
