"""Links between members on which nothing arrives: one, all of a member, those between two groups.

::

    cut                              isolate             partition
    m1 ──x──> m2   one link          m1 x {m2, m3}       majority-minority   {m1 m2} x {m3 m4 m5}      the victim in the minority
    one way or both                  both, in or out     half                {m1 m2} x {m3 m4} x {m5}  nobody has a majority
                                                         ring                m1-m2-m3-m4-m5-m1         each hears two neighbours
                                                         bridge              {m2 m3} x {m4 m5}, m1 hears all

What is on its way is swallowed and the connections on which that happened are reset at the end: half a stream makes no sense to its
reader. Closed connections and new ones travel no more than bytes do. `within`: raft lives with lost messages, and a majority can return.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.errors import UsageError
from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Parameter
from pekan.faults.network.equipment import EVERY, Link, between
from pekan.faults.network.links import DIRECTION, DIRECTIONS, RECOVERY_MS, LinkFault, hold, one_link, peer, some_time

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

QUORUM_LOSS_MS = (300, 1_500)
"""Of partitions that leave nobody with a majority: traffic waits for their end."""
MAJORITY, HALF, RING, BRIDGE = "majority-minority", "half", "ring", "bridge"
SHAPES = {MAJORITY: 55, HALF: 15, RING: 10, BRIDGE: 20}


class _Cut(LinkFault):
    does: ClassVar[str] = "cut"
    frequency: ClassVar[Frequency] = "year"

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS


class Cut(_Cut):
    """One link, one way or both."""

    kind: ClassVar[str] = "cut"
    summary: ClassVar[str] = "nothing arrives on the link between two members, in one direction or both"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(2_000), "peer": peer("any"), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        target, other = one_link(rng)
        return Drawn(target, {"hold_ms": some_time(rng), "peer": other, "direction": weighted(rng, DIRECTIONS)})


class Isolate(_Cut):
    """A member from all others."""

    kind: ClassVar[str] = "isolate"
    summary: ClassVar[str] = "nothing arrives from a member at the others, at it from them, or both"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(2_500), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, {"leader": 60, "follower": 40}), {"hold_ms": some_time(rng), "direction": weighted(rng, DIRECTIONS)})

    async def ends(self, victim: Member, armed: Armed) -> tuple[str, ...]:
        return (EVERY,)


class Partition(_Cut):
    """The cluster in groups that do not hear each other."""

    kind: ClassVar[str] = "partition"
    summary: ClassVar[str] = "the cluster falls into groups that do not hear each other; the victim is in the minority, or is the bridge"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(2_500),
        "shape": Parameter(MAJORITY, "text", "which groups", (MAJORITY, HALF, RING, BRIDGE)),
    }

    def draw(self, rng: random.Random) -> Drawn:
        shape = weighted(rng, SHAPES)
        hold_ms = rng.randint(*QUORUM_LOSS_MS) if shape in (HALF, RING) else some_time(rng)
        return Drawn(weighted(rng, {"leader": 60, "any": 40}), {"hold_ms": hold_ms, "shape": shape})

    async def links(self, victim: Member, armed: Armed) -> tuple[Link, ...]:
        names = [member.name for member in armed.context.cluster.members if member.name != victim.name]
        armed.rng.shuffle(names)
        return cut_by(armed.text("shape"), victim.name, names)


def cut_by(shape: str, victim: str, others: list[str]) -> tuple[Link, ...]:
    """The links that a partition of this shape cuts. `others` are in random order. Raises `UsageError` for an unknown shape."""
    everybody = [victim, *others]
    size = len(everybody)
    if shape == MAJORITY:
        few = (size - 1) // 2
        return between(everybody[:few], everybody[few:])
    if shape == HALF:
        half = size // 2
        groups = (everybody[:half], everybody[half : 2 * half], everybody[2 * half :])
        return (*between(groups[0], (*groups[1], *groups[2])), *between(groups[1], groups[2]))
    if shape == BRIDGE:
        half = len(others) // 2
        return between(others[:half], others[half:])
    if shape == RING:
        places = range(size)
        # Of three each is everybody's neighbour: there the ring has one direction only.
        near = {1} if size <= 3 else {1, size - 1}
        return tuple((everybody[a], everybody[b]) for a in places for b in places if a != b and (b - a) % size not in near)
    raise UsageError(f"shape={shape}: write {MAJORITY}, {HALF}, {RING} or {BRIDGE}")
