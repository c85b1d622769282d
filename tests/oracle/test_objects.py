"""Every engine for objects says what the oracle says, over small random histories; the long run is ``python -m oracle.objects``."""

from __future__ import annotations

from pathlib import Path

import pytest

import pekan
from oracle.objects import MUTATIONS, legal, samples, tell
from oracle.objects_fuzz import ENGINES, Tally, judge
from oracle.things import THINGS
from pekan.history.foreign import load_any
from pekan.history.foreign.held import HeldOperations
from pekan.history.foreign.jsonl import lines
from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation
from pekan.models.object import Model
from pekan.models.ready import READY, ready
from pekan.native import core

MONITORED = ("register", "cas-register", "set", "fifo-queue", "stack")
CASES = 500
"""Histories a model: all of them together stay under fifteen seconds on one busy core."""


def test_every_model_has_a_thing() -> None:
    """The oracle knows every ready model, and no other."""
    assert set(THINGS) == set(READY)


@pytest.mark.parametrize("name", sorted(THINGS))
def test_no_disagreement(name: str) -> None:
    """Valid and mutated histories, with ties in time, unanswered operations and repeated values, are judged alike by all."""
    tally = Tally()
    for sample in samples(20_261_121, CASES, name):
        judge(sample, tally)
    assert not tally.found, "\n\n".join(tally.found.values())
    assert tally.illegal > CASES // 50
    decided = {label for label, word in tally.said if word in ("ok", "illegal")}
    assert decided == {label for label in ENGINES if "monitor" not in label or name in MONITORED}


@pytest.mark.parametrize("mutation", [mutation.name for mutation in MUTATIONS if mutation.name != "answer lost"])
def test_every_mutation_breaks_something(mutation: str) -> None:
    """Each planted bug breaks the promise of some history, or it would test nothing."""
    assert any(not legal(s.config.name, s.operations) for s in samples(7, 4_000) if s.mutation == mutation)


def test_what_is_valid_is_legal() -> None:
    """A real object serving concurrent calls is never found illegal by the oracle, nor where an answer got lost."""
    assert all(legal(s.config.name, s.operations) for s in samples(8, 2_000) if s.mutation in ("valid", "answer lost"))


@pytest.mark.parametrize("name", sorted(THINGS))
def test_cores_prove_and_engines_tell_the_same(name: str) -> None:
    """What a finding shows cannot be ordered by itself, whatever the others did; and native and reference find the same."""
    shown = 0
    for sample in samples(4_711, 250, name):
        history = History(sample.operations)
        verdicts = {engine: pekan.check(history, model=name, engine=engine) for engine in ("auto", "reference", "generic")}
        assert verdicts["auto"].findings == verdicts["reference"].findings
        for engine in ("auto", "generic"):
            for finding in verdicts[engine].findings:
                shown += 1
                assert finding.certificate
                kept = finding.subject["operations"]
                if "monitor" in verdicts[engine].engine:
                    others = [o for o in sample.operations if o.id in kept]
                else:
                    others = [forgotten(o, kept, ready(name)) for o in sample.operations]
                assert not legal(name, others), tell(sample.operations)
    assert shown > 10


def forgotten(operation: Operation, kept: list[int], model: Model) -> Operation:
    """`operation` unless it is kept: as if nobody had seen it answered; as if it had failed where it is known to have changed nothing."""
    if operation.id in kept or operation.outcome == FAILED:
        return operation
    if operation.outcome == OK and model.readonly(operation.input, operation.output):
        return operation._replace(outcome=FAILED, output=None)
    return operation._replace(ret=None, outcome=INDEFINITE, output=None)


@pytest.mark.skipif(core is None, reason="the native core is not there")
@pytest.mark.parametrize("name", sorted(THINGS))
def test_a_file_in_columns_is_judged_as_in_memory(name: str, tmp_path: Path) -> None:
    """What the core reads and judges as a whole has the verdict, findings and counts that the reference has."""
    path = tmp_path / "history.jsonl"
    illegal = 0
    for sample in samples(815, 60, name):
        # (A mutation may have let operations of one process overlap, which no reader takes.)
        apart = tuple(o._replace(process=o.id) for o in sample.operations)
        path.write_text("".join(lines(History(apart, model=name))), encoding="utf-8")
        held, read = load_any(path), load_any(path, engine="reference")
        assert isinstance(held.operations, HeldOperations)
        for engine in ("auto", "generic"):
            found, expected = pekan.check(held, engine=engine), pekan.check(read, engine=engine)
            assert found.findings == expected.findings
            assert found.checkers[0].judged == expected.checkers[0].judged
            assert set(found.engine.split(", ")) == set(expected.engine.split(", "))
            illegal += found.verdict == "broken"
    assert illegal
