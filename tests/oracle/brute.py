"""Is there any linearization? All of them are tried (Wing and Gong's search) over `simulator.machine`.

Every fact of a history becomes a step that has to be, or may be, placed at one point of one order:

==========================================  ======  ==========================  ===========================================================
fact                                        placed  may stand                   is right where
==========================================  ======  ==========================  ===========================================================
acknowledged operation                      once    between call and return     the store answers exactly so
refusal that states a fact (compacted, ...) once    between call and return     the store refuses for that reason
answer from one member's own state          once    anywhere before its return  the store of that moment answers exactly so
indefinite operation                        0 or 1  anywhere after its call     it changes something
expiry of a lease                           0 or 1  anywhere after its deadline the lease is there
something seen (watch event, a header)      once    anywhere before that time   that revision exists and holds that
==========================================  ======  ==========================  ===========================================================

A history is legal exactly where such an order exists that keeps real time: a step that returned before another was called stands before it.
Exponential, meant for a dozen operations; nothing is clever but that a step which changes nothing is placed as soon as it fits (placing
it earlier can hinder nobody).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    WATCH,
    CompactionResponse,
    Event,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)
from simulator.machine import Store, is_local, is_read

SECOND = 1_000_000_000
FACTS = frozenset({errors.COMPACTED, errors.FUTURE_REVISION, errors.LEASE_NOT_FOUND, errors.LEASE_EXISTS, errors.KEY_NOT_FOUND})
"""Refusals that say something about the state of the store."""
NODES_MAX = 200_000
"""Beyond this many steps tried a history is too big for this oracle; the fuzzer counts such cases and fails where they are many."""


class TooBigError(Exception):
    """The search went beyond `NODES_MAX`."""


@dataclass(frozen=True)
class Step:
    """One fact. `run` gives the store after it, or None where it cannot stand here; the same store where it changes nothing."""

    name: str
    call: float
    ret: float
    must: bool
    run: Callable[[Store], Store | None]


def legal(history: History, *, evidence: bool, hides_lease: bool = False, early_expiry: bool = False) -> bool:
    """True where some order explains `history`, which starts on an empty store. With `evidence`, what watches saw counts too.

    `hides_lease`: as for `Store`. `early_expiry`: leases may go at any time, as if nobody had promised how long they live.
    """
    if history.start != "empty":
        raise ValueError("the oracle knows only stores that start empty")
    steps = [*operation_steps(history), *expiry_steps(history, early_expiry), *(watch_steps(history) if evidence else ())]
    return search(Store(hides_lease), tuple(steps))


def search(store: Store, steps: tuple[Step, ...]) -> bool:
    """True where all steps that must stand can be placed after one another."""
    dead: set[Any] = set()
    nodes = 0

    def place(store: Store, left: tuple[int, ...]) -> bool:
        nonlocal nodes
        while True:
            if not any(steps[i].must for i in left):
                return True
            first_return = min(steps[i].ret for i in left if steps[i].must)
            enabled = [i for i in left if steps[i].call <= first_return]
            tried = []
            for i in enabled:
                nodes += 1
                if nodes > NODES_MAX:
                    raise TooBigError
                after = steps[i].run(store)
                if after is store:
                    left = tuple(j for j in left if j != i)
                    break
                if after is not None:
                    tried.append((i, after))
            else:
                break
        here = (left, fingerprint(store))
        if here in dead:
            return False
        for i, after in tried:
            if place(after, tuple(j for j in left if j != i)):
                return True
        dead.add(here)
        return False

    return place(store, tuple(range(len(steps))))


def fingerprint(store: Store) -> Any:
    """Equal for stores that answer everything alike."""
    return store.revision, store.compacted, frozenset(store.leases.items()), tuple(store.events.values())


# ---- operations ----


def operation_steps(history: History) -> Iterator[Step]:
    for operation in history.operations:
        if operation.outcome == OK:
            yield from acknowledged(operation)
        elif operation.outcome == FAILED:
            yield from refused(operation)
        elif operation.outcome == INDEFINITE and not is_read(operation.input):
            request = operation.input
            if isinstance(request, LeaseGrantRequest):
                request = granting(request, operation)
            yield Step(f"#{operation.id}", operation.call, inf, False, effect(request))


def acknowledged(operation: Operation) -> Iterator[Step]:
    assert operation.ret is not None
    request, reply = operation.input, operation.output
    if isinstance(request, LeaseGrantRequest):
        request = granting(request._replace(id=reply.id), operation)
    if is_local(request):

        def read(store: Store) -> Store | None:
            return store if same(store.answer(request, store.view, hint=reply), reply) else None

        yield Step(f"#{operation.id}", -inf, operation.ret, True, read)
        return

    def run(store: Store) -> Store | None:
        after = store.clone()
        if not same(after.apply(request, hint=reply), reply):
            return None
        changed = fingerprint(after) != fingerprint(store)
        return after if changed else store

    yield Step(f"#{operation.id}", operation.call, operation.ret, True, run)
    if isinstance(reply, CompactionResponse):
        # A compaction's header is read after it, so it only names a revision that exists by then.
        yield seen_revision(f"header of #{operation.id}", reply.header.revision, operation.ret)


def refused(operation: Operation) -> Iterator[Step]:
    assert operation.ret is not None
    request, error = operation.input, operation.output
    if not isinstance(error, WireError) or error.message not in FACTS:
        return
    local = is_local(request)
    if local and error.message == errors.FUTURE_REVISION:
        return

    def run(store: Store) -> Store | None:
        if isinstance(request, TxnRequest):
            return store if error in store.refusals(request) else None
        return store if store.clone().apply(request) == error else None

    yield Step(f"#{operation.id}", -inf if local else operation.call, operation.ret, True, run)


def effect(request: Any) -> Callable[[Store], Store | None]:
    """What an operation whose answer nobody saw may have done; None where it would have changed nothing."""

    def run(store: Store) -> Store | None:
        after = store.clone()
        after.apply(request)
        return after if fingerprint(after) != fingerprint(store) else None

    return run


def same(ours: Any, theirs: Any) -> bool:
    """True where two answers agree in all that a client can hold etcd to: the header's revision, and all content."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, CompactionResponse):
        return True
    if ours.header.revision != theirs.header.revision:
        return False
    if isinstance(ours, TxnResponse):
        if ours.succeeded != theirs.succeeded or len(ours.responses) != len(theirs.responses):
            return False
        return all(same_inner(a, b) for a, b in zip(ours.responses, theirs.responses, strict=True))
    if isinstance(ours, LeaseGrantResponse):
        return bool(ours.id == theirs.id)
    return bool(ours[1:] == theirs[1:])


def same_inner(ours: Any, theirs: Any) -> bool:
    """As `same`, for an answer inside a Txn. A nested Txn has no header of its own."""
    return same(ours, theirs._replace(header=ours.header)) and (
        isinstance(ours, TxnResponse) or theirs.header.revision in (0, ours.header.revision)
    )


# ---- leases ----


def expiry_steps(history: History, early: bool) -> Iterator[Step]:
    """One per grant: that lease may go at any time from the deadline of the last answer that granted or renewed it.

    An id can be granted again after its lease is gone, so each grant has a deadline of its own.
    """
    grants = [o for o in history.operations if isinstance(o.input, LeaseGrantRequest) and o.outcome != FAILED]
    renewals = list(renewed(history))
    for grant in grants:
        answer = grant.output
        lease, ttl = (answer.id, answer.ttl) if isinstance(answer, LeaseGrantResponse) else (grant.input.id, grant.input.ttl)
        again = [other.call for other in grants if lease_of(other) == lease and other.call > grant.call]
        until = min(again, default=inf)
        mine = [asked + ttl * SECOND for of, asked, ttl in renewals if of == lease and grant.call <= asked < until]
        deadline = grant.call if early else max([grant.call + ttl * SECOND, *mine])
        yield Step(f"expiry of {lease}", deadline, inf, False, expiry(lease, grant.id))


def lease_of(grant: Operation) -> int:
    answered = isinstance(grant.output, LeaseGrantResponse)
    return int(grant.output.id if answered else grant.input.id)


def granting(request: LeaseGrantRequest, operation: Operation) -> LeaseGrantRequest:
    """The grant with the operation's id in place of the TTL: so the store's leases remember which grant made them."""
    return request._replace(ttl=operation.id)


def expiry(lease: int, grant: int) -> Callable[[Store], Store | None]:
    gone = effect(LeaseRevokeRequest(lease))
    return lambda store: gone(store) if store.leases.get(lease) == grant else None


def renewed(history: History) -> Iterator[tuple[int, int, int]]:
    """(lease, when the renewal was asked for, TTL in s of its answer) of every renewal that succeeded."""
    for stream in history.streams:
        asked: dict[int, int] = {}
        for time, sent, message in stream.messages:
            if isinstance(message, LeaseKeepAliveRequest) and sent:
                asked[message.id] = time
            elif isinstance(message, LeaseKeepAliveResponse) and message.ttl > 0:
                yield message.id, asked[message.id], message.ttl


# ---- watches ----


def watch_steps(history: History) -> Iterator[Step]:
    """What watches of the whole keyspace saw: complete write sets, and revisions that exist."""
    for stream in history.streams:
        if stream.method != WATCH:
            continue
        created = [m.message for m in stream.messages if isinstance(m.message, WatchCreateRequest)]
        if len(created) != 1 or created[0].key != b"\x00" or created[0].range_end != b"\x00" or created[0].filters:
            continue
        collected: dict[int, list[Event]] = {}
        for time, _, message in stream.messages:
            if not isinstance(message, WatchResponse):
                continue
            if message.header.revision:
                yield seen_revision(f"stream {stream.id}", message.header.revision, time)
            for event in message.events:
                collected.setdefault(event.kv.mod_revision, []).append(event)
            if not message.fragment:
                for revision, events in collected.items():
                    yield seen_events(f"stream {stream.id}", revision, events, time)
                collected = {}


def seen_revision(name: str, revision: int, time: float) -> Step:
    return Step(f"{name}: revision {revision}", -inf, time, True, lambda store: store if store.revision >= revision else None)


def seen_events(name: str, revision: int, events: list[Event], time: float) -> Step:
    def run(store: Store) -> Store | None:
        true = {(e.type, e.kv): e.prev_kv for e in store.events.get(revision, ())}
        if len(true) != len(events) or any((e.type, e.kv) not in true for e in events):
            return None
        return store if all(e.prev_kv in (None, true[e.type, e.kv]) for e in events) else None

    return Step(f"{name}: events of {revision}", -inf, time, True, run)
