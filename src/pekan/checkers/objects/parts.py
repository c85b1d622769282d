"""A history's independent objects, each as a question in numbers.

::

    operations ── Call.key ──> objects ── Model.partition ──> parts of an object      judged one by one: a history of independent
                                                                                     objects is legal where each alone is
    part ──> Machine   states and classes (distinct calls with their answers) by number; the model is asked through it
         ──> Question  columns for `checkers.linearizability`

Left out, for they cannot matter: operations that failed, and unanswered ones that change nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pekan.checkers.linearizability import ANYWHERE, ILLEGAL, NOTHING, UNSAID, Hints, Question
from pekan.errors import UsageError
from pekan.history.types import FAILED, OK, Call, Operation
from pekan.models import object as models
from pekan.models.object import UNKNOWN, Model


class Machine:
    """A model in numbers: states and classes are numbered as they are met, state 0 is the first."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = model.name or type(model).__name__
        self.states: list[Any] = []
        self.classes: list[tuple[Call, Any]] = []
        self._state_ids: dict[Hashable, int] = {}
        self._class_ids: dict[tuple[Any, ...], int] = {}
        self.number_of(model.init())

    def class_of(self, call: Call, output: Any) -> int:
        """The number of what was asked and answered, whichever object it was asked of."""
        key = (call.f, call.value, output) if type(call) is Call else (call, output)
        number = self._class_ids.get(key)
        if number is None:
            number = self._class_ids[key] = len(self.classes)
            self.classes.append((call, output))
        return number

    def number_of(self, state: Any) -> int:
        """The number of a state."""
        key = self.model.key(state)
        try:
            number = self._state_ids.get(key)
        except TypeError as error:
            raise UsageError(f"a state of the model {self.name} has no hash ({error}): give the model a key(state) that has") from error
        if number is None:
            number = self._state_ids[key] = len(self.states)
            self.states.append(state)
        return number

    def step(self, state: int, of: int) -> int:
        """The number of the state after class `of` at `state`, or ILLEGAL. Raises UsageError where a hint is seen to be wrong."""
        call, output = self.classes[of]
        try:
            after = self.model.step(self.states[state], call, output)
        except Exception as error:
            error.add_note(f"from the model's step({self.states[state]!r}, {call!r}, {output!r})")
            raise
        if after is models.ILLEGAL:
            return ILLEGAL
        number = self.number_of(after)
        if number != state and self.model.readonly(call, output):
            change = f"{call.f} {call.value!r} -> {output!r} leads from {self.states[state]!r} to {after!r}"
            raise UsageError(f"the model {self.name} says readonly of a call that changes a state: {change}")
        return number

    def viable(self, state: int, of: int) -> bool:
        """`Model.viable` by numbers."""
        return self.model.viable(self.states[state], *self.classes[of])

    def readonly(self) -> list[bool]:
        """`Model.readonly` of every class."""
        return [self.model.readonly(*seen) for seen in self.classes]

    def hints(self) -> Hints:
        """What the model knows beyond `step`."""
        model = self.model
        resets: list[bool] = []
        if type(model).viable is not Model.viable:
            resets = [model.resets(*seen) for seen in self.classes]
        requires = [self._number_or(model.requires(*seen)) for seen in self.classes]
        produces = [self._number_or(model.produces(*seen)) for seen in self.classes]
        if not any(each != UNSAID for each in (*requires, *produces)):
            requires, produces = [], []
        return Hints(requires, produces, (), resets, self.viable if resets else None)

    def _number_or(self, said: Any) -> int:
        if said is models.UNSAID:
            return UNSAID
        if said is models.ANYWHERE:
            return ANYWHERE
        return NOTHING if said is models.NOTHING else self.number_of(said)


@dataclass(frozen=True, slots=True)
class Part:
    """One independent object. `key` is its `Call.key`; `operations` are those that may have had an effect or told something."""

    key: Any
    operations: tuple[Operation, ...]
    machine: Machine
    question: Question


def objects_of(operations: Sequence[Operation], model: Model) -> dict[Any, list[Operation]]:
    """The operations of every object by its `Call.key`, failed ones among them. Raises UsageError for a call that `model` does not know."""
    by_key: dict[Any, list[Operation]] = {}
    seen: set[tuple[str, Any, Any]] = set()
    for operation in operations:
        f, value, key = operation.input
        group = by_key.get(key)
        if group is None:
            group = by_key[key] = []
        group.append(operation)
        if operation.outcome != FAILED:
            asked = (f, value, told(operation))
            if asked not in seen:
                seen.add(asked)
                _fit(operation, model)
    return by_key


def _fit(operation: Operation, model: Model) -> None:
    """The call is one that the model knows and can step over."""
    name = model.name or type(model).__name__
    call, output = operation.input, told(operation)
    if model.calls and call.f not in model.calls:
        raise UsageError(f"operation {operation.id} is {call.f!r}; a {name} knows {', '.join(model.calls)} (--model names another)")
    wrong = model.expected(call, output)
    if wrong is not None:
        raise UsageError(f"operation {operation.id}, {call.f} {call.value!r} -> {output!r}, is none of a {name}: {wrong}")


def parts_of(key: Any, operations: Sequence[Operation], model: Model, divide: bool = True) -> list[Part]:
    """One object's parts, in order of their first operation; with `divide` by the model's partition.

    To divide is right only where real time orders the operations: linearizability is local, sequential consistency is not.
    """
    whole = [operation for operation in operations if operation.outcome != FAILED]
    divides = divide and type(model).partition is not Model.partition
    return [part_of(key, group, model) for group in (_divided(whole, model) if divides else [whole])]


def told(operation: Operation) -> Any:
    """The answer as models take it."""
    return operation.output if operation.outcome == OK else UNKNOWN


def _divided(operations: list[Operation], model: Model) -> list[list[Operation]]:
    """`operations` by the parts that they touch: those that share one, over however many steps, stay together."""
    leader: dict[Hashable, Hashable] = {}

    def find(part: Hashable) -> Hashable:
        while leader.setdefault(part, part) != part:
            leader[part] = leader[leader[part]]
            part = leader[part]
        return part

    touched: list[Hashable] = []
    for operation in operations:
        parts = model.partition(operation.input)
        if parts is None:
            return [operations]
        first, *others = parts or (None,)
        for other in others:
            leader[find(other)] = find(first)
        touched.append(first)
    groups: dict[Hashable, list[Operation]] = {}
    for operation, part in zip(operations, touched, strict=True):
        groups.setdefault(find(part), []).append(operation)
    return list(groups.values())


def part_of(key: Any, operations: Sequence[Operation], model: Model) -> Part:
    """`operations`, none of which failed, as one part."""
    machine = Machine(model)
    of = [machine.class_of(op.input, told(op)) for op in operations]
    readonly = machine.readonly()
    matters = [op.outcome == OK or not readonly[c] for op, c in zip(operations, of, strict=True)]
    if not all(matters):
        operations = [op for op, kept in zip(operations, matters, strict=True) if kept]
        of = [c for c, kept in zip(of, matters, strict=True) if kept]
    question = Question(
        [op.call for op in operations],
        [op.ret if op.outcome == OK else None for op in operations],
        of,
        machine.step,
        readonly,
        hints=machine.hints(),
    )
    return Part(key, tuple(operations), machine, question)
