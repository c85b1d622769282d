"""What the faults of links have in common: whose links, in which direction, for how long, and what proves that something happened.

::

    victim and peer and direction ──> directed links ──> armed in the proxy ──> first bytes touched: fired ──> its time is over: undone

None of them claims anything: they stack on one link as they do in life. A delayed link can be cut, and a slow one held.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.errors import ClusterFailure, UsageError
from pekan.faults.injector import Armed, Frequency, Injector, Parameter, shielded
from pekan.faults.network.equipment import EVERY, Link, Proxy

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

OUT, IN, BOTH = "out", "in", "both"
DIRECTION = Parameter(BOTH, "text", "which bytes: those that leave the victim, those that come to it, or both", (BOTH, OUT, IN))
LEADER_TIMEOUT_S = 1.0
"""One look for the leader, where a link to it is asked for."""
DIRECTIONS = {BOTH: 50, OUT: 25, IN: 25}
"""Weights. One direction alone is what retried requests and leases of office are about; both is what happens most."""
LEADING, FOLLOWING = ("leader", "any"), ("follower", "leader")
"""Victim and other end of one link."""
LEADING_SHARE = 0.6
SHORT_MS = (200, 900)
LONG_MS = (1_200, 4_000)
"""Below and above etcd's default election timeout of 1,000 ms (which raft randomizes up to twice that)."""
LONG_SHARE = 0.6
ELECTION_MS = 1_000
"""etcd's default election timeout: a member that hears nothing for so long is no part of a majority."""
EFFECTS = ("bytes", "messages", "connections")
"""What the proxy counts of what it did to somebody; a fault of which it has counted any has fired."""
RECOVERY_MS = 800
"""To dial again and to catch up, after a link is whole again (measured: 0.05 to 0.5 s)."""


def peer(default: str) -> Parameter:
    """To whom the link leads."""
    return Parameter(default, "text", "the other end: all, any, leader (another one where the victim leads), or a member's name")


def hold(default: int) -> Parameter:
    """For how long."""
    return Parameter(default, "ms", "how long it stays so")


def late(default: int) -> dict[str, Parameter]:
    """By how much."""
    return {
        "delay_ms": Parameter(default, "ms", "how late everything is"),
        "jitter_ms": Parameter(0, "ms", "and up to so much more, uniformly"),
    }


def some_time(rng: random.Random) -> int:
    """How long nothing arrives, in ms."""
    return rng.randint(*(LONG_MS if rng.random() < LONG_SHARE else SHORT_MS))


def one_link(rng: random.Random) -> tuple[str, str]:
    """Victim and other end. Two followers say little to each other: nearly all that can be lost is lost on a leader's links."""
    return LEADING if rng.random() < LEADING_SHARE else FOLLOWING


def directed(victim: str, others: tuple[str, ...], direction: str) -> tuple[Link, ...]:
    """The links of `victim` with `others`. Raises `UsageError` for an unknown direction."""
    if direction not in (OUT, IN, BOTH):
        raise UsageError(f"direction={direction}: write {BOTH}, {OUT} or {IN}")
    out = tuple((victim, other) for other in others) if direction in (OUT, BOTH) else ()
    back = tuple((other, victim) for other in others) if direction in (IN, BOTH) else ()
    return out + back


async def others(victim: Member, armed: Armed) -> tuple[str, ...]:
    """The members at the other end, as the parameter `peer` asks; empty where there is none."""
    wanted = armed.text("peer")
    if wanted == "all":
        return (EVERY,)
    names = tuple(member.name for member in armed.context.cluster.members if member.name != victim.name)
    if wanted in ("any", "leader"):
        another = (armed.rng.choice(names),) if names else ()
        if wanted == "any":
            return another
        try:
            leader = (await armed.context.cluster.leader(LEADER_TIMEOUT_S)).name
        except ClusterFailure:
            return another  # while they elect, or cannot be asked, anybody may come to lead
        return (leader,) if leader != victim.name else another
    if wanted not in names:
        raise UsageError(f"peer={wanted}: there is no other member of that name; there are {', '.join(names) or 'none'}")
    return (wanted,)


class LinkFault(Injector):
    """A fault that the proxy does to links for a while."""

    does: ClassVar[str]
    """What the proxy calls it."""
    frequency: ClassVar[Frequency] = "day"
    members_min: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("proxy",)
    duration: ClassVar[str] = "hold_ms"
    open_end: ClassVar[bool] = True

    async def ends(self, victim: Member, armed: Armed) -> tuple[str, ...]:
        """Who is at the other end; empty where nobody is."""
        return await others(victim, armed)

    async def links(self, victim: Member, armed: Armed) -> tuple[Link, ...]:
        """Which: in both directions where it has no parameter for that."""
        direction = armed.text("direction") if "direction" in self.parameters else BOTH
        return directed(victim.name, await self.ends(victim, armed), direction)

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        """What the proxy is told besides the links."""
        return {}

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Arm it in the proxy, hold, undo. Evidence of firing are the bytes, messages or connections that it touched first."""
        proxy = armed.equipment(Proxy)
        links = await self.links(victim, armed)
        if not links:
            return
        key = proxy.number()
        try:
            effect = await shielded(proxy.add(key, self.does, links, **self.settings(armed)))
            await self.keep(proxy, key, armed, links, effect)
        finally:
            did = await shielded(proxy.remove(key))
            if any(name in did for name in EFFECTS):  # it may have begun to when nobody listened for it any more
                armed.fired({"links": shown(links), **did})
            if armed.has_fired:
                armed.healed({"links": shown(links), **did})

    async def keep(self, proxy: Proxy, key: int, armed: Armed, links: tuple[Link, ...], effect: asyncio.Future[dict[str, Any]]) -> None:
        """Hold it for its time; it has fired as soon as the proxy says that it did something."""
        over = asyncio.create_task(armed.stay(), name=f"{armed.fault.kind} {armed.victim}")
        try:
            either: set[asyncio.Future[Any]] = {effect, over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if effect.done():
                armed.fired({"links": shown(links), **effect.result()})
                await over
        finally:
            over.cancel()


def shown(links: tuple[Link, ...]) -> list[str]:
    """Links as evidence names them."""
    return [f"{a}>{b}" for a, b in links]
