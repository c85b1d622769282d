"""Watchers on every member, beside every workload.

::

    watch-<member>-all       the record of last resort: the whole keyspace from revision 1, resumed after every break, asked for progress
                             whenever it is idle, read to the head when the traffic has ended
    watch-<member>-<slot>    short watches, one session after the other: KINDS below, each with its own range and options
    watch-<member>-slow      several watchers on one stream that is left unread for a while; one member at a time
    bulk                     writes what is too large for one message, and watches it in fragments, once a run

A session opens one stream, lives for a moment, is resumed after every break at what it saw last, and is closed. What it opens is a function
of seed, client and n; where it starts is a hole (`pekan.workloads.keys`), filled when it is opened.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pekan.wire.messages import (
    DELETE,
    NODELETE,
    NOPUT,
    DeleteRangeRequest,
    PutRequest,
    TxnRequest,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchResponse,
)
from pekan.workloads.keys import AT_COMPACTION, EVERYTHING, Horizon, ahead, below, old, prefix_end, recent, revision_of
from pekan.workloads.traffic import Caller, Choice, Traffic, draws, unique_value, weighted

if TYPE_CHECKING:
    import random

    from pekan.etcd.client import WatchStream

NAME = "watching"
WHOLE, SLOW, BULKY = "everything", "slow", "bulk"
"""What is drawn from beside KINDS: the whole-keyspace watchers, the slow readers, the one message in fragments."""
KINDS = {"past": 26, "past-progress": 16, "compaction": 16, "now": 14, "future": 12, "below": 4, "several": 12}
"""Where a session's watches start. `past-progress` asks for progress in the same breath as it creates a watch on the past: an answer must
not overtake the events (#15220)."""
ALL_KINDS = (WHOLE, *KINDS, SLOW, BULKY)
SLOTS = 2
"""Sessions open at once on each member, beside the whole-keyspace watcher: enough for a few hundred a minute, cheap enough to leave the
processors to the members."""
LIFETIME_MS = (300, 4_000)
FUTURE = (5, 100)
"""Revisions ahead of the head: at some hundred writes a second the head gets there within most lifetimes, and not within all."""
SEVERAL = (2, 5)
PROGRESS_SHARE = 0.3
"""Of sessions: those that ask for progress over and over while events flow."""
PROGRESS_EVERY_MS = (20, 250)
BOOKMARK_SHARE = 0.4
"""Of sessions: those that resume after the progress they were told, as an API server does, instead of after the last event."""
CANCEL_SHARE = 0.3
"""Of sessions: those that cancel their watches one by one before they leave."""
IDLE_S = 0.1
"""A whole-keyspace watcher that hears nothing for so long asks for progress."""
PROGRESS_WAIT_S = 1.0
"""One request for progress at a time; one that was not answered for so long is repeated (#17507: answers that never come)."""
RESUME_REST_S = (0.05, 0.2)
"""Before a stream is opened again: a member that is down is not hammered."""
SLOW_WATCHERS = 12
SLOW_STALL_MS = (700, 2_200)
"""How long the slow stream is left unread: long enough for some compactions to pass what it still has to be told (#17529)."""
SLOW_READ_MS = 2_500
SLOW_PAUSE_MS = (2_000, 5_000)
GREET_S = 0.2
"""Between two looks for newcomers, which stay for seconds."""
BULK_FROM = 0.3
"""Of the traffic's time."""
BULK = b"bulk/"
BULK_KEYS = 20
BULK_VALUE_BYTES = 28_000
"""Twenty of them, written, written again and deleted, are 2.2 MB of events with their previous values, which a watcher that comes from the
past gets at once: above the 1.5 MiB + 512 KiB at which etcd splits a message (server/etcdserver/api/v3rpc/watch.go). Larger ones would
make this the greatest part of a short run's record."""
BULK_WAIT_S = 3.0

RANGES: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "kv": ((b"kv/", b"kv0"), (b"kv/h", b"kv/i"), (b"kv/h00", b"kv/h08"), (b"kv/h03", b""), (b"kv/h07", b""), (b"kv/g/", b"kv/g0")),
    "kubernetes": (
        (b"/registry/pods/", b"/registry/pods0"),
        (b"/registry/pods/ns-0/", b"/registry/pods/ns-00"),
        (b"/registry/", b"/registry0"),
        (b"compact_rev_key", b""),
    ),
    "auth": ((b"auth/", b"auth0"), (b"auth/0/", b"auth/00"), (b"auth/1/", b"auth/10")),
}
"""Ranges worth watching, by workload; an empty end is a single key."""
EVERYTHING_SHARE = 0.25


def choose(seed: int, client: str, n: int, workloads: tuple[str, ...]) -> Choice:
    """The n-th session of a short watcher: `template` is a tuple of create requests with holes for where they start."""
    rng = draws(seed, client, n)
    kind = weighted(rng, KINDS)
    ranges = [span for name in workloads for span in RANGES.get(name, ())] or [EVERYTHING]
    count = rng.randint(*SEVERAL) if kind == "several" else 1
    creates = tuple(_create(rng, kind, ranges) for _ in range(count))
    asks = kind == "past-progress" or rng.random() < PROGRESS_SHARE
    options = (
        ("at-once", kind == "past-progress"),
        ("bookmark", rng.random() < BOOKMARK_SHARE),
        ("cancel", rng.random() < CANCEL_SHARE),
        ("lifetime-ms", rng.randint(*LIFETIME_MS)),
        ("progress-ms", rng.randint(*PROGRESS_EVERY_MS) if asks else 0),
    )
    return Choice(kind, creates[0].key, template=creates, options=options)


def _create(rng: random.Random, kind: str, ranges: list[tuple[bytes, bytes]]) -> WatchCreateRequest:
    key, end = EVERYTHING if rng.random() < EVERYTHING_SHARE or kind == "past-progress" else rng.choice(ranges)
    starts = {"past": recent(rng), "past-progress": old(rng.randint(0, 900)), "compaction": AT_COMPACTION, "now": 0}
    starts |= {"future": ahead(rng.randint(*FUTURE)), "below": below(rng.randint(1, 20))}
    starts["several"] = starts[weighted(rng, {"past": 40, "now": 30, "compaction": 15, "future": 15})]
    return WatchCreateRequest(
        key,
        end,
        start_revision=starts[kind],
        progress_notify=rng.random() < 0.5,
        filters=weighted(rng, {(): 76, (NOPUT,): 12, (NODELETE,): 12}),
        prev_kv=rng.random() < 0.6,
        fragment=rng.random() < 0.25,
    )


class Watching:
    """The companion `watching`."""

    name = NAME

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing."""

    async def run(self, traffic: Traffic) -> None:
        """All watchers, until the traffic ends; the whole-keyspace ones then read on to the head, for at most the request timeout."""
        async with asyncio.TaskGroup() as group:
            for member in traffic.members:
                group.create_task(watch_everything(traffic, member), name=f"watch-{member}-all")
                for slot in range(SLOTS):
                    group.create_task(_sessions(traffic, member, f"watch-{member}-{slot}"), name=f"watch-{member}-{slot}")
            group.create_task(_slow(traffic), name="watch-slow")
            group.create_task(_bulk(traffic), name="bulk")
            await _greet(traffic, group)

    async def finish(self, traffic: Traffic) -> None:
        """Nothing: `run` has read to the head."""


async def _greet(traffic: Traffic, group: asyncio.TaskGroup) -> None:
    """Watch newcomers too, each from the moment it serves, until the traffic ends."""
    known = set(traffic.members)
    while not traffic.finished.is_set():
        for member in traffic.present:
            if member not in known:
                known.add(member)
                group.create_task(watch_everything(traffic, member), name=f"watch-{member}-all")
        await traffic.rest(GREET_S)


# ---- the record of last resort ----


async def watch_everything(traffic: Traffic, member: str) -> None:
    """The whole keyspace from revision 1 through `member`, as long as it is there: no event is asked for twice, and none is left out but
    what was compacted."""
    if await traffic.idle(NAME, (WHOLE,)):
        return
    caller = traffic.caller(f"watch-{member}-all", member, administrator=True, pinned=True)
    loop = asyncio.get_running_loop()
    start = 1
    rests = 0
    end: float | None = None
    while member in traffic.present:
        if traffic.finished.is_set():
            end = loop.time() + traffic.plan.timeout_ms / 1000 if end is None else end
            if loop.time() >= end:
                return
        await caller.authorize()
        async with caller.client.watch() as stream:
            key, range_end = EVERYTHING
            await stream.send(WatchCreateRequest(key, range_end, start_revision=start, progress_notify=True, prev_kv=True))
            asked: float | None = None
            told = 0
            while not stream.ended:
                if traffic.finished.is_set():
                    end = loop.time() + traffic.plan.timeout_ms / 1000 if end is None else end
                    if max(start - 1, told) >= traffic.revision or loop.time() >= end:
                        return
                try:
                    message = await stream.receive(IDLE_S)
                except TimeoutError:
                    if asked is None or loop.time() - asked > PROGRESS_WAIT_S:
                        asked = loop.time()
                        await stream.send(WatchProgressRequest())
                    continue
                if message is None or message.canceled:
                    start = max(start, message.compact_revision) if message is not None else start
                    break
                traffic.counts["events"] += len(message.events)
                if message.events:
                    start = message.events[-1].kv.mod_revision + 1
                    traffic.saw(message.header.revision)
                elif not message.created:
                    told, asked = message.header.revision, None
        traffic.counts["watch breaks"] += 1
        caller.forget_token()
        rests += 1
        pause = draws(traffic.plan.seed, caller.name + "/rest", rests).uniform(*RESUME_REST_S)
        await (asyncio.sleep(pause) if traffic.finished.is_set() else traffic.rest(pause))


# ---- short sessions ----


@dataclass
class Watch:
    """One watch of a session over its resumptions: what it asked for and how far it got."""

    request: WatchCreateRequest
    next: int
    """The first revision not seen yet; 0 where it starts at "now" and has seen nothing."""
    id: int | None = None
    """Its id on the stream of the moment, None before it is created and after it is cancelled."""


@dataclass
class Session:
    """Some watches on one stream, resumed together after a break. `bookmark`: progress moves on where a resumption starts."""

    watches: list[Watch]
    bookmark: bool
    waiting: list[Watch] = field(default_factory=list)
    """Created and not confirmed yet, in order: the member confirms in order of creation."""

    async def open(self, stream: WatchStream, *, ask: bool = False) -> None:
        """Create every watch at where it stands; with `ask`, ask for progress at once."""
        self.waiting = list(self.watches)
        for watch in self.watches:
            watch.id = None
            if not await stream.send(watch.request._replace(start_revision=watch.next)):
                return
        if ask:
            await stream.send(WatchProgressRequest())

    def take(self, message: WatchResponse) -> Watch | None:
        """Note what `message` says. The watch that it cancels because of a compaction, so that it can be created anew, else None."""
        if message.created and self.waiting:
            created = self.waiting.pop(0)
            if message.canceled:
                # Refused at once (permission, for one); its id of -1 speaks for itself alone.
                return None
            created.id = message.watch_id
        for watch in self.watches:
            # A negative id speaks for every watch of the stream.
            if watch.id != message.watch_id and message.watch_id >= 0:
                continue
            if message.canceled:
                watch.id = None
                watch.next = max(watch.next, message.compact_revision)
                return watch if message.compact_revision else None
            if message.events and not message.fragment:
                watch.next = max(watch.next, message.events[-1].kv.mod_revision + 1)
            elif self.bookmark and not message.created and not message.events and watch.id is not None:
                watch.next = max(watch.next, message.header.revision + 1)
        return None


async def _sessions(traffic: Traffic, member: str, name: str) -> None:
    """One session after the other."""
    caller = traffic.caller(name, member, administrator=True)
    n = 0
    while not traffic.finished.is_set():
        choice = choose(traffic.plan.seed, name, n, traffic.plan.workloads)
        n += 1
        if not traffic.sends(NAME, choice.kind):
            # The next one is opened when it would have been.
            await traffic.rest(choice.option("lifetime-ms") / 1000)
            continue
        traffic.counts[f"watch:{choice.kind}"] += 1
        await session(traffic, caller, choice)


async def session(traffic: Traffic, caller: Caller, choice: Choice) -> None:
    """One session from its first stream to its end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + choice.option("lifetime-ms") / 1000
    horizon = Horizon(traffic.revision, traffic.compacted)
    watches = [Watch(create, revision_of(create.start_revision, horizon)) for create in choice.template]
    state = Session(watches, choice.option("bookmark"))
    every = choice.option("progress-ms") / 1000
    breaks = 0
    while loop.time() < until and not traffic.finished.is_set():
        await caller.authorize()
        async with caller.client.watch() as stream:
            await state.open(stream, ask=choice.option("at-once"))
            asked = loop.time()
            while loop.time() < until and not traffic.finished.is_set() and not stream.ended:
                try:
                    message = await stream.receive(min(IDLE_S, every or IDLE_S))
                except TimeoutError:
                    message = None
                if message is not None:
                    compacted = state.take(message)
                    if compacted is not None:
                        state.waiting.append(compacted)
                        await stream.send(compacted.request._replace(start_revision=compacted.next))
                if every and loop.time() - asked >= every:
                    asked = loop.time()
                    await stream.send(WatchProgressRequest())
            if choice.option("cancel") and not stream.ended:
                await _cancel(stream, state)
            if not stream.ended:
                return
        breaks += 1
        caller.forget_token()
        await traffic.rest(draws(traffic.plan.seed, caller.name + "/rest", breaks).uniform(*RESUME_REST_S))


async def _cancel(stream: WatchStream, state: Session) -> None:
    """Cancel every watch, and read until all are confirmed or nothing comes any more."""
    open_ = [watch for watch in state.watches if watch.id is not None]
    for watch in open_:
        assert watch.id is not None
        await stream.send(WatchCancelRequest(watch.id))
    while any(watch.id is not None for watch in open_) and not stream.ended:
        try:
            message = await stream.receive(IDLE_S)
        except TimeoutError:
            return
        if message is not None:
            state.take(message)


# ---- slow readers ----


async def _slow(traffic: Traffic) -> None:
    """On one member after the other: many watchers on one stream that nobody reads for a while."""
    loop = asyncio.get_running_loop()
    callers = [traffic.caller(f"watch-{member}-slow", member, administrator=True, slow=True) for member in traffic.members]
    ranges = [span for name in traffic.plan.workloads for span in RANGES.get(name, ())]
    n = 0
    if await traffic.idle(NAME, (SLOW,)):
        return
    while not traffic.finished.is_set():
        caller = callers[n % len(callers)]
        rng = draws(traffic.plan.seed, caller.name, n)
        n += 1
        key, end = ranges[0] if ranges else EVERYTHING
        hole = recent(rng)
        stall, pause = rng.randint(*SLOW_STALL_MS), rng.randint(*SLOW_PAUSE_MS)
        await caller.authorize()
        async with caller.client.watch() as stream:
            start = revision_of(hole, Horizon(traffic.revision, traffic.compacted))
            for index in range(SLOW_WATCHERS):
                await stream.send(WatchCreateRequest(key, end, start_revision=start, prev_kv=index % 2 == 0))
            traffic.counts["watch:slow"] += 1
            await traffic.rest(stall / 1000)
            until = loop.time() + SLOW_READ_MS / 1000
            while loop.time() < until and not stream.ended and not traffic.finished.is_set():
                try:
                    await stream.receive(IDLE_S)
                except TimeoutError:
                    await stream.send(WatchProgressRequest())
        if stream.ended and not stream.by_client:
            caller.forget_token()
        await traffic.rest(pause / 1000)


# ---- one message in fragments ----


async def _bulk(traffic: Traffic) -> None:
    """Once a run: write what will not fit into one message, and watch it from its past with fragments asked for."""
    if await traffic.idle(NAME, (BULKY,)) or not await traffic.until(BULK_FROM):
        return
    caller = traffic.caller("bulk", traffic.members[traffic.plan.seed % len(traffic.members)], administrator=True)
    start = 0
    for n in range(2):
        if not await traffic.turn():
            return
        puts = tuple(
            PutRequest(BULK + b"%02d" % index, unique_value(traffic.plan.seed, caller.name, n, index, BULK_VALUE_BYTES))
            for index in range(BULK_KEYS)
        )
        written = await caller.call(TxnRequest((), puts))
        if written.outcome == "ok":
            start = start or written.output.header.revision
    await caller.call(DeleteRangeRequest(BULK, prefix_end(BULK)))
    if not start:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + BULK_WAIT_S
    async with caller.client.watch() as stream:
        await stream.send(WatchCreateRequest(BULK, prefix_end(BULK), start_revision=start, prev_kv=True, fragment=True))
        while loop.time() < until and not stream.ended and not traffic.finished.is_set():
            try:
                message = await stream.receive(IDLE_S)
            except TimeoutError:
                continue
            if message is None or message.canceled:
                return
            traffic.counts["watch:fragments"] += message.fragment
            if any(event.type == DELETE for event in message.events) and not message.fragment:
                return  # the bulk has been taken away: there is no more to come
