"""Where members' histories part, and why.

::

    two watches of everything tell revision r differently     ──┐
    two writes acknowledged at revision r                      ─┼─> the fork is the lowest such r: nothing from r on is judged as one order
    an acknowledged write is not what a watch delivered at r   ──┘
    a value that only a refused request wrote is shown anywhere ──> REFUSED-BUT-APPLIED, at that value's mod_revision

A refused request that explains one side is the root; otherwise the fork itself is. Whatever is found at or after the root follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pekan.checkers import telling
from pekan.checkers.evidence import Difference, Told, Watched
from pekan.checkers.kv import problems
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.facts import notes
from pekan.checkers.kv.pool import Pool
from pekan.checkers.kv.problems import Problem
from pekan.history.types import FAILED, OK, Operation
from pekan.models.etcd import State, effect, puts
from pekan.verdict import Exhibit, Finding
from pekan.wire.messages import PUT, Event, KeyValue


class Shown(NamedTuple):
    """A value that only the refused `op` wrote, as shown at `kv.mod_revision` by `where`, first of that revision."""

    op: Operation
    kv: KeyValue
    where: Exhibit


def refused_values(refused: Iterable[Operation]) -> dict[tuple[bytes, bytes], Operation]:
    """(key, value) -> the first of the `refused` requests that would have put it."""
    found: dict[tuple[bytes, bytes], Operation] = {}
    for op in refused:
        for put in puts(op.input):
            if not put.ignore_value:
                found.setdefault((put.key, put.value), op)
    return found


def delivers(evidence: Watched, values: dict[tuple[bytes, bytes], Operation]) -> bool:
    """Whether any watch may have delivered a put of one of `values`."""
    if not values:
        return False
    if evidence.differing:
        return True  # What was told otherwise is not in `events`: rare enough for the long look.
    # Few values are refused, and nearly no event has one: the value alone is looked up first.
    alone = {value for _, value in values}
    for told in evidence.events.values():
        for event in told:
            kv = event.kv
            if kv.value in alone and event.type == PUT and (kv.key, kv.value) in values:
                return True
    return False


def shown_refusals(operations: Iterable[Operation], evidence: Watched, refused: dict[tuple[bytes, bytes], Operation]) -> list[Shown]:
    """Those of the values `refused` that nobody else wrote and that are shown, the first showing of each request, in order of revision.

    Sound only where every writer is recorded and the store began empty. Looks at every key-value of every answer, which is a third of what
    judging a right history costs: `check_kv` asks only where one may be found.
    """
    listed = list(operations)
    refused = dict(refused)
    for op in listed:
        if op.outcome != FAILED:
            for put in puts(op.input):
                refused.pop((put.key, put.value), None)
    if not refused:
        return []
    found: dict[int, Shown] = {}

    def note(kv: KeyValue, where: Exhibit, time: int | None) -> None:
        op = refused.get((kv.key, kv.value))
        if op is None or (time is not None and time < op.call):
            return
        known = found.get(op.id)
        if known is None or kv.mod_revision < known.kv.mod_revision:
            found[op.id] = Shown(op, kv, where)

    for revision, told in _tellings(evidence):
        for event in told:
            if event.type == PUT and (event.kv.key, event.kv.value) in refused:
                where = showing(revision, evidence.seen.get(revision), told)
                note(event.kv, where, where.start)
    for op in listed:
        if op.outcome == OK:
            for kv in notes(op.input, op.output):
                if (kv.key, kv.value) in refused:
                    note(kv, telling.exhibit(op), op.ret)
    return sorted(found.values(), key=lambda shown: shown.kv.mod_revision)


def refused_and_shown(op: Operation, key: bytes, value: bytes, revision: int, where: Exhibit) -> Problem:
    """The finding that the value of a refused request was shown, by `where`."""
    return problems.refused_but_applied(op, revision, f"{telling.text(key)}={telling.text(value)}", (where,))


def showing(revision: int, seen: tuple[int, int] | None, events: Sequence[Event]) -> Exhibit:
    """A delivery that shows a refused request's value; `seen`: the first delivery of `revision` (ns, stream), None where not known."""
    time, stream = seen or (None, None)
    return Exhibit(f"a watch delivered revision {revision}: {telling.events(events)}", stream=stream, start=time, end=time)


def _tellings(evidence: Watched) -> Iterator[tuple[int, tuple[Event, ...]]]:
    """Every (revision, events) that any watch delivered, once where all agree."""
    yield from evidence.events.items()
    for revision in evidence.differing:
        for told in evidence.by_member.values():
            if revision in told:
                yield revision, told[revision]
    if evidence.difference is not None:
        yield evidence.difference.revision, evidence.difference.first.events
        yield evidence.difference.revision, evidence.difference.second.events


def root_of_difference(difference: Difference, state: State | None, suspects: Pool, b: Buckets) -> Problem:
    """The finding that a difference between watches is. `state`: the store before it, None where it is not known."""
    revision = difference.revision
    sides = (difference.first, difference.second)
    exhibits = tuple(told_exhibit(side, revision) for side in sides)
    if state is not None:
        for side, exhibit in zip(sides, exhibits, strict=True):
            for writer in suspects.candidates(state, side.events, 1 << 62):
                if writer.operation is not None:
                    other = exhibits[1] if side is sides[0] else exhibits[0]
                    return problems.refused_but_applied(writer.operation, revision, telling.events(side.events), (exhibit, other))
    write = b.writes.get(revision)
    clash = next((c for c in b.clashes if c[0] == revision), None)
    if sides[0].member == sides[1].member:
        if clash is not None:
            return problems.reused(*clash)
        if write is not None:
            known = next((s for s in sides if state is None or not _is_effect(state, write, s)), sides[1])
            return problems.lost_write(write, revision, known.events, told_exhibit(known, revision))
    return diverged(*sides, revision)


def diverged(first: Told, second: Told, revision: int) -> Problem:
    """Two watches of everything that tell `revision` differently, where nothing says why."""
    return Problem(
        revision,
        Finding(
            code="MEMBER-DIVERGED",
            summary=f"members tell revision {revision} differently",
            explanation=f"At revision {revision} {_who(first)} delivered {telling.events(first.events)}, and "
            f"{_who(second)} delivered {telling.events(second.events)}. Both watched the whole keyspace. A revision is one write, "
            "the same on every member.",
            certificate=(told_exhibit(first, revision), told_exhibit(second, revision)),
            subject={"revision": revision, "members": sorted({first.member, second.member})},
            shape=("watch", "watch"),
        ),
        None,
    )


def _is_effect(state: State, op: Operation, side: Told) -> bool:
    events = effect(state, op.input)
    return [(e.type, e.kv) for e in sorted(events, key=lambda e: e.kv.key)] == [(e.type, e.kv) for e in side.events]


def _who(told: Told) -> str:
    return f"a watch of {told.member}" if told.member else f"watch stream {told.stream}"


def told_exhibit(told: Told, revision: int) -> Exhibit:
    """What one watch of everything delivered of `revision`."""
    return Exhibit(
        f"{_who(told)} (stream {told.stream}) delivered revision {revision}: {telling.events(told.events)}",
        stream=told.stream,
        member=told.member,
        start=told.time,
        end=told.time,
    )
