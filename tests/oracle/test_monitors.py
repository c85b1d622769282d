"""Monitors against every order on small histories, against the generic engine on longer ones, and the native ones against the reference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from oracle.objects import MUTATIONS, config_of, legal, samples, simulate, tell
from pekan import native
from pekan.checkers.linearizability import Budget, solve
from pekan.checkers.linearizability.monitors import Monitored, explain, monitor
from pekan.checkers.objects.parts import parts_of
from pekan.history.types import INDEFINITE, OK, Operation
from pekan.models.ready import ready

MODELS = ("register", "cas-register", "set", "fifo-queue", "stack")


def asked(model: str, operations: list[Operation]) -> Monitored:
    """What the monitor says, native and reference alike."""
    told = monitor(ready(model), operations, "reference")
    if native.core is not None:
        assert monitor(ready(model), operations) == told, tell(operations)
    return told


def as_it_was(operations: list[Operation], following: Operation) -> list[Operation]:
    """The history just after the last answer before that of `following`."""
    until = max((_end(o) for o in operations if o.outcome == OK and _end(o) < _end(following)), default=-(10**9))
    called = [o for o in operations if o.call <= until]
    return [o if o.outcome != OK or _end(o) <= until else o._replace(ret=None, outcome=INDEFINITE, output=None) for o in called]


def _end(operation: Operation) -> int:
    assert operation.ret is not None
    return operation.ret


@pytest.mark.parametrize("model", MODELS)
def test_monitors_agree_with_every_order(model: str) -> None:
    """A monitor is right or declines, the few operations that it names are illegal by themselves, and its prefix is legal."""
    seen: Counter[str] = Counter()
    for sample in samples(MODELS.index(model), 600, model):
        for key in {operation.input.key for operation in sample.operations}:
            operations = sorted((o for o in sample.operations if o.input.key == key), key=lambda o: o.call)
            answer = asked(model, operations)
            seen[answer.verdict] += 1
            if answer.verdict == "declined":
                continue
            assert legal(model, operations) == (answer.verdict == "ok"), f"{answer}\n{tell(operations)}"
            if answer.verdict == "illegal":
                before = as_it_was(operations, operations[answer.next])
                assert legal(model, before), f"{answer}\n{tell(operations)}"
                assert answer.answered == sum(operation.outcome == OK for operation in before)
                assert explain(answer, operations, lambda operation: f"operation {operation.id}")
                assert not legal(model, [operations[place] for place in sorted(set(answer.places))]), f"{answer}\n{tell(operations)}"
    assert seen["ok"] >= 10
    assert seen["illegal"] >= 1


@pytest.mark.parametrize("model", ["register", "fifo-queue", "stack"])
def test_monitors_agree_with_the_generic_engine_on_longer_histories(model: str) -> None:
    """On histories of a hundred operations, legal and with bugs, a monitor says what the search says where it comes to an end."""
    rng = Random(7)
    seen: Counter[str] = Counter()
    for case in range(60):
        config = replace(
            config_of(rng.getrandbits(48), model), operations=100, processes=rng.choice((3, 6)), values=0, keys=(None,), unanswered=0.02
        )
        operations = list(simulate(config) if case % 2 else rng.choice(MUTATIONS).change(config))
        operations.sort(key=lambda operation: operation.call)
        answer = asked(model, operations)
        searched = [solve(part.question, Budget(steps=20_000)).verdict for part in parts_of(None, operations, ready(model))]
        if answer.verdict == "declined" or searched == ["unknown"]:
            continue
        assert searched in ([answer.verdict], []), f"{answer}\n{tell(operations)}"
        seen[answer.verdict] += 1
    assert seen["ok"] >= 5
    assert seen["illegal"] >= 5
