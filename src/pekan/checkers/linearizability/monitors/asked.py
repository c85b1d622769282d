"""What a monitor is asked and what it answers, in columns of numbers.

::

    place        0       1       2     ...     operations in order of call; call[p] <= ret[p], closed intervals
    call         10      12      15
    ret          14      13      NEVER         NEVER: the operation may take effect at any time after its call, once, or never
    act          INSERT  TAKE    LOST
    value        0       0       0             by number; of the read of a set, the number of what it showed

`a` comes *before* `b` where ``ret[a] < call[b]``, strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

NEVER = (1 << 63) - 1
"""The greatest time of the native core: later than anything that returned."""

INSERT, REFUSED, TAKE, EMPTY, LOST = range(5)
"""What an operation did with its value.

INSERT   brought it in (write, add, enqueue, push), surely or perhaps
REFUSED  was refused and changed nothing; it explains no legal order and is shown where its value was seen
TAKE     saw it (read) or took it out (dequeue, pop)
EMPTY    saw an untouched register, or nothing to take out
LOST     a dequeue or pop of which nobody saw an answer
"""

Thing = Literal["register", "set", "queue", "stack"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One object's history. `values` counts the distinct values; `shown` are what reads of a set showed, each sorted."""

    thing: Thing
    call: Sequence[int]
    ret: Sequence[int]
    act: Sequence[int]
    value: Sequence[int]
    values: int
    shown: Sequence[tuple[int, ...]] = field(default=())


@dataclass(frozen=True, slots=True)
class Monitored:
    """What a monitor says: "ok" (some order is legal), "illegal" (none is), "declined" (its conditions are not met: it says nothing).

    Where illegal, `rule` tells why and `places` names the few operations that say so, in the roles that the rule gives them (see
    `explain`); they are illegal by themselves, too. Where declined, `reason` tells which condition is not met.

    Where illegal, the history can be put in order as it was when `answered` of its operations had been answered, and (as far as the monitor
    can say) no further than to the answer of the operation at `next`.
    """

    verdict: Literal["ok", "illegal", "declined"]
    rule: str = ""
    places: tuple[int, ...] = ()
    reason: str = ""
    answered: int = 0
    next: int = -1


LEGAL = Monitored("ok")
REPEATED = Monitored("declined", reason="a value that was seen was brought in more than once")


def illegal(rule: str, *places: int) -> Monitored:
    """No order is legal: see `Monitored`."""
    return Monitored("illegal", rule, places)


def unknown(asked: Asked, place: int, *values: int) -> Monitored:
    """At `place` values were seen that nobody brought in; whoever was refused one of them first is shown beside."""
    refused = (p for p, act in enumerate(asked.act) if act == REFUSED and asked.value[p] in values)
    first = next(refused, None)
    return illegal("unknown", place) if first is None else illegal("unknown", place, first)


def inserts(asked: Asked) -> list[int]:
    """Of each value the place where it was brought in: -1 nowhere, -2 at several."""
    known = [-1] * asked.values
    for place, act in enumerate(asked.act):
        if act == INSERT:
            value = asked.value[place]
            known[value] = place if known[value] == -1 else -2
    return known
