"""Both engines on random machines: any table of transitions is an object, and what a hint may promise is computed from the table.

A table has a handful of states and classes, so every promise (read-only, requires, produces, viable) can be worked out exactly, for all
states, and given or withheld at random. The oracle tries all orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from random import Random

import pytest

from pekan.checkers.linearizability import ANYWHERE, ILLEGAL, NOTHING, UNSAID, Answer, Budget, Hints, Question, solve, solve_all
from pekan.native import core

native_only = pytest.mark.skipif(core is None, reason="no native core here")
Table = list[list[int]]
"""By state and class."""


def random_table(rng: Random) -> Table:
    """Random transitions of a few kinds: reads, writes, compare-and-set, and anything."""
    states = rng.randint(1, 5)
    columns = []
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice(("read", "write", "cas", "cas unseen", "any", "any"))
        to, needs = rng.randrange(states), rng.randrange(states)
        if kind == "read":
            columns.append([s if s == needs else ILLEGAL for s in range(states)])
        elif kind == "write":
            columns.append([to] * states)
        elif kind == "cas":
            columns.append([to if s == needs else ILLEGAL for s in range(states)])
        elif kind == "cas unseen":
            columns.append([to if s == needs else s for s in range(states)])
        else:
            columns.append([rng.choice((ILLEGAL, s, rng.randrange(states))) for s in range(states)])
    return [[column[s] for column in columns] for s in range(states)]


def readonly_of(table: Table) -> list[bool]:
    return [all(row[c] in (s, ILLEGAL) for s, row in enumerate(table)) for c in range(len(table[0]))]


def hints_of(table: Table, rng: Random, unanswered: frozenset[int]) -> Hints:
    """Promises that are true of `table`, each given or withheld. Classes of `unanswered` operations only may have no effect elsewhere."""
    classes = range(len(table[0]))
    readonly = readonly_of(table)

    def requires(c: int) -> int:
        legal = [s for s, row in enumerate(table) if row[c] != ILLEGAL]
        acts = [s for s, row in enumerate(table) if row[c] not in (ILLEGAL, s)]
        if len(legal) == len(table):
            return acts[0] if c in unanswered and len(acts) == 1 else ANYWHERE
        return legal[0] if len(legal) == 1 else UNSAID

    def produces(c: int) -> int:
        if readonly[c]:
            return NOTHING
        to = {row[c] for row in table if row[c] != ILLEGAL}
        acts = {row[c] for s, row in enumerate(table) if row[c] not in (ILLEGAL, s)}
        to = acts if c in unanswered and len(acts) == 1 else to
        return to.pop() if len(to) == 1 else UNSAID

    needs = ([requires(c) for c in classes], [produces(c) for c in classes]) if rng.random() < 0.6 else ([], [])
    for told in needs:
        for c in range(len(told)):
            told[c] = told[c] if rng.random() < 0.9 else UNSAID
    if rng.random() < 0.5:
        return Hints(*needs)
    resets = [rng.random() < 0.3 for _ in classes]

    def viable(state: int, goal: int) -> bool:
        reached, edge = {state}, [state]
        while edge:
            s = edge.pop()
            for c in classes:
                to = table[s][c]
                if not resets[c] and to != ILLEGAL and to not in reached:
                    reached.add(to)
                    edge.append(to)
        return any(table[s][goal] != ILLEGAL for s in reached)

    return Hints(*needs, [rng.random() < 0.8 for _ in classes], resets, viable)


def random_question(seed: int) -> tuple[Question, Table]:
    rng = Random(seed)
    table = random_table(rng)
    processes = rng.randint(1, 5)
    span = rng.choice((1, 2, 4))
    free = [0] * processes
    call: list[int] = []
    ret: list[int | None] = []
    of: list[int] = []
    for _ in range(rng.randint(0, 9)):
        p = min(range(processes), key=free.__getitem__)
        begins = free[p] + rng.randint(0, span)
        free[p] = begins + rng.randint(0, 2 * span)
        call.append(begins)
        of.append(rng.randrange(len(table[0])))
        ret.append(None if rng.random() < 0.25 else free[p])
    answered = {c for c, r in zip(of, ret, strict=True) if r is not None}
    hints = Hints() if rng.random() < 0.3 else hints_of(table, rng, frozenset(of) - answered)
    readonly = [flag and rng.random() < 0.9 for flag in readonly_of(table)]
    if hints.produces:
        # (A class whose read-only promise is withheld produces what it requires, if that can be said at all.)
        hints = replace(
            hints, produces=[UNSAID if p == NOTHING and not flag else p for p, flag in zip(hints.produces, readonly, strict=True)]
        )
    return Question(call, ret, of, lambda s, c: table[s][c], readonly, rng.randrange(len(table)), hints), table


def legal(q: Question) -> bool:
    """Every order is tried."""

    @cache
    def from_here(done: frozenset[int], state: int) -> bool:
        waiting = [r for o, r in enumerate(q.ret) if o not in done and r is not None]
        if not waiting:
            return True
        first = min(waiting)
        return any(
            from_here(done | {o}, after)
            for o in range(len(q.of))
            if o not in done and q.call[o] <= first and (after := q.step(state, q.of[o])) != ILLEGAL
        )

    return from_here(frozenset(), q.init)


def is_order(q: Question, order: tuple[int, ...]) -> bool:
    """Whether `order` keeps real time and is legal."""
    state = q.init
    for i, o in enumerate(order):
        state = q.step(state, q.of[o])
        ends = q.ret[o]
        if state == ILLEGAL or (ends is not None and any(q.call[before] > ends for before in order[:i])):
            return False
    return len(set(order)) == len(order)


def questions(seed: int, count: int) -> Iterator[Question]:
    for number in range(count):
        yield random_question(seed * 1_000_003 + number)[0]


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=native_only)])
def test_answers_are_those_of_trying_all_orders(native: bool) -> None:
    """On two thousand random machines and histories the engine finds an order where there is one, and none where there is none."""
    said = {"ok": 0, "illegal": 0}
    for q in questions(1, 2_000):
        answer = solve(q, native=native)
        assert (answer.verdict == "ok") == legal(q), q
        assert is_order(q, answer.order), (q, answer)
        if answer.verdict == "ok":
            assert {o for o, ret in enumerate(q.ret) if ret is not None} <= set(answer.order)
        said[answer.verdict] += 1
    assert min(said.values()) > 300


@native_only
def test_both_engines_make_the_same_steps() -> None:
    """Answers, orders and counts of the core are those of the reference, and a bound of steps stops both at the same place."""
    for number, q in enumerate(questions(2, 2_000)):
        assert solve(q) == solve(q, native=False), q
        bound = Budget(steps=number % 13)
        assert solve(q, bound) == solve(q, bound, native=False), q


@native_only
def test_tokens_in_place_of_exact_keys_change_nothing() -> None:
    """Configurations told apart by 128-bit sums give the verdicts of exact keys."""
    asked = list(questions(3, 1_500))
    for q in asked:
        told = core.linear_solve([q], None, None, None, True)[0]
        assert told[0] == solve(q, native=False).verdict, q


@native_only
def test_more_open_operations_than_an_exact_key_has_room_for() -> None:
    """A hundred concurrent operations are judged by tokens, and an illegal history of them is found illegal twice."""
    count = 100
    writes = Question(
        call=[0] * count + [20, 30],
        ret=[10] * count + [25, 35],
        of=[c % 2 for c in range(count)] + [2, 3],
        step=lambda s, c: c if c < 2 else s if s == c - 2 else ILLEGAL,
        readonly=[False] * 2 + [True] * 2,
    )
    assert solve(writes) == solve(writes, native=False)
    assert solve(writes).verdict == "illegal"
    assert solve(replace(writes, of=[*writes.of[:-1], 2])).verdict == "ok"


def test_parts_are_answered_as_if_alone() -> None:
    """Many questions on one budget get the answers that each gets by itself, but for those left open after an illegal one."""
    asked = list(questions(4, 60))
    for native in (False, True):
        together = solve_all(asked, native=native)
        for q, answer in zip(asked, together, strict=True):
            assert answer == solve(q, native=native) or answer.bound == "elsewhere"


def test_promises_matter() -> None:
    """The random machines are hard enough for false promises to show: each kind of them makes some wrong answer."""

    def wrong(number: int, q: Question, table: Table) -> Question | None:
        if number == 0 and q.hints.requires:  # A state that is required is not the only one that serves.
            return replace(q, hints=replace(q.hints, requires=[0 for _ in q.readonly], produces=[0 for _ in q.readonly]))
        if number == 1 and q.hints.viable is not None:  # A goal is given up though a way leads to it.
            return replace(q, hints=replace(q.hints, viable=lambda s, c: table[s][c] != ILLEGAL, resets=[False] * len(q.readonly)))
        if number == 2 and any(q.ret[o] is None for o in range(len(q.of))):  # What never returned must be in order.
            return replace(q, ret=[10**6 if ret is None else ret for ret in q.ret])
        if number == 3:  # What returned need not be in order.
            return replace(q, ret=[None for _ in q.ret])
        return None

    caught = [0, 0, 0, 0]
    for seed in range(1_500):
        q, table = random_question(seed)
        for number in range(4):
            lied = wrong(number, q, table)
            if lied is not None and (solve(lied, native=False).verdict == "ok") != legal(q):
                caught[number] += 1
    assert min(caught) > 0, caught


def test_nothing_asked() -> None:
    """No question, no answer; and an empty history is legal in both engines."""
    empty = Question([], [], [], lambda s, c: s, [])
    for native in (False, True):
        assert solve_all([], native=native) == ()
        assert solve(empty, native=native) == Answer("ok", ())
