"""Histories of locks and elections made step by step: what is right is never found, and a slower telling of the rules finds the same."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from oracle.both import both
from oracle.locking import BUDGET_S, World, condemned, of_locks
from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.history.types import History
from pekan.native import core

WORLDS = 150
"""Histories of one kind; a hundred take a second."""
BUDGET = Options(budget_s=BUDGET_S)


def worlds(seed: int, *, forgetful: bool = False, blind: bool = False) -> Iterator[tuple[World, History]]:
    """Worlds of that kind and what was recorded of them; one in eight without a watch, and then short."""
    for number in range(WORLDS):
        rng = Random(seed * 1_000_003 + number)
        world = World(rng, forgetful=forgetful, blind=blind, watched=rng.random() < 0.88)
        yield world, world.run(rng.randint(2, 5), rng.randint(1, 7) if world.watched else 2)


def test_right_histories_are_never_broken() -> None:
    """Members that wait and look again give no finding of any checker, and both engines say the same of what they did."""
    grants = 0
    for world, history in worlds(1):
        assert not {number for number in world.wrong() if history.operations[number - 1].method.endswith("Lock")}
        told = judge(history, BUDGET, "reference")
        findings = [f for f in told.findings if f.subject.get("operations", [0])[-1] not in world.wrong()]
        assert findings == []
        grants += sum(report.judged.get("granted", 0) for report in told.checkers if report.name == "locks")
    assert grants > WORLDS


@pytest.mark.skipif(core is None, reason="no native core here")
def test_both_engines_say_the_same() -> None:
    """The native core leaves histories with such calls to the reference, in every form in which they can be recorded."""
    compared = 0
    for number, (world, history) in enumerate(worlds(2, forgetful=True)):
        if number % 5 == 0 and world.watched and (found := both(history)) is not None:
            assert found.difference is None
            compared += 1
    assert compared > WORLDS // 10


def test_what_is_found_is_wrong() -> None:
    """Of members that forget to look, or that do not even wait, no finding is about grants that were all right."""
    found = 0
    for seed, blind in ((3, False), (4, True)):
        for world, history in worlds(seed, forgetful=True, blind=blind):
            wrong = world.wrong()
            for finding in judge(history, BUDGET, "reference").findings:
                assert finding.code.startswith("LOCK-"), finding
                assert wrong & set(finding.subject["operations"]), finding
                found += 1
    assert found > WORLDS // 10


def test_the_slow_opinion_is_the_same() -> None:
    """State by state, the grants without a moment are those that the checker finds."""
    condemned_ones = 0
    for seed, blind in ((5, False), (6, True)):
        for world, history in worlds(seed, forgetful=True, blind=blind):
            case, findings = of_locks(history)
            if case.order is None or case.order.unknown or case.order.last != world.state.revision:
                continue
            slow = condemned(case)
            assert slow == {f.subject["operations"][-1] for f in findings if f.shape[1] != "answers"}
            condemned_ones += len(slow)
    assert condemned_ones > WORLDS // 10
