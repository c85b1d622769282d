"""Derived files of a run: verdict.json, replaced atomically, left out with a note where the directory is read-only."""

from __future__ import annotations

from pathlib import Path

from pekan.errors import EvidenceError
from pekan.history.run import RunDirectory
from pekan.report.terminal import NO_HINTS, Hints, verdict_json
from pekan.verdict import Verdict


def keep_verdict(path: Path, verdict: Verdict, hints: Hints = NO_HINTS, **extra: object) -> str | None:
    """Write `verdict` beside the evidence of the run at `path`; a note where that was not possible or `path` is no run."""
    if not path.is_dir():
        return None
    try:
        run = RunDirectory.open(path)
    except EvidenceError:
        return None
    return run.write_derived("verdict.json", verdict_json(verdict, hints, **extra))
