"""Historical issues on releases that need no build: one attempt where it shows, and one where it does not any more. Those that take a few
seconds; `make issues` runs them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pekan.checkers.run import unmet
from pekan.hunt.planning import make_plan
from pekan.hunt.series import hunt_once
from pekan.issues import ISSUES
from pekan.verdict import Finding
from stage.releases import NEWEST, provided

pytestmark = pytest.mark.live


def attempt(name: str, version: str, directory: Path) -> tuple[Finding, ...]:
    """The findings that count in one run of the issue's recipe, whose conditions have been met."""
    recipe = ISSUES[name].run(version)
    plan = make_plan(replace(recipe.plan, etcd=version), (), recipe.faults)
    judged = hunt_once(plan, provided(version), directory / "run", lambda live: None)
    assert judged.conducted.failure is None
    assert judged.history is not None
    assert judged.verdict is not None
    found = tuple(finding for finding in judged.verdict.findings if finding.status == "counts")
    assert found or not unmet(judged.history)
    return found


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("13766", "3.5.1"),
        ("14370", "3.5.1"),
        ("14685", "3.5.1"),
        ("15220", "3.5.1"),
        ("15271", "3.5.1"),
        ("17529", "3.4.23"),
        ("17780", "3.5.1"),
        ("18089", "3.4.23"),
        ("18667", "3.5.16"),
        ("20221", "3.5.16"),
        ("20418", "3.5.16"),
        ("compares-only-stale", NEWEST),
    ],
)
def test_shows_where_it_is(name: str, version: str, tmp_path: Path) -> None:
    """A release that is affected shows the issue by a finding that counts."""
    found = attempt(name, version, tmp_path)
    assert any(ISSUES[name].expects(finding) for finding in found), found


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("11651", "3.4.23"),
        ("13766", "3.5.16"),
        ("15220", "3.5.16"),
        ("17529", "3.5.30"),
        ("18089", "3.5.16"),
        ("18667", NEWEST),
        ("20221", "3.5.30"),
    ],
)
def test_holds_where_it_is_mended(name: str, version: str, tmp_path: Path) -> None:
    """A release with the fix meets the same conditions and keeps the promise."""
    assert attempt(name, version, tmp_path) == ()
