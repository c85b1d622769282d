"""Values of foreign histories: immutable, hashable, equal where Python says so."""

from __future__ import annotations

import pytest

from pekan.history import Keyword, Map, freeze
from pekan.history.values import MAX_DEPTH


def test_a_map_is_equal_and_hashes_equal_whatever_the_order_of_its_pairs() -> None:
    """Two maps with the same pairs are one value."""
    assert Map({"a": 1, "b": 2}) == Map({"b": 2, "a": 1})
    assert hash(Map({"a": 1, "b": 2})) == hash(Map({"b": 2, "a": 1}))
    assert Map({"a": 1}) != Map({"a": 2})
    assert Map({"a": 1}) == {"a": 1}
    assert Map({"a": 1}) != (("a", 1),)


def test_freezing_makes_every_part_hashable() -> None:
    """Lists, sets and dicts nested in each other become one hashable value."""
    frozen = freeze({"a": [1, {2, 3}, {"b": [4.0, 4.5]}]})
    assert frozen == Map({"a": (1, frozenset({2, 3}), Map({"b": (4, 4.5)}))})
    assert hash(frozen) == hash(freeze({"a": [1, {3, 2}, {"b": [4, 4.5]}]}))


def test_a_keyword_equals_its_text() -> None:
    """A keyword and a string of the same letters are the same value."""
    assert Keyword("read") == "read"
    assert {Keyword("read"), "read"} == {"read"}


def test_nesting_is_bounded() -> None:
    """A value nested too deep is refused with the bound, and one at the bound is taken."""
    value: object = 0
    for _ in range(MAX_DEPTH):
        value = [value]
    freeze(value)
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH}"):
        freeze([value])
