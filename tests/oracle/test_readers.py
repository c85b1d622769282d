"""A part of the fuzzing of `oracle.readers`, the same one in every run."""

from __future__ import annotations

from pathlib import Path

from oracle.readers import fuzz, fuzz_reports


def test_no_reader_crashes_and_both_read_the_same(tmp_path: Path) -> None:
    """Generated histories read back in every format; spoilt ones are read or refused, and the core never takes what Python refuses."""
    counts, found = fuzz(1_500, 1, tmp_path)
    assert not found, "\n\n".join(map(str, found))
    assert counts["taken"] > 300
    assert counts["refused"] > 300


def test_no_spoilt_report_crashes_the_reader(tmp_path: Path) -> None:
    """A robustness report with something wrong in one of its files is read or refused."""
    counts, found = fuzz_reports(60, 1, tmp_path)
    assert not found, "\n\n".join(map(str, found))
    assert counts["refused"] > 10
