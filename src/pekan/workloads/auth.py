"""Users, roles and permissions, changed while requests that they allow and deny come through every member.

::

    user      roles                    may                                   clients
    root      root                     everything                            auth-root, watchers, administrators
    alice     own-0, shared*           readwrite auth/0/                     auth-0, auth-4, ...
    bob       own-1, shared*           readwrite auth/1/                     auth-1, ...
    carol     reader, shared*          read auth/0/ and auth/1/              auth-2, ...
    dave      writer, shared*          write auth/0/k0 to auth/0/k5          auth-3, ...
    nobody    -                        -                                     a client without a token
    alice     (in the last tenth: writes beside reads that nobody may do)    late-denied-<member>
    each      (watches a key, a range, everything from a key on)             auth-watch-<user>
    guest-n   (added, changed and deleted again by auth-root)

    shared*   readwrite on auth/s/ and, some of the time, on auth/x/: granted, revoked, widened and narrowed by auth-root all the time

Every client knows what it sends and never what it should get: whether a request is allowed at its place in the order of all changes is for
a checker to say. Root alone changes anything, one request at a time, through one member after the other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pekan.errors import ClusterFailure
from pekan.wire.errors import is_decided
from pekan.wire.messages import (
    EQUAL,
    MOD,
    VALUE,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    pb,
)
from pekan.workloads.keys import SEEN, Horizon, Memory, prefix_end, recent, resolve
from pekan.workloads.traffic import Caller, Choice, Credentials, Traffic, draws, unique_value, weighted
from pekan.workloads.watching import session

NAME = "auth"
WEIGHTS = {
    "put": 34,
    "get": 16,
    "get-local": 4,
    "get-at-revision": 3,
    "list": 8,
    "delete": 6,
    "delete-range": 2,
    "txn": 10,
    "txn-nested": 5,
    "txn-read": 5,
    "compare-and-set": 6,
    "lease-grant": 1,
    "renew": 2,
}
CHANGES = {
    "grant-role": 20,
    "revoke-role": 14,
    "widen": 22,
    "narrow": 16,
    "guest-add": 6,
    "guest-delete": 5,
    "guest-password": 3,
    "guest-login": 5,
    "look": 6,
    "refused": 3,
}
"""What root does. Adding users, passwords and logins cost a member some 100 ms of processor each (bcrypt, by etcd's default cost)."""
DENIED = "denied-read"
WATCHED = "user-watch"
KINDS = (*WEIGHTS, *CHANGES, DENIED, WATCHED)
CHANGE_REST_S = (0.05, 0.5)
ROOT = Credentials("root", "root-password")
USERS = tuple(Credentials(name, f"{name}-password") for name in ("alice", "bob", "carol", "dave"))
OWN_SHARE = 0.55
"""Of keys: those of a user's own range; the others are as likely denied as allowed, which is the point."""
AREAS = (b"auth/0/", b"auth/1/", b"auth/s/", b"auth/x/")
KEYS = 8
FORBIDDEN = b"auth/m/"
"""Never granted to anybody: below the range from auth/x/k5 on, beside all others."""
DENIED_FROM = 0.9
DENIED_REST_S = (0.3, 1.2)
"""When and how often transactions with a denied read are sent: as those with a refused revision, and for the same reason."""
WATCH_MS = (300, 2_500)
"""How long a user's watch is kept: some changes of roles pass meanwhile."""
SHARED = "shared"
ROLES: dict[str, tuple[tuple[int, bytes, bytes], ...]] = {
    "own-0": ((pb.Permission.READWRITE, b"auth/0/", b"auth/00"),),
    "own-1": ((pb.Permission.READWRITE, b"auth/1/", b"auth/10"),),
    "reader": ((pb.Permission.READ, b"auth/0/", b"auth/00"), (pb.Permission.READ, b"auth/1/", b"auth/10")),
    "writer": ((pb.Permission.WRITE, b"auth/0/k0", b"auth/0/k5"),),
    SHARED: ((pb.Permission.READWRITE, b"auth/s/", b"auth/s0"),),
}
"""Role -> (permission type, key, range_end)."""
ASSIGNED = {"alice": "own-0", "bob": "own-1", "carol": "reader", "dave": "writer"}
AREA_OF = {"alice": b"auth/0/", "bob": b"auth/1/", "carol": b"auth/0/", "dave": b"auth/0/"}
WIDER: tuple[tuple[bytes, bytes], ...] = (
    (b"auth/x/", b"auth/x0"),
    (b"auth/x/k0", b""),
    (b"auth/x/k3", b"auth/x/k7"),
    (b"auth/x/k5", b"\0"),
    (b"auth/1/k2", b"auth/1/k4"),
)
"""Ranges that the shared role gets and loses: a prefix, a single key, a part, from a key on, a part of somebody's own."""
TYPES = (pb.Permission.READ, pb.Permission.WRITE, pb.Permission.READWRITE)
GUESTS = 3
NOBODY_REST_S = 0.1
"""A client without a token is told so at once: unhurried, it would make a good part of the traffic."""
PREPARE_S = 30.0
"""How long a member may take for one request of the preparation: an election, a stalled disk, a connection that has to be dialled again."""
DISABLE_TRIES_PAUSE_S = 0.2


def choose(seed: int, client: str, n: int, user: str) -> Choice:
    """The n-th choice of a client that speaks as `user`, "" for nobody."""
    rng = draws(seed, client, n)
    kind = weighted(rng, WEIGHTS)

    def key() -> bytes:
        area = AREA_OF.get(user, AREAS[0]) if rng.random() < OWN_SHARE else rng.choice(AREAS)
        return area + b"k%d" % rng.randrange(KEYS)

    def span() -> tuple[bytes, bytes]:
        area = AREA_OF.get(user, AREAS[0]) if rng.random() < OWN_SHARE else rng.choice((*AREAS, b"auth/"))
        if rng.random() < 0.5:
            return area, prefix_end(area)
        low, high = sorted(rng.sample(range(KEYS), 2))
        return area + b"k%d" % low, area + b"k%d" % high

    one, two = key(), key()
    value = unique_value(seed, client, n)
    template: Any
    match kind:
        case "put":
            template = PutRequest(one, value, prev_kv=rng.random() < 0.25)
        case "get":
            template = RangeRequest(one)
        case "get-local":
            template = RangeRequest(one, serializable=True)
        case "get-at-revision":
            template = RangeRequest(one, revision=recent(rng))
        case "list":
            template = RangeRequest(*span(), limit=rng.choice((0, 2, 5)), count_only=rng.random() < 0.2)
        case "delete":
            template = DeleteRangeRequest(one, prev_kv=rng.random() < 0.4)
        case "delete-range":
            template = DeleteRangeRequest(*span(), prev_kv=rng.random() < 0.4)
        case "compare-and-set":
            template = TxnRequest((Compare(EQUAL, MOD, one, SEEN),), (PutRequest(one, value),), (_reading(one),))
        case "txn" | "txn-nested":
            # A guard on a key that may not be read, writes of which one may be denied, and another branch with other permissions.
            guards = (Compare(EQUAL, VALUE, key(), b""),) if rng.random() < 0.4 else ()
            writes: tuple[RequestOp, ...] = (PutRequest(one, value),)
            if two != one:
                second = PutRequest(two, unique_value(seed, client, n, 1))
                # A transaction inside may do no more than its user may (3.5.1 never looks into it).
                writes += (TxnRequest(guards, (second,), (RangeRequest(key()),)),) if kind == "txn-nested" else (second,)
            failure = (_reading(key()),) if rng.random() < 0.7 else ()
            if rng.random() < 0.25:
                # What was there before takes a permission to read, also in a transaction (CVE-2026-44283).
                writes = (PutRequest(one, value, prev_kv=True), *writes[1:])
            template = TxnRequest(guards, writes, failure)
        case "txn-read":
            template = TxnRequest(
                (Compare(EQUAL, VALUE, two, b""),) if rng.random() < 0.4 else (),
                tuple(RangeRequest(key(), serializable=rng.random() < 0.2) for _ in range(rng.randint(1, 3))),
                (RangeRequest(key()),),
            )
        case "lease-grant":
            template = LeaseGrantRequest(rng.randint(2, 10), 1 + rng.getrandbits(61))
        case _:
            template = None
    return Choice(kind, getattr(template, "key", one), value, template)


def _reading(key: bytes) -> TxnRequest:
    """A read beside a write, one level down.

    Members that nobody waits at leave the reads of a writing transaction out before they look at its permissions, so that a read that is
    denied makes one member refuse what the others apply (found by this workload; as #18667 mended in 3.7.0). Only the first level is left
    out; that level is `choose_denied`'s, late in a run.
    """
    return TxnRequest((), (RangeRequest(key),))


def choose_denied(seed: int, client: str, n: int) -> Choice:
    """The n-th transaction of alice that writes what she may and reads what nobody may."""
    rng = draws(seed, client, n)
    put = PutRequest(b"auth/0/k%d" % rng.randrange(KEYS), unique_value(seed, client, n))
    read = RangeRequest(FORBIDDEN + b"k%d" % rng.randrange(KEYS))
    success, failure = ((read, put), ()) if rng.random() < 0.5 else ((put,), (read,))
    return Choice(DENIED, put.key, put.value, TxnRequest((), success, failure))


def choose_watch(seed: int, client: str, n: int, user: str) -> Choice:
    """The n-th watch of a user: as often as not of what they may read, and more than once in three from a key on (CVE-2026-73499)."""
    rng = draws(seed, client, n)
    area = AREA_OF.get(user, AREAS[0]) if rng.random() < OWN_SHARE else rng.choice(AREAS)
    key = area + b"k%d" % rng.randrange(KEYS)
    request = rng.choice((WatchCreateRequest(key), WatchCreateRequest(area, prefix_end(area)), WatchCreateRequest(key, b"\0")))
    options = (("at-once", False), ("bookmark", False), ("cancel", False), ("lifetime-ms", rng.randint(*WATCH_MS)), ("progress-ms", 0))
    return Choice(WATCHED, request.key, template=(request._replace(prev_kv=rng.random() < 0.5),), options=options)


def choose_change(seed: int, client: str, n: int) -> Choice:
    """The n-th thing that root does."""
    rng = draws(seed, client, n)
    kind = weighted(rng, CHANGES)
    user = rng.choice(USERS).name
    guest = f"guest-{rng.randrange(GUESTS)}"
    wider = rng.choice(WIDER)
    template: Any
    match kind:
        case "grant-role":
            template = pb.AuthUserGrantRoleRequest(user=user, role=SHARED)
        case "revoke-role":
            template = pb.AuthUserRevokeRoleRequest(name=user, role=SHARED)
        case "widen":
            permission = pb.Permission(permType=rng.choice(TYPES), key=wider[0], range_end=wider[1])
            template = pb.AuthRoleGrantPermissionRequest(name=SHARED, perm=permission)
        case "narrow":
            template = pb.AuthRoleRevokePermissionRequest(role=SHARED, key=wider[0], range_end=wider[1])
        case "guest-add":
            template = pb.AuthUserAddRequest(name=guest, password=f"{guest}-password")
        case "guest-delete":
            template = pb.AuthUserDeleteRequest(name=guest)
        case "guest-password":
            template = pb.AuthUserChangePasswordRequest(name=guest, password=f"{guest}-{n}")
        case "guest-login":
            template = pb.AuthenticateRequest(name=guest, password=f"{guest}-password")
        case "look":
            template = rng.choice(
                (
                    pb.AuthStatusRequest(),
                    pb.AuthUserGetRequest(name=user),
                    pb.AuthUserListRequest(),
                    pb.AuthRoleGetRequest(role=SHARED),
                    pb.AuthRoleListRequest(),
                )
            )
        case _:
            template = rng.choice(
                (
                    pb.AuthRoleAddRequest(name=SHARED),
                    pb.AuthUserGrantRoleRequest(user=user, role="no-such-role"),
                    pb.AuthUserDeleteRequest(name="no-such-user"),
                    pb.AuthUserAddRequest(name=user, password="again"),
                )
            )
    return Choice(kind, template=template)


class Auth:
    """The workload `auth`."""

    name = NAME

    async def prepare(self, traffic: Traffic) -> None:
        """Make users and roles, and turn auth on. Raises `ClusterFailure` where etcd refuses one of them."""
        caller = traffic.caller("auth-prepare", traffic.members[0])
        for request in preparation():
            await _insist(caller, request)
        traffic.administrator = ROOT

    async def run(self, traffic: Traffic) -> None:
        """Users' clients, one client without a token, and root, until the traffic ends."""
        async with asyncio.TaskGroup() as group:
            for index in range(traffic.clients()):
                user = USERS[index % len(USERS)]
                # Shifted once a round of users, so that each user comes through every member in time.
                member = traffic.members[(index + index // len(USERS)) % len(traffic.members)]
                group.create_task(_user(traffic, f"auth-{index}", member, user), name=f"auth-{index}")
            group.create_task(_user(traffic, "auth-nobody", traffic.members[-1], None), name="auth-nobody")
            group.create_task(_root(traffic), name="auth-root")
            for member in traffic.members:
                group.create_task(_denied(traffic, member), name=f"late-denied-{member}")
            for index, user in enumerate(USERS):
                member = traffic.members[index % len(traffic.members)]
                group.create_task(_watches(traffic, f"auth-watch-{user.name}", member, user), name=f"auth-watch-{user.name}")

    async def finish(self, traffic: Traffic) -> None:
        """Turn auth off again, through whichever member does it: who compares members afterwards needs no token."""
        callers = [traffic.caller(f"auth-finish-{member}", member, administrator=True) for member in traffic.members]
        while traffic.administrator is not None:
            for caller in callers:
                reply = await caller.call(pb.AuthDisableRequest())
                # "Not enabled" is as good: an earlier try without an answer did it.
                if reply.outcome == "ok" or getattr(reply.output, "message", "") == "etcdserver: authentication is not enabled":
                    traffic.administrator = None
                    return
            await asyncio.sleep(DISABLE_TRIES_PAUSE_S)


def preparation() -> list[Any]:
    """The requests that make the store of the table above, in order; the last one turns auth on."""
    requests: list[Any] = [pb.AuthRoleAddRequest(name="root"), pb.AuthUserAddRequest(name=ROOT.name, password=ROOT.password)]
    requests.append(pb.AuthUserGrantRoleRequest(user=ROOT.name, role="root"))
    for role, permissions in ROLES.items():
        requests.append(pb.AuthRoleAddRequest(name=role))
        for kind, key, end in permissions:
            permission = pb.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
            requests.append(pb.AuthRoleGrantPermissionRequest(name=role, perm=permission))
    for user in USERS:
        requests.append(pb.AuthUserAddRequest(name=user.name, password=user.password))
        requests.append(pb.AuthUserGrantRoleRequest(user=user.name, role=ASSIGNED[user.name]))
    requests.append(pb.AuthEnableRequest())
    return requests


async def _insist(caller: Caller, request: Any) -> None:
    """Send a request of the preparation until etcd has done it. Before the faults an answer fails to come only by accident."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PREPARE_S
    while True:
        reply = await caller.call(request)
        # "already exists" after a try without an answer: that try did it.
        if reply.outcome == "ok" or "already" in getattr(reply.output, "message", ""):
            return
        if is_decided(reply.output) or loop.time() > end:
            raise ClusterFailure(f"workload auth: member {caller.member} did not do {type(request).__name__}: {reply.output}")


async def _user(traffic: Traffic, name: str, member: str, user: Credentials | None) -> None:
    caller = traffic.caller(name, member, user)
    memory = Memory()
    n = 0
    if await traffic.idle(NAME, WEIGHTS):
        return
    while await traffic.turn():
        choice = choose(traffic.plan.seed, name, n, user.name if user else "")
        n += 1
        if await traffic.skips(NAME, choice.kind):
            continue
        traffic.counts[f"auth:{choice.kind}"] += 1
        if choice.kind == "renew":
            caller.forget_token()
            await caller.authorize()
            continue
        request = resolve(choice.template, Horizon(traffic.revision, traffic.compacted), memory.seen)
        reply = await caller.call(request)
        memory.note_reply(request, reply)
        if user is None:
            await traffic.rest(NOBODY_REST_S)


async def _denied(traffic: Traffic, member: str) -> None:
    name = f"late-denied-{member}"
    if await traffic.idle(NAME, (DENIED,)) or not await traffic.until(DENIED_FROM):
        return
    caller = traffic.caller(name, member, USERS[0])
    n = 0
    while await traffic.turn():
        await caller.call(choose_denied(traffic.plan.seed, name, n).template)
        traffic.counts["late:denied-read"] += 1
        await traffic.rest(draws(traffic.plan.seed, name + "/rest", n).uniform(*DENIED_REST_S))
        n += 1


async def _watches(traffic: Traffic, name: str, member: str, user: Credentials) -> None:
    if await traffic.idle(NAME, (WATCHED,)):
        return
    caller = traffic.caller(name, member, user)
    n = 0
    while await traffic.turn():
        # Whether it is still known or not: a token renewed says what the member knows of users and roles.
        caller.forget_token()
        traffic.counts[f"auth:{WATCHED}"] += 1
        await session(traffic, caller, choose_watch(traffic.plan.seed, name, n, user.name))
        n += 1


async def _root(traffic: Traffic) -> None:
    callers = [traffic.caller(f"auth-root-{member}", member, administrator=True) for member in traffic.members]
    n = 0
    while await traffic.turn():
        choice = choose_change(traffic.plan.seed, "auth-root", n)
        if traffic.sends(NAME, choice.kind):
            traffic.counts[f"auth-root:{choice.kind}"] += 1
            await callers[n % len(callers)].call(choice.template)
        await traffic.rest(draws(traffic.plan.seed, "auth-root/rest", n).uniform(*CHANGE_REST_S))
        n += 1
