"""Ready models of objects: what each call does and may answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from pekan.models.object import ILLEGAL, UNKNOWN
from pekan.models.ready import READY, guess, ready


class Asked(NamedTuple):
    """A call as models see it."""

    f: str
    value: Any = None
    key: Any = None


def run(name: str, *steps: tuple[Any, ...], initial: Any = None) -> Any:
    """The state after (f, value, output) steps of a ready model; ILLEGAL at the first that cannot be."""
    model = ready(name, initial)
    state = model.init()
    for f, value, output in steps:
        call = Asked(f, value)
        assert model.expected(call, output) is None, (f, value, output)
        before, state = state, model.step(state, call, output)
        if state is ILLEGAL:
            return ILLEGAL
        assert not model.readonly(call, output) or model.key(state) == model.key(before)
        assert model.viable(before, call, output)
    return state


LEGAL: list[tuple[str, tuple[tuple[Any, ...], ...]]] = [
    ("register", (("read", None, None), ("write", 1, 1), ("read", None, 1), ("write", None, None), ("read", None, None))),
    ("cas-register", (("cas", (None, 1), (None, 1)), ("cas", (2, 3), False), ("cas", (1, 3), None), ("read", None, 3))),
    ("cas-register", (("write", 1, 1), ("cas", (2, 3), UNKNOWN), ("read", None, 1), ("cas", (1, 3), UNKNOWN), ("read", None, 3))),
    (
        "versioned-register",
        (("read", None, (0, None)), ("write", (None, 5), (1, 5)), ("cas", (None, (5, 6)), (2, (5, 6))), ("read", None, (2, 6))),
    ),
    (
        "versioned-register",
        (("write", (None, 5), UNKNOWN), ("read", None, (None, 5)), ("cas", (None, (4, 6)), False), ("read", None, (1, 5))),
    ),
    (
        "multi-register",
        (("txn", (("w", "x", 1), ("r", "x", None)), (("w", "x", 1), ("r", "x", 1))), ("txn", (("r", "y", None),), (("r", "y", None),))),
    ),
    (
        "kv-append",
        (("get", None, ""), ("append", "a", None), ("append", "b", None), ("get", None, "ab"), ("put", "c", None), ("get", None, "c")),
    ),
    ("counter", (("read", None, 0), ("add", 3, 3), ("add", -1, -1), ("read", None, 2))),
    ("set", (("add", 1, 1), ("read", None, (1,)), ("contains", 2, False), ("remove", 1, 1), ("contains", 1, False), ("read", None, None))),
    ("fifo-queue", (("enqueue", 1, 1), ("enqueue", 2, 2), ("dequeue", None, 1), ("dequeue", None, UNKNOWN), ("dequeue", None, None))),
    ("stack", (("push", 1, 1), ("push", 2, 2), ("pop", None, 2), ("pop", None, 1), ("pop", None, None), ("pop", None, UNKNOWN))),
    ("mutex", (("acquire", None, None), ("release", None, None), ("acquire", None, None))),
    (
        "fenced-lock",
        (("acquire", None, 3), ("release", 3, None), ("acquire", None, UNKNOWN), ("release", None, None), ("acquire", None, 5)),
    ),
    (
        "list-append",
        (("txn", (("append", 1, 7), ("r", 1, None)), (("append", 1, 7), ("r", 1, (7,)))), ("txn", (("r", 2, None),), (("r", 2, None),))),
    ),
]

ILLEGAL_LAST: list[tuple[str, tuple[tuple[Any, ...], ...]]] = [
    ("register", (("write", 1, 1), ("read", None, None))),
    ("cas-register", (("write", 1, 1), ("cas", (2, 3), (2, 3)))),
    ("cas-register", (("write", 1, 1), ("cas", (1, 3), False))),
    ("versioned-register", (("write", (None, 5), (1, 5)), ("write", (None, 5), (3, 5)))),
    ("versioned-register", (("write", (None, 5), (1, 5)), ("read", None, (1, 6)))),
    ("versioned-register", (("write", (None, 5), (1, 5)), ("cas", (None, (5, 6)), False))),
    ("multi-register", (("txn", (("w", "x", 1), ("r", "x", None)), (("w", "x", 1), ("r", "x", None))),)),
    ("kv-append", (("append", "a", None), ("get", None, None))),
    ("counter", (("add", 1, 1), ("read", None, 2))),
    ("set", (("add", 1, 1), ("read", None, (1, 1)))),
    ("set", (("add", 1, 1), ("read", None, frozenset()))),
    ("set", (("contains", 1, True),)),
    ("fifo-queue", (("enqueue", 1, 1), ("enqueue", 2, 2), ("dequeue", None, 2))),
    ("fifo-queue", (("enqueue", 1, 1), ("dequeue", None, None))),
    ("stack", (("push", 1, 1), ("push", 2, 2), ("pop", None, 1))),
    ("stack", (("push", 1, 1), ("pop", None, None))),
    ("mutex", (("acquire", None, None), ("acquire", None, UNKNOWN))),
    ("mutex", (("release", None, None),)),
    ("fenced-lock", (("acquire", None, 3), ("release", 3, None), ("acquire", None, 3))),
    ("fenced-lock", (("acquire", None, 3), ("release", 4, None))),
    ("fenced-lock", (("acquire", None, 3), ("release", 3, None), ("acquire", None, None), ("release", 3, None))),
    ("list-append", (("txn", (("append", 1, 7), ("r", 1, None)), (("append", 1, 7), ("r", 1, None))),)),
]


@pytest.mark.parametrize(("name", "steps"), LEGAL)
def test_legal_steps(name: str, steps: tuple[tuple[Any, ...], ...]) -> None:
    """Each of these sequences is what such an object does, and no hint says otherwise."""
    assert run(name, *steps) is not ILLEGAL


@pytest.mark.parametrize(("name", "steps"), ILLEGAL_LAST)
def test_illegal_steps(name: str, steps: tuple[tuple[Any, ...], ...]) -> None:
    """The last step of each sequence is what such an object never does, and the ones before it are legal."""
    *before, last = steps
    state = run(name, *before)
    model = ready(name)
    assert state is not ILLEGAL
    assert model.step(state, Asked(*last[:2]), last[2]) is ILLEGAL


def test_every_ready_model_is_exercised() -> None:
    """No model has a name and no test."""
    assert set(READY) == {name for name, _ in LEGAL} == {name for name, _ in ILLEGAL_LAST}


@pytest.mark.parametrize(
    ("name", "initial", "step"),
    [
        ("register", 4, ("read", None, 4)),
        ("cas-register", 4, ("cas", (4, 5), None)),
        ("versioned-register", 4, ("read", None, (0, 4))),
        ("counter", 4, ("read", None, 4)),
        ("set", (1, 2), ("read", None, (2, 1))),
        ("fifo-queue", (1, 2), ("dequeue", None, 1)),
        ("stack", (1, 2), ("pop", None, 2)),
        ("kv-append", "a", ("get", None, "a")),
    ],
)
def test_initial_value(name: str, initial: Any, step: tuple[Any, ...]) -> None:
    """An object begins with the value that it is declared to hold."""
    assert run(name, step, initial=initial) is not ILLEGAL


def test_no_initial_value() -> None:
    """A lock cannot be declared to hold a value."""
    with pytest.raises(ValueError, match="mutex"):
        ready("mutex", 3)


@pytest.mark.parametrize(
    ("name", "f", "value", "output"),
    [
        ("cas-register", "cas", 3, None),
        ("versioned-register", "write", 3, None),
        ("versioned-register", "read", None, 3),
        ("versioned-register", "read", None, ("a", 3)),
        ("versioned-register", "cas", (None, 3), None),
        ("multi-register", "txn", (("append", 1, 2),), None),
        ("multi-register", "txn", (("w", 1, 2),), (("w", 1, 3),)),
        ("list-append", "txn", (("r", 1, None),), (("r", 1, 3),)),
        ("list-append", "txn", None, None),
        ("counter", "add", "x", None),
        ("counter", "read", None, None),
        ("set", "contains", 1, None),
        ("set", "read", None, 3),
        ("kv-append", "append", 3, None),
        ("kv-append", "get", None, 3),
        ("fifo-queue", "enqueue", None, None),
        ("stack", "push", None, None),
    ],
)
def test_calls_that_make_no_sense(name: str, f: str, value: Any, output: Any) -> None:
    """What a model cannot step over is told in words, before any step."""
    assert ready(name).expected(Asked(f, value), output)


@pytest.mark.parametrize(
    ("expected", "calls"),
    [
        ("register", [("read", None, 1), ("write", 1, 1)]),
        ("cas-register", [("read", None, 1), ("cas", (1, 2), None)]),
        ("versioned-register", [("read", None, (1, 1)), ("write", (None, 1), (1, 1)), ("cas", (None, (1, 2)), None)]),
        ("multi-register", [("txn", (("r", 1, None), ("w", 1, 2)), None)]),
        ("list-append", [("txn", (("r", 1, None),), None), ("txn", (("append", 1, 2),), None)]),
        ("kv-append", [("get", None, "a"), ("append", "a", None)]),
        ("counter", [("add", 1, None), ("read", None, 1)]),
        ("set", [("add", 1, None), ("read", None, frozenset({1}))]),
        ("set", [("add", 1, None), ("contains", 1, True)]),
        ("fifo-queue", [("enqueue", 1, None), ("dequeue", None, 1)]),
        ("stack", [("push", 1, None)]),
        ("mutex", [("acquire", None, None), ("release", None, None)]),
        ("fenced-lock", [("acquire", None, 1), ("release", None, None)]),
        (None, [("add", 1, None), ("read", None, UNKNOWN)]),
        (None, [("read", None, 1)]),
        (None, [("txn", (("r", 1, None),), None)]),
        (None, [("open", None, None)]),
        (None, []),
    ],
)
def test_guess(expected: str | None, calls: list[tuple[str, Any, Any]]) -> None:
    """The names and shapes of calls tell the model, and where they do not nothing is guessed."""
    assert guess({f for f, _, _ in calls}, ((Asked(f, value), output) for f, value, output in calls)) == expected
