"""Compaction and defragmentation through every member, beside every workload.

::

    admin-<member>    one of KINDS after the other: compact behind the head, at the head, at a tombstone, where it is refused; defragment

`tombstone` is a story of its own: put, put, delete (revision r), put, compact at exactly r, watch from r. A watch from the compacted
revision is legal and owes the DELETE (#18089, mended in 3.4.34 and 3.5.16); the later put proves that the watch passed it.

(Clients that compare members carry other names, `check-<member>`; these here only do maintenance.)
"""

from __future__ import annotations

import asyncio
from typing import Any

from pekan.wire.messages import CompactionRequest, DeleteRangeRequest, PutRequest, WatchCreateRequest, WatchProgressRequest, pb
from pekan.workloads.deviations import RANGED_FROM
from pekan.workloads.keys import FAR, Horizon, ahead, below, old, revision_of
from pekan.workloads.traffic import Caller, Choice, Traffic, draws, unique_value, weighted

NAME = "maintenance"
KINDS = {"behind": 46, "head": 8, "tombstone": 28, "refused": 10, "defragment": 8}
EVERY_S = (0.5, 2.0)
"""Between two of them over the whole cluster; each member takes its turn. Faster, and hardly a read of the past would find its revision."""
BEHIND = (200, 850)
"""How far towards the head a compaction goes, in thousandths of what is there: readers of the past keep something to read."""
FORK_MARGIN = 300
"""From the last tenth on compactions keep so far behind the head. Where the late transactions have made members part, a revision near the
head of one does not exist on another yet: it would refuse what the others do, which shows nothing that the transactions have not shown."""
DEFRAGMENT_TIMEOUT_S = 10.0
"""It copies the whole database, during which the member answers nothing else."""
TOMBSTONE_KEY = b"tombstone/"
TOMBSTONE_WATCH_S = 0.5
"""How long the watch from the tombstone is listened to: five rounds of etcd's synchronization of watchers with the past (100 ms)."""
LISTEN_S = 0.1


def choose(seed: int, client: str, n: int) -> Choice:
    """The n-th thing that an administrator's client does. The first is a tombstone: a short run shows one too."""
    rng = draws(seed, client, n)
    kind = weighted(rng, KINDS) if n else "tombstone"
    physical = rng.random() < 0.5
    template: Any
    match kind:
        case "behind":
            template = CompactionRequest(old(rng.randint(*BEHIND)), physical)
        case "head":
            template = CompactionRequest(old(1000), physical)
        case "refused":
            template = CompactionRequest(below(rng.randint(1, 10)) if rng.random() < 0.6 else ahead(FAR), physical)
        case "tombstone":
            key = b"%s%s/%d" % (TOMBSTONE_KEY, client.encode(), n)
            return Choice(kind, key, unique_value(seed, client, n), CompactionRequest(0, physical), _rest(rng.uniform(*EVERY_S)))
        case _:
            template = pb.DefragmentRequest()
    return Choice(kind, template=template, options=_rest(rng.uniform(*EVERY_S)))


def _rest(seconds: float) -> tuple[tuple[str, Any], ...]:
    return (("rest-s", seconds),)


class Maintenance:
    """The companion `maintenance`."""

    name = NAME

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing."""

    async def run(self, traffic: Traffic) -> None:
        """One administrator a member, until the traffic ends."""
        async with asyncio.TaskGroup() as group:
            for index, member in enumerate(traffic.members):
                group.create_task(_administer(traffic, member, index), name=f"admin-{member}")

    async def finish(self, traffic: Traffic) -> None:
        """Nothing."""


async def _administer(traffic: Traffic, member: str, index: int) -> None:
    caller = traffic.caller(f"admin-{member}", member, administrator=True)
    # Turns about: the members' administrators do not all begin at once.
    await traffic.rest(EVERY_S[0] * (1 + index))
    n = 0
    while await traffic.turn():
        choice = choose(traffic.plan.seed, caller.name, n)
        sent = traffic.sends(NAME, choice.kind)
        traffic.counts[f"admin:{choice.kind}"] += sent
        if not sent:
            pass  # and the next one comes when it would have come
        elif choice.kind == "tombstone":
            await compact_at_tombstone(traffic, caller, choice, n)
        elif choice.kind == "defragment":
            await caller.call(choice.template, DEFRAGMENT_TIMEOUT_S)
        else:
            revision = revision_of(choice.template.revision, Horizon(traffic.revision, traffic.compacted))
            if traffic.elapsed_ms() >= RANGED_FROM * traffic.plan.time_ms and revision <= traffic.revision:
                revision = max(1, min(revision, traffic.revision - FORK_MARGIN))
            await caller.call(choice.template._replace(revision=revision))
        n += 1
        await traffic.rest(choice.option("rest-s") * len(traffic.members))


async def compact_at_tombstone(traffic: Traffic, caller: Caller, choice: Choice, n: int) -> None:
    """Put, put, delete, put; compact at exactly the deletion; watch from there."""
    key = choice.key
    seed = traffic.plan.seed
    await caller.call(PutRequest(key, choice.value))
    await caller.call(PutRequest(key, unique_value(seed, caller.name, n, 1)))
    deleted = await caller.call(DeleteRangeRequest(key))
    await caller.call(PutRequest(key, unique_value(seed, caller.name, n, 2)))
    if deleted.outcome != "ok" or not deleted.output.deleted:
        return
    tombstone = deleted.output.header.revision
    await caller.call(choice.template._replace(revision=tombstone))
    await caller.authorize()
    loop = asyncio.get_running_loop()
    until = loop.time() + TOMBSTONE_WATCH_S
    async with caller.client.watch() as stream:
        await stream.send(WatchCreateRequest(key, start_revision=tombstone, prev_kv=True))
        while loop.time() < until and not stream.ended and not traffic.finished.is_set():
            try:
                await stream.receive(LISTEN_S)
            except TimeoutError:
                await stream.send(WatchProgressRequest())
    # Not left behind: such keys would grow in number for as long as the run lasts.
    await caller.call(DeleteRangeRequest(key))
