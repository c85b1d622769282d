"""The catalogue is documented, and no code exists that nothing can trigger."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from pekan.catalogue import CODES

ROOT = Path(__file__).parent.parent


def test_findings_page_is_the_catalogue() -> None:
    """docs/findings.md says what the catalogue says."""
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["findings"]()
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == generated, "run docs/generate.py"


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_planted_sample(code: str) -> None:
    """Each code is named by a test of the checkers, where its planted violation stands."""
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "checkers").glob("test_*.py")]
    assert any(f'"{code}"' in text for text in tests), f"no test in tests/checkers plants {code}"


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_emitted(code: str) -> None:
    """Each code is emitted by a checker; the catalogue holds no dead promises."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "pekan" / "checkers").rglob("*.py")]
    assert any(f'"{code}"' in text for text in sources), f"no checker emits {code}"
