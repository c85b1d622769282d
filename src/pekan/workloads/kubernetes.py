"""What an API server sends: eleven shapes and nothing else.

====  ==================  ==========================================================================================
S1    Get                 Range of one key, limit 1, now or at a revision
S2    first page          Range of a prefix, limit, now or at a revision
S3    further pages       from the last key + NUL, limit, at the first page's revision; here through another member
S4    count               Range of a prefix, count only
S5    keys                Range of a prefix, keys only
S6    create              Txn If mod(key) = 0 Then Put
S7    update              Txn If mod(key) = r Then Put Else Range
S8    delete              Txn If mod(key) = r Then DeleteRange Else Range
S9    watch               prefix, from a list's revision + 1, prev_kv, progress_notify, metadata `hasleader`
S10   compaction          Txn If version(compact_rev_key) = v Then Put Else Range; the winner compacts the round before
S11   lease               granted, put on many events, neither kept alive nor revoked
====  ==================  ==========================================================================================

Source: etcd client/v3/kubernetes and the API server's storage layer (store.go, watcher.go, compact.go, lease_manager.go).

::

    kubernetes-<i>          main traffic over pods of two namespaces, and events that expire
    kubernetes-<i>-pages    the same API server at another member: S3
    kubernetes-<i>-watch    S9 after a list, lives for a moment, resumed after breaks at its bookmark
    compactor-<member>      contenders of S10
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

from pekan.wire.messages import (
    EQUAL,
    MOD,
    VERSION,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchProgressRequest,
)
from pekan.workloads.keys import SEEN, Horizon, Memory, prefix_end, recent, resolve
from pekan.workloads.traffic import Caller, Choice, Traffic, draws, unique_value, weighted

NAME = "kubernetes"
COMPACTION = "compaction"
"""The compactors: what is drawn from beside WEIGHTS."""
WEIGHTS = {
    "get": 10,
    "get-at-revision": 4,
    "list": 9,
    "list-at-revision": 4,
    "list-then-watch": 3,
    "count": 2,
    "keys": 2,
    "create": 14,
    "update": 38,
    "delete": 9,
    "event": 5,
}
"""Mostly updates and lists, as upstream's Kubernetes traffic has it; creations outweigh deletions, for many meet a key that is there."""
KINDS = (*WEIGHTS, COMPACTION)
PODS = b"/registry/pods/"
EVENTS = b"/registry/events/"
NAMESPACES = (b"ns-0/", b"ns-1/")
NAMES = 10
"""Pods of a namespace: upstream's traffic has ten, few enough that updates collide."""
EVENT_NAMES = 40
PAGE_SIZES = (3, 5, 10)
PAGES_MAX = 8
"""Twenty pods in pages of three, and one more than that."""
WATCH_MS = (300, 2_500)
PROGRESS_SHARE = 0.5
"""Of watches: those whose API server serves consistent reads from its cache, and asks for progress to do so."""
IDLE_S = 0.1
LEASE_TTL_S = (2, 5)
LEASE_OBJECTS = 12
"""Objects that share a lease: up to a thousand in an API server, fewer here, so that several expire in a run."""
RESUME_REST_S = (0.05, 0.2)
COMPACT_KEY = b"compact_rev_key"
COMPACT_EVERY_S = (0.8, 2.5)
"""Five minutes in an API server; so short here that a run sees a dozen rounds, each with contenders."""


def lease_id(seed: int, client: str, number: int) -> int:
    """The id of a client's lease; chosen here, so that a choice can name it before any reply is known."""
    return 1 + int.from_bytes(hashlib.sha256(f"pekan/event-lease/{seed}/{client}/{number}".encode()).digest()[:8], "big") % (1 << 62)


def choose(seed: int, client: str, n: int) -> Choice:
    """The n-th choice of an API server. `events` counts from the choice's number, so that a lease is shared by neighbours."""
    rng = draws(seed, client, n)
    kind = weighted(rng, WEIGHTS)
    pod = PODS + rng.choice(NAMESPACES) + b"pod-%02d" % rng.randrange(NAMES)
    prefix = PODS + (rng.choice(NAMESPACES) if rng.random() < 0.4 else b"")
    listing = RangeRequest(prefix, prefix_end(prefix), limit=rng.choice(PAGE_SIZES))
    value = unique_value(seed, client, n)
    expect = (Compare(EQUAL, MOD, pod, SEEN),)
    current = (RangeRequest(pod),)
    options: tuple[tuple[str, Any], ...] = ()
    template: Any
    match kind:
        case "get":
            template = RangeRequest(pod, limit=1)
        case "get-at-revision":
            template = RangeRequest(pod, limit=1, revision=recent(rng))
        case "list":
            template = listing
        case "list-at-revision":
            template = listing._replace(revision=recent(rng))
        case "list-then-watch":
            template = listing
            options = (("asks", rng.random() < PROGRESS_SHARE), ("watch-ms", rng.randint(*WATCH_MS)))
        case "count":
            template = listing._replace(limit=0, count_only=True)
        case "keys":
            template = listing._replace(limit=0, keys_only=True)
        case "create":
            template = TxnRequest((Compare(EQUAL, MOD, pod, 0),), (PutRequest(pod, value),))
        case "update":
            template = TxnRequest(expect, (PutRequest(pod, value),), current)
        case "delete":
            template = TxnRequest(expect, (DeleteRangeRequest(pod),), current)
        case _:
            return _event(rng, seed, client, n, value)
    return Choice(kind, getattr(template, "key", pod), value, template, options)


def _event(rng: random.Random, seed: int, client: str, n: int, value: bytes) -> Choice:
    key = EVENTS + b"ns-0/event-%s-%02d" % (client.encode(), rng.randrange(EVENT_NAMES))
    return Choice("event", key, value, TxnRequest((Compare(EQUAL, MOD, key, SEEN),), (PutRequest(key, value),), (RangeRequest(key),)))


class Kubernetes:
    """The workload `kubernetes`."""

    name = NAME

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing: the first creations fill the registry."""

    async def run(self, traffic: Traffic) -> None:
        """API servers and their compactors, until the traffic ends."""
        async with asyncio.TaskGroup() as group:
            for index in range(traffic.clients()):
                server = _Server(traffic, index)
                group.create_task(server.run(), name=server.name)
                group.create_task(server.run_watches(), name=f"{server.name}-watch")
            for member in traffic.members:
                group.create_task(_compactor(traffic, member), name=f"compactor-{member}")

    async def finish(self, traffic: Traffic) -> None:
        """Nothing."""


class _Server:
    """One API server: its requests, its pages through another member, its watches."""

    def __init__(self, traffic: Traffic, index: int) -> None:
        members = traffic.members
        self.traffic = traffic
        self.name = f"kubernetes-{index}"
        self.caller = traffic.caller(self.name, members[index % len(members)], administrator=True)
        self.pages = traffic.caller(f"{self.name}-pages", members[(index + 1) % len(members)], administrator=True)
        # hasleader: the member ends the stream when it loses its leader, instead of leaving it silent.
        self.watcher = traffic.caller(
            f"{self.name}-watch", members[index % len(members)], administrator=True, metadata=(("hasleader", "true"),)
        )
        self.memory = Memory()
        self.watches: asyncio.Queue[tuple[Choice, int]] = asyncio.Queue(1)
        self.lease = 0
        self.leases = 0
        self.objects = 0

    async def run(self) -> None:
        traffic = self.traffic
        n = 0
        if await traffic.idle(NAME, WEIGHTS):
            return
        while await traffic.turn():
            choice = choose(traffic.plan.seed, self.name, n)
            n += 1
            if await traffic.skips(NAME, choice.kind):
                continue
            traffic.counts[f"kubernetes:{choice.kind}"] += 1
            if choice.kind == "event":
                await self.event(choice)
            elif choice.kind in ("list", "list-at-revision", "list-then-watch"):
                revision = await self.list(choice)
                # One watch at a time: an API server has one for each resource.
                if choice.kind == "list-then-watch" and revision and self.watches.empty():
                    self.watches.put_nowait((choice, revision))
            else:
                await self.send(self.filled(choice.template))

    def filled(self, template: Any) -> Any:
        return resolve(template, Horizon(self.traffic.revision, self.traffic.compacted), self.memory.seen)

    async def send(self, request: Any) -> Any:
        """One request; what it shows is remembered for the next update. The response, or None."""
        reply = await self.caller.call(request)
        if reply.outcome != "ok":
            return None
        self.memory.note(request, reply.output)
        if isinstance(reply.output, TxnResponse) and reply.output.succeeded:
            # What was just written is what the next update of this key expects; a reply of an update does not repeat it.
            self.memory.wrote(request.success[0], reply.output.header.revision)
        return reply.output

    async def list(self, choice: Choice) -> int:
        """All pages at the first one's revision, the further ones through another member; the revision, 0 where the first one failed."""
        request: RangeRequest = self.filled(choice.template)
        response = await self.send(request)
        if response is None:
            return 0
        revision: int = request.revision or response.header.revision
        for _ in range(PAGES_MAX):
            if len(response.kvs) >= response.count or not response.kvs or self.traffic.finished.is_set():
                break
            reply = await self.pages.call(request._replace(key=response.kvs[-1].key + b"\0", revision=revision))
            if reply.outcome != "ok":
                break
            response = reply.output
        return revision

    async def event(self, choice: Choice) -> None:
        """Create or update an event under the lease of the moment, granted anew after some objects."""
        seed = self.traffic.plan.seed
        if self.objects % LEASE_OBJECTS == 0:
            self.leases += 1
            ttl = draws(seed, self.name + "/lease", self.leases).randint(*LEASE_TTL_S)
            # Used whatever the reply is: a grant without an answer may have happened, and one refused makes a put that is refused.
            self.lease = lease_id(seed, self.name, self.leases)
            await self.caller.call(LeaseGrantRequest(ttl, self.lease))
        self.objects += 1
        template: TxnRequest = choice.template
        put = template.success[0]
        assert isinstance(put, PutRequest)
        await self.send(self.filled(template._replace(success=(put._replace(lease=self.lease),))))

    async def run_watches(self) -> None:
        traffic = self.traffic
        while not traffic.finished.is_set():
            try:
                choice, revision = self.watches.get_nowait()
            except asyncio.QueueEmpty:
                await traffic.rest(IDLE_S)
                continue
            await self.watch(choice, revision)

    async def watch(self, choice: Choice, revision: int) -> None:
        """From the list's revision + 1; after a break from the last revision known, event or bookmark."""
        traffic = self.traffic
        loop = asyncio.get_running_loop()
        until = loop.time() + choice.option("watch-ms") / 1000
        listing: RangeRequest = choice.template
        start = revision + 1
        breaks = 0
        while loop.time() < until and not traffic.finished.is_set():
            await self.watcher.authorize()
            async with self.watcher.client.watch() as stream:
                await stream.send(
                    WatchCreateRequest(listing.key, listing.range_end, start_revision=start, progress_notify=True, prev_kv=True)
                )
                while loop.time() < until and not traffic.finished.is_set():
                    try:
                        message = await stream.receive(IDLE_S)
                    except TimeoutError:
                        if choice.option("asks"):
                            await stream.send(WatchProgressRequest())
                        continue
                    if message is None or message.canceled:
                        # Compacted: an API server lists again, and so does the next choice of this kind.
                        if message is not None:
                            return
                        break
                    if message.events:
                        start = max(start, message.events[-1].kv.mod_revision + 1)
                    elif not message.created:
                        start = max(start, message.header.revision + 1)
                if not stream.ended:
                    return
            breaks += 1
            self.watcher.forget_token()
            await traffic.rest(draws(traffic.plan.seed, f"{self.name}-watch/rest", breaks).uniform(*RESUME_REST_S))


async def _compactor(traffic: Traffic, member: str) -> None:
    """The compact_rev_key dance of one contender: whoever moves the key's version compacts what it read a round ago."""
    if await traffic.idle(NAME, (COMPACTION,)):
        return
    caller: Caller = traffic.caller(f"compactor-{member}", member, administrator=True)
    version = 0
    remembered = 0
    n = 0
    while await traffic.turn():
        value = b"%d" % remembered
        claim = TxnRequest(
            (Compare(EQUAL, VERSION, COMPACT_KEY, version),), (PutRequest(COMPACT_KEY, value),), (RangeRequest(COMPACT_KEY),)
        )
        reply = await caller.call(claim)
        if reply.outcome == "ok":
            revision = remembered
            remembered = reply.output.header.revision
            if not reply.output.succeeded:
                found = reply.output.responses[0].kvs
                version = found[0].version if found else 0
            else:
                version += 1
                if revision:
                    await caller.call(CompactionRequest(revision))
        await traffic.rest(draws(traffic.plan.seed, caller.name, n).uniform(*COMPACT_EVERY_S))
        n += 1
