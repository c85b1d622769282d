"""What ready models hint is true of every state: a hint that is not would make a wrong verdict."""

from __future__ import annotations

from typing import Any

import pytest

from oracle.objects import samples
from oracle.things import THINGS
from pekan.history.types import FAILED, OK, Call
from pekan.models.object import ANYWHERE, ILLEGAL, NOTHING, UNKNOWN, UNSAID, Model
from pekan.models.ready import ready

HISTORIES = 60
STATES_MAX = 60
CLASSES_MAX = 80
"""Enough that every kind of call meets every kind of state, in a second or two."""

Seen = tuple[Call, Any]


def classes_of(name: str) -> list[Seen]:
    """Distinct calls with their answers, as random histories have them, right and wrong."""
    found: dict[Seen, None] = {}
    for sample in samples(42, HISTORIES, name):
        for op in sample.operations:
            if op.outcome != FAILED:
                found[op.input._replace(key=None), op.output if op.outcome == OK else UNKNOWN] = None
                found[op.input._replace(key=None), UNKNOWN] = None
    return list(found)[:CLASSES_MAX]


def states_of(model: Model, classes: list[Seen]) -> list[Any]:
    """States that some of these calls lead to, the nearest first."""
    states = {model.key(model.init()): model.init()}
    queue = list(states.values())
    for state in queue:
        for call, output in classes:
            after = model.step(state, call, output)
            if after is not ILLEGAL and model.key(after) not in states and len(states) < STATES_MAX:
                states[model.key(after)] = after
                queue.append(after)
    return queue


@pytest.mark.parametrize("name", sorted(THINGS))
def test_hints_are_true(name: str) -> None:
    """Of every reachable state and call: read-only calls keep it, requirements and products are as told, what is not viable stays so."""
    model = ready(name)
    classes = classes_of(name)
    states = states_of(model, classes)
    assert len(states) > 1
    for call, output in classes:
        requires, produces = model.requires(call, output), model.produces(call, output)
        readonly = model.readonly(call, output)
        for state in states:
            after = model.step(state, call, output)
            if after is ILLEGAL:
                assert requires is not ANYWHERE
                continue
            told = (name, state, call, output, after)
            changes = model.key(after) != model.key(state)
            assert not (readonly and changes), told
            assert not (produces is NOTHING and changes), told
            if requires not in (ANYWHERE, UNSAID) and (output is not UNKNOWN or changes):
                assert model.key(state) == model.key(requires), told
            if produces not in (NOTHING, UNSAID) and (output is not UNKNOWN or changes):
                assert model.key(after) == model.key(produces), told
            assert model.viable(state, call, output), told


@pytest.mark.parametrize("name", sorted(name for name in THINGS if type(ready(name)).viable is not Model.viable))
def test_what_is_not_viable_stays_so(name: str) -> None:
    """From where a call cannot get its answer any more, no call that is no reset leads to where it can."""
    model = ready(name)
    classes = classes_of(name)
    harmless = [seen for seen in classes if not model.resets(*seen)]
    states = states_of(model, classes)
    for goal in classes:
        for state in states:
            if not model.viable(state, *goal):
                for call, output in harmless:
                    after = model.step(state, call, output)
                    assert after is ILLEGAL or not model.viable(after, *goal), (name, state, goal, call, output)


@pytest.mark.parametrize("name", ["set", "multi-register", "list-append"])
def test_parts_know_nothing_of_each_other(name: str) -> None:
    """Two calls that touch no part in common can change places: the same answers, the same state."""
    model = ready(name)
    classes = classes_of(name)
    compared = 0
    for state in states_of(model, classes)[:8]:
        for a in classes:
            for b in classes:
                mine, theirs = model.partition(a[0]), model.partition(b[0])
                if mine is None or theirs is None or set(mine) & set(theirs):
                    continue
                compared += 1
                assert after(model, state, a, b) == after(model, state, b, a), (state, a, b)
    assert compared > 100


def after(model: Model, state: Any, *calls: Seen) -> Any:
    for call, output in calls:
        state = model.step(state, call, output)
        if state is ILLEGAL:
            return ILLEGAL
    return model.key(state)
