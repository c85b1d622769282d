"""A set that only grows, its elements distinct, read as a whole. The reference of native/crates/linear/src/monitors/set.rs, where it is
proved.

What reads show must form a chain S1 < S2 < ... < Sm by inclusion. A read of Sj has the level 2j, an add the level 2j - 1 where Sj is the
first that shows its element, an acknowledged add that nobody saw the level 2m + 1: operations can be put in order exactly if none was
called after one of a higher level had returned.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from pekan.checkers.linearizability.monitors.asked import INSERT, LEGAL, NEVER, REPEATED, TAKE, Asked, Monitored, illegal, inserts, unknown


class _Leveled(NamedTuple):
    call: int
    ret: int
    level: int
    place: int


def grow_set(asked: Asked) -> Monitored:
    """Whether the adds and reads of `asked` can be put in order."""
    added = inserts(asked)
    seer: dict[int, int] = {}  # Of each that was shown, the first read that shows it.
    for place, act in enumerate(asked.act):
        if act == TAKE:
            seer.setdefault(asked.value[place], place)
    chain = sorted(seer, key=lambda number: (len(asked.shown[number]), seer[number]))
    levels: dict[int, int] = {}  # By the place of an add.
    level_of = {number: 2 * i + 2 for i, number in enumerate(chain)}
    found = None
    for number in chain:
        elements = asked.shown[number]
        for element in elements:
            place = added[element]
            if place == -2:
                return REPEATED
            if place == -1:
                found = found or unknown(asked, seer[number], *(e for e in elements if added[e] == -1))
            else:
                levels.setdefault(place, level_of[number] - 1)
        if len(set(elements)) < len(elements):
            found = found or illegal("doubled", seer[number])
    if found:
        return found
    for lesser, greater in pairwise(chain):
        if not set(asked.shown[greater]).issuperset(asked.shown[lesser]):
            return illegal("incomparable", seer[lesser], seer[greater])
    everything = []
    for place, act in enumerate(asked.act):
        if act == TAKE:
            everything.append(_Leveled(asked.call[place], asked.ret[place], level_of[asked.value[place]], place))
        elif act == INSERT and (place in levels or asked.ret[place] != NEVER):
            everything.append(_Leveled(asked.call[place], asked.ret[place], levels.get(place, 2 * len(chain) + 1), place))
    pair = _backwards(everything)
    if pair is None:
        return LEGAL
    a, b = pair
    if b.level % 2 == 0:
        return illegal("missing", a.place, b.place)
    if a.level % 2 == 0:
        return illegal("early", a.place, b.place)
    return illegal("skipped", a.place, b.place, seer[chain[b.level // 2]])


def _backwards(everything: list[_Leveled]) -> tuple[_Leveled, _Leveled] | None:
    """The first operation, by call, that was called after one of a higher level had returned: (that one, it)."""
    returned = sorted(everything, key=lambda o: (o.ret, o.place))
    number = 0
    highest: _Leveled | None = None
    for b in sorted(everything, key=lambda o: (o.call, o.place)):
        while number < len(returned) and returned[number].ret < b.call:
            if highest is None or returned[number].level > highest.level:
                highest = returned[number]
            number += 1
        if highest is not None and highest.level > b.level:
            return highest, b
    return None
