"""Auth turned on for a while under load, users and roles changing meanwhile; or off, where a workload has turned it on.

::

    off: root made ── AuthEnable ── clients are told to log in ── roles granted, a guest let in and thrown out ── AuthDisable
    on:  AuthDisable ── hold ── AuthEnable

Whoever has no token while auth is on is refused, definitely; clients of the traffic are given the administrator's name and log in with
their next request. A login costs a member 60 ms of processor by default, for some thirty clients at once: the equipment makes it cheap. The
workload `auth` is how permissions are tested in depth; this is the moment of switching under everything else. `within`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.etcd.spec import MemberState
from pekan.faults.ability import Ability, able
from pekan.faults.equipment import Equipment
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.maintenance.asking import AGAIN_S, ASK_S, HEAL_S, insist, message_of, repeat
from pekan.wire.messages import PutRequest, RangeRequest, pb

if TYPE_CHECKING:
    from pekan.etcd.client import Client, Reply
    from pekan.etcd.cluster import Member
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec

AUTH = "cluster:auth"
"""The claim of whatever turns auth on or off."""
ROOT = ("root", "root-of-a-fault")
GUEST = "guest-of-a-fault"
KEY, KEY_END = b"fault/auth/", b"fault/auth0"
NO_TOKEN = "etcdserver: user name is empty"
NOT_ENABLED = "etcdserver: authentication is not enabled"
HOLD_MS = (200, 1_500)
COST = "bcrypt-cost"
COST_LEAST = "4"
"""The least that etcd takes."""


class CheapLogins(Equipment):
    """Members hash passwords as cheaply as etcd lets them, unless the plan says how."""

    name: ClassVar[str] = "cheap-logins"

    @classmethod
    def probe(cls) -> Ability:
        return able(cls.name)

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        return tuple(replace(member, options={COST: COST_LEAST, **member.options}) for member in members)

    async def close(self) -> None:
        """Nothing was made."""


class AuthToggle(Injector):
    """AuthEnable and AuthDisable."""

    kind: ClassVar[str] = "auth-toggle"
    summary: ClassVar[str] = "auth is turned on for a while, with users and roles changing; or off, where it is on"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": Parameter(800, "ms", "how long it stays so")}
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({AUTH})
    needs: ClassVar[tuple[str, ...]] = (CheapLogins.name,)

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"hold_ms": rng.randint(*HOLD_MS)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing: a request without a token, refused as auth is on, answered as it is off."""
        nobody = armed.context.open(f"fault-nobody-{armed.id}", victim.name)

        async def once() -> bool:
            asked = await nobody.call(RangeRequest(KEY), ASK_S)
            if message_of(asked) == NO_TOKEN:
                await _off_and_on(victim, armed, nobody)
            elif asked.outcome == "ok":
                await _on_and_off(victim, armed, nobody)
            return armed.has_fired

        await repeat(armed, once)


async def _off_and_on(victim: Member, armed: Armed, nobody: Client) -> None:
    try:
        disabled = await armed.context.ask(victim.name, pb.AuthDisableRequest(), ASK_S)
        asked = await nobody.call(RangeRequest(KEY), ASK_S)
        if asked.outcome == "ok":
            armed.fired({"auth": "off", "operation": disabled.operation, "answered": asked.operation})
            await armed.hold(armed.number("hold_ms"))
    finally:
        enabled = await shielded(insist(armed, pb.AuthEnableRequest(), first=victim.name))
        if armed.has_fired:
            armed.healed({"auth": "on", "operation": 0 if enabled is None else enabled.operation})


async def _on_and_off(victim: Member, armed: Armed, nobody: Client) -> None:
    root = armed.context.open(f"fault-root-{armed.id}", victim.name)
    try:
        for request in (
            pb.AuthRoleAddRequest(name="root"),
            pb.AuthUserAddRequest(name=ROOT[0], password=ROOT[1]),
            pb.AuthUserGrantRoleRequest(user=ROOT[0], role="root"),
        ):
            if not _made(await root.call(request, ASK_S)):
                return
        armed.context.administrator(ROOT)
        enabled = await root.call(pb.AuthEnableRequest(), ASK_S)
        asked = await nobody.call(RangeRequest(KEY), ASK_S)
        if message_of(asked) != NO_TOKEN:
            return
        armed.fired({"auth": "on", "operation": enabled.operation, "refused": asked.operation})
        if await _logged_in(root, ROOT):
            await _change(root, armed, victim)
        await armed.hold(armed.number("hold_ms"))
    finally:
        evidence = await shielded(_heal(armed))
        if armed.has_fired:
            armed.healed(evidence)


async def _change(root: Client, armed: Armed, victim: Member) -> None:
    """A role granted and a guest let in, who writes where he may and where he may not; then both are taken away."""
    for request in (
        pb.AuthRoleAddRequest(name=GUEST),
        pb.AuthRoleGrantPermissionRequest(name=GUEST, perm=pb.Permission(permType=pb.Permission.READWRITE, key=KEY, range_end=KEY_END)),
        pb.AuthUserAddRequest(name=GUEST, password=GUEST),
        pb.AuthUserGrantRoleRequest(user=GUEST, role=GUEST),
    ):
        await root.call(request, ASK_S)
    guest = armed.context.open(f"fault-guest-{armed.id}", victim.name)
    if await _logged_in(guest, (GUEST, GUEST)):
        await guest.call(PutRequest(KEY + b"%d" % armed.id, b"allowed"), ASK_S)
        await guest.call(PutRequest(b"fault/elsewhere", b"denied"), ASK_S)
        await root.call(pb.AuthUserRevokeRoleRequest(name=GUEST, role=GUEST), ASK_S)
        await guest.call(PutRequest(KEY + b"%d" % armed.id, b"denied now"), ASK_S)
    await root.call(pb.AuthUserDeleteRequest(name=GUEST), ASK_S)
    await root.call(pb.AuthRoleDeleteRequest(role=GUEST), ASK_S)


async def _heal(armed: Armed) -> dict[str, Any]:
    """Auth off again, then nobody needs a token."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HEAL_S
    off = None
    while off is None and loop.time() < until:
        running = [member.name for member in armed.context.cluster.voters if member.state is MemberState.RUNNING]
        if running:
            # A client of its own each time: one may have been left without an answer, with a token that its member has forgotten.
            root = armed.context.open(f"fault-root-{armed.id}", armed.rng.choice(running))
            await _logged_in(root, ROOT)
            reply = await root.call(pb.AuthDisableRequest(), ASK_S)
            off = reply if reply.outcome == "ok" or message_of(reply) == NOT_ENABLED else None
            await root.close()
        if off is None:
            await asyncio.sleep(AGAIN_S)
    if off is not None:
        armed.context.administrator(None)
    return {"auth": "on" if off is None else "off", "operation": 0 if off is None else off.operation}


async def _logged_in(client: Client, user: tuple[str, str]) -> bool:
    """Give `client` a token of `user`."""
    reply = await client.call(pb.AuthenticateRequest(name=user[0], password=user[1]), ASK_S)
    if reply.outcome == "ok":
        client.set_token(reply.output.token)
    return reply.outcome == "ok"


def _made(reply: Reply) -> bool:
    """Done, now or by an earlier fault."""
    return reply.outcome == "ok" or "already" in message_of(reply)
