"""A first-in, first-out queue whose values are distinct. The reference of native/crates/linear/src/monitors/queue.rs, where it is proved.

Where every dequeue was answered, an order exists exactly if there are no values x and y of which x went in before y and y came out before
x (Henzinger, Sezgin, Vafeiadis 2013), and no empty answer is impossible (`contents`). Dequeues that nobody saw answered may take what
nobody was seen to take: the value that must leave first takes the earliest of them, and so on. With empty answers as well that is no
longer the best choice in every case, and unless one of the two extremes decides (nobody took anything; everything was taken as early as
can be) the monitor declines.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pekan.checkers.linearizability.monitors.asked import LEGAL, NEVER, Asked, Monitored, illegal
from pekan.checkers.linearizability.monitors.contents import Item, contents, freed, impossible_empty, runs_of, with_lost


def queue(asked: Asked) -> Monitored:
    """Whether the enqueues, dequeues and empty answers of `asked` can be put in order."""
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
    if found.empties:
        return Monitored("declined", reason="a dequeue that nobody saw answered, and answers that the queue was empty")
    return _stuck(asked, found.items, found.lost)


def _decide(asked: Asked, items: Sequence[Item], empties: Sequence[int]) -> Monitored:
    return _overtaken(items) or impossible_empty(asked, *runs_of(items), empties) or LEGAL


def _overtaken(items: Sequence[Item]) -> Monitored | None:
    """The first value that came out before one that had gone in before it."""
    returned = sorted((x for x in items if x.insert_ret != NEVER), key=lambda x: (x.insert_ret, x.insert))
    number = 0
    latest: Item | None = None
    for y in sorted(items, key=lambda y: (y.insert_call, y.insert)):
        while number < len(returned) and returned[number].insert_ret < y.insert_call:
            if latest is None or returned[number].take_call > latest.take_call:
                latest = returned[number]
            number += 1
        if latest is not None and y.take_ret < latest.take_call:
            return illegal("overtaken", latest.insert, latest.take, y.insert, y.take)
    return None


def _stuck(asked: Asked, items: Sequence[Item], lost: Sequence[int]) -> Monitored:
    """Gives every value that must have been taken, the most urgent first, the earliest take that is left."""
    ordered = sorted(items, key=lambda y: (y.insert_call, y.insert))
    soonest = list(ordered)  # Of those inserted from here on, the one whose take returned first.
    for number in range(len(soonest) - 1, 0, -1):
        if soonest[number].take_ret < soonest[number - 1].take_ret:
            soonest[number - 1] = soonest[number]
    calls = [y.insert_call for y in ordered]
    urgent = []
    for x in items:
        after = bisect_right(calls, x.insert_ret)
        if x.take == x.insert and after < len(soonest) and soonest[after].take_ret != NEVER:
            urgent.append((soonest[after].take_ret, x.insert, soonest[after].insert, soonest[after].take))
    urgent.sort()
    for number, (limit, *_) in enumerate(urgent):
        if number >= len(lost) or asked.call[lost[number]] > limit:
            values = [place for _, *places in urgent[: number + 1] for place in places]
            return illegal("stuck", *values, *lost[:number])
    return LEGAL
