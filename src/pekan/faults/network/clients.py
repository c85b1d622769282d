"""Between the clients and a member: cut, late, reset.

::

    client ──requests──> proxy ──> member        direction=in    requests do not arrive: nothing happens, and nobody is told
    client <──answers─── proxy <── member        direction=out   requests arrive, answers do not: every write is indefinite

The member goes on doing its part among the others. `within`: a request without an answer may have happened or not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.network.equipment import CLIENT
from pekan.faults.network.links import BOTH, IN, OUT, LinkFault, hold, late
from pekan.faults.network.slow import Late, Resetting

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 30, "any": 70}
DIRECTION = Parameter(BOTH, "text", "which bytes: requests to the member (in), its answers (out), or both", (BOTH, IN, OUT))
DIRECTIONS = {OUT: 50, IN: 25, BOTH: 25}
"""Weights. Answers that do not come leave more to decide than requests that do not arrive."""
HOLD_MS = (500, 3_000)
"""Around the requests' default deadline of 2 s; in less, few clients have something to say to one member."""


class _OfClients(LinkFault):
    """Between clients and the victim, whatever is done to those links."""

    members_min: ClassVar[int] = 1

    async def ends(self, victim: Member, armed: Armed) -> tuple[str, ...]:
        return (CLIENT,)


class ClientCut(_OfClients):
    """Nothing arrives."""

    kind: ClassVar[str] = "client-cut"
    does: ClassVar[str] = "cut"
    summary: ClassVar[str] = "requests to a member, its answers, or both do not arrive"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(1_500), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"hold_ms": rng.randint(*HOLD_MS), "direction": weighted(rng, DIRECTIONS)})


class ClientDelay(_OfClients, Late):
    """Everything late."""

    kind: ClassVar[str] = "client-delay"
    summary: ClassVar[str] = "requests to a member, its answers, or both are late"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(3_000), **late(200), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        settings: dict[str, int | str] = {
            "hold_ms": rng.randint(*HOLD_MS),
            "delay_ms": rng.randint(5, 800),
            "jitter_ms": rng.choice((0, 100, 500)),
            "direction": weighted(rng, DIRECTIONS),
        }
        return Drawn(weighted(rng, TARGETS), settings)


class ClientReset(_OfClients, Resetting):
    """Connections reset."""

    kind: ClassVar[str] = "client-reset"
    summary: ClassVar[str] = "the clients' connections to a member are reset (TCP RST), once or again and again for a while"
    parameters: ClassVar[Mapping[str, Parameter]] = Resetting.again

    def draw(self, rng: random.Random) -> Drawn:
        hold_ms = rng.randint(500, 2_000) if rng.random() < 0.3 else 0
        return Drawn(weighted(rng, TARGETS), {"hold_ms": hold_ms, "every_ms": rng.randint(100, 600)})
