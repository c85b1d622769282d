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
from typing import TYPE_CHECKING, ClassVar, Literal

from pekan.errors import UsageError
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.network.equipment import EVERY, Link, between
from pekan.faults.network.links import BOTH, DIRECTION, IN, OUT, RECOVERY_MS, LinkFault, directed, hold, peer

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

SHORT_MS = (200, 900)
LONG_MS = (1_200, 4_000)
"""Below and above etcd's default election timeout of 1,000 ms (which raft randomizes up to twice that)."""
LONG_SHARE = 0.6
QUORUM_LOSS_MS = (300, 1_500)
"""Of partitions that leave nobody with a majority: traffic waits for their end."""
DIRECTIONS = {BOTH: 50, OUT: 25, IN: 25}
"""Weights. One direction alone is what retried requests and leases of office are about; both is what happens most."""
LEADING, FOLLOWING = ("leader", "any"), ("follower", "leader")
"""Victim and other end of one link that carries something."""
LEADING_SHARE = 0.6
MAJORITY, HALF, RING, BRIDGE = "majority-minority", "half", "ring", "bridge"
SHAPES = {MAJORITY: 55, HALF: 15, RING: 10, BRIDGE: 20}


def some_time(rng: random.Random) -> int:
    """How long a cut lasts, in ms."""
    return rng.randint(*(LONG_MS if rng.random() < LONG_SHARE else SHORT_MS))


def weighted(rng: random.Random, weights: Mapping[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


class _Cut(LinkFault):
    does: ClassVar[str] = "cut"
    frequency: ClassVar[Literal["year"]] = "year"

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS


class Cut(_Cut):
    """One link, one way or both."""

    kind: ClassVar[str] = "cut"
    summary: ClassVar[str] = "nothing arrives on the link between two members, in one direction or both"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(2_000), "peer": peer("any"), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        # Two followers say little to each other: nearly all that can be lost is lost on a leader's links.
        target, other = LEADING if rng.random() < LEADING_SHARE else FOLLOWING
        return Drawn(target, {"hold_ms": some_time(rng), "peer": other, "direction": weighted(rng, DIRECTIONS)})


class Isolate(_Cut):
    """A member from all others."""

    kind: ClassVar[str] = "isolate"
    summary: ClassVar[str] = "nothing arrives from a member at the others, at it from them, or both"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": hold(2_500), "direction": DIRECTION}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, {"leader": 60, "follower": 40}), {"hold_ms": some_time(rng), "direction": weighted(rng, DIRECTIONS)})

    async def links(self, victim: Member, armed: Armed) -> tuple[Link, ...]:
        return directed(victim.name, (EVERY,), armed.text("direction"))


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
