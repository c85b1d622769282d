"""Values of other people's histories: plain, immutable, hashable.

::

    EDN, JSON                     here
    ────────────────────────────  ──────────────────────────────────────────
    nil, null                     None
    true, false                   bool
    1, 1N, 1.0                    int   (a float that is a whole number is that number, in either notation)
    1.5, 1.5M                     float
    "text", :keyword, symbol, \\c  str   (`Keyword`, a str, where it was one: equal to the text, written back as a keyword)
    [vector], (list), array       tuple
    #{set}                        frozenset
    {map}, object                 Map

Two values are one wherever Python says that they are equal. So `1` and `true` are the same here, which can hide a difference and never
make one up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 100
"""Deepest nesting of a value in a foreign history. Jepsen's values nest three deep; Python's own stack ends near a thousand."""


class Keyword(str):
    """A str that was a keyword or symbol in EDN, without its colon; equal to the same text."""

    __slots__ = ()


class Map(Mapping[Any, Any]):
    """An immutable, hashable mapping; equal to any mapping with the same pairs."""

    __slots__ = ("_hash", "_pairs")

    def __init__(self, pairs: Mapping[Any, Any]) -> None:
        self._pairs = dict(pairs)
        self._hash: int | None = None

    def __getitem__(self, key: Any) -> Any:
        return self._pairs[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._pairs.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Map):
            return self._pairs == other._pairs
        return self._pairs == other if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        return repr(self._pairs)


def freeze(value: Any) -> Any:
    """`value` with its lists as tuples, its sets as frozensets and its mappings as `Map`, all the way down.

    Raises TypeError for a value of any other kind that cannot be hashed, ValueError for one that nests deeper than MAX_DEPTH.
    """
    return _freeze(value, MAX_DEPTH)


def _freeze(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return whole(value)
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, (list, tuple)):
        return tuple([_freeze(part, depth - 1) for part in value])
    if isinstance(value, (set, frozenset)):
        return frozenset(_freeze(part, depth - 1) for part in value)
    if isinstance(value, Mapping):
        return Map({_freeze(key, depth - 1): _freeze(part, depth - 1) for key, part in value.items()})
    hash(value)
    return value


_PLAIN = frozenset({type(None), bool, int, str, Keyword})


def whole(number: float) -> int | float:
    """`number` as an int where it is a whole number."""
    return int(number) if number.is_integer() else number
