"""What is claimed of an issue: where to search for its end, what it needs, and what stands for its recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pekan.errors import UsageError
from pekan.faults.grammar import show_trigger
from pekan.issues import ISSUES, Boundary, Issue, Recipe, named
from pekan.issues.claims import affected, fingerprint, fixed_in, has_recipe, needs, script_lines, span
from pekan.plan import Lane, Plan, Step, Trigger

STEPS = (
    Step("Put", {"key": "k"}, name="put", times=3, member="leader", answer="ok"),
    Step("Compact", {"revision": {"reply": "put.header.revision"}}, wait=Trigger(step="put"), clients=2, every_ms=10),
)
PLAN = Plan("", 0, members=3, workloads=("script",), script=(Lane("a", "m1", STEPS),))
RECIPE = Recipe(PLAN, ("kill m1 on step put", "pause m2 1s after kill", "kill m1 at 3s"))


def recipe(version: str) -> Recipe:
    if version.startswith("3.4"):
        raise UsageError("not before 3.5")
    return RECIPE


ISSUE = Issue(
    "20221",
    "t",
    "g",
    "s",
    "story",
    "",
    (Boundary("3.4.37", "3.4.38"), Boundary("3.5.21", "3.5.22"), Boundary("3.6.1", "3.6.2")),
    ("X",),
    recipe,
)
ACROSS = replace(ISSUE, boundaries=(Boundary("3.5.35", ""), Boundary("3.6.16", "3.7.0")))


def test_the_end_is_searched_in_the_newest_line_or_the_one_asked_for() -> None:
    """Without a line the newest claimed pair is the one, with one that line's; both of its ends are covered, pre-releases are not."""
    assert span(ISSUE).claimed == ("3.6.1", "3.6.2")
    assert span(ISSUE, "3.5.35").claimed == ("3.5.21", "3.5.22")
    across = span(ACROSS)
    assert across.claimed == ("3.6.16", "3.7.0")
    assert [version for version in ("3.5.35", "3.6.0", "3.6.16", "3.7.3", "3.7.0-rc.0") if across.covers(version)] == [
        "3.6.0",
        "3.6.16",
        "3.7.3",
    ]
    assert span(replace(ISSUE, boundaries=()), "3.5.35").claimed == ("", "")
    with pytest.raises(UsageError, match="--etcd"):
        span(replace(ISSUE, boundaries=()))


def test_an_issue_is_found_however_its_name_is_written() -> None:
    """In small letters, in capital ones, a number with its #; what is not there is not found."""
    assert named("cve-2026-33343") is named("CVE-2026-33343") is ISSUES["CVE-2026-33343"]
    assert named("#18089") is named("18089") is ISSUES["18089"]
    assert named("Compares-Only-Stale") is ISSUES["compares-only-stale"]
    assert named("CVE-2026") is None


def test_claims_in_words() -> None:
    """Where it ends and what it takes, in phrases; what was never released says so."""
    assert fixed_in(ACROSS) == "open, 3.7.0"
    assert affected(replace(ACROSS, introduced="3.5.0")) == "from 3.5.0 on, up to 3.5.35 at least, no fix; up to 3.6.16, fixed in 3.7.0"
    assert needs(ISSUE) == "3 members, kill, pause"
    assert (has_recipe(ISSUE, "3.4.23"), has_recipe(ISSUE, "3.5.1")) == (False, True)
    assert fixed_in(replace(ISSUE, not_released="main only")) == "never released"


def test_a_script_is_told_step_by_step() -> None:
    """A line a step: moment, name, request, whom it asks, how often; what is usual is left out."""
    assert script_lines(PLAN, show_trigger) == [
        "a, at m1:",
        '  [put] Put key "k", at leader, 3 times',
        '  on step put: Compact revision {"reply": "put.header.revision"}, by each of 2 clients, one each 10 ms',
    ]


def test_a_fingerprint_stands_for_exactly_one_recipe() -> None:
    """Any change of plan or faults changes it; saying what is the default anyway does not."""
    changed = (
        Recipe(PLAN, RECIPE.faults[:1]),
        Recipe(replace(PLAN, members=1), RECIPE.faults),
        Recipe(replace(PLAN, script=(Lane("a", "m1", (replace(STEPS[0], times=4), STEPS[1])),)), RECIPE.faults),
    )
    assert len({fingerprint(each) for each in (RECIPE, *changed)}) == 4
    assert fingerprint(Recipe(replace(PLAN, tls=False, rate=0), RECIPE.faults)) == fingerprint(RECIPE)
