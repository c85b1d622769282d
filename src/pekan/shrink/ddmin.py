"""Less of something that still does what the whole did: delta debugging, and the least of some numbers.

::

    minimal    12 items ──> halves ──> quarters ... and what is left without each ──> no item can go any more
    smallest   1 2 4 8 16 32 ──> the middle ──> the middle of what is left ...      ──> the one below is too small

Both know nothing of plans and of chance: `keeps` says of a part whether it still does, and is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def minimal(items: Sequence[T], keeps: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Some of `items`, in their order, of which `keeps` is true and of which none can be left out by itself (1-minimal).

    `keeps` is taken to be true of `items`, and is not asked. Nothing at all is tried first. Where every superset of what keeps keeps as
    well, no smaller part of the result keeps either. At most n^2 + 3n + 1 questions; 2 log2 n where one item is enough.

    The algorithm is ddmin: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2), 2002, figure 5.
    """
    kept = tuple(items)
    if not kept or keeps(()):
        return ()
    parts = 2
    while len(kept) > 1:
        chunks = _split(kept, parts)
        found = next((chunk for chunk in chunks if keeps(chunk)), None)
        if found is not None:
            kept, parts = found, 2
            continue
        if parts > 2:  # of two halves, what is left without one is the other
            found = next((rest for rest in _complements(chunks) if keeps(rest)), None)
        if found is not None:
            kept, parts = found, parts - 1
        elif parts == len(kept):
            break
        else:
            parts = min(len(kept), 2 * parts)
    return kept


def _split(items: tuple[T, ...], parts: int) -> list[tuple[T, ...]]:
    """`items` in `parts` pieces that follow each other, as equal as can be, none of them empty."""
    edges = [len(items) * number // parts for number in range(parts + 1)]
    return [items[low:high] for low, high in pairwise(edges)]


def _complements(chunks: list[tuple[T, ...]]) -> list[tuple[T, ...]]:
    return [tuple(item for other in (*chunks[:number], *chunks[number + 1 :]) for item in other) for number in range(len(chunks))]


def smallest(values: Sequence[T], keeps: Callable[[T], bool]) -> T:
    """One of `values` (from least to greatest) of which `keeps` is true and is not of the one below it.

    `keeps` is taken to be true of the last one, and is not asked. At most log2 n + 2 questions. Where what keeps goes on to keep when it
    grows, the result is the least that does.
    """
    if len(values) == 1 or keeps(values[0]):
        return values[0]
    low, high = 0, len(values) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(values[middle]):
            high = middle
        else:
            low = middle
    return values[high]
