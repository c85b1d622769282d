"""Who can have written a revision that nobody was acknowledged for: unanswered requests, and leases that ran out.

::

    gap r, its events known     candidates(...) looks up who could have had exactly that effect
                                Matching gives each gap one of them and no writer to two gaps (augmenting paths)
    gap r, its events unknown   everybody(...), for the search

An unanswered write can be a step once, at any time after its call: only `latest[r]` bounds it. A lease can end by itself once per grant,
and takes all its keys in one revision (etcd server/lease/lessor.go); whether it was too early is for the lease checker.
With the events of every gap known, who can be what does not depend on any choice: a matching, and no search.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pekan.checkers.evidence import same_change
from pekan.history.types import Operation
from pekan.models.etcd import State, deletes, effect, puts, revoke_events, within
from pekan.wire.messages import PUT, Event, LeaseRevokeRequest


class Writer(NamedTuple):
    """Something that may have written once: an operation, or (`operation` None) the end of lease `lease` granted at `call`.

    Lease ends of one lease differ by `number`. Equal writers are the same writer.
    """

    call: int
    id: int
    lease: int
    number: int
    operation: Operation | None

    @property
    def name(self) -> tuple[int, int, int]:
        """What tells writers apart."""
        return (self.id, self.lease, self.number)


NO_OPERATION = -1


class Pool:
    """Writers by what they can do. Built once; who is taken is kept by `Matching`."""

    def __init__(
        self,
        operations: Iterable[Operation],
        grants: dict[int, list[Operation]],
        real_time: bool,
        there_until: dict[int, int] | None = None,
    ) -> None:
        """`there_until`: lease -> the revision before which it cannot have ended."""
        self.real_time = real_time
        self.there_until = there_until or {}
        self.writers: list[Writer] = []
        self.by_put: dict[tuple[bytes, bytes], list[Writer]] = defaultdict(list)
        self.by_kept_value: dict[bytes, list[Writer]] = defaultdict(list)
        self.by_delete: dict[bytes, list[Writer]] = defaultdict(list)
        self.by_range: list[tuple[bytes, bytes, Writer]] = []
        self.by_revoke: dict[int, list[Writer]] = defaultdict(list)
        self.ends: dict[int, list[Writer]] = {}
        for op in sorted(operations, key=lambda op: op.call):
            self._add(Writer(op.call, op.id, 0, 0, op))
        for lease, granted in grants.items():
            self.ends[lease] = [Writer(op.call, NO_OPERATION, lease, number, None) for number, op in enumerate(granted)]

    def _add(self, writer: Writer) -> None:
        assert writer.operation is not None
        request = writer.operation.input
        self.writers.append(writer)
        if type(request) is LeaseRevokeRequest:
            self.by_revoke[request.id].append(writer)
            return
        for put in puts(request):
            if put.ignore_value:
                self.by_kept_value[put.key].append(writer)
            else:
                self.by_put[put.key, put.value].append(writer)
        for delete in deletes(request):
            if delete.range_end:
                self.by_range.append((delete.key, delete.range_end, writer))
            else:
                self.by_delete[delete.key].append(writer)

    def ends_of(self, lease: int) -> list[Writer]:
        """The ends that `lease` can come to by itself; of a lease that nobody here was granted, one, at any time."""
        known = self.ends.get(lease)
        if known is None:
            known = self.ends[lease] = [Writer(-(1 << 62), NO_OPERATION, lease, 0, None)]
        return known

    def candidates(self, state: State, events: tuple[Event, ...], latest: int) -> list[Writer]:
        """Writers whose effect at `state` is exactly `events` (in key order), called by `latest`; the earliest call first."""
        found: dict[tuple[int, int, int], Writer] = {}
        for writer in self._may(state, events):
            if (writer.call <= latest or not self.real_time) and not self._ends_too_early(writer, state):
                if writer.name not in found and same_change(in_key_order(effect_of(state, writer)), events):
                    found[writer.name] = writer
        return sorted(found.values(), key=lambda writer: writer.call)

    def _may(self, state: State, events: tuple[Event, ...]) -> Iterator[Writer]:
        """Writers that have the first put, or else the first delete, of `events` in some branch."""
        for event in events:
            if event.type == PUT:
                yield from self.by_put.get((event.kv.key, event.kv.value), ())
                yield from self.by_kept_value.get(event.kv.key, ())
                return
        key = events[0].kv.key
        yield from self.by_delete.get(key, ())
        for start, end, writer in self.by_range:
            if within(key, start, end):
                yield writer
        old = state.kvs.get(key)
        if old is not None and old.lease:
            yield from self.by_revoke.get(old.lease, ())
            yield from self.ends_of(old.lease)

    def everybody(self, state: State, latest: int) -> Iterator[Writer]:
        """Every writer called by `latest`, and the ends of the leases that hold keys."""
        for writer in self.writers:
            if self.real_time and writer.call > latest:
                break
            if not self._ends_too_early(writer, state):
                yield writer
        for lease, keys in state.attached.items():
            if keys:
                for writer in self.ends_of(lease):
                    if (writer.call <= latest or not self.real_time) and not self._ends_too_early(writer, state):
                        yield writer

    def _ends_too_early(self, writer: Writer, state: State) -> bool:
        """Whether `writer` would end, in the revision after `state`, a lease that is there at a later one."""
        if not self.there_until:
            return False
        request = None if writer.operation is None else writer.operation.input
        lease = request.id if type(request) is LeaseRevokeRequest else writer.lease
        return bool(lease) and state.revision < self.there_until.get(lease, 0)


def effect_of(state: State, writer: Writer) -> tuple[Event, ...]:
    """What `writer` would change at `state`, in order of execution."""
    if writer.operation is None:
        return revoke_events(state, writer.lease)
    return effect(state, writer.operation.input)


def in_key_order(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """The events of one revision by key; a key's own events stay in their order."""
    return events if len(events) < 2 else tuple(sorted(events, key=lambda event: event.kv.key))


class Matching:
    """Gaps and writers, one to one, kept maximal gap by gap (Kuhn's augmenting paths; one step where a gap has a free candidate)."""

    def __init__(self) -> None:
        self.choices: dict[int, list[Writer]] = {}
        self.writer_of: dict[int, Writer] = {}
        self.gap_of: dict[tuple[int, int, int], int] = {}
        self.reserved: set[tuple[int, int, int]] = set()

    def add(self, gap: int, choices: list[Writer]) -> bool:
        """Give `gap` one of `choices`, moving others where needed. False, and nothing is changed, where that cannot be."""
        self.choices[gap] = choices
        if self._place(gap, set()):
            return True
        del self.choices[gap]
        return False

    def _place(self, gap: int, tried: set[tuple[int, int, int]]) -> bool:
        # Depth first with an explicit stack: a chain of moves can be as long as there are gaps.
        path: list[tuple[int, Iterator[Writer], Writer | None]] = [(gap, iter(self.choices[gap]), None)]
        while path:
            at, options, last = path[-1]
            if last is None:
                # A free one is taken before anything is moved: without this look many gaps of one key would push each other on.
                free = next((writer for writer in self.choices[at] if self._is_free(writer.name)), None)
                if free is not None:
                    path[-1] = (at, options, free)
                    for each, _, chosen in path:
                        assert chosen is not None
                        self.writer_of[each] = chosen
                        self.gap_of[chosen.name] = each
                    return True
            for writer in options:
                name = writer.name
                if name in tried or name in self.reserved:
                    continue
                tried.add(name)
                path[-1] = (at, options, writer)
                holder = self.gap_of[name]
                path.append((holder, iter(self.choices[holder]), None))
                break
            else:
                path.pop()
        return False

    def _is_free(self, name: tuple[int, int, int]) -> bool:
        return name not in self.gap_of and name not in self.reserved

    def reserve(self, writer: Writer) -> bool:
        """Take `writer` out of the matching for good, giving its gap another; False, and nothing is changed, where that cannot be."""
        if writer.name in self.reserved:
            return False
        self.reserved.add(writer.name)
        gap = self.gap_of.pop(writer.name, None)
        if gap is None or self._place(gap, set()):
            return True
        self.gap_of[writer.name] = gap
        self.reserved.discard(writer.name)
        return False

    def release(self, writer: Writer) -> None:
        """Undo `reserve`."""
        self.reserved.discard(writer.name)

    def drop_from(self, revision: int) -> None:
        """Forget every gap at or above `revision`."""
        for gap in [gap for gap in self.choices if gap >= revision]:
            del self.choices[gap]
            writer = self.writer_of.pop(gap, None)
            if writer is not None and self.gap_of.get(writer.name) == gap:
                del self.gap_of[writer.name]
