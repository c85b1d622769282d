"""Histories that lie, and histories that only look as if they did.

Each mutation takes a simulated history and gives another one, or None where the history holds nothing that it could change. What it
makes of a history is known beforehand:

==========  ===================================================================================================================
illegal     no etcd could have answered so. Where every member's whole-keyspace watch was recorded and values are unique, a checker
            has to find it; from clients' answers alone it can be invisible, and then the oracle decides
legal       a real etcd may do so: a checker that complains gives a false alarm
==========  ===================================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Literal, NamedTuple

from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation, Stream, StreamMessage
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    COMPACT,
    DELETE,
    DELETE_RANGE,
    LEASE_REVOKE,
    PUT,
    PUT_METHOD,
    WATCH,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)
from simulator.cluster import BUSY, TIMEOUT, Simulated
from simulator.machine import COMPACTED, FUTURE, LEASE_NOT_FOUND, View, in_range, is_local, is_read

Change = Callable[[Simulated, Random], History | None]


class Mutation(NamedTuple):
    """`codes` are the catalogue's codes that may name it; empty for legal ones."""

    name: str
    kind: Literal["illegal", "legal"]
    change: Change
    codes: tuple[str, ...] = ()

    @property
    def of_watch(self) -> bool:
        """True where only what watches saw is changed."""
        return self.name.startswith("watch:")


MUTATIONS: list[Mutation] = []


def illegal(name: str, *codes: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        MUTATIONS.append(Mutation(name, "illegal", change, codes))
        return change

    return add


def legal(name: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        MUTATIONS.append(Mutation(name, "legal", change))
        return change

    return add


# ---- picking and replacing ----


def pick(s: Simulated, rng: Random, wanted: Callable[[Operation], Any]) -> Operation | None:
    found = [o for o in s.history.operations if o.outcome == OK and wanted(o)]
    return rng.choice(found) if found else None


def swap(history: History, operation: Operation, **changes: Any) -> History:
    """`history` with the fields `changes` of `operation` replaced, in order of call."""
    changed = operation._replace(**changes)
    operations = [changed if o.id == operation.id else o for o in history.operations]
    operations.sort(key=lambda o: (o.call, o.id))
    return replace(history, operations=tuple(operations))


def fresh(history: History) -> int:
    """A process number that is not in use."""
    return max((o.process for o in history.operations), default=0) + 1


def end(history: History) -> int:
    times = [o.ret or o.gave_up or o.call for o in history.operations] + [m.time for x in history.streams for m in x.messages]
    return max(times, default=1)


def is_list(o: Operation) -> bool:
    return isinstance(o.input, RangeRequest)


def is_linear_range(o: Operation) -> bool:
    return isinstance(o.input, RangeRequest) and not o.input.serializable


def acknowledged_before(s: Simulated, time: int) -> int:
    """The highest revision that an exact answer had shown by `time`."""
    answered = (o for o in s.history.operations if o.outcome == OK and o.ret is not None and o.ret < time)
    return max((o.output.header.revision for o in answered), default=1)


def wrote(s: Simulated, o: Operation) -> bool:
    """True where `o` owns a revision."""
    return any(entry.operation == o.id for entry in s.truth.log) and o.output.header.revision in s.truth.store.events


def change_kvs(s: Simulated, rng: Random, change: Callable[[KeyValue], KeyValue]) -> History | None:
    """One key-value in the answer to a Range, alone or inside a Txn, replaced."""
    o = pick(s, rng, lambda o: isinstance(o.input, RangeRequest) and o.output.kvs and not (o.input.keys_only and change is _other_value))
    if o is None:
        return None
    kvs = list(o.output.kvs)
    at = rng.randrange(len(kvs))
    kvs[at] = change(kvs[at])
    return swap(s.history, o, output=o.output._replace(kvs=tuple(kvs)))


# ---- answers that lie ----


@illegal("stale read", "KV-REAL-TIME")
def stale_read(s: Simulated, rng: Random) -> History | None:
    """A linearizable read is answered from before a revision that had been acknowledged."""
    o = pick(s, rng, lambda o: is_linear_range(o) and not o.input.revision and acknowledged_before(s, o.call) > 1)
    if o is None:
        return None
    old = rng.randint(1, acknowledged_before(s, o.call) - 1)
    return swap(s.history, o, output=s.truth.store.answer(o.input, View(old, -1), o.output.header))


@illegal("lost write", "KV-CONTENT", "KV-LOST-WRITE", "LOCAL-CONTENT")
def lost_write(s: Simulated, rng: Random) -> History | None:
    """A read shows a key as it was before its last acknowledged write."""

    def earlier(kv: KeyValue) -> KeyValue | None:
        chain = s.truth.store.chains[kv.key]
        before = [v for v in chain if v.mod_revision < kv.mod_revision and v.version]
        return before[-1] if before else None

    o = pick(s, rng, lambda o: isinstance(o.input, RangeRequest) and not o.input.keys_only and any(map(earlier, o.output.kvs)))
    if o is None:
        return None
    at = rng.choice([i for i, kv in enumerate(o.output.kvs) if earlier(kv)])
    kvs = list(o.output.kvs)
    kvs[at] = earlier(kvs[at])
    return swap(s.history, o, output=o.output._replace(kvs=tuple(kvs)))


def _other_value(kv: KeyValue) -> KeyValue:
    return kv._replace(value=kv.value + b"?")


@illegal("wrong value", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_value(s: Simulated, rng: Random) -> History | None:
    """A value that nobody wrote."""
    return change_kvs(s, rng, _other_value)


@illegal("wrong version", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_version(s: Simulated, rng: Random) -> History | None:
    """A version one too high."""
    return change_kvs(s, rng, lambda kv: kv._replace(version=kv.version + 1))


@illegal("wrong mod revision", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_mod_revision(s: Simulated, rng: Random) -> History | None:
    """A mod_revision one off."""
    return change_kvs(s, rng, lambda kv: kv._replace(mod_revision=kv.mod_revision + rng.choice((-1, 1))))


@illegal("wrong create revision", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_create_revision(s: Simulated, rng: Random) -> History | None:
    """A create_revision one too low."""
    return change_kvs(s, rng, lambda kv: kv._replace(create_revision=kv.create_revision - 1))


@illegal("wrong lease", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_lease(s: Simulated, rng: Random) -> History | None:
    """A key attached to a lease that nobody named."""
    return change_kvs(s, rng, lambda kv: kv._replace(lease=kv.lease + 77))


@illegal("duplicated slot", "KV-REVISION-REUSED")
def duplicated_slot(s: Simulated, rng: Random) -> History | None:
    """Two puts are acknowledged at one revision."""
    a = pick(s, rng, lambda o: isinstance(o.input, PutRequest))
    b = pick(s, rng, lambda o: isinstance(o.input, PutRequest) and a is not None and o.id != a.id)
    if a is None or b is None:
        return None
    return swap(s.history, a, output=a.output._replace(header=a.output.header._replace(revision=b.output.header.revision)))


@illegal("resurrected key", "KV-CONTENT", "LOCAL-CONTENT")
def resurrected_key(s: Simulated, rng: Random) -> History | None:
    """A read of an absent key shows what it once held."""

    def once(o: Operation) -> list[KeyValue]:
        revision = o.input.revision or o.output.header.revision
        return [kv for kv in s.truth.store.chains.get(o.input.key, []) if kv.version and kv.mod_revision < revision]

    o = pick(s, rng, lambda o: is_list(o) and not o.input.range_end and not o.output.count and not o.input.count_only and once(o))
    if o is None:
        return None
    kv = once(o)[-1]
    return swap(s.history, o, output=o.output._replace(kvs=(kv._replace(value=b"") if o.input.keys_only else kv,), count=1))


@illegal("revision rollback", "KV-REAL-TIME")
def revision_rollback(s: Simulated, rng: Random) -> History | None:
    """An answer's header is below a revision acknowledged before the call; its content is untouched."""
    o = pick(s, rng, lambda o: is_linear_range(o) and acknowledged_before(s, o.call) > 1)
    if o is None:
        return None
    lower = rng.randint(1, acknowledged_before(s, o.call) - 1)
    return swap(s.history, o, output=o.output._replace(header=o.output.header._replace(revision=lower)))


@illegal("content of another revision", "KV-CONTENT", "LOCAL-CONTENT")
def other_revision(s: Simulated, rng: Random) -> History | None:
    """A read's content is that of an older revision than its header (or its request) names."""
    o = pick(s, rng, lambda o: is_list(o) and (o.input.revision or o.output.header.revision) > 1)
    if o is None:
        return None
    at = o.input.revision or o.output.header.revision
    olds = [s.truth.store.answer(o.input._replace(revision=0), View(r, -1), o.output.header) for r in range(max(1, at - 20), at)]
    others = [old for old in olds if old[1:] != o.output[1:]]
    return swap(s.history, o, output=rng.choice(others)._replace(header=o.output.header)) if others else None


@illegal("dropped key", "KV-CONTENT", "LOCAL-CONTENT")
def dropped_key(s: Simulated, rng: Random) -> History | None:
    """A list misses a key, its count says nothing or says the same lie."""
    o = pick(s, rng, lambda o: is_list(o) and o.output.kvs)
    if o is None:
        return None
    kvs = list(o.output.kvs)
    del kvs[rng.randrange(len(kvs))]
    return swap(s.history, o, output=o.output._replace(kvs=tuple(kvs), count=o.output.count - rng.randint(0, 1)))


@illegal("wrong count", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_count(s: Simulated, rng: Random) -> History | None:
    """A count one too high."""
    o = pick(s, rng, is_list)
    return None if o is None else swap(s.history, o, output=o.output._replace(count=o.output.count + 1))


@illegal("wrong more", "KV-CONTENT", "LOCAL-CONTENT")
def wrong_more(s: Simulated, rng: Random) -> History | None:
    """`more` says the opposite."""
    o = pick(s, rng, is_list)
    return None if o is None else swap(s.history, o, output=o.output._replace(more=not o.output.more))


@illegal("wrong branch", "KV-CONTENT", "LOCAL-CONTENT", "COMPARES-ONLY-STALE")
def wrong_branch(s: Simulated, rng: Random) -> History | None:
    """A Txn says the other branch was taken."""
    o = pick(s, rng, lambda o: isinstance(o.input, TxnRequest))
    return None if o is None else swap(s.history, o, output=o.output._replace(succeeded=not o.output.succeeded))


@illegal("wrong content in a transaction", "KV-CONTENT", "LOCAL-CONTENT", "KV-REVISION-REUSED", "KV-LOST-WRITE")
def wrong_in_txn(s: Simulated, rng: Random) -> History | None:
    """An operation inside a Txn answers with a count, a number of deletions or a previous value that is not so."""
    o = pick(s, rng, lambda o: isinstance(o.input, TxnRequest) and o.output.responses)
    if o is None:
        return None
    responses = list(o.output.responses)
    at = rng.randrange(len(responses))
    responses[at] = _lie(responses[at])
    return swap(s.history, o, output=o.output._replace(responses=tuple(responses)))


def _lie(response: Any) -> Any:
    if isinstance(response, RangeResponse):
        return response._replace(count=response.count + 1)
    if isinstance(response, DeleteRangeResponse):
        return response._replace(deleted=response.deleted + 1)
    if isinstance(response, PutResponse):
        return response._replace(prev_kv=KeyValue(b"k00", 1, 1, 1, b"nobody", 0))
    assert isinstance(response, TxnResponse)
    return response._replace(succeeded=not response.succeeded)


@illegal("wrong prev_kv", "KV-CONTENT")
def wrong_prev_kv(s: Simulated, rng: Random) -> History | None:
    """A put or delete answers with another previous key-value, or with none where there was one."""
    o = pick(s, rng, lambda o: (isinstance(o.output, PutResponse) and o.output.prev_kv) or getattr(o.output, "prev_kvs", ()))
    if o is None:
        return None
    if isinstance(o.output, PutResponse):
        assert o.output.prev_kv is not None
        changed = rng.choice((None, o.output.prev_kv._replace(version=o.output.prev_kv.version + 1)))
        return swap(s.history, o, output=o.output._replace(prev_kv=changed))
    return swap(s.history, o, output=o.output._replace(prev_kvs=o.output.prev_kvs[1:]))


@illegal("wrong number deleted", "KV-CONTENT", "KV-REVISION-REUSED", "KV-UNEXPLAINED", "KV-LOST-WRITE")
def wrong_deleted(s: Simulated, rng: Random) -> History | None:
    """A delete says it took one more key than it did."""
    o = pick(s, rng, lambda o: isinstance(o.input, DeleteRangeRequest) and o.output.deleted)
    return None if o is None else swap(s.history, o, output=o.output._replace(deleted=o.output.deleted + 1))


@illegal("refused but applied", "REFUSED-BUT-APPLIED", "KV-UNEXPLAINED", "KV-WRONG-REFUSAL", "KV-CONTENT")
def refused_but_applied(s: Simulated, rng: Random) -> History | None:
    """A put that took effect is told as a definite refusal."""
    o = pick(s, rng, lambda o: isinstance(o.input, PutRequest) and not o.input.ignore_value and wrote(s, o))
    if o is None:
        return None
    return swap(s.history, o, outcome=FAILED, output=rng.choice((BUSY, LEASE_NOT_FOUND if o.input.lease else BUSY)))


@illegal("refused as compacted but applied", "REFUSED-BUT-APPLIED", "KV-UNEXPLAINED", "KV-COMPACTED", "KV-FUTURE-REVISION", "KV-CONTENT")
def ranged_txn_applied(s: Simulated, rng: Random) -> History | None:
    """A transaction that wrote is told as refused for a revision compacted or to come (#18667)."""
    o = pick(s, rng, lambda o: isinstance(o.input, TxnRequest) and wrote(s, o) and _puts_value(o))
    return None if o is None else swap(s.history, o, outcome=FAILED, output=rng.choice((COMPACTED, FUTURE)))


def _puts_value(o: Operation) -> bool:
    """True where the branch that was taken wrote a value of its own (so that nobody else can have)."""
    ops = o.input.success if o.output.succeeded else o.input.failure
    return any(isinstance(op, PutRequest) and not op.ignore_value for op in ops)


@illegal("a write nobody asked for", "KV-UNEXPLAINED", "KV-CONTENT", "KV-APPLIED-TWICE")
def hidden_writer(s: Simulated, rng: Random) -> History | None:
    """A put is not in the record; its effect is."""
    o = pick(s, rng, lambda o: isinstance(o.input, PutRequest) and not o.input.ignore_value and wrote(s, o))
    if o is None:
        return None
    return replace(s.history, operations=tuple(other for other in s.history.operations if other.id != o.id))


@illegal("read below the compaction", "KV-COMPACTED")
def read_compacted(s: Simulated, rng: Random) -> History | None:
    """A read at a revision whose compaction had been acknowledged is answered."""
    store = s.truth.store
    done = [(o.input.revision, o.ret) for o in s.history.operations if isinstance(o.input, CompactionRequest) and o.outcome == OK]

    def compacted(o: Operation) -> int:
        return max((q for q, ret in done if ret is not None and ret < o.call), default=0)

    o = pick(s, rng, lambda o: is_linear_range(o) and compacted(o) > 1)
    if o is None:
        return None
    request = o.input._replace(revision=compacted(o) - 1)
    answer = store.answer(request, View(o.output.header.revision, -1), o.output.header)
    return swap(s.history, o, input=request, output=answer)


@illegal("refused as compacted without a compaction", "KV-COMPACTED")
def refused_compacted(s: Simulated, rng: Random) -> History | None:
    """A read at a revision above every compaction asked for is refused as compacted."""
    o = pick(s, rng, is_linear_range)
    if o is None:
        return None
    asked = [c.input.revision for c in s.history.operations if isinstance(c.input, CompactionRequest) and c.outcome != FAILED]
    request = o.input._replace(revision=max([0, *asked]) + 1)
    return swap(s.history, o, input=request, outcome=FAILED, output=COMPACTED)


@illegal("compaction answered wrongly", "KV-COMPACTED", "KV-FUTURE-REVISION")
def wrong_compaction(s: Simulated, rng: Random) -> History | None:
    """A compaction below an acknowledged one is acknowledged, or one at an acknowledged revision is refused as to come."""
    if rng.random() < 0.5:
        o = pick(s, rng, lambda o: isinstance(o.input, CompactionRequest) and o.input.revision <= acknowledged_before(s, o.call))
        if o is None:
            return None
        return swap(s.history, o, outcome=FAILED, output=FUTURE)
    done = [(o.input.revision, o.ret) for o in s.history.operations if isinstance(o.input, CompactionRequest) and o.outcome == OK]
    late = [
        (q, o)
        for o in s.history.operations
        if is_linear_range(o) and o.outcome == OK
        for q, ret in done
        if ret is not None and ret < o.call
    ]
    if not late:
        return None
    q, o = rng.choice(late)
    request = CompactionRequest(rng.randint(1, q))
    return swap(s.history, o, input=request, output=CompactionResponse(o.output.header), method=COMPACT)


@illegal("refused as to come", "KV-FUTURE-REVISION")
def refused_future(s: Simulated, rng: Random) -> History | None:
    """A linearizable read at an acknowledged revision is refused as a future one."""
    o = pick(s, rng, lambda o: is_linear_range(o) and acknowledged_before(s, o.call) > 1)
    if o is None:
        return None
    request = o.input._replace(revision=rng.randint(2, acknowledged_before(s, o.call)))
    return swap(s.history, o, input=request, outcome=FAILED, output=FUTURE)


@illegal("refused for a lease that is there", "KV-WRONG-REFUSAL", "KV-UNEXPLAINED", "REFUSED-BUT-APPLIED", "LEASE-EARLY", "KV-CONTENT")
def refused_lease(s: Simulated, rng: Random) -> History | None:
    """A second grant of a lease id is acknowledged, or a revoke of a granted lease is refused."""
    granted = {o.input.id: o for o in s.history.operations if isinstance(o.input, LeaseGrantRequest) and o.outcome == OK}
    revoked = {o.input.id for o in s.history.operations if isinstance(o.input, LeaseRevokeRequest)}
    kept = [o for lease, o in granted.items() if lease not in revoked]
    later = [(g, o) for g in kept for o in s.history.operations if is_linear_range(o) and o.outcome == OK and o.call > (g.ret or 0)]
    later = [(g, o) for g, o in later if (o.ret or 0) < g.call + g.output.ttl * 1_000_000_000]
    if not later:
        return None
    grant, o = rng.choice(later)
    return swap(s.history, o, input=LeaseRevokeRequest(grant.input.id), outcome=FAILED, output=LEASE_NOT_FOUND, method=LEASE_REVOKE)


@illegal("reordered by the clock", "KV-REAL-TIME", "KV-UNEXPLAINED", "KV-CONTENT")
def late_call(s: Simulated, rng: Random) -> History | None:
    """A put is called after an answer that knew a higher revision had been given."""
    o = pick(s, rng, lambda o: isinstance(o.input, PutRequest) and wrote(s, o))
    if o is None:
        return None
    knew = [
        x.ret
        for x in s.history.operations
        if x.outcome == OK and x.ret is not None and x.id != o.id and x.output.header.revision >= o.output.header.revision
        and not is_local(x.input) and not isinstance(x.input, CompactionRequest)
    ]  # fmt: skip
    if not knew:
        return None
    call = min(knew) + 1
    if call <= o.call:
        return None
    return swap(s.history, o, call=call, ret=max(call + 1, o.ret or 0), process=fresh(s.history))


@illegal("answer from the future", "LOCAL-CONTENT", "KV-REAL-TIME", "KV-CONTENT", "KV-UNEXPLAINED")
def from_the_future(s: Simulated, rng: Random) -> History | None:
    """A serializable read shows a revision whose write had not been called."""
    store = s.truth.store
    o = pick(s, rng, lambda o: is_list(o) and o.input.serializable and not o.input.revision)
    if o is None:
        return None
    calls = {x.output.header.revision: x.call for x in s.history.operations if x.outcome == OK and isinstance(x.input, PutRequest)}
    later = [r for r, call in calls.items() if call > (o.ret or 0)]
    return swap(s.history, o, output=store.answer(o.input, View(rng.choice(later), -1), o.output.header)) if later else None


# ---- watches that lie ----


def streams(s: Simulated) -> list[Stream]:
    return [x for x in s.history.streams if x.method == WATCH]


def with_stream(history: History, stream: Stream, messages: list[StreamMessage]) -> History:
    changed = replace(stream, messages=tuple(messages))
    return replace(history, streams=tuple(changed if x.id == stream.id else x for x in history.streams))


def event_messages(stream: Stream) -> list[int]:
    return [i for i, m in enumerate(stream.messages) if isinstance(m.message, WatchResponse) and m.message.events]


def request_of(stream: Stream) -> WatchCreateRequest:
    return next(m.message for m in stream.messages if isinstance(m.message, WatchCreateRequest))


def some_events(s: Simulated, rng: Random, least: int = 1) -> tuple[Stream, list[StreamMessage], list[int]] | None:
    """A watch stream with at least `least` messages of events, its messages, and where those are."""
    found = [x for x in streams(s) if len(event_messages(x)) >= least]
    if not found:
        return None
    stream = rng.choice(found)
    return stream, list(stream.messages), event_messages(stream)


def edit(messages: list[StreamMessage], at: int, **changes: Any) -> None:
    messages[at] = messages[at]._replace(message=messages[at].message._replace(**changes))


@illegal("watch: reordered events", "WATCH-ORDERED", "WATCH-BOOKMARKABLE", "WATCH-ATOMIC")
def reordered_events(s: Simulated, rng: Random) -> History | None:
    """Two neighbouring messages change places."""
    found = some_events(s, rng, 2)
    if found is None:
        return None
    stream, messages, at = found
    pairs = [(i, j) for i, j in pairwise(at) if not messages[i].message.fragment and not messages[j].message.fragment]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    messages[i], messages[j] = messages[i]._replace(message=messages[j].message), messages[j]._replace(message=messages[i].message)
    return with_stream(s.history, stream, messages)


@illegal("watch: dropped event", "WATCH-RELIABLE", "WATCH-RESUMABLE")
def dropped_event(s: Simulated, rng: Random) -> History | None:
    """A message before the last is gone."""
    found = some_events(s, rng, 2)
    if found is None:
        return None
    stream, messages, at = found
    del messages[rng.choice(at[:-1])]
    return with_stream(s.history, stream, messages)


@illegal("watch: event missing from its revision", "WATCH-RELIABLE", "MEMBER-DIVERGED", "KV-LOST-WRITE")
def thinned_revision(s: Simulated, rng: Random) -> History | None:
    """One of several events of one revision is gone."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    many = [i for i in at if len({e.kv.mod_revision for e in messages[i].message.events}) < len(messages[i].message.events)]
    if not many:
        return None
    i = rng.choice(many)
    events = list(messages[i].message.events)
    revisions = [e.kv.mod_revision for e in events]
    del events[rng.choice([n for n, r in enumerate(revisions) if revisions.count(r) > 1])]
    edit(messages, i, events=tuple(events))
    return with_stream(s.history, stream, messages)


@illegal("watch: duplicated event", "WATCH-UNIQUE", "WATCH-ATOMIC")
def duplicated_event(s: Simulated, rng: Random) -> History | None:
    """A message comes twice."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    i = rng.choice(at)
    messages.insert(i + 1, messages[i]._replace(time=messages[i].time))
    return with_stream(s.history, stream, messages)


@illegal("watch: split revision", "WATCH-ATOMIC")
def split_revision(s: Simulated, rng: Random) -> History | None:
    """One revision comes in two messages, and nobody asked for fragments."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    many = [i for i in at if len(messages[i].message.events) > len({e.kv.mod_revision for e in messages[i].message.events})]
    if not many:
        return None
    i = rng.choice(many)
    events = messages[i].message.events
    cut = next(n for n in range(1, len(events)) if events[n].kv.mod_revision == events[n - 1].kv.mod_revision)
    edit(messages, i, events=events[:cut])
    messages.insert(i + 1, messages[i]._replace(message=messages[i].message._replace(events=events[cut:], fragment=False)))
    return with_stream(s.history, stream, messages)


@illegal("watch: wrong prev_kv", "WATCH-PREV-KV")
def wrong_event_prev_kv(s: Simulated, rng: Random) -> History | None:
    """An event's previous key-value is another one."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    with_prev = [(i, n) for i in at for n, e in enumerate(messages[i].message.events) if e.prev_kv]
    if not with_prev:
        return None
    i, n = rng.choice(with_prev)
    events = list(messages[i].message.events)
    events[n] = events[n]._replace(prev_kv=_other_value(events[n].prev_kv))
    edit(messages, i, events=tuple(events))
    return with_stream(s.history, stream, messages)


@illegal("watch: missing prev_kv", "WATCH-PREV-KV")
def missing_event_prev_kv(s: Simulated, rng: Random) -> History | None:
    """An event has no previous key-value though there was one, it was asked for, and nothing was compacted."""
    asked = [o.input.revision for o in s.history.operations if isinstance(o.input, CompactionRequest) and o.outcome != FAILED]
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    with_prev = [(i, n) for i in at for n, e in enumerate(messages[i].message.events) if e.prev_kv and e.kv.mod_revision > max([0, *asked])]
    if not with_prev:
        return None
    i, n = rng.choice(with_prev)
    events = list(messages[i].message.events)
    events[n] = events[n]._replace(prev_kv=None)
    edit(messages, i, events=tuple(events))
    return with_stream(s.history, stream, messages)


@illegal("watch: progress before event", "WATCH-BOOKMARKABLE", "WATCH-RELIABLE")
def early_progress(s: Simulated, rng: Random) -> History | None:
    """A progress notification names a revision whose events come after it."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    i = rng.choice(at)
    if i and messages[i - 1].message.__class__ is WatchResponse and messages[i - 1].message.fragment:
        return None
    messages.insert(i, messages[i]._replace(message=messages[i].message._replace(events=(), fragment=False)))
    return with_stream(s.history, stream, messages)


@illegal("watch: event outside the filter", "WATCH-FILTER")
def outside_filter(s: Simulated, rng: Random) -> History | None:
    """An event that is true, of a key or type that this watch did not ask for."""
    options = []
    for stream in streams(s):
        create = request_of(stream)
        for i in event_messages(stream):
            revision = stream.messages[i].message.events[-1].kv.mod_revision
            if stream.messages[i].message.fragment:
                continue
            for event in s.truth.store.events[revision]:
                unasked = not in_range(event.kv.key, create.key, create.range_end)
                unasked = unasked or (0 in create.filters and event.type == PUT) or (1 in create.filters and event.type == DELETE)
                if unasked:
                    options.append((stream, i, event))
    if not options:
        return None
    stream, i, event = rng.choice(options)
    messages = list(stream.messages)
    edit(messages, i, events=(*messages[i].message.events, event))
    return with_stream(s.history, stream, messages)


@illegal("watch: event before the start", "WATCH-START")
def before_start(s: Simulated, rng: Random) -> History | None:
    """A true event from below the revision at which the watch was to start comes first."""
    options = []
    for stream in streams(s):
        create = request_of(stream)
        at = event_messages(stream)
        below = [e for r, events in s.truth.store.events.items() if r < create.start_revision for e in events]
        below = [e for e in below if in_range(e.kv.key, create.key, create.range_end) and not create.filters]
        if at and below:
            options.append((stream, at[0], rng.choice(below)))
    if not options:
        return None
    stream, i, event = rng.choice(options)
    messages = list(stream.messages)
    edit(messages, i, events=(event, *messages[i].message.events))
    return with_stream(s.history, stream, messages)


@illegal("watch: wrong event", "WATCH-CONTENT", "MEMBER-DIVERGED", "KV-LOST-WRITE")
def wrong_event(s: Simulated, rng: Random) -> History | None:
    """An event shows a value that nobody wrote, or a wrong version."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    puts = [(i, n) for i in at for n, e in enumerate(messages[i].message.events) if e.type == PUT]
    if not puts:
        return None
    i, n = rng.choice(puts)
    events = list(messages[i].message.events)
    kv = events[n].kv
    events[n] = events[n]._replace(kv=rng.choice((_other_value(kv), kv._replace(version=kv.version + 1))))
    edit(messages, i, events=tuple(events))
    return with_stream(s.history, stream, messages)


@illegal("watch: header from the future", "WATCH-PROGRESS")
def future_header(s: Simulated, rng: Random) -> History | None:
    """A progress notification names a revision that not even every lost or refused operation and every lease together can have made."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    if messages[at[-1]].message.fragment:
        return None
    spare = sum(o.outcome != OK or isinstance(o.input, LeaseGrantRequest) for o in s.history.operations)
    header = messages[at[-1]].message.header._replace(revision=s.truth.store.revision + spare + 1)
    last = messages[at[-1]]
    messages = messages[: at[-1] + 1]
    messages.append(last._replace(time=last.time + 1, message=last.message._replace(header=header, events=())))
    return with_stream(s.history, stream, messages)


@illegal("watch: cancelled without reason", "WATCH-CANCEL")
def unprovoked_cancel(s: Simulated, rng: Random) -> History | None:
    """A watch is cancelled for a compaction that nobody asked for."""
    found = some_events(s, rng)
    if found is None:
        return None
    stream, messages, at = found
    i = rng.choice(at)
    if messages[i].message.fragment:
        return None
    asked = [o.input.revision for o in s.history.operations if isinstance(o.input, CompactionRequest) and o.outcome != FAILED]
    last = messages[i]
    compact = max([last.message.header.revision, *asked]) + 1
    cancel = WatchResponse(
        last.message.header._replace(revision=0), last.message.watch_id, False, True, compact, errors.COMPACTED, False, ()
    )
    messages = [*messages[: i + 1], last._replace(time=last.time + 1, message=cancel)]
    return with_stream(replace(s.history), stream, messages)


# ---- what only looks wrong ----


@legal("the answer was lost")
def lost_answer(s: Simulated, rng: Random) -> History | None:
    """An operation that took effect is told as indefinite."""
    o = pick(s, rng, lambda o: not is_read(o.input) and not (isinstance(o.input, LeaseGrantRequest) and not o.input.id))
    if o is None:
        return None
    return swap(s.history, o, outcome=INDEFINITE, ret=None, gave_up=o.ret, output=rng.choice((TIMEOUT, None)), process=fresh(s.history))


@legal("an operation that never happened")
def never_applied(s: Simulated, rng: Random) -> History | None:
    """An indefinite put or delete without effect stands beside the others."""
    if not s.history.operations:
        return None
    model = rng.choice(s.history.operations)
    put = rng.random() < 0.5
    request: Any = PutRequest(b"k00", b"never") if put else DeleteRangeRequest(b"k00")
    extra = model._replace(
        id=max(o.id for o in s.history.operations) + 1,
        process=fresh(s.history),
        client="kv-extra",
        input=request,
        method=PUT_METHOD if put else DELETE_RANGE,
        outcome=INDEFINITE,
        output=TIMEOUT,
        ret=None,
        gave_up=model.call + 1000,
    )
    operations = sorted((*s.history.operations, extra), key=lambda o: (o.call, o.id))
    return replace(s.history, operations=tuple(operations))


@legal("a read that failed")
def failed_read(s: Simulated, rng: Random) -> History | None:
    """A read that was answered is told as failed."""
    o = pick(s, rng, lambda o: is_read(o.input))
    return None if o is None else swap(s.history, o, outcome=FAILED, output=TIMEOUT)


@legal("a slow client")
def slow_client(s: Simulated, rng: Random) -> History | None:
    """An operation is called earlier and answered later than it was."""
    o = pick(s, rng, lambda o: True)
    if o is None:
        return None
    earlier = o.call
    if not isinstance(o.input, LeaseGrantRequest):
        earlier = max(1_000_000, o.call - rng.randint(0, 10 * s.config.mean_ns))
    return swap(s.history, o, call=earlier, ret=(o.ret or 0) + rng.randint(0, 10 * s.config.mean_ns), process=fresh(s.history))


@legal("a lagging member")
def lagging_member(s: Simulated, rng: Random) -> History | None:
    """A serializable read is answered from an older prefix of the log."""
    o = pick(s, rng, lambda o: is_local(o.input))
    if o is None:
        return None
    applied = [e.view for e in s.truth.log if e.time <= s.truth.applied[o.id]]
    answer = s.truth.store.answer(o.input, rng.choice([View(1, -1), *applied]), o.output.header)
    if isinstance(answer, WireError):
        return swap(s.history, o, outcome=FAILED, output=answer)
    return swap(s.history, o, output=answer)


@legal("watch: lagging")
def lagging_watch(s: Simulated, rng: Random) -> History | None:
    """A watch hears everything much later."""
    if not streams(s):
        return None
    stream = rng.choice(streams(s))
    delay = rng.randint(1, end(s.history))
    messages = [m if m.sent or m.message.created else m._replace(time=m.time + delay) for m in stream.messages]
    if any(m.sent for m in messages[1:]):
        return None
    return replace(
        s.history,
        streams=tuple(
            replace(x, messages=tuple(messages), ended=x.ended and x.ended + delay) if x.id == stream.id else x for x in s.history.streams
        ),
    )


@legal("watch: broken off")
def broken_watch(s: Simulated, rng: Random) -> History | None:
    """A stream ends after any of its messages."""
    if not streams(s):
        return None
    stream = rng.choice(streams(s))
    messages = stream.messages[: rng.randint(2, max(2, len(stream.messages)))]
    ended = replace(stream, messages=messages, ended=messages[-1].time + 1, code=errors.UNAVAILABLE)
    return replace(s.history, streams=tuple(ended if x.id == stream.id else x for x in s.history.streams))


@legal("watch: not recorded")
def lost_watch(s: Simulated, rng: Random) -> History | None:
    """A stream is not in the record at all."""
    if not streams(s):
        return None
    stream = rng.choice(streams(s))
    return replace(s.history, streams=tuple(x for x in s.history.streams if x.id != stream.id))


@legal("watch: prev_kv compacted away")
def compacted_prev_kv(s: Simulated, rng: Random) -> History | None:
    """A previous key-value is missing, and a compaction at its event's revision had been asked for."""
    asked = [(o.input.revision, o.call) for o in s.history.operations if isinstance(o.input, CompactionRequest) and o.outcome != FAILED]
    options = [
        (stream, i, n)
        for stream in streams(s)
        for i in event_messages(stream)
        for n, e in enumerate(stream.messages[i].message.events)
        if e.prev_kv and any(q >= e.kv.mod_revision and call < stream.messages[i].time for q, call in asked)
    ]
    if not options:
        return None
    stream, i, n = rng.choice(options)
    messages = list(stream.messages)
    events = list(messages[i].message.events)
    events[n] = events[n]._replace(prev_kv=None)
    edit(messages, i, events=tuple(events))
    return with_stream(s.history, stream, messages)


BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
