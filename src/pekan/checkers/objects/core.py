"""Of operations that no order explains, the few that say so.

::

    1. prefix   the history up to the first answer with which it cannot be explained: what was unanswered by then counts as unanswered
    2. core     in it, operations are let go in halves, quarters, ... one by one, as long as the rest still cannot be put in order

To let an operation go is sound only where that makes more orders legal, never fewer: one whose answer says that it changed nothing is left
out; any other becomes one that nobody saw answered, which may take effect at any time after its call, or never. What is left are the
operations that have to be where they are; the others may do and answer what they like, and it does not help.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pekan.checkers.linearizability import Answer, Budget, Question
from pekan.checkers.objects.parts import Part
from pekan.models.object import UNKNOWN

Solve = Callable[[Question, Sequence[int], Budget], Answer]
"""(question, its operations by their places in the part, budget) -> answer."""

FIRST_KEPT = 8
"""Operations before the last answer that are tried as a core first: most cores have two to five."""
SHARE = 0.25
"""Of the time for judging: that something is broken is known by then, and fewer operations to read are worth less than that."""
SECONDS_MAX = 5.0
"""And never more than somebody at a terminal waits for an explanation; most cores take milliseconds."""
SOLVE_S_MAX = 1.0
"""For one attempt: without an answer by then the operation stays in the core, which is then greater than it need be."""


@dataclass(frozen=True, slots=True)
class Core:
    """Places in the part's operations.

    operations  that have to be where they are, in order of call
    free        further ones of the prefix that may take effect anywhere, or not
    last        whose answer ends the prefix: with it, it cannot be explained; -1 where the whole history was looked at
    explained   operations answered before that, which can be explained
    order       a legal order of these
    minimal     False where time ran out before every operation had been tried
    """

    operations: tuple[int, ...]
    free: tuple[int, ...]
    last: int
    explained: int
    order: tuple[int, ...]
    minimal: bool


def core_seconds(seconds: float) -> float:
    """How long cores may be looked for where judging may take `seconds`."""
    return min(seconds * SHARE, SECONDS_MAX)


def core_of(part: Part, solve: Solve, seconds: float, blocked: int, cut: bool) -> Core | None:
    """The core of a part that is known to be illegal; None where `seconds` do not suffice to show it again.

    `blocked` is the operation where the search that showed it got stuck (-1: not known). `cut`: what was called later cannot explain what
    was answered before, so a prefix that is illegal is enough; where clocks are not shared it is not so.
    """
    deadline = time.monotonic() + seconds
    q = part.question
    until, before, chosen = max((ret for ret in q.ret if ret is not None), default=0), Answer("ok", ()), list(range(len(q.of)))
    if cut:
        found = _prefix(part, solve, blocked, deadline)
        if found is None:
            return None
        until, before, chosen = found
    answered = [o for o in chosen if _answered(q, o, until)]
    core, minimal = _relax(part, solve, chosen, answered, until, deadline)
    free = tuple(o for o in chosen if o not in core and not (_answered(q, o, until) and q.readonly[q.of[o]]))
    last = max((o for o in core if q.ret[o] == until), default=max(core)) if cut else -1
    explained = sum(q.ret[o] != until for o in answered) if cut else 0
    return Core(tuple(sorted(core)), free, last, explained, before.order, minimal)


def furthest(part: Part, solve: Solve, seconds: float, blocked: int = -1) -> tuple[int, ...]:
    """A legal order of the longest legal prefix of a part that is known to be illegal; empty where `seconds` do not suffice."""
    found = _prefix(part, solve, blocked, time.monotonic() + seconds)
    return () if found is None else found[1].order


def _budget(deadline: float) -> Budget:
    return Budget(time_s=max(0.0, min(SOLVE_S_MAX, deadline - time.monotonic())))


# ---- the prefix ----


def _answered(q: Question, o: int, until: int) -> bool:
    ret = q.ret[o]
    return ret is not None and ret <= until


def _at(part: Part, until: int) -> tuple[Question, list[int]]:
    """The history as it was at the time `until`, and its operations by their places in the part."""
    q, machine = part.question, part.machine
    chosen = [o for o in range(len(q.of)) if q.call[o] <= until]
    of, ret = [], []
    for o in chosen:
        answered = _answered(q, o, until)
        of.append(q.of[o] if answered or q.ret[o] is None else machine.class_of(machine.classes[q.of[o]][0], UNKNOWN))
        ret.append(q.ret[o] if answered else None)
    return replace(q, call=[q.call[o] for o in chosen], ret=ret, of=of, readonly=machine.readonly(), hints=machine.hints()), chosen


def _prefix(part: Part, solve: Solve, blocked: int, deadline: float) -> tuple[int, Answer, list[int]] | None:
    """(time of the answer that ends the shortest illegal prefix, answer of the prefix before it, operations called by then).

    `blocked` is where a search got stuck: mostly just there.
    """
    times = sorted({ret for ret in part.question.ret if ret is not None})
    answers: dict[int, Answer] = {-1: Answer("ok", ())}

    def illegal(place: int) -> bool:
        question, chosen = _at(part, times[place])
        answer = solve(question, chosen, _budget(deadline))
        if answer.verdict == "unknown":
            raise TimeoutError
        answers[place] = replace(answer, order=tuple(chosen[i] for i in answer.order))
        return answer.verdict == "illegal"

    low, high = 0, len(times)
    stuck = part.question.ret[blocked] if blocked >= 0 else None
    try:
        if stuck is not None:
            place = bisect_left(times, stuck)
            if not illegal(place):
                low = place + 1
            elif place and illegal(place - 1):
                high = place - 1
            else:
                low = high = place
        place = bisect_left(range(low, high), True, key=illegal) + low
        if place == len(times):
            return None
        if place - 1 not in answers:
            illegal(place - 1)
    except TimeoutError:
        return None
    return times[place], answers[place - 1], _at(part, times[place])[1]


# ---- the core ----


def _relax(part: Part, solve: Solve, chosen: list[int], answered: list[int], until: int, deadline: float) -> tuple[set[int], bool]:
    """The operations of `answered` that cannot be let go, and whether each was tried."""
    q, machine = part.question, part.machine
    changes = [o for o in chosen if not (_answered(q, o, until) and q.readonly[q.of[o]])]
    unseen = {o: machine.class_of(machine.classes[q.of[o]][0], UNKNOWN) for o in changes}
    readonly, hints = machine.readonly(), machine.hints()

    def still_illegal(kept: set[int]) -> bool:
        present = [o for o in chosen if o in kept or (o in unseen and not readonly[unseen[o]])]
        question = replace(
            q,
            call=[q.call[o] for o in present],
            ret=[q.ret[o] if o in kept else None for o in present],
            of=[q.of[o] if o in kept else unseen[o] for o in present],
            readonly=readonly,
            hints=hints,
        )
        return solve(question, present, _budget(deadline)).verdict == "illegal"

    # What contradicts the last answer is mostly near it: first the latest few, then ever more of them.
    latest = sorted(answered, key=lambda o: (q.ret[o], q.call[o]))
    core = set(latest)
    few = FIRST_KEPT
    while few < len(latest) and time.monotonic() < deadline:
        if still_illegal(set(latest[-few:])):
            core = set(latest[-few:])
            break
        few *= 4
    size = max(1, len(core) // 2)
    while True:
        gone = False
        queue = sorted(core)
        for start in range(0, len(queue), size):
            if time.monotonic() >= deadline:
                return core, False
            without = core - set(queue[start : start + size])
            if still_illegal(without):
                core, gone = without, True
        if size > 1:
            size //= 2
        elif not gone:
            return core, True
