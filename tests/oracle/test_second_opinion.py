"""The generic engine over etcd's model, the revision-guided checker and the oracle agree on small histories."""

from __future__ import annotations

import pytest

import pekan
from checkers.judging import Clock, header
from oracle.brute import TooBigError
from oracle.fuzz import Sample, checked, samples, truly_legal, without_watches
from pekan.checkers.linearizability import Budget, solve
from pekan.checkers.objects.etcd import part_of
from pekan.history.types import History
from pekan.wire.messages import KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse

CASES = 1_500
"""Small histories, valid and mutated, of one seed: some seconds."""
BUDGET = Budget(time_s=20.0)


def generic(history: History, early: bool = False) -> bool:
    """Whether the generic engine finds an order."""
    answer = solve(part_of(history, early=early).question, BUDGET)
    assert answer.verdict != "unknown"
    return answer.verdict == "ok"


def disagreement(one: Sample) -> str:
    """What the generic engine and the others say differently, empty where they agree."""
    history = without_watches(one.history)
    found = generic(history)
    if found != truly_legal(history, one.simulated, "answers"):
        return f"{one}: the generic engine says {found}, the oracle does not"
    word, _ = checked(one.history, "answers")
    if word == "undecided" or (word == "holds") == found:
        return ""
    # A lease that would have had to run out too early though nobody looked: only the search for an order can know.
    return "" if word == "holds" and generic(history, early=True) else f"{one}: the generic engine says {found}, the revisions say {word}"


@pytest.mark.parametrize("seed", [1, 2])
def test_the_generic_engine_agrees(seed: int) -> None:
    """Over small histories of every kind, valid and mutated, three ways to judge give one answer."""
    judged = 0
    for one in samples(seed, CASES // 2):
        if one.mutation is not None and one.mutation.of_watch:
            continue
        try:
            told = disagreement(one)
        except TooBigError:
            continue
        judged += 1
        assert not told, told
    assert judged > CASES // 4


def story(stale: bool) -> History:
    """Two writes and a read after them, of the first write's value or the second's."""
    clock = Clock()
    clock.op("m1", PutRequest(b"k", b"1"), PutResponse(header(2), None))
    clock.op("m1", PutRequest(b"k", b"2"), PutResponse(header(3), None))
    kv = KeyValue(b"k", 2, 2 if stale else 3, 1 if stale else 2, b"1" if stale else b"2", 0)
    clock.op("m2", RangeRequest(b"k"), RangeResponse(header(2 if stale else 3), (kv,), False, 1))
    return History(tuple(clock.operations), start="empty")


def test_engine_generic() -> None:
    """`--engine generic` judges a history of etcd by itself, says so, and names the few operations that contradict each other."""
    good = pekan.check(story(stale=False), engine="generic")
    assert (good.verdict, [report.name for report in good.checkers]) == ("holds", ["generic"])
    assert good.engine.startswith("generic (")
    assert "only key-value operations" in good.notes[0]
    bad = pekan.check(story(stale=True), engine="generic")
    assert bad.codes == ("NOT-LINEARIZABLE",)
    assert bad.findings[0].subject["operations"] == [1, 2]
    assert "Operation 2 was called after operation 1 had returned." in bad.findings[0].explanation
    assert pekan.check(story(stale=True)).verdict == "broken"
