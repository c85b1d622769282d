"""docs/histories.md: its samples are histories, its lines run, and it names every format."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pekan.history.foreign import READERS, WRITERS, guess, load_any

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "histories.md").read_text(encoding="utf-8")
SAMPLES = [(form, text) for form, text in re.findall(r"^```([\w-]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if form in READERS]
LINES = re.findall(r"^\$ pekan (.+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("form", "text"), SAMPLES, ids=[form for form, _ in SAMPLES])
def test_samples_are_histories(form: str, text: str, tmp_path: Path) -> None:
    """Every sample is recognised as its format and read."""
    (tmp_path / "sample").write_text(text)
    assert guess(tmp_path / "sample") == form
    assert load_any(tmp_path / "sample").operations


def test_every_format_of_one_file_has_a_sample() -> None:
    """Formats that are a text have a sample, and the table names all."""
    assert {form for form, _ in SAMPLES} == READERS.keys() - {"pekan", "robustness"}
    assert all(f"| `{form}` |" in PAGE for form in READERS)
    assert all(f"`{form}`" in PAGE or f"--to {form}" in PAGE for form in WRITERS)


@pytest.mark.parametrize("line", LINES)
def test_lines_run(line: str, tmp_path: Path) -> None:
    """Every line of the page works on its samples."""
    samples = dict(SAMPLES)
    (tmp_path / "register.jsonl").write_text(samples["jsonl"])
    (tmp_path / "history.edn").write_text(samples["edn"])
    ended = subprocess.run(
        [sys.executable, "-m", "pekan", *line.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
