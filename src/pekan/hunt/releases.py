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
RATE_BITS = 30
"""Halvings until a rate is known far better than it is told."""
Tried = Literal["shows", "does not"]
MIDDLE_SHARE = 0.5
"""Of the releases that are left, those in this middle part halve them nearly as well as the middle one; a cached one saves a build."""


START_MAX = 2
"""Releases at either end that are asked until one answers: what cannot be had, or is masked by another issue, is often a whole row."""


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

    last_affected  the newest release that showed it, older than the other; "" where none did
    first_fixed    the oldest release that did not, newer than the other; "" where the newest one still does
    tried          every release that gave an answer, in order of trying
    left_out       release -> why it gave none
    """

    last_affected: str
    first_fixed: str
    tried: dict[str, Tried]
    left_out: dict[str, str]

    def between(self, releases: Iterable[str]) -> list[str]:
        """Those of `releases` that lie between the two: where there are some, the pair is not one of neighbours."""
        if not (self.last_affected and self.first_fixed):
            return []
        low, high = version_key(self.last_affected), version_key(self.first_fixed)
        return [release for release in releases if low < version_key(release) < high]

    def words(self, claimed: tuple[str, str]) -> str:
        """What was found, and what was claimed."""
        if not self.tried:
            return "no release gave an answer"
        if not self.last_affected:
            return f"shown by none of the releases that were tried, {', '.join(self.tried)}"
        found = f"last affected {self.last_affected}, " + (
            f"first fixed {self.first_fixed}" if self.first_fixed else "the newest that can be tried"
        )
        if not any(claimed):
            return found
        if claimed == (self.last_affected, self.first_fixed):
            return f"{found}, as is said"
        return f"{found}; said to be {claimed[0] or 'unknown'} and {claimed[1] or 'none'}"


def bisect(
    releases: Sequence[str], attempt: Callable[[str], Tried], *, cached: Collection[str] = (), claimed: tuple[str, str] = ("", "")
) -> Bisected:
    """Where a series of releases, oldest first, goes from showing something to not showing it.

    `attempt` says what a release does, or raises CannotTry. `claimed`: the pair that is said to be the one ("" for what is not said). It is
    tried first, since each release may have to be built; where it does not answer as claimed, the ends are tried and what lies between is
    halved. A release is taken to be like its neighbours outside the pair that is found: that is what any search by halves assumes.
    """
    search = _Search(releases, attempt)
    for release in filter(None, claimed):
        if release in releases:
            search.ask(release)
    shows = search.newest("shows")
    does_not = search.oldest("does not", after=shows)
    if not does_not:
        newest = search.first(islice(reversed(search.between(shows, "")), START_MAX))
        if search.tried.get(newest, "shows") == "shows":
            return search.result(newest or shows, "")
        does_not = newest
    if not shows:
        oldest = search.first(islice(search.between("", does_not), START_MAX))
        if search.tried.get(oldest) != "shows":
            return search.result("", oldest or does_not)
        shows = oldest
    while left := search.open_between(shows, does_not):
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

    def newest(self, answer: Tried) -> str:
        """The newest release that gave this answer, "" where none did."""
        return next((release for release in reversed(self.releases) if self.tried.get(release) == answer), "")

    def oldest(self, answer: Tried, after: str) -> str:
        """The oldest release after this one ("": of all) that gave this answer, "" where none did."""
        return next((release for release in self.between(after, "") if self.tried.get(release) == answer), "")

    def open_between(self, low: str, high: str) -> list[str]:
        """Those of which nothing is known yet."""
        return [release for release in self.between(low, high) if release not in self.tried and release not in self.left_out]

    def between(self, low: str, high: str) -> list[str]:
        """The releases above `low` and below `high`; "" for no bound."""
        first = self.releases.index(low) + 1 if low else 0
        return list(self.releases[first : self.releases.index(high) if high else None])

    def result(self, shows: str, does_not: str) -> Bisected:
        return Bisected(shows, does_not, self.tried, self.left_out)


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
    low, high = 0.0, 1.0
    for _ in range(RATE_BITS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(shown, tries, middle) < 1 - CONFIDENCE else (low, middle)
    return low


def _at_least(shown: int, tries: int, rate: float) -> float:
    """The probability of `shown` hits or more."""
    return sum(comb(tries, hits) * rate**hits * (1 - rate) ** (tries - hits) for hits in range(shown, tries + 1))
