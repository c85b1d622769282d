"""Real time along the revision order: when each revision can first and must last have been made.

Every exact operation has a place in one total order: the write of revision r at 2r, what saw r at 2r + 1. A history is in order if and only
if no operation was called after another one returned that has a higher place. So one number carried up the order decides:

::

    T = 0                                          earliest possible "now"
    for r in revisions:
        T = max(T, call of the write of r);  earliest[r] = T        T > its return: broken
        T = max(T, calls of what saw r)                             T > its return: broken
    latest[r] = the lowest return of everything at or after r       an unanswered write can be r only if it was called by then

Answers that are not exact (local ones, compaction, watch deliveries) prove that a revision existed: they lower `latest` and are themselves
held against `earliest`, but never raise T; what was called after such a proof and is of an older revision clashes too (`Outrun`). A clash
is told as a pair: x was called after y had returned, yet took place before y. Of the two ways to blame (all such x, or all such y) the one
with fewer operations is taken, those are set aside, and the rest is in order.
Without a common clock (`History.order` "per-process") only operations of one process are held against each other.

Cost: three passes over operations and revisions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from operator import gt
from typing import NamedTuple

from pekan.checkers.kv.collect import Buckets
from pekan.history.types import Operation

ALWAYS = 1 << 62
"""Later than every time stamp in ns; its negative is earlier."""


class Clash(NamedTuple):
    """`late` was called after `early` had returned, and its place in the order is before it. Places: see the module."""

    late: Operation
    late_place: int
    early: Operation
    early_place: int


class Outrun(NamedTuple):
    """`operation`, of `revision`, was called after revision `above` or a later one had been shown."""

    operation: Operation
    revision: int
    above: int


@dataclass(slots=True)
class Timing:
    """`earliest[r - first]`, `latest[r - first]` in ns for revisions first..last; `clashes` are the real-time violations.

    `outrun`: exact operations that are older than what an inexact answer or a delivery had shown before their call.
    """

    first: int
    last: int
    earliest: list[int]
    latest: list[int]
    clashes: list[Clash]
    real_time: bool = True
    outrun: list[Outrun] = field(default_factory=list)

    def earliest_of(self, revision: int) -> int:
        """When `revision` can first have been made; before every time stamp for what was there from the start."""
        return self.earliest[revision - self.first] if self.first <= revision <= self.last else -ALWAYS

    def latest_of(self, revision: int) -> int:
        """By when `revision` must have been made; later than every time stamp where nothing proves it."""
        return self.latest[revision - self.first] if self.first <= revision <= self.last else ALWAYS

    def present_between(self, call: int, ret: int) -> tuple[int, int]:
        """The lowest and the highest revision that can have been the present one between `call` and `ret` (ns)."""
        lowest = self.first - 1 + bisect_left(self.latest, call)
        highest = self.first - 1 + bisect_right(self.earliest, ret)
        return min(lowest, highest), highest


def time_of(b: Buckets, seen: dict[int, tuple[int, int]], first: int, last: int, real_time: bool) -> Timing:
    """Times over revisions first..last. `seen`: revision -> (ns, stream) of its first delivery by a watch."""
    size = max(0, last - first + 1)
    if not real_time:
        return Timing(first, last, [-ALWAYS] * size, [ALWAYS] * size, list(_program_order(b)), False)
    soonest = _soonest(b, seen, first, last)
    timing = _pass(b, seen, soonest, first, last, frozenset())
    clashes: list[Clash] = []
    blamed: frozenset[int] = frozenset()
    if timing is None:
        clashes, blamed = _blame(b)
        timing = _pass(b, seen, soonest, first, last, blamed)
    assert timing is not None, "what is left after setting the blamed aside is in order"
    if any(map(gt, timing.earliest, soonest)):
        early = sum(timing.earliest_of(revision) > when for revision, when in _proofs(b, seen, first, last))
        # Either these proofs speak of revisions before they can have been, or the exact operations behind them are too old.
        proven = _proven(_proofs(b, seen, first, last), timing, only_possible=False)
        older = [found for found in _outrun(b, timing, proven) if found.operation.id not in blamed]
        if len(older) <= early:
            again = _pass(b, seen, soonest, first, last, blamed | {found.operation.id for found in older})
            assert again is not None, "fewer operations that are in order are in order"
            timing = again
            timing.outrun = older
    timing.clashes = clashes
    return timing


def _pass(b: Buckets, seen: dict[int, tuple[int, int]], soonest: list[int], first: int, last: int, aside: frozenset[int]) -> Timing | None:
    """The times without the operations `aside` (ids); None where the rest is not in order. `soonest`: see `_soonest`."""
    size = max(0, last - first + 1)
    earliest = [-ALWAYS] * size
    latest = [ALWAYS] * size
    calls: dict[int, int] = defaultdict(lambda: -ALWAYS)
    for revision, op in b.future:
        if op.id not in aside and revision >= first:
            # "q is in the future" was said before q was made, and before everything above it.
            calls[revision] = max(calls[revision], op.call)
    writes, readers, revokes = b.writes, b.readers, b.revokes
    now = -ALWAYS
    # The state before `first` was there from the start, and may have been read.
    for revision in range(first - 1, last + 1):
        if calls and revision in calls and calls[revision] > now:
            now = calls[revision]
        write = writes.get(revision)
        lowest = ALWAYS
        if write is not None and (not aside or write.id not in aside):
            call, ret = write.call, write.ret
            if call > now:
                now = call
            if ret is not None:
                if now > ret:
                    return None
                lowest = ret
        at = revision - first
        if at >= 0:
            earliest[at] = now
        group = readers.get(revision)
        if revokes and revision in revokes:
            group = [*(group or ()), *revokes[revision]]
        if group:
            after = now
            for op in group:
                if aside and op.id in aside:
                    continue
                call, ret = op.call, op.ret
                if ret is not None:
                    if now > ret:
                        return None
                    if ret < lowest:
                        lowest = ret
                if call > after:
                    after = call
            now = after
        if at >= 0:
            latest[at] = lowest
    timing = Timing(first, last, earliest, latest, [])
    if any(map(gt, earliest, soonest)):
        # A proof from before its revision can have been proves nothing; another one of the same revision may.
        soonest = _proven(_proofs(b, seen, first, last), timing, only_possible=True)
    timing.latest = _carried_down(map(min, reversed(latest), reversed(soonest)))
    return timing


def _carried_down(from_the_last: Iterable[int]) -> list[int]:
    """The lowest of each and all after it, in order of revision."""
    lowest = list(accumulate(from_the_last, min))
    lowest.reverse()
    return lowest


def _soonest(b: Buckets, seen: dict[int, tuple[int, int]], first: int, last: int) -> list[int]:
    """By when (ns) each of first..last is first proven to have existed by an inexact answer or a delivery, see `_proofs`."""
    soonest = [ALWAYS] * max(0, last - first + 1)
    for revision, op in b.existed:
        if first <= revision <= last:
            ret = op.ret
            if ret is not None and ret < soonest[revision - first]:
                soonest[revision - first] = ret
    for revision, (time, _) in seen.items():
        if first <= revision <= last and time < soonest[revision - first]:
            soonest[revision - first] = time
    return soonest


def _proofs(b: Buckets, seen: dict[int, tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """(revision, ns by which it existed) of every inexact answer and delivery."""
    for revision, op in b.existed:
        if first <= revision <= last and op.ret is not None:
            yield revision, op.ret
    for revision, (time, _) in seen.items():
        if first <= revision <= last:
            yield revision, time


def _proven(proofs: Iterable[tuple[int, int]], timing: Timing, only_possible: bool) -> list[int]:
    """By when `proofs` show each revision, or a higher one; `only_possible`: without those from before it can have been."""
    first, earliest = timing.first, timing.earliest
    proven = [ALWAYS] * len(earliest)
    for revision, when in proofs:
        at = revision - first
        if when < proven[at] and not (only_possible and earliest[at] > when):
            proven[at] = when
    return _carried_down(reversed(proven))


def _outrun(b: Buckets, timing: Timing, proven: list[int]) -> list[Outrun]:
    """Exact operations that are older than what a proof had shown before their call."""
    found = []
    for place, op in _placed(b):
        above = (place + 1) // 2  # A write at 2r is held against proofs of r, what saw r against those of r + 1.
        if timing.first <= above <= timing.last and op.call > proven[above - timing.first]:
            found.append(Outrun(op, place // 2, above))
    return found


def _placed(b: Buckets) -> list[tuple[int, Operation]]:
    """Every exact operation with its place, in order."""
    placed = [(2 * r, op) for r, op in b.writes.items()]
    placed += [(2 * r + 1, op) for bucket in (b.readers, b.revokes) for r, ops in bucket.items() for op in ops]
    placed += [(2 * q - 1, op) for q, op in b.future]
    placed.sort(key=lambda item: item[0])
    return placed


def _blame(b: Buckets) -> tuple[list[Clash], frozenset[int]]:
    """The clashes by the cheaper way of blaming, one for each blamed operation, and the ids of the blamed."""
    placed = _placed(b)
    futures = {op.id for _, op in b.future}
    late: list[Clash] = []
    first_return: tuple[int, int, Operation] | None = None
    for index in _groups_from_the_top(placed):
        for place, op in index:
            if first_return is not None and op.call > first_return[0]:
                late.append(Clash(op, place, first_return[2], first_return[1]))
        for place, op in index:
            # A refusal has no place of its own that anything must come after: it was merely before its revision.
            if op.id not in futures and op.ret is not None and (first_return is None or op.ret < first_return[0]):
                first_return = (op.ret, place, op)
    early: list[Clash] = []
    last_call: tuple[int, int, Operation] | None = None
    for index in reversed(list(_groups_from_the_top(placed))):
        for place, op in index:
            if op.id not in futures and last_call is not None and op.ret is not None and op.ret < last_call[0]:
                early.append(Clash(last_call[2], last_call[1], op, place))
        for place, op in index:
            if last_call is None or op.call > last_call[0]:
                last_call = (op.call, place, op)
    if len(late) <= len(early):
        return late, frozenset(clash.late.id for clash in late)
    return early, frozenset(clash.early.id for clash in early)


def _groups_from_the_top(placed: list[tuple[int, Operation]]) -> Iterator[list[tuple[int, Operation]]]:
    """`placed` in groups of equal place, highest first."""
    end = len(placed)
    while end:
        start = end - 1
        while start and placed[start - 1][0] == placed[end - 1][0]:
            start -= 1
        yield placed[start:end]
        end = start


def _program_order(b: Buckets) -> Iterator[Clash]:
    """Operations of one process that took place in another order than they were issued."""
    futures = {op.id for _, op in b.future}
    highest: dict[int, tuple[int, Operation]] = {}
    for place, op in sorted(_placed(b), key=lambda item: (item[1].process, item[1].call)):
        known = highest.get(op.process)
        if known is not None and place < known[0]:
            yield Clash(op, place, known[1], known[0])
        elif (known is None or place > known[0]) and op.id not in futures:
            highest[op.process] = (place, op)
