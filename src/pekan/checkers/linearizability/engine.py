"""Several questions and one budget: the native engine where it is there, the reference search where not.

::

    question   round 1   round 2      round 3
    a          done
    b          ....      ........     done                  every round gives each open question GROWTH times the steps of the one before
    c          ....      illegal
    d          ....      ........     (not begun)           after the round in which one was found illegal nothing more is begun

The parts of a history (keys, elements) differ in hardness by orders of magnitude, and nobody knows beforehand which are hard: so none is
run to its end before the others had their turn, and the easy violation is found before the hard part is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pekan.checkers.linearizability.question import Answer, Bound, Budget, Question
from pekan.checkers.linearizability.search import Search
from pekan.native import core

FIRST_STEPS = 2_000
"""Steps of the first round, and one for each event on top: a history without concurrency or trouble is done in its first round."""
GROWTH = 4
"""Steps of a round by those of the round before. What was spent on the easier rounds is then under a third of the last."""
SLICE_STEPS = 256
"""Steps between two looks at the clock: a step may be a call of a slow model."""


def solve(question: Question, budget: Budget | None = None, *, native: bool = True) -> Answer:
    """Is there a legal order of the operations of `question`?"""
    return solve_all((question,), budget, native=native)[0]


def solve_all(questions: Sequence[Question], budget: Budget | None = None, *, native: bool = True) -> tuple[Answer, ...]:
    """An answer to each question, within one budget; see the picture above. Whatever `step` raises is passed on.

    With `native` the core answers, where it is there. Both engines make the same steps: where no bound of time or memory is met, their
    answers are equal to the last field.
    """
    budget = Budget() if budget is None else budget
    if native and core is not None:
        told = core.linear_solve(list(questions), budget.time_s, budget.steps, budget.memory_bytes)
        return tuple(Answer(verdict, tuple(order), *rest) for verdict, order, *rest in told)
    return reference(questions, budget)


def reference(questions: Sequence[Question], budget: Budget) -> tuple[Answer, ...]:
    """`solve_all` by the search in Python."""
    deadline = None if budget.time_s is None else time.monotonic() + budget.time_s
    answers: dict[int, Answer] = {}
    open_searches: dict[int, Search] = {}
    elsewhere = 0  # Bytes of the open searches that are not running.
    limit = FIRST_STEPS
    while len(answers) < len(questions):
        illegal = any(answer.verdict == "illegal" for answer in answers.values())
        for i, question in enumerate(questions):
            if i in answers:
                continue
            search = open_searches.pop(i, None)
            if search is not None:
                elsewhere -= search.memory_bytes()
            elif illegal:
                answers[i] = Answer("unknown", (), bound="elsewhere")
                continue
            else:
                search = Search(question)
            bound: Bound = "elsewhere" if illegal else _advance(search, limit + 2 * len(question.call), budget, deadline, elsewhere)
            if search.verdict != "unknown" or bound:
                answers[i] = search.answer(bound)
            else:
                open_searches[i] = search
                elsewhere += search.memory_bytes()
        limit *= GROWTH
    return tuple(answers[i] for i in range(len(questions)))


def _advance(search: Search, limit: int, budget: Budget, deadline: float | None, elsewhere: int) -> Bound:
    """Run `search` up to `limit` steps; the bound that was met, if one was. `elsewhere`: bytes that other searches hold."""
    steps = limit if budget.steps is None else min(limit, budget.steps)
    while not search.run(min(steps, search.steps + SLICE_STEPS)):
        if deadline is not None and time.monotonic() >= deadline:
            return "time"
        if budget.memory_bytes is not None and elsewhere + search.memory_bytes() > budget.memory_bytes:
            return "memory"
        if search.steps >= steps:
            return "steps" if steps == budget.steps else ""
    return ""
