"""What random schedules choose by: pure functions of a generator."""

from __future__ import annotations

import random
from collections.abc import Mapping


def weighted(rng: random.Random, weights: Mapping[str, int]) -> str:
    """One of the keys, each as likely as its weight is large."""
    return rng.choices(list(weights), list(weights.values()))[0]


def of_any_size(rng: random.Random, between: tuple[int, int]) -> int:
    """A number between two, small ones and large ones equally likely: the exponent is uniform."""
    least, most = between
    return int(least * (most / least) ** rng.random())
