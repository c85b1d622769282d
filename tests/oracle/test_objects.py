"""Every engine for objects says what the oracle says, over small random histories; the long run is ``python -m oracle.objects``."""

from __future__ import annotations

import pytest

from oracle.objects import MUTATIONS, legal, samples
from oracle.objects_fuzz import ENGINES, Tally, judge
from oracle.things import THINGS
from pekan.models.ready import READY

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
