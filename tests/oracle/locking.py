"""Small histories of etcd's lock and election services, made step by step as a member makes them, and a slow opinion of each grant.

::

    python -m oracle.locking --cases 100000 --seed 1        (from the directory `tests`)

    client      ├─ Lock ─────────────────────────────────────────┤ answered, refused, lost, or given up
    member         put the key ── wait for older keys ── look again ── answer
    leases      ... run out, are revoked ...
    truth       a grant is right if at some moment of its call its key was there and no older one was

What a member does: etcd server/etcdserver/api/v3lock, v3election, client/v3/concurrency. A `forgetful` member does not look again (3.4,
#11456; no member does for elections); a `blind` one does not even wait, which no etcd ever did.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from pekan.checkers.case import Case, Options
from pekan.checkers.judge import judge
from pekan.checkers.kv import check_kv
from pekan.checkers.leases import all_sights
from pekan.checkers.locks import check_locks
from pekan.checkers.services import with_requests
from pekan.history.reading import outcome_of
from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation, Stream, StreamMessage
from pekan.models.etcd import Refused, State, apply, puts
from pekan.verdict import Finding
from pekan.wire import messages as wire
from pekan.wire import pb
from pekan.wire.errors import NOT_FOUND, UNAVAILABLE, UNKNOWN, WireError
from pekan.wire.messages import (
    CREATE,
    DELETE,
    EQUAL,
    PUT,
    Compare,
    DeleteRangeRequest,
    Header,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
)

LOST = WireError(UNAVAILABLE, "connection lost")
EXPIRED = WireError(UNKNOWN, "mutex: session is expired")
NO_LEASE = WireError(UNKNOWN, "etcdserver: requested lease not found")
NOT_LEADER = WireError(UNKNOWN, "election: not leader")
MS = 1_000_000
STEP_MS_MAX = 150
"""Between two steps of anybody: leases of a second or two run out between some of them, and live through others."""
PATIENCE_MS_MAX = 20_000
STEPS_MAX = 4_000
"""A world that has not come to its end by then is one in which somebody waits for nobody; it would be a mistake of this module."""
BUDGET_S = 0.5
"""For the search where no watch shows who wrote: none of these histories is about that."""

Steps = Generator[None, None, Any]


@dataclass
class Call:
    """One call under way at the member. `answer` is set when it is decided; `cancelled` when its client is gone."""

    request: Any
    answer: Any = None
    cancelled: bool = False


class Moment(NamedTuple):
    """The keys that are there from `time` on, with their create revisions."""

    time: int
    revision: int
    keys: dict[bytes, int]


@dataclass
class World:
    """One member, a few clients that lock, and what a recorder sees of them. Everything is a function of `rng`."""

    rng: Random
    forgetful: bool = False
    blind: bool = False
    watched: bool = True
    state: State = field(default_factory=State)
    now: int = MS
    operations: list[Operation] = field(default_factory=list)
    delivered: list[StreamMessage] = field(default_factory=list)
    truth: list[Moment] = field(default_factory=list)
    deadlines: dict[int, int] = field(default_factory=dict)
    processes: int = 0

    # ---- the member ----

    def apply(self, request: Any) -> Any:
        """The answer of the store, or the error; watches hear of it."""
        before = self.state.revision
        outcome = apply(self.state, request)
        if isinstance(outcome, Refused):
            return WireError(NOT_FOUND if "lease" in outcome.text else UNKNOWN, outcome.text)
        if isinstance(request, LeaseGrantRequest):
            self.deadlines[outcome.answer.id] = self.now + outcome.answer.ttl * 1000 * MS
        elif isinstance(request, LeaseRevokeRequest):
            self.deadlines.pop(request.id, None)
        if outcome.events:
            header = Header(7, 1, before + 1, 2)
            self.delivered.append(StreamMessage(self.now, False, WatchResponse(header, 0, False, False, 0, "", False, outcome.events)))
            self.truth.append(Moment(self.now, self.state.revision, {key: kv.create_revision for key, kv in self.state.kvs.items()}))
        return outcome.answer._replace(header=Header(7, 1, outcome.answer.header.revision, 2))

    def header(self) -> pb.ResponseHeader:
        return pb.ResponseHeader(cluster_id=7, member_id=1, revision=self.state.revision, raft_term=2)

    def older(self, prefix: bytes, revision: int) -> bool:
        return any(key.startswith(prefix) and kv.create_revision < revision for key, kv in self.state.kvs.items())

    def serve(self, call: Call) -> Steps:
        """What the member does for one call, a step at a time."""
        yield
        request = call.request
        if self.rng.random() < 0.05:
            return  # It never arrives, or the member forgets it; its client will give up.
        if isinstance(request, pb.LockRequest | pb.CampaignRequest):
            answer = yield from self.acquire(call, request)
        elif isinstance(request, pb.UnlockRequest):
            answer = self.apply(DeleteRangeRequest(request.key))
            answer = pb.UnlockResponse(header=self.header())
        elif isinstance(request, pb.ProclaimRequest | pb.ResignRequest):
            answer = self.lead(request)
        else:
            answer = self.apply(request)
        yield
        if self.rng.random() >= 0.05:  # else the answer is lost on its way
            call.answer = answer

    def acquire(self, call: Call, request: Any) -> Steps:
        election = isinstance(request, pb.CampaignRequest)
        lease = request.lease
        if not lease:
            lease = self.apply(LeaseGrantRequest(60, self.rng.randrange(1 << 40, 1 << 41))).id
            yield
        prefix = request.name + b"/"
        key = prefix + format(lease, "x").encode()
        value = request.value if election else b""
        told = self.apply(TxnRequest((Compare(EQUAL, CREATE, key, 0),), (PutRequest(key, value, lease),), (RangeRequest(key),)))
        if isinstance(told, WireError):
            return NO_LEASE
        header = self.header()
        mine = told.header.revision if told.succeeded else told.responses[0].kvs[0].create_revision
        if election and not told.succeeded and told.responses[0].kvs[0].value != value:
            yield
            guarded = TxnRequest((Compare(EQUAL, CREATE, key, mine),), (PutRequest(key, value, lease),))
            if not self.apply(guarded).succeeded:
                return NOT_LEADER
        waited = False
        while not self.blind and self.older(prefix, mine):
            waited = True
            yield
            if call.cancelled:
                yield
                self.apply(DeleteRangeRequest(key))
                return LOST
        if election:
            return pb.CampaignResponse(header=header, leader=pb.LeaderKey(name=request.name, key=key, rev=mine, lease=lease))
        if waited:
            header = self.header()
            if not self.forgetful:
                yield
                header = self.header()
                if key not in self.state.kvs:
                    return EXPIRED
        return pb.LockResponse(header=header, key=key)

    def lead(self, request: Any) -> Any:
        leader = request.leader
        proclaims = isinstance(request, pb.ProclaimRequest)
        change = PutRequest(leader.key, request.value, leader.lease) if proclaims else DeleteRangeRequest(leader.key)
        told = self.apply(TxnRequest((Compare(EQUAL, CREATE, leader.key, leader.rev),), (change,)))
        if isinstance(told, WireError):
            return NO_LEASE
        if not proclaims:
            return pb.ResignResponse(header=self.header())
        return pb.ProclaimResponse(header=self.header()) if told.succeeded else NOT_LEADER

    def expire(self) -> None:
        """Leases run out at their time or somewhat later."""
        for lease, deadline in list(self.deadlines.items()):
            if self.now > deadline and self.rng.random() < 0.5:
                self.apply(LeaseRevokeRequest(lease))

    # ---- the clients ----

    def ask(self, request: Any, name: str, running: list[Steps], patience_ms: int) -> Steps:
        """One call and its record; returns the answer, None where there is none."""
        call = Call(request)
        running.append(self.serve(call))
        self.processes += 1
        at, began = len(self.operations), self.now
        op = Operation(at + 1, self.processes, began, None, INDEFINITE, request, None, wire.method_of(request), name, "m1")
        self.operations.append(op)
        while call.answer is None and self.now < began + patience_ms * MS:
            yield
        answer = call.answer
        if answer is None:
            call.cancelled = True
            self.operations[at] = op._replace(output=LOST, gave_up=self.now)
        elif isinstance(answer, WireError):
            outcome = outcome_of(request, answer)
            ended = {"ret": self.now} if outcome == FAILED else {"gave_up": self.now}
            self.operations[at] = op._replace(outcome=outcome, output=answer, **ended)
        else:
            self.operations[at] = op._replace(outcome=OK, output=answer, ret=self.now)
        return None if isinstance(answer, WireError) else answer

    def client(self, number: int, turns: int, running: list[Steps]) -> Steps:
        """Locks and lets go, with leases that may not live so long."""
        rng, name = self.rng, f"lock-{number}"

        def ask(request: Any, patience_ms: int = 8_000) -> Steps:
            return self.ask(request, name, running, rng.randint(patience_ms // 4, patience_ms))

        for turn in range(turns):
            yield
            kind = rng.random()
            if kind < 0.1:
                yield from ask(RangeRequest(rng.choice((b"n/", b"\0")), b"\0"))
                continue
            if kind < 0.2:
                yield from ask(PutRequest(b"other", b"%d-%d" % (number, turn)))
                continue
            lease = 0
            if rng.random() < 0.97:
                granted = yield from ask(LeaseGrantRequest(rng.choice((1, 2, 3, 30)), number * 100 + turn + 1))
                if granted is None:
                    continue
                lease = granted.id
            if kind < 0.75:
                held = yield from ask(pb.LockRequest(name=rng.choice((b"n", b"n", b"n", b"m")), lease=lease), PATIENCE_MS_MAX)
                release: Any = None if held is None else pb.UnlockRequest(key=held.key)
            else:
                held = yield from ask(pb.CampaignRequest(name=b"e", lease=lease, value=b"%d" % number), PATIENCE_MS_MAX)
                release = None if held is None else pb.ResignRequest(leader=held.leader)
                if held is not None and rng.random() < 0.5:
                    yield from ask(pb.ProclaimRequest(leader=held.leader, value=b"%d!" % turn))
            if held is not None and rng.random() < 0.2:
                yield from ask(pb.LockRequest(name=b"n", lease=lease), PATIENCE_MS_MAX)
            if release is not None and rng.random() < 0.7:
                yield from ask(release)
            elif lease and rng.random() < 0.5:
                yield from ask(LeaseRevokeRequest(lease))
            elif held is not None and rng.random() < 0.2:
                yield from ask(DeleteRangeRequest(b"n/", b"n0"))

    def run(self, clients: int, turns: int) -> History:
        """Everybody's steps in random order, a last look at everything, and the record of it."""
        running: list[Steps] = []
        running += [self.client(number, turns, running) for number in range(1, clients + 1)]
        for _ in range(STEPS_MAX):
            if not running:
                break
            self.now += self.rng.randint(1, STEP_MS_MAX) * MS
            self.expire()
            steps = self.rng.choice(running)
            try:
                next(steps)
            except StopIteration:
                running.remove(steps)
        assert not running, "somebody waits for nobody"
        for steps in (self.ask(RangeRequest(b"\0", b"\0"), "check-0", running, 1_000_000),):
            while True:
                self.now += MS
                try:
                    next(steps)
                    for served in list(running):
                        if next(served, running) is running:
                            running.remove(served)
                    if not running and self.operations[-1].outcome == INDEFINITE:
                        self.now += 1_000_000 * MS
                except StopIteration:
                    break
        return History(tuple(self.operations), self._streams(), start="empty")

    def _streams(self) -> tuple[Stream, ...]:
        if not self.watched:
            return ()
        create = StreamMessage(0, True, WatchCreateRequest(b"\0", b"\0", start_revision=1))
        created = StreamMessage(1, False, WatchResponse(Header(7, 1, 1, 2), 0, True, False, 0, "", False, ()))
        return (Stream(1, wire.WATCH, "watch-m1-all", "m1", "", (create, created, *self.delivered), None, 0, "", False),)

    # ---- what is true ----

    def wrong(self) -> set[int]:
        """The numbers of the grants that were right at no moment of their calls, of a Lock none up to the revision of the answer."""
        found = set()
        for op in self.operations:
            if op.outcome == OK and isinstance(op.input, pb.LockRequest | pb.CampaignRequest):
                key = op.output.key if isinstance(op.input, pb.LockRequest) else op.output.leader.key
                if not any(_owns(keys, op.input.name, key) for keys in self._during(op)):
                    found.add(op.id)
        return found

    def _during(self, op: Operation) -> Iterator[dict[bytes, int]]:
        keys: dict[bytes, int] = {}
        for moment in self.truth:
            if moment.time > op.call:
                yield keys
            if op.ret is None or moment.time > op.ret:
                return
            if isinstance(op.input, pb.LockRequest) and moment.revision > op.output.header.revision:
                return
            keys = moment.keys
        yield keys


def _owns(keys: dict[bytes, int], name: bytes, key: bytes) -> bool:
    mine = keys.get(key)
    return mine is not None and not any(other.startswith(name + b"/") and first < mine for other, first in keys.items())


# ---- the slow opinion ----


def condemned(case: Case) -> set[int]:
    """The numbers of the grants that the proven order leaves no moment: the rules of `pekan.checkers.locks`, state by state.

    `case.order` covers every revision of the history.
    """
    order = case.order
    assert order is not None
    assert not order.unknown
    states: dict[int, dict[bytes, int]] = {1: {}}
    for revision in range(2, order.last + 1):
        keys = dict(states[revision - 1])
        for event in order.events[revision]:
            if event.type == DELETE:
                keys.pop(event.kv.key, None)
            else:
                assert event.type == PUT
                keys.setdefault(event.kv.key, revision)
        states[revision] = keys
    grants = [op for op in case.history.of(pb.LockRequest, pb.CampaignRequest) if op.outcome == OK]
    return {op.id for op in grants if _no_moment(case, op, grants, states)}


def _no_moment(case: Case, op: Operation, grants: list[Operation], states: dict[int, dict[bytes, int]]) -> bool:
    key, first = _told(op)
    last = max(states)
    if isinstance(op.input, pb.LockRequest):
        moments = range(1, first + 1)
        if first > last:
            return False
    else:
        putters = [o for o in case.history.of(PutRequest, TxnRequest) if o.outcome != FAILED and any(p.key == key for p in puts(o.input))]
        if len(putters) != 1 or key in states[last] or case.options.writers == "shared":
            return False
        moments = range(1, last + 1)
    shown = max((sight.revision for sight in all_sights(case.history) if sight.time < op.call), default=0)
    return not any(key in states[r] and not any(_holds(other, op, r, states) for other in grants) for r in moments if r >= shown)


def _holds(other: Operation, op: Operation, revision: int, states: dict[int, dict[bytes, int]]) -> bool:
    """Whether the one who was granted `other` held the lock that `op` was granted, for sure, at `revision`."""
    key, first = _told(other)
    mine, began = _told(op)
    if type(other.input) is not type(op.input) or other.input.name != op.input.name or key == mine:
        return False
    since = first
    if isinstance(other.input, pb.CampaignRequest):
        if other.ret is None or other.ret >= op.call or began <= first:
            return False
        since = began
    if first > max(states) or key not in states[first]:
        return False
    born = states[first][key]
    return since <= revision and all(states[r].get(key) == born for r in range(first, revision + 1))


def _told(op: Operation) -> tuple[bytes, int]:
    """The key that was granted; the revision of the answer, of a Campaign the one that created the key."""
    if isinstance(op.input, pb.LockRequest):
        return op.output.key, op.output.header.revision
    return op.output.leader.key, op.output.leader.rev


def of_locks(history: History) -> tuple[Case, tuple[Finding, ...]]:
    """The case with its order, and what the checker of locks finds."""
    served = with_requests(history)
    case = Case(served.history, Options(budget_s=BUDGET_S, writers="exclusive" if served.unknown is None else "shared"))
    check_kv(case)
    return case, check_locks(case).findings


# ---- both opinions ----


def disagreements(world: World, history: History, counts: Counter[str]) -> Iterator[str]:
    """Where the checkers call broken what was right, and where the slow opinion of a fully proven history is another."""
    wrong = world.wrong()
    counts["histories"] += 1
    for finding in judge(history, Options(budget_s=BUDGET_S), "reference").findings:
        counts[finding.code] += 1
        if not finding.code.startswith("LOCK-") or not wrong & set(finding.subject["operations"]):
            yield f"false alarm: {finding.code}: {finding.summary}"
    case, findings = of_locks(history)
    if case.order is None or case.order.unknown or case.order.last != world.state.revision:
        return
    slow, quick = condemned(case), {f.subject["operations"][-1] for f in findings if f.shape[1] != "answers"}
    counts["proven"] += 1
    counts["condemned"] += len(slow)
    if slow != quick:
        yield f"operations {sorted(slow)} by the slow opinion, {sorted(quick)} by the checker"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fuzzing of the checker of locks against what is true and against a slow opinion.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began, counts, found = time.perf_counter(), Counter[str](), 0
    for number in range(options.cases):
        rng = Random(options.seed * 1_000_003 + number)
        world = World(rng, forgetful=rng.random() < 0.4, blind=rng.random() < 0.1, watched=rng.random() < 0.88)
        history = world.run(rng.randint(2, 5), rng.randint(1, 7) if world.watched else 2)
        for told in disagreements(world, history, counts):
            found += 1
            print(f"seed {options.seed}, history {number}: {told}", flush=True)
    print(f"{dict(counts)} in {time.perf_counter() - began:.1f} s; {found} disagreements")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
