"""Which releases to try: the one on which something is best seen, and the pair between which it ends.

::

    oldest ... shows ... ? ? ? ? ? ... does not ... newest        each ? that is tried becomes the one or the other
                 └ last affected │ first fixed ┘                  until none is left between, or those left cannot be tried

Nothing here starts a cluster: what a release does is asked of the caller, who has real runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb
from typing import Literal

from pekan.errors import EnvironmentFailure
from pekan.etcd.binaries import Availability, version_key

CONFIDENCE = 0.95
Tried = Literal["shows", "does not"]
MIDDLE_SHARE = 0.5
"""Of the releases that are left, those in this middle part halve them nearly as well as the middle one; a cached one saves a build."""


START_MAX = 2
"""Releases at either end that are asked before the search begins where the claim says: what cannot be had, or is masked by another issue,
is often a whole row of them."""


class CannotTry(Exception):
    """A release that gives no answer: it cannot be had here, or the conditions did not come about on it. The message says why."""


def last_to_show(rows: Sequence[Availability], lasts: Collection[str], affected: Callable[[str], bool]) -> str:
    """The release on which something that is said to end with `lasts` is best seen here. Raises EnvironmentFailure where there is none.

    Of `lasts`, the newest that is cached, else the newest that can be had; else the same of all that are `affected`.
    """
    newest_first = sorted(rows, key=lambda row: version_key(row.version), reverse=True)
    for of_choice in ([row for row in newest_first if row.version in lasts], [row for row in newest_first if affected(row.version)]):
        cached = [row.version for row in of_choice if row.cached is not None]
        if found := cached or [row.version for row in of_choice if row.providers]:
            return found[0]
    told = ", ".join(sorted(lasts, key=version_key)) or "none is named"
    raise EnvironmentFailure(f"no affected release can be had here (last ones: {told}): `pekan etcd list` says why; name one with --etcd")


@dataclass(frozen=True, slots=True)
class Bisected:
    """What a search found.

    last_affected  the newest release that showed it with all older ones tried showing it too; "" where none showed it
    first_fixed    the oldest release that did not show it, newer than the other; "" where the newest one still does
    tried          every release that gave an answer, in order of trying
    left_out       release -> why it gave none
    between        releases between the two that gave no answer: the pair is a pair of neighbours where there are none
    """

    last_affected: str
    first_fixed: str
    tried: dict[str, Tried]
    left_out: dict[str, str]
    between: tuple[str, ...]


def bisect(
    releases: Sequence[str], attempt: Callable[[str], Tried], *, cached: Collection[str] = (), claimed: tuple[str, str] = ("", "")
) -> Bisected:
    """Where a series of releases, oldest first, goes from showing something to not showing it.

    `attempt` says what a release does, or raises CannotTry. `claimed`: the pair that is said to be the one; the search begins there on the
    side whose end gives no answer, or where what is looked for came with a later release than the oldest. A release is taken to be like its
    neighbours outside the pair that is found: that is what a search by halves assumes.
    """
    search = _Search(releases, attempt)
    last, fixed = claimed
    does_not = search.first(islice(reversed(releases), START_MAX)) or search.first([fixed] if fixed in releases else [])
    if not does_not:
        return search.result("", "")
    if search.tried[does_not] == "shows":
        return search.result(does_not, "")
    older = search.between("", does_not)
    shows = search.first(islice(older, START_MAX))
    if search.tried.get(shows) != "shows" and last in older:
        shows = search.first([last])
    if search.tried.get(shows) != "shows":
        return search.result("", does_not)
    while left := search.left_between(shows, does_not):
        probe = _probe(left, cached)
        answer = search.ask(probe)
        if answer == "shows":
            shows = probe
        elif answer == "does not":
            does_not = probe
    return search.result(shows, does_not)


class _Search:
    """What is known so far."""

    def __init__(self, releases: Sequence[str], attempt: Callable[[str], Tried]) -> None:
        self.releases = releases
        self.attempt = attempt
        self.tried: dict[str, Tried] = {}
        self.left_out: dict[str, str] = {}

    def ask(self, release: str) -> Tried | None:
        """What a release does; None where it gives no answer."""
        if release not in self.tried and release not in self.left_out:
            try:
                self.tried[release] = self.attempt(release)
            except CannotTry as why:
                self.left_out[release] = str(why)
        return self.tried.get(release)

    def first(self, releases: Iterable[str]) -> str:
        """The first of `releases` that gives an answer; "" where none does."""
        return next((release for release in releases if self.ask(release)), "")

    def left_between(self, low: str, high: str) -> list[str]:
        return [release for release in self.between(low, high) if release not in self.tried and release not in self.left_out]

    def between(self, low: str, high: str) -> list[str]:
        """The releases above `low` ("": all) and below `high`."""
        after = self.releases.index(low) + 1 if low else 0
        return list(self.releases[after : self.releases.index(high)])

    def result(self, shows: str, does_not: str) -> Bisected:
        between = tuple(self.between(shows, does_not)) if shows and does_not else ()
        return Bisected(shows, does_not, self.tried, self.left_out, between)


def _probe(left: Sequence[str], cached: Collection[str]) -> str:
    """The next to try: the middle one, or a cached one near it."""
    middle = (len(left) - 1) / 2
    reach = len(left) * MIDDLE_SHARE / 2
    near = sorted(range(len(left)), key=lambda index: abs(index - middle))
    return next((left[index] for index in near if left[index] in cached and abs(index - middle) <= reach), left[near[0]])


def least_rate(shown: int, tries: int) -> float:
    """What the share of attempts that show something is at least, with 95 % confidence (Clopper and Pearson 1934, one-sided)."""
    if shown == 0:
        return 0.0
    return _rate(lambda rate: _at_least(shown, tries, rate), 1 - CONFIDENCE)


def most_rate(shown: int, tries: int) -> float:
    """What that share is at most, with 95 % confidence."""
    if shown == tries:
        return 1.0
    return _rate(lambda rate: 1 - _at_least(shown + 1, tries, rate), 1 - CONFIDENCE, falling=True)


def _at_least(shown: int, tries: int, rate: float) -> float:
    """The probability of `shown` hits or more."""
    return sum(comb(tries, hits) * rate**hits * (1 - rate) ** (tries - hits) for hits in range(shown, tries + 1))


def _rate(probability: Callable[[float], float], target: float, *, falling: bool = False) -> float:
    """The rate at which a monotone `probability` is `target`, by halves."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (probability(middle) < target) != falling else (low, middle)
    return (low + high) / 2
