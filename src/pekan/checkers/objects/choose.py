"""Which model a history is judged by."""

from __future__ import annotations

from itertools import islice

from pekan.checkers.objects.parts import told
from pekan.errors import UsageError
from pekan.history.foreign.held import HeldOperations
from pekan.history.types import Call, History
from pekan.models.object import Model
from pekan.models.ready import READY, guess, ready

LOOKED_AT = 1_000
"""Operations whose values are looked at to tell which model: names are looked at of all."""


def of_objects(history: History, asked: Model | str | None = None) -> bool:
    """Whether `history` is one of calls on objects, rather than of etcd's requests.

    An empty one is what it is asked to be. Raises UsageError where a model of objects is `asked` for and it is none.
    """
    if not history.operations:
        return isinstance(asked, Model) or (asked or history.model) in READY
    found = isinstance(history.operations[0].input, Call)
    if not found and asked not in (None, "etcd"):
        name = asked if isinstance(asked, str) else asked.name or type(asked).__name__
        raise UsageError(f"--model {name}: this is a history of etcd's requests, and no other model knows them")
    return found


def model_of(history: History, asked: Model | str | None) -> Model:
    """The model to judge `history` by: `asked`, the one that the file names, or the one its calls look like.

    Raises UsageError where none of them tells, naming the choices, and where the model knows no such calls.
    """
    if isinstance(asked, Model):
        return asked
    name = asked or history.model
    if name is None:
        names = _names(history)
        name = guess(names, ((op.input, told(op)) for op in islice(history.operations, LOOKED_AT)))
        if name is None:
            called = ", ".join(sorted(names))
            raise UsageError(f"which object is this? Its operations are called {called}: say --model, one of {', '.join(READY)}")
    if name not in READY:
        raise UsageError(f"--model {name}: this is no history of that; choose from {', '.join(READY)}")
    try:
        return ready(name, history.initial)
    except ValueError as error:
        raise UsageError(f"the history declares the initial value {history.initial!r}, and {error}") from None


def _names(history: History) -> set[str]:
    """How the operations are called."""
    if isinstance(history.operations, HeldOperations):
        return set(history.operations.objects.calls)
    return {op.input.f for op in history.operations}
