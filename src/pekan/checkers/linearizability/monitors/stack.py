"""A last-in, first-out stack whose values are distinct. The reference of native/crates/linear/src/monitors/stack.rs, where it is proved.

Held values (`contents`) fall into runs that overlap in time without a break. Inside a run the stack is never empty, so one of its values
is pushed first and popped last: its *bottom*. That can be any value that was called to be pushed no later than the first push returned,
and whose pop returned no earlier than the last pop was called. Take one away, and what is left of the run falls into runs again. A run in
which no value can be the bottom is illegal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from pekan.checkers.linearizability.monitors.asked import LEGAL, NEVER, Asked, Monitored, illegal
from pekan.checkers.linearizability.monitors.contents import Item, contents, cover, freed, impossible_empty, roles, runs_of, with_lost
from pekan.checkers.linearizability.monitors.trees import Covered, Greatest

NONE = -NEVER - 1
"""Less than every time."""


def stack(asked: Asked) -> Monitored:
    """Whether the pushes, pops and empty answers of `asked` can be put in order."""
    found = contents(asked)
    if isinstance(found, Monitored):
        return found
    plain = _decide(asked, found.items, found.empties)
    if not found.lost or plain.verdict == "ok":
        return plain
    first = found.lost[0]
    at_best = _decide(asked, freed(found.items, asked.call[first]), found.empties)
    if at_best.verdict == "illegal":
        return with_lost(at_best, first)
    return Monitored("declined", reason="a pop that nobody saw answered may have taken one of several values")


def _decide(asked: Asked, items: Sequence[Item], empties: Sequence[int]) -> Monitored:
    held, runs = runs_of(items)
    answer = impossible_empty(asked, held, runs, empties)
    if answer is not None:
        return answer
    for run in runs:
        chain = _bottomless(held[run.first : run.end])
        if chain:
            return illegal("no-bottom", *roles(chain))
    return LEGAL


def _bottomless(run: Sequence[Item]) -> list[Item]:
    """Takes bottoms away until a run has none: the fewest items of it that already have none. Empty where all could be taken."""
    if len(run) == 1:
        return []
    # A value covers the places after its own of which the push returned before its pop was called.
    # The run breaks before a place that nothing covers.
    begins = [item.insert_ret for item in run]
    ends = [bisect_left(begins, item.take_call) for item in run]
    change = [0] * (len(run) + 1)
    for place, end in enumerate(ends):
        change[place + 1] += 1
        change[max(end, place + 1)] -= 1
    covered = Covered(list(accumulate(change))[: len(run)])
    waiting = Greatest([-item.insert_call for item in run], NONE)
    possible = Greatest([NONE] * len(run), NONE)
    ending = Greatest([item.take_call for item in run], NONE)
    left = [True] * len(run)
    parts = [(0, len(run))]
    while parts:
        first, end = parts.pop()
        while first < end and not left[first]:
            first += 1
        if first == end:
            continue
        until, _ = ending.greatest(first, end)
        while True:
            negated, place = waiting.greatest(first, end)
            if negated == NONE or -negated > begins[first]:
                break
            waiting.set(place, NONE)
            possible.set(place, run[place].take_ret)
        take_ret, bottom = possible.greatest(first, end)
        if take_ret < until:
            return cover([run[place] for place in range(first, end) if left[place]], begins[first] + 1, until - 1)
        left[bottom] = False
        possible.set(bottom, NONE)
        ending.set(bottom, NONE)
        high = end
        for cut in reversed(covered.leave(bottom + 1, max(ends[bottom], bottom + 1))):
            parts.append((cut, high))
            high = cut
        parts.append((first, high))
    return []
