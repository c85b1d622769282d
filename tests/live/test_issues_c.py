"""Recipes about followers that are sent a snapshot, and about leaders deposed without knowing it: once with the issue, once without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pekan.checkers.run import unmet
from pekan.hunt.planning import make_plan
from pekan.hunt.series import hunt_once
from pekan.issues import ISSUES
from pekan.verdict import Finding
from stage.releases import provided

pytestmark = pytest.mark.live


def _attempt(name: str, version: str, directory: Path) -> tuple[Finding, ...]:
    """The findings of one run of the recipe, whose conditions have been met."""
    recipe = ISSUES[name].run(version)
    plan = make_plan(replace(recipe.plan, etcd=version, seed=1), (), recipe.faults)
    judged = hunt_once(plan, provided(version), directory / "run", lambda live: None)
    assert judged.conducted.failure is None
    assert judged.history is not None
    assert judged.verdict is not None
    found = tuple(finding for finding in judged.verdict.findings if finding.status == "counts")
    assert found or not unmet(judged.history)
    return found


@pytest.mark.parametrize(
    ("name", "version"),
    [("15271", "3.5.1"), ("20271", "3.5.16"), ("18055", "3.7.3"), ("20418", "3.5.16"), ("20418-links", "3.5.16")],
)
def test_an_affected_release_shows_it(tmp_path: Path, name: str, version: str) -> None:
    """One attempt at an affected release meets the inconsistency."""
    found = _attempt(name, version, tmp_path)
    assert any(ISSUES[name].expects(finding) for finding in found)


@pytest.mark.parametrize(("name", "version"), [("15271", "3.5.30"), ("20271", "3.5.30")])
def test_a_mended_release_does_not(tmp_path: Path, name: str, version: str) -> None:
    """Under the same conditions a release with the fix keeps its promises."""
    assert _attempt(name, version, tmp_path) == ()
