"""The watch checker of the core and that of the reference say the same of the same record, and merge the same evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle.fuzz import samples
from pekan import native
from pekan.checkers.case import Case, Options
from pekan.checkers.kv import check_kv
from pekan.checkers.native.watch import check_watch as check_watch_natively
from pekan.checkers.watch import check_watch

from .engines import copied, evidence_twice, recorded, said

CASES = 150
"""Of each kind: about five seconds."""

pytestmark = pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")


@pytest.mark.parametrize("ordered", [True, False], ids=["with the replayed order", "with watches alone"])
def test_both_engines_say_the_same_of_simulated_watches(ordered: bool, tmp_path: Path) -> None:
    """Valid or mutated, every finding, count, reason and fork is equal, and so is every revision of the merged evidence."""
    judged = broken = 0
    for sample in samples(1 if ordered else 2, CASES):
        case = Case(sample.history, Options(writers="shared" if sample.seed % 7 == 0 else "exclusive", budget_s=2.0))
        check_kv(case)
        if not ordered:
            case.order = None
        twice = recorded(copied(case), tmp_path)
        if twice is None:
            continue
        there, core = twice
        reference, merged = evidence_twice(there, core)
        assert merged == reference, str(sample)
        report = check_watch(there)
        assert said(check_watch_natively(core)) == said(report), str(sample)
        assert core.fork == there.fork, str(sample)
        judged += 1
        broken += bool(report.findings)
    assert judged > CASES * 0.9
    assert broken > CASES * 0.05
