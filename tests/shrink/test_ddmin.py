"""Less of something that still does what the whole did, against a search that tries everything."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.shrink import minimal, smallest

Subset = frozenset[int]


def subsets(size: int) -> list[Subset]:
    """Every subset of `size` items, smaller ones first."""
    return [frozenset(each) for count in range(size + 1) for each in combinations(range(size), count)]


def all_minimal(size: int, keeps: set[Subset]) -> set[Subset]:
    """The reference: the subsets that keep and of which no proper part keeps, found by looking at all of them."""
    return {each for each in keeps if not any(other < each for other in keeps)}


class Asked:
    """A question that counts how often it was asked, and never of the whole."""

    def __init__(self, keeps: set[Subset], whole: int) -> None:
        self.keeps, self.whole, self.count = keeps, whole, 0

    def __call__(self, part: tuple[int, ...]) -> bool:
        assert list(part) == sorted(part), "parts are in the order of the whole"
        assert len(part) < self.whole
        self.count += 1
        return frozenset(part) in self.keeps


@settings(max_examples=200)
@given(size=st.integers(0, 7), needed=st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=4))
def test_where_more_keeps_as_well_the_result_is_one_of_the_least(size: int, needed: list[set[int]]) -> None:
    """With any monotone question the result is one of the minimal sets that a full search finds."""
    causes = [frozenset(each) & frozenset(range(size)) for each in needed]
    keeps = {each for each in subsets(size) if any(cause <= each for cause in causes)}
    asked = Asked(keeps, size)
    result = minimal(range(size), asked)
    assert frozenset(result) in all_minimal(size, keeps)
    assert asked.count <= size**2 + 3 * size + 1


@settings(max_examples=200)
@given(size=st.integers(0, 6), data=st.data())
def test_whatever_the_question_no_item_can_go_by_itself(size: int, data: st.DataObject) -> None:
    """With any question at all the result keeps, and no longer does without any one of its items."""
    table = subsets(size)
    keeps = {frozenset(range(size))} | {each for each in table if data.draw(st.booleans())}
    result = frozenset(minimal(range(size), Asked(keeps, size)))
    assert result in keeps
    assert not result or frozenset() not in keeps
    assert not any(result - {item} in keeps for item in result)


def test_one_cause_among_many_is_found_in_logarithmic_time() -> None:
    """One needed item of 1,024 takes at most two questions for each halving."""
    for needed in (0, 511, 1_023):
        asked = Asked(set(), 1_024)
        count = 0

        def keeps(part: tuple[int, ...], needed: int = needed) -> bool:
            nonlocal count
            count += 1
            return needed in part

        assert minimal(range(1_024), keeps) == (needed,)
        assert count <= 1 + 2 * math.log2(1_024)
        assert asked.count == 0


def test_nothing_is_tried_first() -> None:
    """Where nothing is needed, one question shows it."""
    asked = Asked({frozenset()}, 12)
    assert minimal(range(12), asked) == ()
    assert asked.count == 1


def test_items_may_be_equal_to_each_other() -> None:
    """What is kept is told by place, not by value: two equal items are two."""
    assert minimal("aabaa", lambda part: part.count("a") >= 2) == ("a", "a")


@pytest.mark.parametrize("seed", range(200))
def test_least_of_numbers(seed: int) -> None:
    """The result keeps and the one below it does not; where more keeps as well, it is the least of all that keep."""
    rng = random.Random(seed)
    values = sorted(rng.sample(range(100), rng.randint(1, 12)))
    keeps = {values[-1], *(value for value in values if rng.random() < 0.5)}
    asked: list[int] = []

    def question(value: int) -> bool:
        asked.append(value)
        return value in keeps

    result = smallest(values, question)
    place = values.index(result)
    assert result in keeps
    assert place == 0 or values[place - 1] not in keeps
    assert len(asked) <= math.log2(len(values)) + 2
    assert values[-1] not in asked or len(values) == 1
    edge = rng.choice(values)
    assert smallest(values, lambda value: value >= edge) == edge
