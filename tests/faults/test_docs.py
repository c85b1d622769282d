"""docs/faults.md says what the registry says, and what a person types from it works."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from pekan.faults import CLASSES, INJECTORS, kinds_of, parse

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def test_the_page_is_the_registry() -> None:
    """Regenerated, the page is the same: every kind with its parameters, promise and needs."""
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["faults"]()
    assert PAGE.read_text(encoding="utf-8") == generated, "run docs/generate.py"


def test_every_kind_has_an_example_that_parses() -> None:
    """Each `--fault` in the page is taken, and there is one for every kind; so is each `--faults`."""
    text = PAGE.read_text(encoding="utf-8")
    examples = [parse(spec) for spec in re.findall(r"pekan hunt [^\n]*--fault '([^']+)'", text)]
    assert {fault.kind for fault in examples} == set(INJECTORS)
    for names in re.findall(r"pekan hunt --faults ([a-z,-]+)", text):
        kinds_of(names.split(","))
    assert all(f"`{name}`" in text for name in CLASSES)


def test_every_kind_is_told_in_a_sentence() -> None:
    """Each kind has a summary, each parameter a meaning, and each bare length of time a parameter that it sets."""
    for kind, injector in INJECTORS.items():
        assert re.fullmatch(r"[a-z][a-z0-9-]*", kind)
        assert len(injector.summary) > 15, kind
        assert all(parameter.meaning for parameter in injector.parameters.values()), kind
        assert not injector.duration or injector.parameters[injector.duration].unit == "ms", kind
        assert injector.promise in ("within", "liveness", "lease-time", "outside"), kind
