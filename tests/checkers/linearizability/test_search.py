"""The search on histories small enough to judge by hand, and what its hints must never do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pekan.checkers import linearizability
from pekan.checkers.linearizability import ANYWHERE, ILLEGAL, NOTHING, Answer, Budget, Hints, Question
from pekan.native import core

Interval = tuple[int, int | None]


def solve(question: Question, budget: Budget | None = None) -> Answer:
    """The answer of every engine that there is: they must be one."""
    return solve_all((question,), budget)[0]


def solve_all(questions: Sequence[Question], budget: Budget | None = None) -> tuple[Answer, ...]:
    """The same for many."""
    found = linearizability.solve_all(questions, budget, native=False)
    bounded = any(answer.bound in ("time", "memory") for answer in found)
    if core is not None:
        told = linearizability.solve_all(questions, budget)
        # Where time or memory ended it, the engines have come differently far.
        assert [(a.verdict, a.bound) for a in told] == [(a.verdict, a.bound) for a in found] if bounded else told == found
    return found


def register(*operations: tuple[str, int, Interval], hints: bool = True) -> Question:
    """A register that begins at 0. An operation is ("r" or "w", value, (call, ret)); classes and states are numbered by value."""
    classes: dict[tuple[str, int], int] = {}
    of = [classes.setdefault((f, value), len(classes)) for f, value, _ in operations]
    kinds = list(classes)

    def step(state: int, c: int) -> int:
        f, value = kinds[c]
        return value if f == "w" or value == state else ILLEGAL

    return Question(
        call=[interval[0] for _, _, interval in operations],
        ret=[interval[1] for _, _, interval in operations],
        of=of,
        step=step,
        readonly=[f == "r" for f, _ in kinds],
        hints=Hints(
            requires=[value if f == "r" else ANYWHERE for f, value in kinds],
            produces=[NOTHING if f == "r" else value for f, value in kinds],
        )
        if hints
        else Hints(),
    )


@pytest.mark.parametrize("hints", [False, True])
def test_an_order_is_found(hints: bool) -> None:
    """Operations that overlap are put into the one order that explains the reads."""
    answer = solve(register(("w", 1, (0, 9)), ("w", 2, (1, 8)), ("r", 2, (2, 3)), ("r", 1, (4, 5)), hints=hints))
    assert (answer.verdict, answer.order, answer.blocked, answer.bound) == ("ok", (1, 2, 0, 3), -1, "")


def test_a_stale_read_is_found() -> None:
    """A read of what was overwritten before it began cannot be ordered; with hints it is known before the write that hides the value."""
    stale = (("w", 1, (0, 1)), ("w", 2, (2, 3)), ("r", 1, (4, 5)))
    answer = solve(register(*stale, hints=False))
    assert (answer.verdict, answer.order, answer.blocked) == ("illegal", (0, 1), 2)
    answer = solve(register(*stale))
    assert (answer.verdict, answer.order, answer.blocked) == ("illegal", (0,), 1)


def test_touching_intervals_are_concurrent() -> None:
    """What ends at the instant at which another begins may come after it."""
    touching = (("w", 1, (0, 5)), ("r", 0, (5, 6)))
    apart = (("w", 1, (0, 5)), ("r", 0, (6, 7)))
    assert solve(register(*touching)).verdict == "ok"
    assert solve(register(*apart)).verdict == "illegal"


def test_a_write_of_the_present_value_is_not_committed() -> None:
    """A write that changes nothing now may be needed later: it must not be taken because it is a self-loop in this state."""
    question = register(("w", 0, (0, 9)), ("w", 1, (1, 3)), ("r", 1, (2, 4)), ("r", 0, (5, 8)))
    assert solve(question).order == (1, 2, 0, 3)


@pytest.mark.parametrize("hints", [False, True])
def test_what_never_returned_may_happen_late_or_never(hints: bool) -> None:
    """An indefinite write explains a read long after it, need not happen, and cannot happen twice."""
    lost: tuple[str, int, Interval] = ("w", 7, (0, None))
    assert solve(register(lost, ("r", 0, (50, 51)), hints=hints)).order == (1,)
    assert solve(register(lost, ("r", 0, (50, 51)), ("r", 7, (52, 53)), hints=hints)).order == (1, 0, 2)
    again = (lost, ("r", 7, (2, 3)), ("w", 1, (4, 5)), ("r", 7, (6, 7)))
    assert solve(register(*again, hints=hints)).verdict == "illegal"


def test_any_number_of_indefinite_operations() -> None:
    """Two hundred indefinite writes, of which the reads need every third in the order of the calls."""
    count = 200
    lost = [("w", i + 1, (i, None)) for i in range(count)]
    reads = [("r", i + 1, (1000 + 2 * i, 1001 + 2 * i)) for i in range(0, count, 3)]
    legal = solve(register(*lost, *reads))
    assert legal.verdict == "ok"
    assert len(legal.order) == 2 * len(reads)
    assert solve(register(*lost, *reads, ("r", 1, (5000, 5001)))).verdict == "illegal"


def test_bounds_are_named() -> None:
    """A search that may not go on says which bound it met, and never that the history is illegal."""
    question = register(*(("w", i + 1, (0, 100)) for i in range(9)), ("r", 99, (101, 102)), hints=False)
    assert solve(question, Budget(steps=50)).bound == "steps"
    assert solve(question, Budget(time_s=0.0)).bound == "time"
    assert solve(question, Budget(memory_bytes=0)).bound == "memory"
    answers = {solve(question, budget).verdict for budget in (Budget(steps=50), Budget(time_s=0.0), Budget(memory_bytes=0))}
    assert answers == {"unknown"}
    assert solve(question).verdict == "illegal"


def test_hard_parts_do_not_hide_an_easy_violation() -> None:
    """Of many questions none runs to its end before the others had their turn."""
    hard = register(*(("w", i + 1, (0, 100)) for i in range(16)), ("r", 99, (101, 102)), hints=False)
    easy = register(("r", 5, (0, 1)), hints=False)
    answers = solve_all((hard, hard, easy))
    assert [(answer.verdict, answer.bound) for answer in answers] == [("unknown", "elsewhere")] * 2 + [("illegal", "")]


def test_each_transition_is_asked_once() -> None:
    """However large the search, the model is asked once for a state and a class."""
    question = register(*(("w", i % 3 + 1, (0, 100)) for i in range(9)), ("r", 99, (101, 102)), hints=False)
    for native in (False, True):
        asked: list[tuple[int, int]] = []

        def step(state: int, c: int, asked: list[tuple[int, int]] = asked) -> int:
            asked.append((state, c))
            return question.step(state, c)

        answer = linearizability.solve(Question(question.call, question.ret, question.of, step, question.readonly), native=native)
        assert answer.verdict == "illegal"
        assert len(asked) == len(set(asked)) == answer.asked < answer.steps


def test_a_class_that_is_not_readonly_is_found_out() -> None:
    """A model that declares a changing operation read-only gets an error, not a verdict."""
    question = register(("w", 1, (0, 1)))
    with pytest.raises(ValueError, match="declared read-only"):
        solve(Question(question.call, question.ret, question.of, question.step, [True]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0], [], [0]), "columns differ in length"),
        (([5], [4], [0]), "before its call"),
        (([0], [1], [3]), "class 3; there are 1"),
    ],
)
def test_malformed_questions_are_refused(columns: tuple[Sequence[int], Sequence[int | None], Sequence[int]], message: str) -> None:
    """Columns that cannot be a history are an error of the caller, said before the search."""
    with pytest.raises(ValueError, match=message):
        Question(*columns, step=lambda state, c: state, readonly=[True])


def test_nothing_is_in_order() -> None:
    """A history without operations is legal."""
    assert solve(Question([], [], [], lambda state, c: state, [])) == Answer("ok", ())
