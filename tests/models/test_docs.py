"""docs/models.md is true: its examples run, and its table is that of the models."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from pekan.checking import MODELS
from pekan.models.object import Model
from pekan.models.ready import READY

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"


def test_the_examples_run() -> None:
    """Every example of the page prints what the page says."""
    ran = doctest.testfile(str(PAGE), module_relative=False)
    assert ran.attempted > 10
    assert ran.failed == 0


def test_the_table_is_complete() -> None:
    """The page has every model that `--model` takes, with every call that it knows, and every hint."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    calls: dict[str, set[str]] = {}
    name = ""
    for row in rows:
        if row[1].strip("`") in MODELS:
            name = row[1].strip("`")
        calls.setdefault(name, set()).update(re.findall(r"`([a-z]+)`", row[2]))
    assert set(calls) - {""} >= set(MODELS)
    for model, known in READY.items():
        assert calls[model] >= set(known.calls), model
    hints = {name for name in vars(Model) if not name.startswith("_")} - {"name", "calls", "init", "step"}
    assert all(f"`{hint}`" in text for hint in hints)
