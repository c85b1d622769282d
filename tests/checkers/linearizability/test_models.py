"""Models in Python over histories that the core holds in columns, and promises of ready models that random histories seldom try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pekan
from oracle.objects import legal, samples
from oracle.things import THINGS
from pekan.checkers.linearizability import solve
from pekan.checkers.objects.parts import parts_of
from pekan.history.foreign import load_any
from pekan.history.foreign.held import HeldOperations
from pekan.history.foreign.jsonl import lines
from pekan.history.types import OK, Call, History, Operation
from pekan.models.object import ILLEGAL, UNKNOWN, Called, Model
from pekan.models.ready import ready
from pekan.native import core

native_only = pytest.mark.skipif(core is None, reason="no native core here")


def ok(number: int, f: str, value: Any, output: Any) -> Operation:
    """The operation that was called at 10 * number and answered five later."""
    return Operation(number, 0, 10 * number, 10 * number + 5, OK, Call(f, value), output)


def test_a_refused_cas_is_bound_to_no_version() -> None:
    """That a compare-and-set names a version and is refused does not say that the register was at that version."""
    history = [ok(i, "write", (None, i), (i, i)) for i in range(1, 5)]
    history.append(ok(5, "cas", (2, (7, 8)), False))
    (part,) = parts_of(None, history, ready("versioned-register"))
    for native in (False, True):
        assert solve(part.question, native=native).verdict == "ok"
    if core is not None:
        assert [told[0] for _, _, told in core.linear_judge(history, "versioned-register", None, None, None)] == ["ok"]


@native_only
@pytest.mark.parametrize("name", sorted(THINGS))
def test_a_model_in_python_judges_columns(name: str, tmp_path: Path) -> None:
    """A model that the core does not have is asked by it, and gives the verdicts of the oracle."""
    mine = type("Mine", (type(ready(name)),), {"partition": Model.partition})()
    path = tmp_path / "history.jsonl"
    said = set()
    for sample in samples(77, 60, name):
        # (A mutation may have let operations of one process overlap, which no reader takes.)
        apart = tuple(o._replace(process=o.id) for o in sample.operations)
        path.write_text("".join(lines(History(apart, model=name))), encoding="utf-8")
        held = load_any(path)
        assert isinstance(held.operations, HeldOperations)
        *_, found = core.judge_model(held.operations.objects, mine, None, None, None)
        assert (not found) == legal(name, sample.operations)
        said.add(bool(found))
    assert said == {False, True}


class Door(Model):
    """Open or shut; knocking three times is too much for it."""

    def init(self) -> str:
        return "shut"

    def step(self, state: str, call: Called, output: Any) -> Any:
        if call.f == "knock":
            raise RuntimeError("nobody knocks here")
        if output is UNKNOWN or call.f == "look":
            return state if output in (UNKNOWN, state) else ILLEGAL
        return "open" if state == "shut" else ILLEGAL


@native_only
def test_what_a_model_raises_is_told_with_its_question(tmp_path: Path) -> None:
    """An error of the model's own reaches the caller, with the step that it comes from as a note."""
    path = tmp_path / "history.jsonl"
    path.write_text("".join(lines(History((ok(0, "open", None, None), ok(1, "knock", 3, None))))), encoding="utf-8")
    with pytest.raises(RuntimeError, match="nobody knocks") as caught:
        pekan.check(path, model=Door())
    (note,) = caught.value.__notes__
    assert note.startswith("from the model's step('open', Call(f='knock', value=3")


@native_only
def test_keys_that_python_calls_equal_are_one_object(tmp_path: Path) -> None:
    """A door looked at by the key true and opened by the key 1 is one door: split in two, its history would seem illegal."""
    opened = ok(0, "open", None, None)
    looked = ok(1, "look", None, "open")
    history = (opened._replace(input=Call("open", None, 1)), looked._replace(input=Call("look", None, True)))
    path = tmp_path / "history.jsonl"
    path.write_text("".join(lines(History(history))), encoding="utf-8")
    assert isinstance(load_any(path).operations, HeldOperations)
    assert pekan.check(path, model=Door()).verdict == "holds"
    assert pekan.check(path, model=Door(), engine="reference").verdict == "holds"
