"""Requests that etcd is known to answer against its own documentation, late in a run so that they hide nothing else.

::

    0 ────────────────────────────────── 80 % ───────────── 90 % ────── end
                                          │ late-put, late-ask  │
                                          │                     │ late-range

    late-put-<member>      writes a key of its member's, over and over
    late-ask-<member>-i    transactions of compares only about what other members' writers wrote: no read barrier up to 3.7.3, so that a
                           member that lags, continues after a pause or comes back after a kill answers from the past
    late-range-<member>    transactions that write and read at a refused revision: the member asked refuses, the others apply (#18667,
                           mended in 3.7.0)

They are clients of their own that begin late, so that the choices of all others stay functions of seed, client and n.
Sent beside every workload; `--allow REFUSED-BUT-APPLIED,COMPARES-ONLY-STALE` makes what they show notes.
"""

from __future__ import annotations

import asyncio
import contextlib

from pekan.wire.messages import (
    CREATE,
    GREATER,
    LESS,
    MOD,
    VALUE,
    VERSION,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from pekan.workloads.keys import FAR, Horizon, ahead, below, prefix_end, resolve
from pekan.workloads.traffic import LATE_FROM, Choice, Traffic, draws, unique_value

NAME = "deviations"
KINDS = COMPARES_ONLY, RANGED_WRITE = "compares-only", "ranged-write"
WRITTEN = b"late/w/"
"""Keys of the late writers, one a member; nobody else writes or deletes them, so that their versions and revisions only grow."""
SPREAD = b"late/r/"
"""Keys that the refused transactions would write."""
SPREAD_KEYS = 8
ASKERS = 3
"""Askers a member: one answer that takes its time must not leave the member unasked."""
ASK_TIMEOUT_S = 0.25
"""A request waiting in a paused member's socket asks for what was known when it was sent. Short, so that at the moment the member
continues there is one that asks for something it cannot know yet."""
ASK_REST_S = (0.01, 0.06)
PUT_REST_S = (0.02, 0.08)
RANGED_FROM = 0.9
"""Of the traffic's time. A refused transaction that others applied forks the revision order, so these come after everything else, and after
the faults of a long run have been healed."""
RANGED_REST_S = (0.3, 1.2)
COMPACTED_SHARE = 0.4
"""Of the refused reads: at a compacted revision; the others are at a future one."""


def choose_ask(seed: int, client: str, n: int, others: tuple[str, ...]) -> Choice:
    """The n-th question of an asker: compares only, about the key of one of `others`.

    Each compare will say "at least what I know": true in every state after the write that was acknowledged, so that false is stale.
    """
    rng = draws(seed, client, n)
    key = WRITTEN + rng.choice(others).encode()
    targets = [rng.choice((MOD, VERSION, VALUE))]
    if rng.random() < 0.3:
        targets.append(CREATE)
    compares = tuple(Compare(GREATER, target, key, b"" if target == VALUE else 0) for target in targets)
    return Choice(COMPARES_ONLY, key, template=TxnRequest(compares))


def choose_ranged(seed: int, client: str, n: int) -> Choice:
    """The n-th transaction that writes and reads at a revision that will be refused, in every place of a transaction."""
    rng = draws(seed, client, n)
    keys = rng.sample([b"%s%d" % (SPREAD, index) for index in range(SPREAD_KEYS)], 3)
    # The first one always meets the cause that needs no compaction to have happened.
    hole = below(rng.randint(1, 50)) if n and rng.random() < COMPACTED_SHARE else ahead(FAR)
    read = RangeRequest(keys[0], revision=hole)
    if rng.random() < 0.3:
        read = RangeRequest(SPREAD, prefix_end(SPREAD), limit=3, revision=hole)
    put = PutRequest(keys[1], unique_value(seed, client, n))
    match rng.randrange(4):
        case 0:
            template = TxnRequest((), (put, read))
        case 1:
            template = TxnRequest((), (read, put))
        case 2:
            template = TxnRequest((), (read, DeleteRangeRequest(keys[2]), put))
        case _:
            # Version below zero never holds: the failure branch is taken.
            template = TxnRequest((Compare(LESS, VERSION, put.key, 0),), (), (put, read))
    return Choice(RANGED_WRITE, put.key, put.value, template)


class Deviations:
    """The companion `deviations`."""

    name = NAME

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing."""

    async def run(self, traffic: Traffic) -> None:
        """Late clients, each when its time has come."""
        acknowledged = Acknowledged()
        async with asyncio.TaskGroup() as group:
            for member in traffic.members:
                group.create_task(_writer(traffic, member, acknowledged), name=f"late-put-{member}")
                for number in range(ASKERS):
                    group.create_task(_asker(traffic, member, number, acknowledged), name=f"late-ask-{member}-{number}")
                group.create_task(_ranged(traffic, member), name=f"late-range-{member}")

    async def finish(self, traffic: Traffic) -> None:
        """Nothing."""


class Acknowledged:
    """What the late writers know to be written: key -> (mod revision, version, value), and a bell for the askers."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[int, int, bytes]] = {}
        self.bell = asyncio.Event()

    def tell(self, key: bytes, revision: int, version: int, value: bytes) -> None:
        """A put was acknowledged: wake the askers, whose members may not have heard of it yet."""
        self.known[key] = (revision, version, value)
        self.bell.set()
        self.bell = asyncio.Event()

    def just_below(self, key: bytes, target: int) -> int | bytes:
        """An operand that every state from the known write of `key` on is GREATER than."""
        revision, version, value = self.known.get(key, (1, 1, b""))
        if target == VALUE:
            # Values begin with their number: that part alone is smaller than the value, and greater than every older one.
            return value[:NUMBER_BYTES]
        return {MOD: revision - 1, VERSION: version - 1, CREATE: 0}[target]


NUMBER_BYTES = 8


async def _writer(traffic: Traffic, member: str, acknowledged: Acknowledged) -> None:
    name = f"late-put-{member}"
    if await traffic.idle(NAME, (COMPARES_ONLY,)) or not await traffic.until(LATE_FROM):
        return
    caller = traffic.caller(name, member, administrator=True)
    key = WRITTEN + member.encode()
    n = 0
    while await traffic.turn():
        value = b"%0*d/%s" % (NUMBER_BYTES, n, unique_value(traffic.plan.seed, name, n))
        reply = await caller.call(PutRequest(key, value, prev_kv=True))
        if reply.outcome == "ok":
            version = 1 + (reply.output.prev_kv.version if reply.output.prev_kv else 0)
            acknowledged.tell(key, reply.output.header.revision, version, value)
        await traffic.rest(draws(traffic.plan.seed, name + "/rest", n).uniform(*PUT_REST_S))
        n += 1


async def _asker(traffic: Traffic, member: str, number: int, acknowledged: Acknowledged) -> None:
    name = f"late-ask-{member}-{number}"
    if await traffic.idle(NAME, (COMPARES_ONLY,)) or not await traffic.until(LATE_FROM):
        return
    caller = traffic.caller(name, member, administrator=True)
    others = tuple(other for other in traffic.members if other != member) or traffic.members
    n = 0
    while await traffic.turn():
        choice = choose_ask(traffic.plan.seed, name, n, others)
        rest = draws(traffic.plan.seed, name + "/rest", n).uniform(*ASK_REST_S)
        # Right after an acknowledgement, when a member that lags by a moment still does; or after a while, for one that lags by more.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await acknowledged.bell.wait()
        compares = tuple(c._replace(operand=acknowledged.just_below(c.key, c.target)) for c in choice.template.compare)
        await caller.call(TxnRequest(compares), ASK_TIMEOUT_S)
        traffic.counts["late:compares-only"] += 1
        n += 1


async def _ranged(traffic: Traffic, member: str) -> None:
    name = f"late-range-{member}"
    if await traffic.idle(NAME, (RANGED_WRITE,)) or not await traffic.until(RANGED_FROM):
        return
    caller = traffic.caller(name, member, administrator=True)
    n = 0
    while await traffic.turn():
        choice = choose_ranged(traffic.plan.seed, name, n)
        await caller.call(resolve(choice.template, Horizon(traffic.revision, traffic.compacted), {}))
        traffic.counts["late:ranged-write"] += 1
        await traffic.rest(draws(traffic.plan.seed, name + "/rest", n).uniform(*RANGED_REST_S))
        n += 1
