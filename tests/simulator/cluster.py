"""A cluster and its clients, simulated in virtual time.

::

    clients ── request ──> [ call ····· applied ····· ret ]      one log, applied at one instant each
                                           │                     an indefinite operation: applied early, late, or never
    members ───────────────────────────────┴──> each has applied a prefix of the log; serializable reads and watches come from there

`simulate(config)` gives a `Simulated`: the `History` that Pekan would have recorded, and the truth behind it (the log), which only
tests may look at. Equal configurations give equal histories.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random
from typing import Any, Literal, NamedTuple

from pekan.history.types import FAILED, INDEFINITE, OK, History, Mark, Operation, Outcome, Stream, StreamMessage
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    DELETE,
    LEASE_KEEP_ALIVE,
    NODELETE,
    NOPUT,
    PUT,
    WATCH,
    Event,
    Header,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchResponse,
    method_of,
)
from simulator.machine import Store, View, in_range, is_local, is_read
from simulator.traffic import Mix, World

CLUSTER_ID = 14841639068965178418
MEMBER_IDS = (10276657743932975437, 18249187646912138824, 9372538179322589801, 10501334649042878790, 13803658152347727308)
TIMEOUT = WireError(errors.DEADLINE_EXCEEDED, "context deadline exceeded")
LOST = WireError(errors.UNAVAILABLE, "etcdserver: request timed out")
BUSY = WireError(errors.UNKNOWN, "etcdserver: too many requests")
SECOND = 1_000_000_000


@dataclass(frozen=True)
class WatchPlan:
    """One watch to keep on one member. `start` is a start revision, or an offset from the current one where `relative`."""

    member: int
    create: WatchCreateRequest
    relative: bool = False
    at_operation: int = 0
    reconnect: float = 0.0
    progress: float = 0.0


@dataclass(frozen=True)
class Config:
    """The knobs. Times in ns of virtual time, shares as probabilities per operation."""

    seed: int = 0
    operations: int = 200
    clients: int = 4
    members: int = 3
    keys: int = 6
    mix: Mix = field(default_factory=Mix)
    mean_ns: int = 1_000_000
    pause_ns: int = 500_000
    timeout_ns: int = 20_000_000
    indefinite: float = 0.03
    refused: float = 0.01
    outage: float = 0.0
    lag: float = 0.3
    unique_values: bool = True
    ttl: int = 5
    list_limit: int = 0
    renew: float = 0.0
    watch: int = 0
    watches: tuple[WatchPlan, ...] = ()
    reconnect: float = 0.0
    progress: float = 0.0
    hidden: int = 0
    fragment_of: int = 0
    hides_lease: bool = False

    @property
    def start(self) -> Literal["empty", "unknown"]:
        return "unknown" if self.hidden else "empty"


class Entry(NamedTuple):
    """One entry of the log: what changed the store, when, and how far the store had come after it. `operation` is -1 for an expiry."""

    time: int
    operation: int
    request: Any
    view: View


@dataclass(frozen=True)
class Truth:
    """What really happened. Operation ids are those of the history."""

    store: Store
    log: tuple[Entry, ...]
    applied: dict[int, int]
    """Operation id -> the virtual time at which it was applied or read."""


@dataclass(frozen=True)
class Simulated:
    history: History
    truth: Truth
    config: Config


@dataclass
class _Call:
    id: int
    client: int
    process: int
    call: int
    request: Any
    member: int
    fate: str
    response: Any = None


@dataclass
class _Watcher:
    plan: WatchPlan
    stream: int
    next: int
    synced: bool
    alive: bool = True
    start: int = 0


@dataclass
class _Open:
    id: int
    client: str
    member: int
    messages: list[StreamMessage]
    ended: int | None = None
    code: int = 0
    by_client: bool = False
    method: str = WATCH


class _Cluster:
    """The state of one simulation. Only `simulate` makes one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rng = Random(config.seed)
        self.store = Store(config.hides_lease)
        self.world = World(
            self.rng,
            [b"k%02d" % n for n in range(config.keys)] if config.keys > 1 else [b"k"],
            config.mix,
            config.unique_values,
            config.ttl,
            config.list_limit,
        )
        self.now = 1_000_000
        self.heap: list[tuple[int, int, str, Any]] = []
        self.sequence = 0
        self.pending = 0
        self.log: list[Entry] = []
        self.applied: dict[int, int] = {}
        self.operations: list[Operation] = []
        self.reached = [0] * config.members
        self.invoked = 0
        self.processes = config.clients
        self.process = list(range(config.clients))
        self.down_until = 0
        self.expiry: dict[int, int] = {}
        self.streams: list[_Open] = []
        self.watchers: list[_Watcher] = []
        self.term = 2

    # ---- the loop ----

    def run(self) -> Simulated:
        config = self.config
        for client in range(config.clients):
            self.at(self.now + self.rng.randint(1, config.pause_ns), "invoke", client)
        for member in range(config.members):
            self.at(self.now + self.rng.randint(1, config.mean_ns), "advance", member)
        self.plans = [
            *(
                WatchPlan(
                    m,
                    WatchCreateRequest(b"\x00", b"\x00", 0 if config.hidden else 1, progress_notify=True, prev_kv=True),
                    at_operation=config.hidden,
                    reconnect=config.reconnect,
                    progress=config.progress,
                )
                for m in range(min(config.watch, config.members))
            ),
            *config.watches,
        ]
        self.open_due()
        steps: dict[str, Any] = {
            "invoke": self.invoke,
            "apply": self.apply,
            "answer": self.answer,
            "advance": self.advance,
            "expire": self.expire,
        }
        while self.heap:
            self.now, _, kind, what = heappop(self.heap)
            self.pending -= kind in ("apply", "answer")
            steps[kind](what)
        self.now += config.timeout_ns
        for member in range(config.members):
            self.reach(member, len(self.log))
        self.operations.sort()
        return self.result()

    def at(self, time: int, kind: str, what: Any) -> None:
        self.sequence += 1
        self.pending += kind in ("apply", "answer")
        heappush(self.heap, (time, self.sequence, kind, what))

    @property
    def busy(self) -> bool:
        return self.invoked < self.config.operations

    def spread(self) -> int:
        return 1 + int(self.rng.expovariate(1 / self.config.mean_ns))

    # ---- operations ----

    def invoke(self, client: int) -> None:
        config, rng = self.config, self.rng
        if not self.busy:
            return
        if config.hidden and self.invoked == config.hidden and self.pending:
            # What is hidden has to be over before the record begins, else it would be a writer that nobody recorded.
            self.at(self.now + self.spread(), "invoke", client)
            return
        request = self.world.draw()
        call = _Call(self.invoked + 1, client, self.process[client], self.now, request, rng.randrange(config.members), "ok")
        self.invoked += 1
        self.open_due()
        if config.outage and rng.random() < config.outage:
            self.down_until = self.now + rng.randint(1, 3) * config.mean_ns
        if rng.random() < config.refused:
            call.fate, call.response = "refused", BUSY
            self.at(self.now + self.spread(), "answer", call)
            return
        if self.now < self.down_until or rng.random() < config.indefinite:
            call.fate = rng.choice(("early", "late", "never"))
            gives_up = self.now + config.timeout_ns
            if call.fate == "early":
                self.at(rng.randint(self.now + 1, gives_up), "apply", call)
            elif call.fate == "late":
                self.at(gives_up + rng.randint(1, 4 * config.timeout_ns), "apply", call)
            self.at(gives_up, "answer", call)
            return
        self.at(self.now + self.spread(), "apply", call)

    def apply(self, call: _Call) -> None:
        """The instant at which the request takes effect, or is read."""
        request, member = call.request, call.member
        self.applied[call.id] = self.now
        if is_local(request):
            if self.rng.random() >= self.config.lag:
                self.reach(member, len(self.log))
            call.response = self.store.answer(request, self.seen_by(member), self.header(member), self.any_order())
        else:
            before = self.store.view, len(self.store.leases)
            call.response = self.store.apply(request, self.header(member), self.any_order())
            if (self.store.view, len(self.store.leases)) != before:
                self.log.append(Entry(self.now, call.id, request, self.store.view))
                if isinstance(request, LeaseGrantRequest):
                    self.keep_lease(request.id)
        if call.fate == "ok":
            self.at(self.now + self.spread(), "answer", call)

    def answer(self, call: _Call) -> None:
        """The client sees the answer, or gives up."""
        outcome: Outcome = OK
        output = call.response
        ret: int | None = self.now
        gave_up: int | None = None
        following = self.process[call.client]
        if call.fate == "ok" and not is_local(call.request):
            # Whoever answers a request has applied it.
            self.reach(call.member, bisect_left(self.log, self.applied[call.id] + 1, key=lambda entry: entry.time))
        if call.fate in ("early", "late", "never"):
            output = self.rng.choice((TIMEOUT, LOST))
            if is_read(call.request):
                outcome = FAILED
            else:
                outcome, ret, gave_up = INDEFINITE, None, self.now
                following, self.processes = self.processes, self.processes + 1
        elif isinstance(output, WireError):
            outcome = FAILED
        else:
            self.world.revision = max(self.world.revision, output.header.revision)
        self.operations.append(
            Operation(
                call.id,
                call.process,
                call.call,
                ret,
                outcome,
                call.request,
                output,
                method_of(call.request),
                f"kv-{call.client}",
                f"m{call.member}",
                "",
                gave_up,
            )
        )
        self.process[call.client] = following
        self.at(self.now + 1 + int(self.rng.expovariate(1 / self.config.pause_ns)), "invoke", call.client)

    def any_order(self) -> Any:
        """A hint for ties. Go's sort is stable up to 12 elements only, so ties are shuffled for large key spaces alone."""
        if self.config.keys <= 12:
            return None
        kvs = list(self.store.live.values())
        self.rng.shuffle(kvs)
        return _Order(kvs)

    # ---- leases ----

    def keep_lease(self, lease: int) -> None:
        deadline = self.now + self.store.leases[lease] * SECOND
        self.expiry[lease] = deadline
        if self.rng.random() < 0.8:
            self.at(deadline + self.spread(), "expire", lease)
        if self.rng.random() < self.config.renew:
            self.renew(lease)

    def renew(self, lease: int) -> None:
        """A KeepAlive on a stream of its own, answered at once."""
        member = self.rng.randrange(self.config.members)
        header = self.header(member)._replace(revision=self.seen_by(member).revision)
        ttl = self.store.leases[lease]
        stream = _Open(len(self.streams), "lease-0", member, [], method=LEASE_KEEP_ALIVE)
        stream.messages.append(StreamMessage(self.now, True, LeaseKeepAliveRequest(lease)))
        stream.messages.append(StreamMessage(self.now + self.spread(), False, LeaseKeepAliveResponse(header, lease, ttl)))
        stream.ended, stream.by_client = stream.messages[-1].time + 1, True
        self.streams.append(stream)
        self.expiry[lease] = self.now + ttl * SECOND

    def expire(self, lease: int) -> None:
        if lease not in self.store.leases or not self.busy:
            return
        if self.now < self.expiry[lease]:
            self.at(self.expiry[lease] + self.spread(), "expire", lease)
            return
        self.store.apply(LeaseRevokeRequest(lease))
        self.log.append(Entry(self.now, -1, LeaseRevokeRequest(lease), self.store.view))

    # ---- members and watches ----

    def header(self, member: int) -> Header:
        return Header(CLUSTER_ID, MEMBER_IDS[member], 0, self.term)

    def seen_by(self, member: int) -> View:
        reached = self.reached[member]
        return self.log[reached - 1].view if reached else View(1, -1)

    def advance(self, member: int) -> None:
        behind = len(self.log) - self.reached[member]
        if behind:
            whole = self.rng.random() >= self.config.lag
            self.reach(member, len(self.log) if whole else self.reached[member] + self.rng.randint(0, behind))
        if self.busy or self.heap:
            if any(kind != "advance" for _, _, kind, _ in self.heap[:8]) or self.busy:
                self.at(self.now + self.spread(), "advance", member)

    def reach(self, member: int, reached: int) -> None:
        """Member `member` applies the log up to `reached`; its watchers hear of it."""
        if reached <= self.reached[member]:
            return
        self.reached[member] = reached
        for watcher in self.watchers:
            if watcher.plan.member == member and watcher.alive:
                self.deliver(watcher)

    def open_due(self) -> None:
        due = [plan for plan in self.plans if plan.at_operation <= self.invoked]
        self.plans = [plan for plan in self.plans if plan.at_operation > self.invoked]
        for plan in due:
            self.open(plan)

    def open(self, plan: WatchPlan, start: int | None = None) -> None:
        view = self.seen_by(plan.member)
        create = plan.create
        if plan.relative:
            create = create._replace(start_revision=max(1, view.revision + create.start_revision))
        if start is not None:
            create = create._replace(start_revision=start)
        stream = _Open(len(self.streams), f"watch-m{plan.member}-{len(self.streams)}", plan.member, [])
        self.streams.append(stream)
        self.send(stream, create)
        header = self.header(plan.member)._replace(revision=view.revision)
        watcher = _Watcher(replace(plan, create=create, relative=False), stream.id, create.start_revision or view.revision + 1, True)
        watcher.start = watcher.next
        watcher.synced = watcher.next > view.revision
        self.watchers.append(watcher)
        self.tell(stream, WatchResponse(header, create.watch_id, True, False, 0, "", False, ()))
        self.deliver(watcher)

    def send(self, stream: _Open, message: Any) -> None:
        stream.messages.append(StreamMessage(self.not_before(stream, self.now), True, message))

    def tell(self, stream: _Open, message: WatchResponse) -> None:
        stream.messages.append(StreamMessage(self.not_before(stream, self.now + self.rng.randint(1, 1000)), False, message))

    @staticmethod
    def not_before(stream: _Open, time: int) -> int:
        return max(time, stream.messages[-1].time + 1) if stream.messages else time

    def deliver(self, watcher: _Watcher) -> None:
        """Everything that this member has applied and this watcher has not heard: one message a revision where it kept up,
        few messages with many revisions where it had fallen behind.
        """
        plan, rng = watcher.plan, self.rng
        create = plan.create
        view = self.seen_by(plan.member)
        stream = self.streams[watcher.stream]
        header = self.header(plan.member)
        if not watcher.synced and watcher.next < view.compacted:
            self.tell(
                stream,
                WatchResponse(
                    header._replace(revision=0),
                    create.watch_id,
                    False,
                    True,
                    view.compacted,
                    "etcdserver: mvcc: required revision has been compacted",
                    False,
                    (),
                ),
            )
            watcher.alive = False
            return
        behind = not watcher.synced
        batch: list[Event] = []
        for revision in range(watcher.next, view.revision + 1):
            found = [e for e in (self.asked(create, event, view) for event in self.store.events.get(revision, ())) if e is not None]
            if found:
                if behind:
                    batch.extend(found)
                    if rng.random() < 0.3:
                        self.tell(stream, self.events(watcher, header._replace(revision=view.revision), batch))
                        batch = []
                else:
                    self.tell_events(stream, watcher, header._replace(revision=revision), found)
        if batch:
            self.tell(stream, self.events(watcher, header._replace(revision=view.revision), batch))
        watcher.next = max(watcher.next, view.revision + 1)
        watcher.synced = True
        # etcd is silent about progress until a watch that was asked to start later has begun.
        caught_up = view.revision + 1 == watcher.next and view.revision >= create.start_revision
        if caught_up and create.progress_notify and rng.random() < 0.1:
            self.tell(stream, self.events(watcher, header._replace(revision=view.revision), []))
        if caught_up and rng.random() < plan.progress:
            self.send(stream, WatchProgressRequest())
            self.tell(stream, WatchResponse(header._replace(revision=view.revision), -1, False, False, 0, "", False, ()))
        if rng.random() < plan.reconnect and self.busy:
            watcher.alive = False
            stream.ended, stream.code = stream.messages[-1].time + 1, errors.UNAVAILABLE
            other = replace(plan, member=rng.randrange(self.config.members))
            self.open(other, watcher.next)

    @staticmethod
    def events(watcher: _Watcher, header: Header, events: list[Event]) -> WatchResponse:
        return WatchResponse(header, watcher.plan.create.watch_id, False, False, 0, "", False, tuple(events))

    def tell_events(self, stream: _Open, watcher: _Watcher, header: Header, found: list[Event]) -> None:
        """One revision as one message, or in fragments where they were asked for."""
        size = self.config.fragment_of
        if not (size and watcher.plan.create.fragment and len(found) > size):
            self.tell(stream, self.events(watcher, header, found))
            return
        for first in range(0, len(found), size):
            last = first + size >= len(found)
            self.tell(stream, self.events(watcher, header, found[first : first + size])._replace(fragment=not last))

    @staticmethod
    def asked(create: WatchCreateRequest, event: Event, view: View) -> Event | None:
        """The event as this watch asked for it, None where it did not."""
        if not in_range(event.kv.key, create.key, create.range_end):
            return None
        if (event.type == PUT and NOPUT in create.filters) or (event.type == DELETE and NODELETE in create.filters):
            return None
        # The previous key-value is read at the revision before, which a compaction may have taken.
        if not create.prev_kv or event.kv.mod_revision - 1 < view.compacted:
            return event._replace(prev_kv=None)
        return event

    # ---- the record ----

    def result(self) -> Simulated:
        config = self.config
        end = self.now
        operations = self.operations
        if config.hidden:
            operations = [operation for operation in operations if operation.id > config.hidden]
            begin = operations[0].call - 1 if operations else end
        else:
            begin = operations[0].call - 1 if operations else end
        detail = {"boot_id": "simulated", "clock": "CLOCK_MONOTONIC", "start": config.start, "members": {}}
        marks = (Mark(begin, "start", "", detail), Mark(end + 1, "end", "", {"reason": "finished"}))
        streams = tuple(
            Stream(s.id, s.method, s.client, f"m{s.member}", "", tuple(s.messages), s.ended, s.code, "", s.by_client) for s in self.streams
        )
        history = History(tuple(operations), streams, (), marks, None, config.start, "real-time", True, 0, None)
        return Simulated(history, Truth(self.store, tuple(self.log), self.applied), config)


class _Order(NamedTuple):
    """A hint for ties that looks like a reply's key order."""

    kvs: Any


def simulate(config: Config) -> Simulated:
    """The history that `config` makes."""
    return _Cluster(config).run()
