"""What a series of runs says: findings by signature, and the exit code of the worst run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan.errors import ClusterFailure, PekanError
from pekan.history.run import RunDirectory
from pekan.hunt.run import Conducted
from pekan.hunt.series import Judged, grouped, worst
from pekan.plan import Plan
from pekan.verdict import Exhibit, Finding, Undecided, Verdict

FINDING = Finding("KV-CONTENT", "s", "e", (Exhibit("a"),), {}, ("put",), count=2)
OTHER = Finding("WATCH-ORDERED", "s", "e", (Exhibit("a"),), {}, ("watch",))
ALLOWED = Finding("KV-CONTENT", "s", "e", (Exhibit("a"),), {}, ("put",), status="allowed", because="--allow KV-CONTENT")


def judged(*findings: Finding, reason: str = "finished", failure: PekanError | None = None, judgeable: bool = True) -> Judged:
    verdict = Verdict(findings, (), "real-time", 1, 0.0) if judgeable else None
    return Judged(Plan("3.5.1", 1), Conducted(RunDirectory(Path("run")), reason, failure), None, verdict, 1.0)


def test_findings_are_grouped_over_runs() -> None:
    """The same signature in several runs is one row with times and runs; what does not count is no row."""
    rows = grouped([judged(FINDING), judged(FINDING, OTHER), judged(ALLOWED)])
    assert [(first.code, times, runs) for first, times, runs in rows] == [("KV-CONTENT", 4, 2), ("WATCH-ORDERED", 1, 1)]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (judged(), 0),
        (judged(FINDING), 1),
        (judged(ALLOWED), 0),
        (judged(reason="interrupted"), 130),
        (judged(FINDING, reason="interrupted"), 130),
        (judged(reason="recorder", failure=ClusterFailure("full")), 4),
        (judged(FINDING, reason="recorder", failure=ClusterFailure("full")), 1),
        (judged(judgeable=False, failure=ClusterFailure("no start")), 4),
        (judged(judgeable=False), 3),
        (Judged(Plan("3.5.1", 1), judged().conducted, None, Verdict((), (Undecided("a", "b"),), "real-time", 1, 0.0), 1.0), 3),
    ],
)
def test_exit_code_of_a_run(run: Judged, code: int) -> None:
    """Interrupted is 130; a broken promise outranks what kept the run from its end; else the failure's or the verdict's code."""
    assert run.exit_code == code


@pytest.mark.parametrize(("codes", "code"), [([0, 3, 1, 4], 1), ([0, 3, 4], 4), ([0, 3], 3), ([0, 0], 0), ([], 0), ([3, 2], 2)])
def test_worst(codes: list[int], code: int) -> None:
    """The worst of 1, 4, 2, 3, 0 in that order."""
    assert worst(codes) == code
