"""What the core's evidence and order say, as the values that the reference works with: made when they are looked at.

`shown(case)` is the core's `Evidence` of a case, `proven(case)` its `Order`; both are kept in `Case.shared`, so that all checkers of a case
have the same. `watches` and `Shown` are to `pekan.checkers.evidence.watches` and `Watched` what a table of contents is to a book.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pekan import native
from pekan.checkers.case import Case
from pekan.checkers.evidence import Difference, Told, Watch, by_revision
from pekan.history.types import Made, Stream, StreamMessage
from pekan.wire.messages import Decoder, Event, KeyValue

SHOWN = "native evidence"
"""Key of `Case.shared`: the core's Evidence."""
PROVEN = "native order"
"""Key of `Case.shared`: the core's Order, where the key-value checker established one."""

_Value = TypeVar("_Value")


def shown(case: Case) -> Any:
    """The core's `Evidence` of `case`, computed at the first call. Raises Declined."""
    known = case.shared.get(SHOWN)
    if known is None:
        known = case.shared[SHOWN] = native.core.Evidence(case.history.session, case.history.order == "real-time")
    return known


def proven(case: Case) -> Any:
    """The core's `Order` of `case`, or None."""
    return case.shared.get(PROVEN)


def event(row: tuple[int, tuple[Any, ...], tuple[Any, ...] | None]) -> Event:
    """An event that the core gives in parts."""
    kind, kv, prev_kv = row
    return Event(kind, KeyValue(*kv), None if prev_kv is None else KeyValue(*prev_kv))


# ---- one watch ----


def watch(case: Case, index: int) -> Watch:
    """Watch `index` of the evidence; its messages are made when they are looked at."""
    evidence = shown(case)
    number, id_, asked, created, canceled, cancel_sent, fragments, unfinished, late, floor = evidence.of_watch(index)
    stream = case.history.streams[number]
    told = stream.messages
    return Watch(
        stream=stream.id,
        member=stream.member,
        client=stream.client,
        user=stream.user,
        id=id_,
        request=told[asked].message,
        asked=told[asked].time,
        created=None if created is None else told[created],
        messages=WatchMessages(evidence, index, stream),
        canceled=None if canceled is None else told[canceled],
        cancel_sent=cancel_sent,
        fragments=tuple(told[at] for at in fragments),
        unfinished=tuple(told[at] for at in fragments[len(fragments) - unfinished :]),
        late=tuple(told[at] for at in late),
        ended=stream.ended,
        floor=floor,
    )


class WatchMessages(Made[StreamMessage]):
    """The messages of one watch, their fragments put together."""

    def __init__(self, evidence: Any, index: int, stream: Stream) -> None:
        self._evidence = evidence
        self._index = index
        self._stream = stream
        self._size: int = evidence.messages(index)

    def __len__(self) -> int:
        return self._size

    def make(self, index: int) -> StreamMessage:
        last: int
        pieces: list[int]
        last, pieces = self._evidence.message(self._index, index)
        told = self._stream.messages
        item = told[last]
        if not pieces:
            return item
        events = tuple(event for at in (*pieces, last) for event in told[at].message.events)
        return item._replace(message=item.message._replace(events=events))


# ---- merged ----


class _Lookup(Mapping[int, _Value]):
    """Revision -> what a function says of it; there is nothing where it says None. To be asked, not gone through."""

    def __init__(self, ask: Callable[[int], _Value | None]) -> None:
        self._ask = ask

    def __getitem__(self, revision: int) -> _Value:
        found = self._ask(revision)
        if found is None:
            raise KeyError(revision)
        return found

    def __iter__(self) -> Iterator[int]:
        raise TypeError("made to be asked for a revision")

    def __len__(self) -> int:
        raise TypeError("made to be asked for a revision")


class _Differing(Container[int]):
    def __init__(self, evidence: Any) -> None:
        self._evidence = evidence

    def __contains__(self, revision: object) -> bool:
        return isinstance(revision, int) and bool(self._evidence.differs(revision))


class _ByMember(Mapping[str, Mapping[int, tuple[Event, ...]]]):
    def __init__(self, told_by: Callable[[str, int], tuple[Event, ...] | None]) -> None:
        self._told_by = told_by

    def __getitem__(self, member: str) -> Mapping[int, tuple[Event, ...]]:
        return _Lookup(lambda revision: self._told_by(member, revision))

    def __iter__(self) -> Iterator[str]:
        raise TypeError("made to be asked for a member")

    def __len__(self) -> int:
        raise TypeError("made to be asked for a member")


class Shown:
    """The core's evidence in the form of `evidence.Watched`, to be asked for single revisions."""

    def __init__(self, evidence: Any, decoder: Decoder) -> None:
        self._evidence = evidence
        self._decoder = decoder
        self.events: Mapping[int, tuple[Event, ...]] = _Lookup(self._known)
        self.seen: Mapping[int, tuple[int, int]] = _Lookup(evidence.seen)
        self.differing: Container[int] = _Differing(evidence)
        self.by_member: Mapping[str, Mapping[int, tuple[Event, ...]]] = _ByMember(self._told_by)

    def _known(self, revision: int) -> tuple[Event, ...] | None:
        return self._decoded(self._evidence.encoded(revision)) or None

    def _told_by(self, member: str, revision: int) -> tuple[Event, ...] | None:
        told = self._evidence.told_by(member, revision)
        return None if told is None else self._decoded(told)

    def _decoded(self, encoded: Sequence[bytes]) -> tuple[Event, ...]:
        return tuple(map(self._decoder.event, encoded))


def difference(case: Case) -> Difference | None:
    """The first revision of which two watches of the whole keyspace told different stories, or None."""
    evidence = shown(case)
    found = evidence.difference()
    if found is None:
        return None
    decoder = Decoder()
    revision, groups, *sides = found

    def told(index: int, time: int, encoded: Sequence[bytes]) -> Told:
        number, id_, *_ = evidence.of_watch(index)
        stream = case.history.streams[number]
        ((_, events),) = by_revision(tuple(map(decoder.event, encoded)))
        return Told(stream.member, stream.id, id_, time, events)

    first, second = (told(*side) for side in sides)
    return Difference(revision, (first.member, second.member), first, second, tuple(map(tuple, groups)))
