"""Which release a historical issue is shown on, and where it ends, by searches over releases that answer as told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.errors import EnvironmentFailure
from pekan.etcd.binaries import Availability, Binary
from pekan.hunt.releases import Bisected, CannotTry, Tried, bisect, last_to_show, least_rate

RELEASES = [f"3.5.{patch}" for patch in range(36)]


def row(version: str, *, cached: bool = False, can: bool = True) -> Availability:
    binary = Binary(Path("etcd"), version, None, "go1.24", "go", "a module", None, "0" * 64, 1) if cached else None
    return Availability(version, {"go": None if can else "no Go"}, binary)


class Asked:
    """Releases that answer, and what was asked of them, in order."""

    def __init__(self, ends_after: int, silent: tuple[int, ...] = (), begins: int = 0) -> None:
        self.ends_after, self.silent, self.begins = ends_after, silent, begins
        self.order: list[str] = []

    def __call__(self, version: str) -> Tried:
        patch = int(version.split(".")[2])
        self.order.append(version)
        if patch in self.silent:
            raise CannotTry(f"{patch} is not to be had")
        return "shows" if self.begins <= patch <= self.ends_after else "does not"


def test_default_is_the_newest_last_release_that_is_cached() -> None:
    """Of the last affected releases a cached one is taken before a newer one that would have to be built."""
    rows = [row("3.5.17", cached=True), row("3.6.8"), row("3.5.1", cached=True)]
    assert last_to_show(rows, ["3.5.17", "3.6.8"], lambda version: True) == "3.5.17"


def test_default_is_built_rather_than_another_release_taken() -> None:
    """A last affected release that can be had is taken before other affected ones that are cached: what those show may be masked."""
    rows = [row("3.5.1", cached=True), row("3.5.12")]
    assert last_to_show(rows, ["3.5.12"], lambda version: True) == "3.5.12"


def test_default_falls_back_to_any_affected_release() -> None:
    """Where no last affected release can be had, the newest affected one that can is taken, a cached one first."""
    rows = [row("3.5.0"), row("3.5.1", cached=True), row("3.5.2", can=False), row("3.5.3")]
    assert last_to_show(rows, ["3.5.2"], lambda version: version < "3.5.3") == "3.5.1"


def test_default_that_cannot_be_had_is_told() -> None:
    """Where no affected release can be had, the message names the last ones and what to type."""
    with pytest.raises(EnvironmentFailure, match=r"3\.5\.2.*--etcd"):
        last_to_show([row("3.5.2", can=False), row("3.5.30", cached=True)], ["3.5.2"], lambda version: version < "3.5.3")


def test_claimed_pair_that_holds_ends_the_search() -> None:
    """Two neighbours that answer as claimed are the pair; nothing else is tried."""
    asked = Asked(12)
    found = bisect(RELEASES, asked, claimed=("3.5.12", "3.5.13"))
    assert (found.last_affected, found.first_fixed, asked.order) == ("3.5.12", "3.5.13", ["3.5.12", "3.5.13"])
    assert found.words(("3.5.12", "3.5.13")) == "last affected 3.5.12, first fixed 3.5.13, as is said"


@given(ends=st.integers(0, 34), claim=st.integers(0, 34), cached=st.sets(st.sampled_from(RELEASES)))
def test_search_finds_the_pair_whatever_is_claimed(ends: int, claim: int, cached: set[str]) -> None:
    """Wherever it ends, and whatever is claimed and cached, the pair is found, with one try of a release at most and ten in all."""
    asked = Asked(ends)
    found = bisect(RELEASES, asked, cached=cached, claimed=(f"3.5.{claim}", f"3.5.{claim + 1}"))
    assert (found.last_affected, found.first_fixed) == (f"3.5.{ends}", f"3.5.{ends + 1}")
    assert len(asked.order) == len(set(asked.order)) <= 10


@given(ends=st.integers(0, 34), silent=st.sets(st.integers(0, 35)))
def test_search_goes_around_releases_that_give_no_answer(ends: int, silent: set[int]) -> None:
    """Releases that cannot be tried are left out with the reason; a pair that is named answered so, and only silent ones lie between."""
    found = bisect(RELEASES, Asked(ends, tuple(silent)), claimed=("3.5.15", "3.5.16"))
    if found.last_affected:
        assert int(found.last_affected.split(".")[2]) <= ends
    if found.last_affected and found.first_fixed:
        assert int(found.first_fixed.split(".")[2]) > ends
        assert all(int(version.split(".")[2]) in silent for version in Bisected.between(found, RELEASES))
        assert all("not to be had" in found.left_out[version] for version in Bisected.between(found, RELEASES))


def test_still_open_is_said() -> None:
    """Where the newest release still shows it, no release fixes it."""
    found = bisect(RELEASES, Asked(99), claimed=("3.5.35", ""))
    assert (found.last_affected, found.first_fixed) == ("3.5.35", "")
    assert "newest" in found.words(("", ""))


def test_introduced_later_is_found_from_the_claim() -> None:
    """An issue that came with a later release is found though the oldest releases do not show it."""
    found = bisect(RELEASES, Asked(5, begins=5), claimed=("3.5.5", "3.5.6"))
    assert (found.last_affected, found.first_fixed) == ("3.5.5", "3.5.6")


def test_shown_by_none_is_no_pair() -> None:
    """Where no release shows it, no last affected one is named."""
    found = bisect(RELEASES, Asked(-1), claimed=("3.5.5", "3.5.6"))
    assert found.last_affected == ""
    assert found.words(("3.5.5", "3.5.6")).startswith("shown by none")


@pytest.mark.parametrize(("shown", "tries", "least"), [(0, 5, 0.0), (10, 10, 0.7411), (9, 10, 0.6058), (1, 1, 0.05), (5, 10, 0.2224)])
def test_least_rate_is_the_tabled_bound(shown: int, tries: int, least: float) -> None:
    """The lower bound of a rate is Clopper and Pearson's: 0.05 ** (1 / n) where all hit; the others from tables."""
    assert least_rate(shown, tries) == pytest.approx(least, abs=1e-4)
