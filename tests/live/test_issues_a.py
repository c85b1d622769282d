"""Historical issues on releases that need no build: one attempt where it shows, and one where it does not any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pekan.hunt.planning import make_plan
from pekan.hunt.series import hunt_once
from pekan.issues import ISSUES
from pekan.verdict import Verdict
from stage.releases import NEWEST, provided

pytestmark = pytest.mark.live


def attempt(name: str, version: str, directory: Path) -> Verdict:
    """The verdict over one run of the issue's recipe."""
    recipe = ISSUES[name].run(version)
    plan = make_plan(replace(recipe.plan, etcd=version), (), recipe.faults)
    judged = hunt_once(plan, provided(version), directory / "run", lambda live: None, budget_s=60)
    assert judged.verdict is not None, judged.conducted.failure
    return judged.verdict


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("15220", "3.5.1"),
        ("17529", "3.4.23"),
        ("17780", "3.5.1"),
        ("18089", "3.4.23"),
        ("18667", "3.5.16"),
        ("19179", "3.5.16"),
        ("20221", "3.5.16"),
        ("20221-snapshot", "3.5.16"),
        ("compares-only-stale", NEWEST),
    ],
)
def test_shows_where_it_is(name: str, version: str, tmp_path: Path) -> None:
    """A release that is affected shows the issue by a finding that counts, in a run whose script and faults were done."""
    verdict = attempt(name, version, tmp_path)
    assert any(ISSUES[name].expects(finding) for finding in verdict.findings), (verdict.codes, verdict.undecided)
    assert not verdict.undecided


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("15220", "3.5.16"),
        ("17529", "3.5.30"),
        ("17780", "3.5.16"),
        ("18089", "3.5.16"),
        ("18667", NEWEST),
        ("19179", "3.5.30"),
        ("20221", "3.5.30"),
        ("20221-snapshot", "3.5.30"),
    ],
)
def test_holds_where_it_is_mended(name: str, version: str, tmp_path: Path) -> None:
    """A release with the fix meets the same conditions and keeps the promise."""
    verdict = attempt(name, version, tmp_path)
    assert (verdict.verdict, verdict.codes, verdict.undecided) == ("holds", (), ())
