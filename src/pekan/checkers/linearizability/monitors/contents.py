"""What queue and stack share: values with their insert and take, and when the object cannot have been empty.

::

    insert   [call ──── ret]
    take                          [call ──── ret]
    held                   (──────)                  from the insert's return to the take's call: certainly inside

A value that nobody took is taken after everything, ``[NEVER, NEVER]``: what is left at the end can always be taken out then. A value whose
indefinite insert nobody saw is left out: a queue or stack stays legal when a value leaves it altogether.
The reference of native/crates/linear/src/monitors/contents.rs, where what is said here is proved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pekan.checkers.linearizability.monitors.asked import (
    EMPTY,
    INSERT,
    LOST,
    NEVER,
    REPEATED,
    TAKE,
    Asked,
    Monitored,
    illegal,
    inserts,
    unknown,
)


class Item(NamedTuple):
    """One value: when it was put in and taken out, and where that was asked. `take` is `insert` where nobody was seen to take it."""

    insert_call: int
    insert_ret: int
    take_call: int
    take_ret: int
    insert: int
    take: int


class Contents(NamedTuple):
    """Items in order of their inserts' places; places of empty answers; places of lost takes in order of call."""

    items: list[Item]
    empties: list[int]
    lost: list[int]


def contents(asked: Asked) -> Contents | Monitored:
    """Pairs inserts with takes; an answer where that decides already."""
    call, ret, value = asked.call, asked.ret, asked.value
    inserted = inserts(asked)
    taken: dict[int, int] = {}
    found = None
    for place, act in enumerate(asked.act):
        if act == TAKE:
            insert = inserted[value[place]]
            if insert == -2:
                return REPEATED
            if insert == -1:
                found = found or unknown(asked, place, value[place])
            elif insert in taken:
                found = found or illegal("twice", insert, taken[insert], place)
            elif ret[place] < call[insert]:
                found = found or illegal("early", place, insert)
            taken[insert] = place
    if found:
        return found
    items = []
    for place, act in enumerate(asked.act):
        if act == INSERT:
            take = taken.get(place)
            if take is not None:
                items.append(Item(call[place], ret[place], call[take], ret[take], place, take))
            elif ret[place] != NEVER:
                items.append(Item(call[place], ret[place], NEVER, NEVER, place, place))
    empties = [place for place, act in enumerate(asked.act) if act == EMPTY]
    lost = [place for place, act in enumerate(asked.act) if act == LOST]
    return Contents(items, empties, sorted(lost, key=call.__getitem__))


def freed(items: Sequence[Item], call: int) -> list[Item]:
    """The items, where whatever nobody was seen to take may be taken from `call` on."""
    return [item._replace(take_call=call) if item.take == item.insert else item for item in items]


def with_lost(answer: Monitored, first: int) -> Monitored:
    """An answer that stands although unseen takes may have begun at the call of `first`, which is shown last where that matters."""
    pairs = answer.places[1:] if answer.rule == "never-empty" else answer.places
    if any(insert == take for insert, take in zip(pairs[::2], pairs[1::2], strict=False)):
        return replace(answer, places=(*answer.places, first))
    return answer


class Run(NamedTuple):
    """Held items whose times overlap one another without a break, `held[first:end]`; the last of them is taken at `until`."""

    first: int
    end: int
    until: int


def runs_of(items: Sequence[Item]) -> tuple[list[Item], list[Run]]:
    """The items that are certainly inside at some time, by the begin of that time, and their runs."""
    held = sorted((item for item in items if item.insert_ret < item.take_call), key=lambda item: (item.insert_ret, item.insert))
    runs: list[Run] = []
    for number, item in enumerate(held):
        if runs and item.insert_ret < runs[-1].until:
            runs[-1] = Run(runs[-1].first, number + 1, max(runs[-1].until, item.take_call))
        else:
            runs.append(Run(number, number + 1, item.take_call))
    return held, runs


def cover(run: Sequence[Item], begin: int, until: int) -> list[Item]:
    """The fewest items of which the first is inside before `begin`, each next one before the last ends, and the last ends after `until`."""
    chosen: list[Item] = []
    reached, number = begin, 0
    while not chosen or reached <= until:
        best: Item | None = None
        while number < len(run) and run[number].insert_ret < reached:
            if best is None or run[number].take_call > best.take_call:
                best = run[number]
            number += 1
        assert best is not None, "a run has no break"
        chosen.append(best)
        reached = best.take_call
    return chosen


def roles(items: Sequence[Item]) -> list[int]:
    """The roles of items in a contradiction: insert and take of each."""
    return [place for item in items for place in (item.insert, item.take)]


def impossible_empty(asked: Asked, held: Sequence[Item], runs: Sequence[Run], empties: Sequence[int]) -> Monitored | None:
    """The first empty answer that no order allows: one that a run surrounds."""
    begins = [held[run.first].insert_ret for run in runs]
    for place in empties:
        after = bisect_left(begins, asked.call[place])
        if after and asked.ret[place] < runs[after - 1].until:
            run = runs[after - 1]
            return illegal("never-empty", place, *roles(cover(held[run.first : run.end], asked.call[place], asked.ret[place])))
    return None
