"""Between the clients and a member: cut, late, reset.

::

    client ──requests──> proxy ──> member        direction=in    requests do not arrive: nothing happens, and nobody is told
    client <──answers─── proxy <── member        direction=out   requests arrive, answers do not: every write is indefinite

The member goes on doing its part among the others. `within`: a request without an answer may have happened or not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.network.cut import weighted
from pekan.faults.network.equipment import CLIENT, Link, Proxy
from pekan.faults.network.links import BOTH, IN, OUT, LinkFault, directed, hold
from pekan.faults.network.slow import reset_for

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 30, "any": 70}
DIRECTION = Parameter(BOTH, "text", "which bytes: requests to the member (in), its answers (out), or both", (BOTH, IN, OUT))
DIRECTIONS = {OUT: 50, IN: 25, BOTH: 25}
"""Weights. Answers that do not come leave more to decide than requests that do not arrive."""
HOLD_MS = (500, 3_000)
"""Around the requests' default deadline of 2 s; in less, few clients have something to say to one member."""


class _ClientFault(LinkFault):
    frequency: ClassVar[Literal["day"]] = "day"
    members_min: ClassVar[int] = 1

    async def links(self, victim: Member, armed: Armed) -> tuple[Link, ...]:
        return directed(victim.name, (CLIENT,), armed.text("direction"))


class ClientCut(_ClientFault):
    """Nothing arrives."""

    kind: ClassVar[str] = "client-cut"
    does: ClassVar[str] = "cut"
    summary: ClassVar[str] = "requests to a member, its answers, or both do not arrive"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(1_500), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"hold_ms": rng.randint(*HOLD_MS), "direction": weighted(rng, DIRECTIONS)})


class ClientDelay(_ClientFault):
    """Everything late."""

    kind: ClassVar[str] = "client-delay"
    does: ClassVar[str] = "delay"
    summary: ClassVar[str] = "requests to a member, its answers, or both are late"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(3_000),
        "delay_ms": Parameter(200, "ms", "how late everything is"),
        "jitter_ms": Parameter(0, "ms", "and up to so much more, uniformly"),
        "direction": DIRECTION,
    }

    def draw(self, rng: random.Random) -> Drawn:
        settings: dict[str, int | str] = {
            "hold_ms": rng.randint(*HOLD_MS),
            "delay_ms": rng.randint(5, 800),
            "jitter_ms": rng.choice((0, 100, 500)),
            "direction": weighted(rng, DIRECTIONS),
        }
        return Drawn(weighted(rng, TARGETS), settings)

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        return {"delay_ms": armed.number("delay_ms"), "jitter_ms": armed.number("jitter_ms")}


class ClientReset(_ClientFault):
    """Connections reset."""

    kind: ClassVar[str] = "client-reset"
    does: ClassVar[str] = "reset"
    summary: ClassVar[str] = "the clients' connections to a member are reset (TCP RST), once or again and again for a while"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(0),
        "every_ms": Parameter(200, "ms", "from one reset to the next; once where hold_ms is shorter"),
    }

    def draw(self, rng: random.Random) -> Drawn:
        hold_ms = rng.randint(500, 2_000) if rng.random() < 0.3 else 0
        return Drawn(weighted(rng, TARGETS), {"hold_ms": hold_ms, "every_ms": rng.randint(100, 600)})

    async def links(self, victim: Member, armed: Armed) -> tuple[Link, ...]:
        return directed(victim.name, (CLIENT,), BOTH)

    async def keep(self, proxy: Proxy, key: int, armed: Armed, links: tuple[Link, ...], effect: asyncio.Future[dict[str, Any]]) -> None:
        await reset_for(proxy, key, armed, links)
