"""Historical issues on releases that need no build: a run where it shows, and one where it does not any more. Those that take a few
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

ATTEMPTS = 10
"""Runs of a recipe until one shows the issue, or meets its conditions: one into which the machine brings an election, or a stalled disk,
may do neither. Measured are ten runs of ten, or nine: what shows in six of ten is missed by ten runs in one of ten thousand cases."""


def attempt(name: str, version: str, directory: Path, seed: int) -> tuple[tuple[Finding, ...], str]:
    """The findings that count in one run of the issue's recipe, and why its conditions have not been met, "" where they have."""
    recipe = ISSUES[name].run(version)
    plan = make_plan(replace(recipe.plan, etcd=version, seed=seed), (), recipe.faults)
    judged = hunt_once(plan, provided(version), directory / f"run-{seed}", lambda live: None)
    found = tuple(finding for finding in judged.verdict.findings if finding.status == "counts") if judged.verdict is not None else ()
    if judged.conducted.failure is not None:
        return found, str(judged.conducted.failure)
    assert judged.history is not None
    return found, "; ".join(each.reason for each in unmet(judged.history))


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
        ("22386", "3.5.30"),
        ("CVE-2026-33343", "3.5.16"),
        ("CVE-2026-33413", "3.5.16"),
        ("CVE-2026-44283", "3.5.16"),
        ("CVE-2026-73499", "3.5.30"),
        ("compares-only-stale", NEWEST),
    ],
)
def test_shows_where_it_is(name: str, version: str, tmp_path: Path) -> None:
    """A release that is affected shows the issue by a finding that counts."""
    attempts = []
    for seed in range(1, ATTEMPTS + 1):
        found, why_not = attempt(name, version, tmp_path, seed)
        if any(map(ISSUES[name].expects, found)):
            return
        attempts.append((found, why_not))
    raise AssertionError(attempts)


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
        ("22386", NEWEST),
        ("CVE-2026-33343", "3.5.30"),
        ("CVE-2026-33413", "3.5.30"),
        ("CVE-2026-44283", "3.5.30"),
        ("CVE-2026-73499", NEWEST),
    ],
)
def test_holds_where_it_is_mended(name: str, version: str, tmp_path: Path) -> None:
    """A release with the fix meets the same conditions and keeps the promise."""
    attempts = []
    for seed in range(1, ATTEMPTS + 1):
        found, why_not = attempt(name, version, tmp_path, seed)
        assert found == ()
        if not why_not:
            return
        attempts.append(why_not)
    raise AssertionError(attempts)
