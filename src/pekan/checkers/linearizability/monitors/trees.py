"""Two trees over a fixed row of places, each step logarithmic in its length."""

from __future__ import annotations

from collections.abc import Sequence


class Greatest:
    """The greatest value of any range, and the first place that has it; `none` is less than every value."""

    def __init__(self, values: Sequence[int], none: int) -> None:
        self._none = none
        self._width = width = 1 << max(0, len(values) - 1).bit_length()
        self._tree = [none] * width + list(values) + [none] * (width - len(values))
        for node in range(width - 1, 0, -1):
            self._tree[node] = max(self._tree[2 * node], self._tree[2 * node + 1])

    def set(self, place: int, value: int) -> None:
        tree, node = self._tree, self._width + place
        tree[node] = value
        while node > 1:
            node >>= 1
            greater = max(tree[2 * node], tree[2 * node + 1])
            if tree[node] == greater:
                return
            tree[node] = greater

    def greatest(self, begin: int, end: int) -> tuple[int, int]:
        """(value, place) of the greatest in ``begin..end``; (none, -1) where there is nothing."""
        tree, width = self._tree, self._width
        best, at, tail, tail_at = self._none, 0, self._none, 0
        left, right = width + begin, width + end
        while left < right:
            if left & 1:
                if tree[left] > best:
                    best, at = tree[left], left
                left += 1
            if right & 1:
                right -= 1
                if tree[right] >= tail:
                    tail, tail_at = tree[right], right
            left >>= 1
            right >>= 1
        if tail > best:
            best, at = tail, tail_at
        if best == self._none:
            return best, -1
        while at < width:
            at = 2 * at if tree[2 * at] == best else 2 * at + 1
        return best, at - width


class Covered:
    """How many intervals cover each place; intervals only leave."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._width = width = 1 << max(0, len(counts) - 1).bit_length()
        # Each node: the least count below it, what was added to nodes above it left out. Places beyond the row are never bare.
        self._least = [0] * width + list(counts) + [len(counts) + 1] * (width - len(counts))
        self._added = [0] * width
        for node in range(width - 1, 0, -1):
            self._least[node] = min(self._least[2 * node], self._least[2 * node + 1])

    def leave(self, begin: int, end: int) -> list[int]:
        """One interval less over ``begin..end``: the places of it that nothing covers now, ascending."""
        bare: list[int] = []
        if begin < end:
            self._below(1, 0, self._width, begin, end, 0, bare)
        return bare

    def _below(self, node: int, low: int, high: int, begin: int, end: int, above: int, bare: list[int]) -> None:
        if begin <= low and high <= end:
            self._least[node] -= 1
            if node < self._width:
                self._added[node] -= 1
            self._collect(node, low, high, above, bare)
            return
        middle = (low + high) // 2
        inner = above + self._added[node]
        if begin < middle:
            self._below(2 * node, low, middle, begin, end, inner, bare)
        if middle < end:
            self._below(2 * node + 1, middle, high, begin, end, inner, bare)
        self._least[node] = min(self._least[2 * node], self._least[2 * node + 1]) + self._added[node]

    def _collect(self, node: int, low: int, high: int, above: int, bare: list[int]) -> None:
        if self._least[node] + above > 0:
            return
        if node >= self._width:
            bare.append(low)
            return
        middle = (low + high) // 2
        inner = above + self._added[node]
        self._collect(2 * node, low, middle, inner, bare)
        self._collect(2 * node + 1, middle, high, inner, bare)
