"""What the core of an illegal history claims, held against the oracle that tries all orders.

The claim is: these operations cannot be where they are, *whatever the others did*. So the others are let go before the oracle is asked:
what changes nothing is left out, and what may change something may have happened at any time after its call, or never, with any answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from oracle.objects import legal, numbered, samples
from oracle.things import THINGS
from pekan.checkers.linearizability import Answer, Budget, Question, solve
from pekan.checkers.objects.core import Core, core_of
from pekan.checkers.objects.parts import Part, part_of
from pekan.history.types import FAILED, INDEFINITE, OK, Call, Operation
from pekan.models.object import Model
from pekan.models.ready import ready

SECONDS = 60.0
"""For one core of ten operations: it takes milliseconds, and a busy machine may take its time."""


def solve_again(question: Question, chosen: object, budget: Budget) -> Answer:
    return solve(question, Budget())


def core_and_part(operations: Iterable[Operation], model: Model) -> tuple[Core | None, Part]:
    part = part_of(None, [o for o in operations if o.outcome != FAILED], model)
    answer = solve(part.question)
    return (core_of(part, solve_again, SECONDS, answer.blocked, cut=True) if answer.verdict == "illegal" else None), part


def let_go(part: Part, kept: set[int]) -> tuple[Operation, ...]:
    """The part's operations, all but `kept` let go."""
    q = part.question
    free = (
        o._replace(ret=None, outcome=INDEFINITE, output=None)
        for i, o in enumerate(part.operations)
        if i not in kept and not q.readonly[q.of[i]]
    )
    return numbered([*(part.operations[i] for i in kept), *free])


@pytest.mark.parametrize("name", sorted(THINGS))
def test_a_core_is_illegal_whatever_the_others_did(name: str) -> None:
    """No order explains the core with everything else let go."""
    cores = 0
    for sample in samples(4_711, 250, name):
        operations = tuple(o._replace(input=o.input._replace(key=None)) for o in sample.operations)
        core, part = core_and_part(operations, ready(name))
        if core is None:
            continue
        cores += 1
        assert core.minimal
        assert not legal(name, let_go(part, set(core.operations))), (operations, core)
    assert cores > 3


def test_a_write_that_is_let_go_may_still_have_happened() -> None:
    """The write that a stale read shows belongs to the core: without it, it would be enough to say that nobody wrote the value."""
    history = [
        Operation(0, 0, 0, 5, OK, Call("write", 1), None),
        Operation(1, 0, 10, 15, OK, Call("write", 2), None),
        Operation(2, 0, 20, 25, OK, Call("read"), 2),
        Operation(3, 0, 30, 35, OK, Call("read"), 1),
    ]
    core, part = core_and_part(history, ready("register"))
    assert core is not None
    assert core.operations == (0, 1, 3) or core.operations == (0, 2, 3)
    assert not legal("register", let_go(part, set(core.operations)))
    # To leave writes out altogether is the unsound way: the read alone would pass for a core, and it is none.
    alone = {3}
    assert not legal("register", tuple(part.operations[i] for i in alone))
    assert legal("register", let_go(part, alone))
