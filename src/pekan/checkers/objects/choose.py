"""Which model a history is judged by."""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.history.types import OK, Call, History
from pekan.models.object import UNKNOWN, Model
from pekan.models.ready import READY, guess, ready


def of_objects(history: History) -> bool:
    """Whether `history` is one of calls on objects, rather than of etcd's requests."""
    if history.operations:
        return isinstance(history.operations[0].input, Call)
    return history.model in READY


def model_of(history: History, asked: Model | str | None) -> Model:
    """The model to judge `history` by: `asked`, the one that the file names, or the one its calls look like.

    Raises UsageError where none of them tells, naming the choices, and where the model knows no such calls.
    """
    if isinstance(asked, Model):
        return asked
    name = asked or history.model
    if name is None:
        seen = ((op.input, op.output if op.outcome == OK else UNKNOWN) for op in history.operations)
        name = guess(seen)
        if name is None:
            names = ", ".join(sorted({op.input.f for op in history.operations}))
            raise UsageError(f"which object is this? Its operations are called {names}: say --model, one of {', '.join(READY)}")
    if name not in READY:
        raise UsageError(f"--model {name}: this is no history of that; choose from {', '.join(READY)}")
    try:
        return ready(name, history.initial)
    except ValueError as error:
        raise UsageError(f"the history declares the initial value {history.initial!r}, and {error}") from None
