"""Is there a legal order where clocks are not shared? Then only what one process did one after the other is known to be in order.

::

    process 1   a ─> b ─> c           a legal order takes from the front of any process what the object can do now;
    process 2   d ─> e                with `--clock-skew D` also: what returned more than D before another was called stands before it
    process 3   f ─> (g)              (g) was never answered: some time after f, or never, and it holds nobody up

The search remembers (place in every process, unanswered operations used, state). Operations that change no state at all are put in at once.
Whether such an order exists is a hard question even of one register (Gibbons and Korach, Testing shared memories, 1997); a budget bounds
it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pekan.checkers.linearizability import ILLEGAL, Answer, Budget, Question
from pekan.checkers.linearizability.question import Bound

BYTES_A_CONFIGURATION = 400
"""A remembered tuple of places, mask and state, with its place in the set, in CPython, about."""
SLICE_STEPS = 256
"""Steps between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Chains:
    """Who stands before whom. `process[o]` for every operation of a question; `skew_ns` None: clocks say nothing about each other."""

    process: Sequence[int]
    skew_ns: int | None = None


class _Problem:
    """One question's operations by process."""

    def __init__(self, question: Question, chains: Chains) -> None:
        self.q = question
        self.skew = chains.skew_ns
        by_process: dict[int, list[int]] = {}
        self.optional: list[tuple[int, int, int]] = []  # operation, chain, how much of the chain stands before it
        for o in sorted(range(len(question.of)), key=lambda o: (question.call[o], o)):
            chain = by_process.setdefault(chains.process[o], [])
            if question.ret[o] is None:
                self.optional.append((o, list(by_process).index(chains.process[o]), len(chain)))
            else:
                chain.append(o)
        self.chains = list(by_process.values())
        self.known: dict[tuple[int, int], int] = {}

    def step(self, state: int, of: int) -> int:
        after = self.known.get((state, of))
        if after is None:
            after = self.known[state, of] = self.q.step(state, of)
        return after

    def enabled(self, places: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """(operation, chain) that may come next, of those that returned."""
        for chain, place in enumerate(places):
            if place < len(self.chains[chain]):
                o = self.chains[chain][place]
                if self.timely(o, places):
                    yield o, chain

    def timely(self, o: int, places: tuple[int, ...]) -> bool:
        """Whether no clock says that something still to come stands before `o`."""
        if self.skew is None:
            return True
        call = self.q.call[o]
        for chain, place in zip(self.chains, places, strict=True):
            if place < len(chain) and chain[place] != o:
                ret = self.q.ret[chain[place]]
                assert ret is not None
                if ret + self.skew < call:
                    return False
        return True


@dataclass(slots=True)
class _Choice:
    places: tuple[int, ...]
    used: int
    state: int
    length: int
    ways: Iterator[tuple[int, int, int]]


def search(question: Question, chains: Chains, budget: Budget) -> Answer:
    """A legal order of `question` that keeps every process's own order, within `budget`."""
    problem = _Problem(question, chains)
    deadline = None if budget.time_s is None else time.monotonic() + budget.time_s
    total = sum(map(len, problem.chains))
    places, used, state = (0,) * len(problem.chains), 0, question.init
    order: list[int] = []
    best: list[int] = []
    seen: set[tuple[tuple[int, ...], int, int]] = set()
    choices: list[_Choice] = []
    steps = 0

    def ways(places: tuple[int, ...], used: int, state: int) -> Iterator[tuple[int, int, int]]:
        """(operation, chain or -1 - place among the optional, state after)"""
        for o, chain in problem.enabled(places):
            after = problem.step(state, question.of[o])
            if after != ILLEGAL:
                yield o, chain, after
        for i, (o, chain, before) in enumerate(problem.optional):
            if not used >> i & 1 and places[chain] >= before and problem.timely(o, places):
                after = problem.step(state, question.of[o])
                if after not in (ILLEGAL, state):
                    yield o, -1 - i, after

    while True:
        places, committed = _commit(problem, places, state, order)
        steps += committed + 1
        if sum(places) == total:
            return Answer("ok", tuple(order), steps=steps, configurations=len(seen), asked=len(problem.known))
        if len(order) > len(best):
            best = order.copy()
        here = (places, used, state)
        if here not in seen:
            seen.add(here)
            choices.append(_Choice(places, used, state, len(order), ways(places, used, state)))
        if steps % SLICE_STEPS < committed + 1:
            bound = _met(budget, deadline, steps, len(seen))
            if bound:
                return Answer("unknown", tuple(best), bound=bound, steps=steps, configurations=len(seen), asked=len(problem.known))
        while choices:
            choice = choices[-1]
            del order[choice.length :]
            found = next(choice.ways, None)
            if found is None:
                choices.pop()
                continue
            o, chain, state = found
            places, used = choice.places, choice.used
            if chain >= 0:
                places = (*places[:chain], places[chain] + 1, *places[chain + 1 :])
            else:
                used |= 1 << (-1 - chain)
            order.append(o)
            break
        else:
            return Answer("illegal", tuple(best), steps=steps, configurations=len(seen), asked=len(problem.known))


def _commit(problem: _Problem, places: tuple[int, ...], state: int, order: list[int]) -> tuple[tuple[int, ...], int]:
    """Put in every enabled operation that changes no state and is legal here; the places after that, and how many there were."""
    q = problem.q
    committed = 0
    again = True
    while again:
        again = False
        for o, chain in problem.enabled(places):
            if q.readonly[q.of[o]] and problem.step(state, q.of[o]) == state:
                places = (*places[:chain], places[chain] + 1, *places[chain + 1 :])
                order.append(o)
                committed += 1
                again = True
                break
    return places, committed


def _met(budget: Budget, deadline: float | None, steps: int, configurations: int) -> Bound:
    if deadline is not None and time.monotonic() >= deadline:
        return "time"
    if budget.steps is not None and steps >= budget.steps:
        return "steps"
    if budget.memory_bytes is not None and configurations * BYTES_A_CONFIGURATION > budget.memory_bytes:
        return "memory"
    return ""
