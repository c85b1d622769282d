"""Every request of the key-value and lease API against a small pool of hot keys.

::

    kv-0 kv-1 ...          main traffic: WEIGHTS below, one choice after the other, pinned to a member each
    lease-<member>         keeps some of their leases alive on one stream, for a while

The pool is small so that clients meet; values are unique, so that every write can be told apart. Keys that grow in number give lists
something to page through, and range deletes something to take away.

A client's choices come in eras of ERA choices. Each era begins with three grants: a lease that nobody keeps and that expires, one that is
kept alive for a while, and one that is revoked near the era's end; puts and compares of the era use them. Lease ids are chosen by the
client from (seed, client, era, slot), so that a choice can name a lease before any reply is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING, Any

from pekan.wire.messages import (
    CREATE,
    EQUAL,
    GREATER,
    LEASE,
    LEASE_KEEP_ALIVE,
    LESS,
    MOD,
    NOT_EQUAL,
    VALUE,
    VERSION,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    pb,
)
from pekan.workloads.keys import (
    AT_COMPACTION,
    EVERYTHING,
    FAR,
    OBSERVED,
    SEEN,
    SEEN_WRONG,
    Horizon,
    Memory,
    ahead,
    below,
    old,
    pool,
    prefix_end,
    recent,
    resolve,
)
from pekan.workloads.traffic import Caller, Choice, Traffic, draws, unique_value, weighted

if TYPE_CHECKING:
    from pekan.etcd.client import Reply

WEIGHTS = {
    # reads
    "get": 10,
    "get-local": 4,
    "get-at-revision": 6,
    "list": 6,
    "list-options": 6,
    "list-pages": 2,
    # writes
    "put": 22,
    "put-options": 5,
    "put-lease": 4,
    "grow": 4,
    "delete": 5,
    "delete-range": 2,
    "compare-and-set": 7,
    # transactions
    "txn": 9,
    "txn-nested": 3,
    "txn-read": 4,
    "txn-local": 2,
    "txn-refused": 1,
    # leases
    "lease-query": 1,
    "lease-unknown": 1,
}
"""How often each kind of choice is made; grants and revocations come by position in the era."""
KINDS = (*WEIGHTS, "lease-grant", "lease-revoke")
PREFIX = b"kv/"
HOT = pool(b"kv/h", 16)
"""Few enough that eight clients meet on a key several times a second, enough for transactions over five distinct ones."""
GROWING = b"kv/g/"
ERA = 128
"""Choices between two sets of leases: about one second at a hundred choices a second, so that a lease of 1 to 3 s is met alive and gone."""
GRANTS = 3
EXPIRING, KEPT, REVOKED = range(GRANTS)
"""Slots of an era's leases."""
REVOKE_AT = ERA - 16
TTL_SHORT_S = (1, 3)
TTL_KEPT_S = (2, 4)
TTL_REVOKED_S = 30
"""Far beyond the era: it ends by its revocation."""
REVISION_HOLES = {"old": 60, "compaction": 10, "below": 10, "ahead-far": 8, "ahead-near": 12}
BIG_VALUE_SHARE = 0.08
BIG_VALUE_BYTES = (200, 1_000)
"""Values that make watchers and lists move bytes; larger ones would make the record, not etcd, the bottleneck."""
PAGES_MAX = 4
"""Pages read of one list; the rest of the store is not more interesting."""
GROWN_KEYS = 40
"""Growing keys of one client: put round about, deleted by range."""
KEEP_ROUNDS = (1, 6)
"""How often a kept lease is renewed before it is left to expire."""
KEPT_LEASES_MAX = 32
"""Leases one keeper renews at a time; newer ones beyond it expire like the others."""
COMPARES = {EQUAL: 55, GREATER: 15, LESS: 15, NOT_EQUAL: 15}
TARGETS = {VERSION: 20, CREATE: 20, MOD: 30, VALUE: 20, LEASE: 10}


# ---- choices: pure functions of seed, client and n ----


def lease_id(seed: int, client: str, era: int, slot: int) -> int:
    """The id of a lease that `client` grants in its `era`: positive, 62 bits, so that two clients never meet on one."""
    digest = hashlib.sha256(f"pekan/lease/{seed}/{client}/{era}/{slot}".encode()).digest()
    return 1 + int.from_bytes(digest[:8], "big") % (1 << 62)


def choose(seed: int, client: str, n: int) -> Choice:
    """The n-th choice of a client of the main traffic."""
    rng = draws(seed, client, n)
    era, position = divmod(n, ERA)
    if position < GRANTS:
        return _grant(rng, seed, client, era, position)
    if position == REVOKE_AT:
        return Choice("lease-revoke", template=LeaseRevokeRequest(lease_id(seed, client, era, REVOKED)))
    draw = _Draw(rng, seed, client, n)
    return draw.choice(weighted(rng, WEIGHTS))


def _grant(rng: random.Random, seed: int, client: str, era: int, slot: int) -> Choice:
    ttl = {EXPIRING: rng.randint(*TTL_SHORT_S), KEPT: rng.randint(*TTL_KEPT_S), REVOKED: TTL_REVOKED_S}[slot]
    rounds = rng.randint(*KEEP_ROUNDS) if slot == KEPT else 0
    return Choice("lease-grant", template=LeaseGrantRequest(ttl, lease_id(seed, client, era, slot)), options=(("keep-rounds", rounds),))


class _Draw:
    """One choice being drawn: the generator, and how many values it has handed out."""

    def __init__(self, rng: random.Random, seed: int, client: str, n: int) -> None:
        self.rng = rng
        self.seed = seed
        self.client = client
        self.n = n
        self.parts = 0

    def choice(self, kind: str) -> Choice:
        template: Any = getattr(self, "_" + kind.replace("-", "_"))()
        key = getattr(template, "key", b"")
        value = getattr(template, "value", b"")
        options = (("pages", PAGES_MAX),) if kind == "list-pages" else ()
        return Choice(kind, key, value, template, options)

    # -- parts --

    def value(self) -> bytes:
        """A value that nobody else writes, now and then a big one."""
        size = self.rng.randint(*BIG_VALUE_BYTES) if self.rng.random() < BIG_VALUE_SHARE else 0
        self.parts += 1
        return unique_value(self.seed, self.client, self.n, self.parts - 1, size)

    def hot(self) -> bytes:
        return self.rng.choice(HOT)

    def lease(self, slot: int | None = None) -> int:
        """A lease of this era."""
        return lease_id(self.seed, self.client, self.n // ERA, self.rng.randrange(GRANTS) if slot is None else slot)

    def span(self) -> tuple[bytes, bytes]:
        """key and range_end: a prefix, some hot keys, from a key on, everything, nothing."""
        rng = self.rng
        kind = weighted(rng, {"hot": 40, "some": 25, "grown": 12, "prefix": 10, "from": 6, "everything": 5, "reversed": 2})
        low, high = sorted(rng.sample(range(len(HOT)), 2))
        match kind:
            case "hot":
                return b"kv/h", prefix_end(b"kv/h")
            case "some":
                return HOT[low], HOT[high]
            case "grown":
                return GROWING, prefix_end(GROWING)
            case "prefix":
                return PREFIX, prefix_end(PREFIX)
            case "from":
                return HOT[high], b"\0"
            case "everything":
                return EVERYTHING
        return HOT[high], HOT[low]

    def revision(self) -> int:
        """A hole for a revision: old, compacted, future, or on an edge."""
        match weighted(self.rng, REVISION_HOLES):
            case "old":
                return recent(self.rng)
            case "compaction":
                return AT_COMPACTION
            case "below":
                return below(self.rng.randint(1, 50))
            case "ahead-far":
                return ahead(FAR)
        return ahead(self.rng.randint(1, 5))

    def limit(self) -> int:
        return self.rng.choice((1, 2, 3, 5, 10))

    def compare(self) -> Compare:
        """One guard: any target, any result, of a key or a range, with what was seen, or something else."""
        rng = self.rng
        target, result, key = weighted(rng, TARGETS), weighted(rng, COMPARES), self.hot()
        end = b""
        if rng.random() < 0.12:
            key, end = self.span()
        likely = rng.random()
        operand: int | bytes
        if target == VALUE:
            operand = OBSERVED if likely < 0.7 else unique_value(self.seed, self.client, max(0, self.n - 1))
        elif target == LEASE:
            operand = SEEN if likely < 0.4 else (0 if likely < 0.7 else self.lease())
        else:
            operand = SEEN if likely < 0.6 else (SEEN_WRONG if likely < 0.75 else rng.choice((0, 1, 2, 3)))
        return Compare(result, target, key, operand, end)

    def compares(self, most: int) -> tuple[Compare, ...]:
        return tuple(self.compare() for _ in range(self.rng.randint(0, most)))

    def range(self, *, revision: int = 0, serializable: bool = False) -> RangeRequest:
        """A Range inside a transaction."""
        rng = self.rng
        if rng.random() < 0.6:
            return RangeRequest(self.hot(), revision=revision, serializable=serializable)
        key, end = self.span()
        return RangeRequest(
            key,
            end,
            limit=self.limit(),
            revision=revision,
            serializable=serializable,
            keys_only=rng.random() < 0.3,
            count_only=rng.random() < 0.2,
        )

    def branch(self, keys: list[bytes], most: int, *, nested: bool = False) -> tuple[RequestOp, ...]:
        """Operations of one branch. Keys written are taken out of `keys`: etcd refuses a key that is written twice."""
        ops: list[RequestOp] = []
        for _ in range(self.rng.randint(0, most)):
            kind = weighted(self.rng, {"put": 45, "range": 35, "delete": 20, "nested": 30 if nested else 0})
            if kind == "range" or not keys:
                ops.append(self.range())
            elif kind == "put":
                ops.append(self.put(keys.pop()))
            elif kind == "delete":
                ops.append(DeleteRangeRequest(keys.pop(), prev_kv=self.rng.random() < 0.5))
            else:
                # Both branches of a nested transaction count for duplicates with what surrounds it.
                ops.append(TxnRequest(self.compares(2), self.branch(keys, 2), self.branch(keys, 2)))
        return tuple(ops)

    def put(self, key: bytes) -> PutRequest:
        lease = self.lease() if self.rng.random() < 0.1 else 0
        return PutRequest(key, self.value(), lease=lease, prev_kv=self.rng.random() < 0.3)

    def shuffled(self) -> list[bytes]:
        return self.rng.sample(HOT, len(HOT))

    # -- kinds --

    def _get(self) -> RangeRequest:
        return RangeRequest(self.hot())

    def _get_local(self) -> RangeRequest:
        rng = self.rng
        if rng.random() < 0.6:
            return RangeRequest(self.hot(), serializable=True, revision=recent(rng) if rng.random() < 0.3 else 0)
        key, end = self.span()
        return RangeRequest(key, end, limit=self.limit(), serializable=True, revision=self.revision() if rng.random() < 0.3 else 0)

    def _get_at_revision(self) -> RangeRequest:
        if self.rng.random() < 0.5:
            return RangeRequest(self.hot(), revision=self.revision())
        key, end = self.span()
        return RangeRequest(key, end, limit=self.limit(), revision=self.revision(), count_only=self.rng.random() < 0.2)

    def _list(self) -> RangeRequest:
        return RangeRequest(b"kv/h", prefix_end(b"kv/h"))

    def _list_options(self) -> RangeRequest:
        rng = self.rng
        key, end = self.span()
        request = RangeRequest(key, end, limit=self.limit() if rng.random() < 0.8 else 0)
        match weighted(rng, {"sorted": 40, "counted": 15, "keys": 15, "windowed": 30}):
            case "sorted":
                return request._replace(sort_order=rng.randrange(3), sort_target=rng.randrange(5))
            case "counted":
                return request._replace(count_only=True)
            case "keys":
                return request._replace(keys_only=True)
        low, high = sorted((rng.randint(0, 1000), rng.randint(0, 1000)))
        if rng.random() < 0.5:
            return request._replace(min_mod_revision=old(low), max_mod_revision=old(high) if rng.random() < 0.5 else 0)
        return request._replace(max_create_revision=old(high), min_create_revision=old(low) if rng.random() < 0.5 else 0)

    def _list_pages(self) -> RangeRequest:
        return RangeRequest(PREFIX, prefix_end(PREFIX), limit=self.rng.choice((3, 7, 10)))

    def _put(self) -> PutRequest:
        return PutRequest(self.hot(), self.value(), prev_kv=self.rng.random() < 0.2)

    def _put_options(self) -> PutRequest:
        kind = weighted(self.rng, {"ignore_value": 45, "ignore_lease": 45, "refused": 10})
        if kind == "ignore_value":
            return PutRequest(
                self.hot(), ignore_value=True, lease=self.lease() if self.rng.random() < 0.3 else 0, prev_kv=self.rng.random() < 0.3
            )
        if kind == "ignore_lease":
            return PutRequest(self.hot(), self.value(), ignore_lease=True, prev_kv=self.rng.random() < 0.3)
        # A value with ignore_value: an argument that etcd refuses.
        return PutRequest(self.hot(), self.value(), ignore_value=True)

    def _put_lease(self) -> PutRequest:
        return PutRequest(self.hot(), self.value(), lease=self.lease())

    def _grow(self) -> PutRequest:
        key = b"%s%s/%03d" % (GROWING, self.client.encode(), self.rng.randrange(GROWN_KEYS))
        return PutRequest(key, self.value(), lease=self.lease(EXPIRING) if self.rng.random() < 0.1 else 0)

    def _delete(self) -> DeleteRangeRequest:
        return DeleteRangeRequest(self.hot(), prev_kv=self.rng.random() < 0.3)

    def _delete_range(self) -> DeleteRangeRequest:
        rng = self.rng
        if rng.random() < 0.4:
            low = rng.randrange(len(HOT) - 3)
            return DeleteRangeRequest(HOT[low], HOT[low + rng.randint(1, 3)], prev_kv=rng.random() < 0.5)
        tens = b"%s%s/%02d" % (GROWING, self.client.encode(), rng.randrange(GROWN_KEYS // 10))
        return DeleteRangeRequest(tens, prefix_end(tens), prev_kv=rng.random() < 0.5)

    def _compare_and_set(self) -> TxnRequest:
        key = self.hot()
        return TxnRequest((Compare(EQUAL, MOD, key, SEEN),), (PutRequest(key, self.value()),), (RangeRequest(key),))

    def _txn(self) -> TxnRequest:
        compare = self.compares(2)
        keys = self.shuffled()
        # At least one write where the guards hold, so that the kind is what it says.
        success = (self.put(keys.pop()), *self.branch(keys, 3))
        return TxnRequest(compare, success, self.branch(self.shuffled(), 2))

    def _txn_nested(self) -> TxnRequest:
        keys = self.shuffled()
        inner = TxnRequest(self.compares(2), self.branch(keys, 2, nested=True), self.branch(keys, 2))
        return TxnRequest(
            self.compares(1), (self.put(keys.pop()), inner, *self.branch(keys, 2)), self.branch(self.shuffled(), 2, nested=True)
        )

    def _txn_read(self) -> TxnRequest:
        rng = self.rng

        def reads(least: int) -> tuple[RequestOp, ...]:
            return tuple(
                self.range(revision=self.revision() if rng.random() < 0.35 else 0, serializable=rng.random() < 0.15)
                for _ in range(rng.randint(least, 3))
            )

        # The first one is linearizable: a transaction of serializable reads alone is a kind of its own.
        return TxnRequest(self.compares(1), (self.range(), *reads(0)), reads(0))

    def _txn_local(self) -> TxnRequest:
        rng = self.rng
        reads = tuple(self.range(revision=recent(rng) if rng.random() < 0.25 else 0, serializable=True) for _ in range(rng.randint(1, 3)))
        return TxnRequest(self.compares(1), reads, tuple(self.range(serializable=True) for _ in range(rng.randint(0, 1))))

    def _txn_refused(self) -> TxnRequest:
        """A key written twice, or under a lease that does not exist: nothing of it may happen."""
        keys = self.shuffled()
        twice = keys[0] if self.rng.random() < 0.5 else keys[1]
        second = PutRequest(twice, self.value(), lease=0 if twice == keys[0] else lease_id(self.seed, self.client, self.n, GRANTS))
        return TxnRequest((), (PutRequest(keys[0], self.value()), second))

    def _lease_query(self) -> Any:
        if self.rng.random() < 0.2:
            return pb.LeaseLeasesRequest()
        return LeaseTimeToLiveRequest(self.lease(), keys=self.rng.random() < 0.5)

    def _lease_unknown(self) -> Any:
        """Requests about a lease that nobody granted."""
        unknown = lease_id(self.seed, self.client, self.n, GRANTS)
        match self.rng.randrange(3):
            case 0:
                return LeaseRevokeRequest(unknown)
            case 1:
                return PutRequest(self.hot(), self.value(), lease=unknown)
        return LeaseTimeToLiveRequest(unknown)


# ---- clients ----


class Kv:
    """The workload `kv`."""

    name = "kv"

    def __init__(self) -> None:
        self._keepers: dict[str, asyncio.Queue[tuple[int, int, int]]] = {}

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing: the pool fills itself, and reads of keys that do not exist yet are reads like others."""

    async def run(self, traffic: Traffic) -> None:
        """Clients and keepers of leases, until the traffic ends."""
        self._keepers = {member: asyncio.Queue(KEPT_LEASES_MAX) for member in traffic.members}
        async with asyncio.TaskGroup() as group:
            for index in range(traffic.clients()):
                member = traffic.members[index % len(traffic.members)]
                group.create_task(self._client(traffic, f"kv-{index}", member), name=f"kv-{index}")
            for member in traffic.members:
                group.create_task(keep_leases(traffic, member, self._keepers[member]), name=f"lease-{member}")

    async def finish(self, traffic: Traffic) -> None:
        """Nothing: leases left over expire by themselves."""

    async def _client(self, traffic: Traffic, name: str, member: str) -> None:
        caller = traffic.caller(name, member, administrator=True)
        memory = Memory()
        n = 0
        if await traffic.idle(self.name, KINDS):
            return
        while await traffic.turn():
            choice = choose(traffic.plan.seed, name, n)
            n += 1
            if await traffic.skips(self.name, choice.kind):
                continue
            traffic.counts[f"kv:{choice.kind}"] += 1
            reply = await perform(traffic, caller, memory, choice)
            rounds = choice.option("keep-rounds", 0)
            if rounds and reply.outcome == "ok":
                keeper = self._keepers[member]
                if not keeper.full():
                    keeper.put_nowait((choice.template.id, reply.output.ttl, rounds))


async def perform(traffic: Traffic, caller: Caller, memory: Memory, choice: Choice) -> Reply:
    """Fill the template's holes and send it; a compare-and-set looks first, a list goes on with further pages."""
    if choice.kind == "compare-and-set":
        # Always both, whatever the first answers: how many requests a choice sends never depends on replies (but for pages).
        look = choice.template.failure[0]
        memory.note_reply(look, await caller.call(look))
    horizon = Horizon(traffic.revision, traffic.compacted)
    request = resolve(choice.template, horizon, memory.seen)
    reply = await caller.call(request)
    memory.note_reply(request, reply)
    first = reply
    for _ in range(choice.option("pages", 1) - 1):
        if reply.outcome != "ok" or not reply.output.more or traffic.finished.is_set():
            break
        request = request._replace(key=reply.output.kvs[-1].key + b"\0", revision=request.revision or first.output.header.revision)
        reply = await caller.call(request)
    return first


async def keep_leases(traffic: Traffic, member: str, granted: asyncio.Queue[tuple[int, int, int]]) -> None:
    """Renew leases from `granted` (id, TTL in s, rounds) on one stream through `member`, each at a third of its TTL, then let them go.

    The stream is opened anew after a break; a lease whose renewal was lost in between may expire, as any client's would.
    """
    caller = traffic.caller(f"lease-{member}", member, administrator=True)
    due: list[tuple[float, int, int, int]] = []
    loop = asyncio.get_running_loop()
    while not traffic.finished.is_set():
        await caller.authorize()
        async with caller.client.stream(LEASE_KEEP_ALIVE) as stream:
            while not traffic.finished.is_set() and not stream.ended:
                while not granted.empty():
                    lease, ttl, rounds = granted.get_nowait()
                    due.append((loop.time() + ttl / 3, lease, ttl, rounds))
                due.sort()
                if not due or due[0][0] > loop.time():
                    await traffic.rest(min(0.1, due[0][0] - loop.time()) if due else 0.1)
                    continue
                _, lease, ttl, rounds = due.pop(0)
                if not await stream.send(LeaseKeepAliveRequest(lease)):
                    break
                try:
                    answer = await stream.receive(traffic.plan.timeout_ms / 1000)
                except TimeoutError:
                    break
                traffic.counts["keepalive"] += 1
                if answer is not None and answer.ttl > 0 and rounds > 1 and len(due) < KEPT_LEASES_MAX:
                    due.append((loop.time() + ttl / 3, lease, ttl, rounds - 1))
        if not traffic.finished.is_set():
            caller.forget_token()
            await traffic.rest(0.1)
