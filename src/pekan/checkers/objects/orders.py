"""Orders of a history's operations for a viewer: a legal one of every object, or the one that gets furthest.

The viewer shows, beside each order, what the object is after each of its operations.
"""

from __future__ import annotations

from collections.abc import Sequence

from pekan.checkers.linearizability import solve, solve_all
from pekan.checkers.objects.choose import model_of, of_objects
from pekan.checkers.objects.core import furthest
from pekan.checkers.objects.decide import budget_of
from pekan.checkers.objects.explain import shown
from pekan.checkers.objects.parts import Part, objects_of, parts_of
from pekan.errors import UsageError
from pekan.history.foreign.visualisation import Shown
from pekan.history.types import History, Operation
from pekan.models.object import Model


def orders(history: History, model: Model | str | None = None, seconds: float = 10.0) -> list[Shown] | None:
    """The objects of `history` with an order each, found within `seconds`; None where no model is known for its calls, or clocks differ."""
    if not history.operations or not of_objects(history) or history.order != "real-time":
        return None
    try:
        known = model_of(history, model)
        objects = objects_of(history.operations, known)
    except UsageError:
        return None
    parts = [part for key, operations in objects.items() for part in parts_of(key, operations, known, divide=False)]
    answers = solve_all([part.question for part in parts], budget_of(seconds))
    found = []
    for part, answer in zip(parts, answers, strict=True):
        order = answer.order
        if answer.verdict == "illegal":
            order = furthest(part, lambda question, _, budget: solve(question, budget), seconds, answer.blocked) or order
        found.append(Shown(objects[part.key], [_told(part, order, objects[part.key])]))
    return found


def _told(part: Part, order: tuple[int, ...], operations: Sequence[Operation]) -> list[tuple[int, str]]:
    """(place in `operations`, what the object is after it) of every operation of `order`."""
    q, machine = part.question, part.machine
    place = {op.id: i for i, op in enumerate(operations)}
    state, told = q.init, []
    for o in order:
        state = machine.step(state, q.of[o])
        told.append((place[part.operations[o].id], shown(machine.states[state])))
    return told
