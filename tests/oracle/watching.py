"""Did each watch tell the one true story? Obvious loops over every pair, given the order that really was.

`stories(history, truth)` yields one line for each broken promise, beginning with the catalogue's code of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import inf

from pekan.history.types import FAILED, History, Stream
from pekan.wire.messages import (
    DELETE,
    NODELETE,
    NOPUT,
    PUT,
    WATCH,
    CompactionRequest,
    Event,
    WatchCreateRequest,
    WatchResponse,
)
from simulator.cluster import Truth
from simulator.machine import in_range

Received = list[tuple[int, WatchResponse]]


def stories(history: History, truth: Truth) -> Iterator[str]:
    """Every broken promise of every watch of `history`, against the log that really was."""
    for stream in history.streams:
        if stream.method != WATCH:
            continue
        received = [(m.time, m.message) for m in stream.messages if isinstance(m.message, WatchResponse)]
        yield from revisions(history, truth, received)
        for time, _, create in stream.messages:
            if isinstance(create, WatchCreateRequest):
                mine = [(t, m) for t, m in received if t > time and m.watch_id in (create.watch_id, -1)]
                yield from watch(history, truth, create, mine)
        yield from whole_keyspace(stream)


def revisions(history: History, truth: Truth, received: Received) -> Iterator[str]:
    """Headers name revisions that some request, called before, can have made; and progress on one stream does not go back."""
    highest = 0
    for time, message in received:
        revision = message.header.revision
        if revision > truth.store.revision or called(history, truth, revision) > time:
            yield f"WATCH-PROGRESS: header {revision} at {time}, before any such revision"
        if message.canceled or message.created or message.events:
            continue
        if revision < highest:
            yield f"WATCH-PROGRESS: header {revision} after {highest}"
        highest = max(highest, revision)


def called(history: History, truth: Truth, revision: int) -> float:
    """When the request that made `revision` was called, at the earliest; an expiry may have been at any time of the log."""
    for entry, before in zip(truth.log, (1, *(e.view.revision for e in truth.log)), strict=False):
        if before < revision <= entry.view.revision:
            calls = [o.call for o in history.operations if o.id == entry.operation]
            return calls[0] if calls else -inf
    return -inf


def watch(history: History, truth: Truth, create: WatchCreateRequest, received: Received) -> Iterator[str]:
    start = create.start_revision
    for _, message in received:
        if message.created:
            start = start or message.header.revision + 1
            break
    else:
        return
    received = [(t, m) for t, m in received if not m.created]
    events = [(i, t, e) for i, (t, m) in enumerate(received) for e in m.events]
    for n, (i, time, event) in enumerate(events):
        revision = event.kv.mod_revision
        if not wanted(create, event):
            yield f"WATCH-FILTER: {event}"
        if revision < start:
            yield f"WATCH-START: {event} below {start}"
        # One transaction can put and delete a key, by an open range: then the type tells which of the two this is.
        true = [e for e in truth.store.events.get(revision, ()) if e.kv.key == event.kv.key]
        true.sort(key=lambda e: e.type != event.type)
        if not true or (true[0].type, true[0].kv) != (event.type, event.kv):
            yield f"WATCH-CONTENT: {event} where {true} is true"
        elif event.prev_kv not in (None, true[0].prev_kv):
            yield f"WATCH-PREV-KV: {event.prev_kv} where {true[0].prev_kv} was"
        elif event.prev_kv is None and create.prev_kv and true[0].prev_kv and not compaction(history, revision, time):
            yield f"WATCH-PREV-KV: none where {true[0].prev_kv} was, and no compaction to blame"
        for j, _, earlier in events[:n]:
            if earlier.kv.mod_revision > revision:
                yield f"WATCH-ORDERED: {event} after {earlier}"
            if (earlier.kv.mod_revision, earlier.kv.key, earlier.type) == (revision, event.kv.key, event.type):
                yield f"WATCH-UNIQUE: {event}"
            if earlier.kv.mod_revision == revision and any(not m.fragment for _, m in received[j:i]):
                yield f"WATCH-ATOMIC: {event} and {earlier}"
        for _, earlier_message in received[:i]:
            if is_progress(earlier_message) and earlier_message.header.revision >= revision:
                yield f"WATCH-BOOKMARKABLE: {event} after progress {earlier_message.header.revision}"
    for i, (time, message) in enumerate(received):
        before = [e.kv.mod_revision for j, _, e in events if j < i]
        if is_progress(message):
            if create.start_revision and message.header.revision < create.start_revision:
                yield f"WATCH-START: progress {message.header.revision} before {create.start_revision}"
        if message.canceled:
            due = max([start, *(r + 1 for r in before)])
            if not any(c == message.compact_revision for c, called in compactions(history) if called < time):
                yield f"WATCH-CANCEL: compaction {message.compact_revision} that nobody asked for"
            if not compaction(history, due + 1, time):
                yield f"WATCH-CANCEL: {due} was due and not compacted"
            if i != len(received) - 1:
                yield "WATCH-CANCEL: more after the cancellation"
        if message.fragment and not create.fragment:
            yield "WATCH-FRAGMENT: nobody asked for fragments"
    yield from missing(truth, create, start, received, events)


def missing(
    truth: Truth, create: WatchCreateRequest, start: int, received: Received, events: list[tuple[int, int, Event]]
) -> Iterator[str]:
    """What is true, asked for, and not above what was delivered or announced, has to have come."""
    whole = [e.kv.mod_revision for i, _, e in events if not received[i][1].fragment]
    partly = [e.kv.mod_revision - 1 for i, _, e in events if received[i][1].fragment]
    bound = max([0, *whole, *partly, *(m.header.revision for _, m in received if is_progress(m))])
    got = {(e.kv.mod_revision, e.kv.key, e.type) for _, _, e in events}
    for revision, true in truth.store.events.items():
        for event in true:
            if start <= revision <= bound and wanted(create, event) and (revision, event.kv.key, event.type) not in got:
                yield f"WATCH-RELIABLE: {event} is missing below {bound}"


def is_progress(message: WatchResponse) -> bool:
    """A promise that everything up to the header's revision was delivered."""
    return not message.events and not message.created and not message.canceled


def wanted(create: WatchCreateRequest, event: Event) -> bool:
    if (event.type == PUT and NOPUT in create.filters) or (event.type == DELETE and NODELETE in create.filters):
        return False
    return in_range(event.kv.key, create.key, create.range_end)


def compactions(history: History) -> list[tuple[int, int]]:
    """(revision asked for, time of the call) of every compaction that was not refused."""
    return [(o.input.revision, o.call) for o in history.operations if isinstance(o.input, CompactionRequest) and o.outcome != FAILED]


def compaction(history: History, revision: int, time: int) -> bool:
    """True where a compaction at or above `revision` was invoked before `time`."""
    return any(asked >= revision and called < time for asked, called in compactions(history))


def whole_keyspace(stream: Stream) -> Iterator[str]:
    """Fragments end before anything else begins: the last message of a stream that goes on is no open fragment."""
    received = [m.message for m in stream.messages if isinstance(m.message, WatchResponse)]
    for this, following in pairwise(received):
        if this.fragment and (not following.events or following.watch_id != this.watch_id):
            yield "WATCH-FRAGMENT: never completed"
