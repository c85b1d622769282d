"""How far an illegal history can be put in order. The reference of native/crates/linear/src/monitors/prefix.rs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from pekan.checkers.linearizability.monitors.asked import INSERT, LOST, NEVER, REFUSED, Asked, Monitored


def with_prefix(asked: Asked, found: Monitored, monitor: Callable[[Asked], Monitored]) -> Monitored:
    """`found`, which is illegal, with the longest prefix that `monitor` calls legal.

    A prefix is the history as it was at some instant; a prefix of a legal history is legal, so it is found by halving. With the last answer
    among the operations of the contradiction it is illegal at the latest.
    """
    told = [place for place, act in enumerate(asked.act) if act != REFUSED and asked.ret[place] != NEVER]
    times = sorted({asked.ret[place] for place in told})
    last = max(asked.ret[place] for place in found.places if asked.act[place] != REFUSED and asked.ret[place] != NEVER)
    high = bisect_left(times, last)
    legal_until = bisect_left(range(high), True, key=lambda number: monitor(_at(asked, times[number])).verdict != "ok")
    ends = times[legal_until]
    answered = sum(asked.ret[place] < ends for place in told)
    return replace(found, answered=answered, next=next(place for place in told if asked.ret[place] == ends))


def _at(asked: Asked, until: int) -> Asked:
    """The history as it was at the time `until`: what had no answer counts as unanswered."""
    call, ret, acts, value = [], [], [], []
    for place, act in enumerate(asked.act):
        if asked.call[place] > until:
            continue
        end = asked.ret[place]
        if end > until and act != REFUSED:
            if act != INSERT:
                if asked.thing in ("register", "set"):
                    continue
                act = LOST
            end = NEVER
        call.append(asked.call[place])
        ret.append(end)
        acts.append(act)
        value.append(asked.value[place])
    return replace(asked, call=call, ret=ret, act=acts, value=value)
