"""Monitors on histories small enough to judge by hand: each rule with what breaks it and what comes close, and when a monitor declines."""

from __future__ import annotations

from typing import Any

import pytest

from pekan import native
from pekan.checkers.linearizability.monitors import Asked, classify, explain, monitor
from pekan.checkers.linearizability.monitors.decide import decide
from pekan.history.types import FAILED, INDEFINITE, OK, Call, Operation
from pekan.models.ready import ready

Told = tuple[Any, ...]
"""(f, value or answer, call, ret or None or "failed")."""

ENGINES = ("reference", "auto") if native.core is not None else ("reference",)
GETS = ("read", "dequeue", "pop", "contains")


def history(*told: Told) -> list[Operation]:
    """Operations in the order told, each of a process of its own."""
    operations = []
    for number, (f, value, call, ret) in enumerate(told):
        outcome = OK if isinstance(ret, int) else FAILED if ret == "failed" else INDEFINITE
        gets = f in GETS
        end = ret if outcome == OK else None
        operations.append(
            Operation(number, number, call, end, outcome, Call(f, None if gets else value), value if gets and outcome == OK else None)
        )
    return operations


W1, W2 = ("write", 1, 0, 1), ("write", 2, 2, 3)
LEGAL: tuple[tuple[str, tuple[Told, ...]], ...] = (
    ("register", ()),
    ("register", (W1, W2, ("read", 2, 4, 5))),
    # What ends when another begins is concurrent with it.
    ("register", (W1, ("write", 2, 1, 2), ("read", 1, 2, 3))),
    ("register", (("read", None, 1, 2), W1)),
    # An unanswered write takes effect as late as it likes, or never.
    ("register", (W1, ("write", 9, 2, None), ("read", 1, 5, 6), ("read", 9, 7, 8))),
    ("register", (("write", 7, 0, 1), ("write", 7, 0, 1), W2, ("read", 2, 4, 5))),
    ("set", (("add", 1, 0, 9), ("add", 2, 1, 9), ("read", (2,), 2, 3), ("read", frozenset((1, 2)), 4, 5), ("read", None, 0, 0))),
    ("set", (("add", 1, 0, None), ("read", (), 1, 2))),
    ("fifo-queue", (("enqueue", 1, 0, 1), ("enqueue", 2, 1, 2), ("dequeue", 2, 3, 4), ("dequeue", 1, 5, 6))),
    ("fifo-queue", (("enqueue", 1, 0, 3), ("dequeue", None, 1, 4), ("dequeue", 1, 2, 5))),
    # The unanswered dequeue took what came first.
    ("fifo-queue", (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3), ("dequeue", None, 3, None), ("dequeue", 2, 4, 5))),
    ("stack", (("push", 1, 0, 5), ("push", 2, 2, 3), ("pop", 1, 6, 7), ("pop", 2, 8, 9))),
    ("stack", (("push", 1, 0, 1), ("push", 2, 2, 3), ("pop", 2, 4, 5), ("pop", 1, 6, 7), ("pop", None, 7, 8))),
    ("stack", (("push", 1, 0, None), ("pop", 1, 4, 5), ("pop", None, 6, 7))),
)
ILLEGAL: tuple[tuple[str, str, tuple[int, ...], tuple[Told, ...]], ...] = (
    ("register", "unknown", (1,), (W1, ("read", 3, 4, 5))),
    ("register", "unknown", (1, 0), (("write", 3, 0, "failed"), ("read", 3, 4, 5))),
    ("register", "early", (0, 1), (("read", 2, 0, 1), W2)),
    ("register", "zones", (0, 1, 1, 2), (W1, W2, ("read", 1, 4, 5))),
    ("register", "untouched", (0, 1), (W1, ("read", None, 2, 3))),
    ("set", "unknown", (1, 0), (("add", 1, 0, "failed"), ("read", (1,), 2, 3))),
    ("set", "doubled", (1,), (("add", 1, 0, 1), ("read", (1, 1), 2, 3))),
    ("set", "early", (0, 1), (("read", (1,), 0, 1), ("add", 1, 2, 3))),
    ("set", "missing", (0, 1), (("add", 1, 0, 1), ("read", (), 2, 3))),
    ("set", "incomparable", (2, 3), (("add", 1, 0, 9), ("add", 2, 0, 9), ("read", (1,), 0, 9), ("read", (2,), 0, 9))),
    ("set", "skipped", (0, 1, 2), (("add", 1, 0, 1), ("add", 2, 2, 3), ("read", (2,), 0, 9))),
    ("fifo-queue", "twice", (0, 1, 2), (("enqueue", 1, 0, 1), ("dequeue", 1, 2, 3), ("dequeue", 1, 2, 3))),
    ("fifo-queue", "early", (0, 1), (("dequeue", 1, 0, 1), ("enqueue", 1, 2, 3))),
    (
        "fifo-queue",
        "overtaken",
        (0, 3, 1, 2),
        (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3), ("dequeue", 2, 4, 5), ("dequeue", 1, 6, 7)),
    ),
    ("fifo-queue", "overtaken", (0, 0, 1, 2), (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3), ("dequeue", 2, 4, 5))),
    (
        "fifo-queue",
        "overtaken",
        (0, 0, 1, 2, 3),
        (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3), ("dequeue", 2, 4, 5), ("dequeue", None, 6, None)),
    ),
    (
        "fifo-queue",
        "stuck",
        (0, 3, 4, 1, 3, 4, 2),
        (("enqueue", 1, 0, 1), ("enqueue", 2, 0, 1), ("dequeue", None, 1, None), ("enqueue", 3, 2, 3), ("dequeue", 3, 4, 5)),
    ),
    (
        "fifo-queue",
        "never-empty",
        (3, 0, 2, 1, 4),
        (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3), ("dequeue", 1, 4, 5), ("dequeue", None, 3, 6), ("dequeue", 2, 7, 8)),
    ),
    ("stack", "never-empty", (1, 0, 0), (("push", 1, 0, 1), ("pop", None, 2, 3))),
    ("stack", "no-bottom", (0, 2, 1, 3), (("push", 1, 0, 1), ("push", 2, 2, 3), ("pop", 1, 4, 5), ("pop", 2, 6, 7))),
    ("stack", "no-bottom", (0, 2, 1, 1), (("push", 1, 0, 1), ("push", 2, 2, 3), ("pop", 1, 4, 5))),
)
DECLINED: tuple[tuple[str, str, tuple[Told, ...]], ...] = (
    ("register", "a value that was seen was brought in more than once", (W1, W1, ("read", 1, 2, 3))),
    ("register", "the value that the register held at first was written again", (("write", None, 0, 1), ("read", None, 2, 3))),
    ("cas-register", "a call that no monitor knows", (("cas", (None, 1), 0, 1),)),
    ("set", "a call that no monitor knows", (("remove", 1, 0, 1),)),
    ("counter", "no monitor for this model", (("add", 1, 0, 1),)),
    (
        "fifo-queue",
        "a dequeue that nobody saw answered, and answers that the queue was empty",
        (("enqueue", 1, 0, 1), ("dequeue", None, 1, None), ("dequeue", None, 2, 3)),
    ),
    (
        "stack",
        "a pop that nobody saw answered may have taken one of several values",
        (("push", 1, 0, 1), ("pop", None, 1, None), ("pop", None, 2, 3)),
    ),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "told"), LEGAL)
def test_legal_histories_are_let_through(model: str, told: tuple[Told, ...], engine: str) -> None:
    """What comes close to a contradiction and is none is called legal."""
    assert monitor(ready(model), history(*told), engine).verdict == "ok"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "rule", "places", "told"), ILLEGAL)
def test_each_rule_names_the_few_that_break_it(model: str, rule: str, places: tuple[int, ...], told: tuple[Told, ...], engine: str) -> None:
    """An illegal history is told by the rule that it breaks, the operations in their roles, and in words that name them all."""
    operations = history(*told)
    answer = monitor(ready(model), operations, engine)
    assert (answer.verdict, answer.rule, answer.places) == ("illegal", rule, places)
    words = " ".join(explain(answer, operations, lambda operation: f"<{operation.id}>"))
    assert all(f"<{place}>" in words for place in places) or rule == "stuck"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "reason", "told"), DECLINED)
def test_a_monitor_declines_what_it_cannot_decide(model: str, reason: str, told: tuple[Told, ...], engine: str) -> None:
    """Where its conditions are not met a monitor says which, and nothing about the history."""
    answer = monitor(ready(model), history(*told), engine)
    assert (answer.verdict, answer.rule, answer.places, answer.reason) == ("declined", "", (), reason)


def test_a_container_that_holds_something_at_first_is_left_to_others() -> None:
    """Only containers that begin empty are monitored; a register may begin with any value."""
    assert classify(ready("stack", (1,)), ()) == "it does not begin empty"
    assert monitor(ready("register", 0), history(("read", 0, 0, 1), ("write", 1, 0, 9))).verdict == "ok"


def test_times_beyond_64_bits_are_declined() -> None:
    """A time that the native core cannot hold is declined by both engines alike."""
    assert classify(ready("register"), history(("write", 1, 0, 1 << 63))) == "times of more than 64 bits"


@pytest.mark.skipif(native.core is None, reason="only the native core takes columns from elsewhere")
@pytest.mark.parametrize(
    "asked",
    [
        Asked("queue", (0,), (1, 2), (0,), (0,), 1),
        Asked("queue", (5,), (1,), (0,), (0,), 1),
        Asked("queue", (0,), (1,), (7,), (0,), 1),
        Asked("queue", (0,), (1,), (0,), (3,), 1),
        Asked("set", (0,), (1,), (2,), (0,), 1),
        Asked("set", (0,), (1,), (2,), (0,), 1, ((4,),)),
        Asked("deque", (0,), (1,), (0,), (0,), 1),  # type: ignore[arg-type]
    ],
)
def test_the_core_takes_no_nonsense(asked: Asked) -> None:
    """Columns that do not fit together are an error that says so, never a crash."""
    with pytest.raises(ValueError, match=r"columns differ|returns before|is no act|no value|no monitor"):
        decide(asked)
