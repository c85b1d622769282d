"""What watches show, merged once and shared by all checkers.

::

    gRPC stream ──split──> Watch, Watch, ...   one per create request: its own messages, fragments put together     watches(case)
    Watch, Watch, ... ──merge──> Watched       revision -> events, what is whole, what each member told            watched(case)
    Watched ──compare──> Difference            the first revision of which two tellings differ                      first_difference(...)

How a stream splits (etcd server/etcdserver/api/v3rpc/watch.go, read at 3.5.35, 3.6.16 and 3.7.3):

============================  =======================================================================================
message                       belongs to
============================  =======================================================================================
``created``                   the oldest create request of the stream not yet answered (they are answered in order)
``created`` + ``canceled``    the same, refused; its watch id is -1 (before 3.5: what was asked) and opens nothing
``watch_id`` -1               a progress notification for every watch of the stream that is created and not cancelled
``canceled``                  the open watch of that id; the id is free from then on
``fragment``                  a piece: it and the pieces up to the first unmarked one are a single message
anything else                 the open watch of that id
============================  =======================================================================================

Cost: one pass over the messages and one over the events; an event that three members deliver is one object (interned by the decoder), so
the comparison of tellings is pointer comparison in all but the first. About 1 us per delivered event on one core of a small machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pekan.checkers.case import Case
from pekan.history.types import History, Outcome, Stream, StreamMessage
from pekan.wire import messages as wire
from pekan.wire.messages import CompactionRequest, Event, WatchCancelRequest, WatchCreateRequest

_NEVER = float("inf")
ALL_WATCHES = -1
"""The watch id of a progress notification that speaks for every watch of its stream, and of a refused create."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One watch of one stream, as its client saw it. Times are ns of the run's clock.

    id          watch id of the created reply (-1 where refused or unanswered)
    request     what was asked, at `asked`
    created     the created reply; None where none came before the stream ended
    messages    everything after it that is addressed to this watch, in order, the cancellation included: fragments put together (time and
                header of the last piece), progress with watch id -1 included
    canceled    the message that cancelled or refused it
    cancel_sent when the client asked for the cancellation, None where it did not
    fragments   the pieces marked as such, as received
    unfinished  pieces whose last one never came
    late        messages for its id after the cancellation and before the id was used again
    ended       when the stream ended, None where it was open at the end of the record
    floor       highest header revision that this stream had shown before the create request was sent: the member stood there
    """

    stream: int
    member: str
    client: str
    user: str
    id: int
    request: WatchCreateRequest
    asked: int
    created: StreamMessage | None
    messages: Sequence[StreamMessage]
    canceled: StreamMessage | None
    cancel_sent: int | None
    fragments: tuple[StreamMessage, ...]
    unfinished: tuple[StreamMessage, ...]
    late: tuple[StreamMessage, ...]
    ended: int | None
    floor: int

    @property
    def refused(self) -> bool:
        """True where the create request itself was refused (permission, duplicate id, negative start on new versions)."""
        return self.created is not None and self.created.message.canceled

    @property
    def whole(self) -> bool:
        """True where every event of the keyspace matches the request."""
        return is_whole(self.request)


class Told(NamedTuple):
    """What one watch delivered of one revision: `events` in key order."""

    member: str
    stream: int
    watch_id: int
    time: int
    events: tuple[Event, ...]


class Difference(NamedTuple):
    """The first revision of which two watches of the whole keyspace told different stories.

    `members` holds the member of each telling (the same name twice where one member changed its story, as after a restart);
    `groups` the members on each side, first told first.
    """

    revision: int
    members: tuple[str, str]
    first: Told
    second: Told
    groups: tuple[tuple[str, ...], ...]


class Compaction(NamedTuple):
    """One compaction that a client asked for. `ret` is None where no answer proves anything."""

    revision: int
    call: int
    ret: int | None
    outcome: Outcome
    operation: int


@dataclass(slots=True)
class Watched:
    """Events seen by any watch of the history, by revision.

    events    revision -> the events known of it in key order (`prev_kv` as received by anyone, else None); where watches told different
              stories, the first
    whole     revisions whose complete write set is known: delivered by a watch of the whole keyspace without filters
              (fragments reassembled), in one finished message. Not a revision at which a compaction had been invoked by then: before 3.5.18
              a watch from there may lack its deletions (#18089, #19179)
    seen      revision -> (time ns, stream id) of the first delivery
    by_member member name -> revision -> events, for whole deliveries of streams of the whole keyspace; the member's first telling
    differing revisions of which whole deliveries differ in more than `prev_kv`
    difference the lowest of them, with who told what
    """

    events: dict[int, tuple[Event, ...]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    by_member: dict[str, dict[int, tuple[Event, ...]]] = field(default_factory=dict)
    differing: set[int] = field(default_factory=set)
    difference: Difference | None = None


# ---- what a request matches ----


def bounds(request: WatchCreateRequest) -> tuple[bytes, bytes | None]:
    """[first, end) of the keys that `request` matches; end None means no upper bound.

    An empty key stands for the smallest key, an empty range_end for the single key, a zero byte for everything from the key on
    (etcd api/v3rpc/watch.go).
    """
    key = request.key or b"\0"
    if not request.range_end:
        return key, key + b"\0"
    return key, None if request.range_end == b"\0" else request.range_end


def is_whole(request: WatchCreateRequest) -> bool:
    """True where `request` asks for every event of the keyspace."""
    return not request.filters and request.key in (b"\0", b"") and request.range_end == b"\0"


def matches(request: WatchCreateRequest, event: Event) -> bool:
    """True where a watch created by `request` has to deliver `event`, its revision apart."""
    low, high = bounds(request)
    key = event.kv.key
    if key < low or (high is not None and key >= high):
        return False
    return (wire.NOPUT if event.type == wire.PUT else wire.NODELETE) not in request.filters


# ---- streams into watches ----


class _Open:
    """A watch under construction."""

    __slots__ = ("asked", "cancel_sent", "canceled", "created", "floor", "fragments", "id", "late", "messages", "pieces", "request")

    def __init__(self, request: WatchCreateRequest, asked: int, floor: int) -> None:
        self.id = ALL_WATCHES
        self.request = request
        self.asked = asked
        self.floor = floor
        self.created: StreamMessage | None = None
        self.canceled: StreamMessage | None = None
        self.cancel_sent: int | None = None
        self.messages: list[StreamMessage] = []
        self.pieces: list[StreamMessage] = []
        self.fragments: list[StreamMessage] = []
        self.late: list[StreamMessage] = []


def split(stream: Stream) -> tuple[Watch, ...]:
    """The watches of `stream` in the order in which they were asked for."""
    asked: list[_Open] = []
    unanswered: deque[_Open] = deque()
    open_: dict[int, _Open] = {}
    closed: dict[int, _Open] = {}
    floor = 0
    for item in stream.messages:
        time, sent, message = item
        if sent:
            kind = type(message)
            if kind is WatchCreateRequest:
                watch = _Open(message, time, floor)
                asked.append(watch)
                unanswered.append(watch)
            elif kind is WatchCancelRequest and message.watch_id in open_:
                open_[message.watch_id].cancel_sent = time
            continue
        header, watch_id, created, canceled, _, _, fragment, events = message
        if header.revision > floor:
            floor = header.revision
        if created:
            if not unanswered:
                continue  # A recording that begins inside a stream: nothing is known of what was asked.
            watch = unanswered.popleft()
            watch.created = item
            if canceled:
                watch.canceled = item
            else:
                watch.id = watch_id
                open_[watch_id] = watch
                closed.pop(watch_id, None)
            continue
        found = open_.get(watch_id)
        if found is None:
            if watch_id == ALL_WATCHES and not events and not canceled:
                for each in open_.values():
                    each.messages.append(item)
            elif watch_id in closed:
                closed[watch_id].late.append(item)
            continue
        if fragment:
            found.pieces.append(item)
            found.fragments.append(item)
            continue
        if found.pieces:
            item = _joined(found.pieces, item)
            found.pieces = []
        found.messages.append(item)
        if canceled:
            found.canceled = item
            closed[watch_id] = open_.pop(watch_id)
    return tuple(_finished(stream, watch) for watch in asked)


def _joined(pieces: list[StreamMessage], last: StreamMessage) -> StreamMessage:
    events = tuple(event for piece in (*pieces, last) for event in piece.message.events)
    return last._replace(message=last.message._replace(events=events))


def _finished(stream: Stream, watch: _Open) -> Watch:
    return Watch(
        stream=stream.id,
        member=stream.member,
        client=stream.client,
        user=stream.user,
        id=watch.id,
        request=watch.request,
        asked=watch.asked,
        created=watch.created,
        messages=tuple(watch.messages),
        canceled=watch.canceled,
        cancel_sent=watch.cancel_sent,
        fragments=tuple(watch.fragments),
        unfinished=tuple(watch.pieces),
        late=tuple(watch.late),
        ended=stream.ended,
        floor=watch.floor,
    )


def watches(case: Case) -> tuple[Watch, ...]:
    """Every watch of `case`, stream by stream, each stream's in the order asked; computed at the first call."""
    known = case.shared.get("watches")
    if not isinstance(known, tuple):
        known = tuple(watch for stream in case.history.streams if stream.method == wire.WATCH for watch in split(stream))
        case.shared["watches"] = known
    return known


# ---- merged ----


def by_revision(events: Sequence[Event]) -> list[tuple[int, tuple[Event, ...]]]:
    """`events` of one message as (revision, its events in key order), in the order in which the revisions came."""
    if len(events) == 1:
        return [(events[0].kv.mod_revision, tuple(events))]
    groups: list[tuple[int, tuple[Event, ...]]] = []
    start, revision = 0, events[0].kv.mod_revision
    for at, event in enumerate(events):
        if event[1][2] != revision:
            groups.append((revision, _in_key_order(events[start:at])))
            start, revision = at, event[1][2]
    groups.append((revision, _in_key_order(events[start:])))
    return groups


def _key_of(event: Event) -> bytes:
    return event.kv.key


def _in_key_order(events: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(events) if len(events) == 1 else tuple(sorted(events, key=_key_of))


def same_change(one: tuple[Event, ...], other: tuple[Event, ...]) -> bool:
    """True where both tell the same writes; `prev_kv` may differ (who did not ask, or asked after a compaction, has none)."""
    if len(one) != len(other):
        return False
    return all(a is b or (a.type == b.type and a.kv == b.kv) for a, b in zip(one, other, strict=True))


def watched(case: Case) -> Watched:
    """The merged watch evidence of `case`, computed at the first call."""
    known = case.shared.get("watched")
    if not isinstance(known, Watched):
        known = _Merge(case).run()
        case.shared["watched"] = known
    return known


class _Merge:
    """One pass over all watches; the state it fills is the `Watched` it returns."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.result = Watched()
        # Revision -> when the first compaction there was invoked; without one clock, any compaction may have been before any message.
        real_time = case.history.order == "real-time"
        self.compacted: dict[int, float] = {}
        for compaction in compactions(case):
            when = compaction.call if real_time else float("-inf")
            self.compacted[compaction.revision] = min(when, self.compacted.get(compaction.revision, when))

    def run(self) -> Watched:
        partly: list[Watch] = []
        for watch in watches(self.case):
            if watch.whole:
                self._whole(watch)
            else:
                partly.append(watch)
        for watch in watches(self.case):
            for piece in watch.unfinished:
                self._partly(watch, piece.time, piece.message.events)
        for watch in partly:
            for time, _, message in watch.messages:
                if message.events:
                    self._partly(watch, time, message.events)
        if self.result.differing:
            self.result.difference = self._difference(min(self.result.differing))
        return self.result

    def _whole(self, watch: Watch) -> None:
        result, compacted, stream = self.result, self.compacted, watch.stream
        events_of, whole, seen = result.events, result.whole, result.seen
        mine = result.by_member.setdefault(watch.member, {})
        in_pieces = _in_pieces(watch.messages)
        doubtful = in_pieces | compacted.keys()  # one look for what nearly no revision is
        for time, _, message in watch.messages:
            events: tuple[Event, ...] = message[7]
            if not events:
                continue
            for revision, group in ((events[0][1][2], events),) if len(events) == 1 else by_revision(events):
                if revision in doubtful and (compacted.get(revision, _NEVER) <= time or revision in in_pieces):
                    self._partly(watch, time, group)
                    continue
                first = events_of.get(revision)
                if first is None:
                    events_of[revision] = mine[revision] = group
                    seen[revision] = (time, stream)
                    whole.add(revision)
                    continue
                if time < seen[revision][0]:
                    seen[revision] = (time, stream)
                if first is not group and (first[0] is not group[0] or len(group) + len(first) > 2):
                    self._again(revision, first, group)
                told = mine.setdefault(revision, group)
                if told is not group and not same_change(told, group):
                    result.differing.add(revision)
                whole.add(revision)

    def _again(self, revision: int, first: tuple[Event, ...], group: tuple[Event, ...]) -> None:
        """Another whole telling of `revision`, or the first whole one of what was known in part."""
        result = self.result
        if same_change(first, group):
            result.events[revision] = _with_prev(first, group)
        elif revision in result.whole:
            result.differing.add(revision)
        else:
            result.events[revision] = group  # So far seen in part only, by a watch that says nothing about what else there is.

    def _difference(self, revision: int) -> Difference:
        """Who told what of `revision`, by one more look at the streams."""
        sides: list[list[Told]] = []
        for told in self._tellings(revision):
            for side in sides:
                if same_change(side[0].events, told.events):
                    side.append(told)
                    break
            else:
                sides.append([told])
        sides.sort(key=lambda side: min(told.time for told in side))
        first, second = (min(side, key=lambda told: told.time) for side in sides[:2])
        groups = tuple(tuple(dict.fromkeys(told.member for told in side)) for side in sides)
        return Difference(revision, (first.member, second.member), first, second, groups)

    def _tellings(self, revision: int) -> Iterator[Told]:
        for watch in watches(self.case):
            if not watch.whole or revision in _in_pieces(watch.messages):
                continue
            for time, _, message in watch.messages:
                if message.events and self.compacted.get(revision, _NEVER) > time:
                    for found, group in by_revision(message.events):
                        if found == revision:
                            yield Told(watch.member, watch.stream, watch.id, time, group)

    def _partly(self, watch: Watch, time: int, events: Iterable[Event]) -> None:
        """Events of a message that may not hold all of a revision: they are added key by key, and never replace what is known."""
        result = self.result
        for event in events:
            revision = event.kv.mod_revision
            first = result.events.get(revision)
            if first is None:
                result.events[revision] = (event,)
                result.seen[revision] = (time, watch.stream)
                continue
            if time < result.seen[revision][0]:
                result.seen[revision] = (time, watch.stream)
            if event in first:
                continue
            for at, known in enumerate(first):
                if known.kv.key == event.kv.key and known.type == event.type:
                    if known.prev_kv is None and known[:2] == event[:2]:
                        result.events[revision] = (*first[:at], event, *first[at + 1 :])
                    break
            else:
                if revision not in result.whole:
                    result.events[revision] = _in_key_order((*first, event))


def _in_pieces(messages: Sequence[StreamMessage]) -> frozenset[int]:
    """Revisions of which this watch delivered pieces in consecutive messages (itself a finding, WATCH-ATOMIC): no piece is whole."""
    found: set[int] = set()
    last = 0
    for _, _, message in messages:
        events: tuple[Event, ...] = message[7]
        if events:
            if events[0][1][2] == last:
                found.add(last)
            last = events[-1][1][2]
    return frozenset(found)


def _with_prev(first: tuple[Event, ...], other: tuple[Event, ...]) -> tuple[Event, ...]:
    """`first`, taking over from `other` each prev_kv that it lacks."""
    return tuple(b if a.prev_kv is None and b.prev_kv is not None else a for a, b in zip(first, other, strict=True))


def first_difference(known: Watched) -> Difference | None:
    """The lowest revision of which whole deliveries differ in more than `prev_kv`, or None where all agree.

    Only deliveries of the complete revision are compared, and the absence of a revision from a stream is never a difference: a stream may
    lag, end, or have lost an event (which is the watch checker's to say).
    """
    return known.difference


# ---- beside the watches ----


def compactions(case: Case) -> tuple[Compaction, ...]:
    """Every compaction that a client asked for, in order of call; computed at the first call."""
    known = case.shared.get("compactions")
    if not isinstance(known, tuple):
        known = tuple(Compaction(op.input.revision, op.call, op.ret, op.outcome, op.id) for op in case.history.of(CompactionRequest))
        case.shared["compactions"] = known
    return known


def member_ids(case: Case) -> dict[str, tuple[int, ...]]:
    """Member name -> the header.member_id values that answered under that name, in order of first answer; computed at the first call.

    More than one means that the name was given to another member (a replaced member), or that an address led elsewhere.
    """
    known = case.shared.get("member_ids")
    if not isinstance(known, dict):
        found: dict[str, dict[int, None]] = {}
        for op in case.history.operations:
            header = getattr(op.output, "header", None)
            if header is not None and header.member_id:
                found.setdefault(op.member, {})[header.member_id] = None
        for stream in case.history.streams:
            for _, sent, message in stream.messages:
                header = None if sent else getattr(message, "header", None)
                if header is not None and header.member_id:
                    found.setdefault(stream.member, {})[header.member_id] = None
        known = {member: tuple(ids) for member, ids in found.items()}
        case.shared["member_ids"] = known
    return known


__all__ = [
    "ALL_WATCHES",
    "Compaction",
    "Difference",
    "Told",
    "Watch",
    "Watched",
    "bounds",
    "by_revision",
    "compactions",
    "first_difference",
    "is_whole",
    "matches",
    "member_ids",
    "same_change",
    "split",
    "watched",
    "watches",
]


def leaving(history: History) -> dict[str, int]:
    """Member -> when its removal began (ns), of those that were removed during the run."""
    found: dict[str, int] = {}
    for mark in history.marks:
        if mark.kind == "part":
            match mark.detail.get("part"):
                case "leaving":
                    found[mark.member] = mark.time
                case "voter" | "learner":  # etcd did not do it
                    found.pop(mark.member, None)
    return found
