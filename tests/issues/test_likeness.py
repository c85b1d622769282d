"""What a finding looks like: planted findings, issues with claims of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pekan.issues import Boundary, Issue, Recipe, alike
from pekan.plan import Plan
from pekan.verdict import Exhibit, Finding

FINDING = Finding("WATCH-ORDERED", "s", "e", (Exhibit("a"),), {"member": "m1"}, ("watch",))


def issue(name: str, *boundaries: Boundary, introduced: str = "", codes: tuple[str, ...] = ("WATCH-ORDERED",)) -> Issue:
    return Issue(name, f"story of {name}", "ordered", "order", "story", introduced, boundaries, codes, lambda _: Recipe(Plan("", 0)))


FIXED = issue("15271", Boundary("3.4.24", "3.4.25"), Boundary("3.5.7", "3.5.8"))
OPEN = issue("a-word", Boundary("3.5.35", ""))
ELSEWHERE = issue("99", Boundary("3.6.1", "3.6.2"), introduced="3.6.0")


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        (["3.5.1"], [("15271", True), ("a-word", True)]),
        (["3.5.8"], [("a-word", True)]),
        (["3.5.8", "3.5.7"], [("15271", True), ("a-word", True)]),
        (["3.6.1"], [("99", True), ("a-word", None)]),
        ([], [("15271", None), ("99", None), ("a-word", None)]),
        (["a-build-of-mine"], [("15271", None), ("99", None), ("a-word", None)]),
    ],
)
def test_a_finding_is_like_what_is_not_known_to_be_mended(versions: list[str], told: list[tuple[str, bool | None]]) -> None:
    """An issue that shows so is named where it affects one of the releases or may; one that is mended in all of them is not."""
    found = alike(FINDING, versions, (FIXED, OPEN, ELSEWHERE))
    assert sorted((like.name, like.affects) for like in found) == sorted(told)
    assert [like.affects for like in found] == sorted((like.affects for like in found), key=lambda affects: affects is not True)


def test_only_findings_that_count_and_are_expected_look_like_something() -> None:
    """What follows from another finding looks like nothing; nor does another code, or the code about something else."""
    assert not alike(replace(FINDING, status="follows", because="x"), ["3.5.1"], (FIXED,))
    assert not alike(replace(FINDING, code="WATCH-UNIQUE"), ["3.5.1"], (FIXED,))
    assert not alike(FINDING, ["3.5.1"], (replace(FIXED, about=lambda finding: finding.subject.get("lease") == 7),))


def test_which_member_it_is_does_not_matter() -> None:
    """An issue that is met at one member of its own run looks so at any member of another run."""
    at_m3 = replace(FIXED, about=lambda finding: "m3" in (finding.subject.get("member"), finding.subject.get("other")))
    assert not at_m3.expects(FINDING)
    assert [like.name for like in alike(FINDING, ["3.5.1"], (at_m3,))] == ["15271"]
    assert not alike(replace(FINDING, subject={"key": "k"}), ["3.5.1"], (at_m3,))


def test_a_hint_says_number_and_whether_it_affects() -> None:
    """The text names the number and says whether this version is affected, or only may be."""
    (sure,) = alike(FINDING, ["3.5.1"], (FIXED,))
    assert str(sure) == "#15271, which affects this version: story of 15271"
    (unsure,) = alike(FINDING, [], (OPEN,))
    assert unsure.to_json()["text"] == "like a-word, which may affect this version: story of a-word"
