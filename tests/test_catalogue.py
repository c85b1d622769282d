"""The catalogue is documented, and no code exists that nothing can trigger."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from pekan.catalogue import CODES, KNOWN_DEVIATIONS, allowed
from pekan.errors import UsageError

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


def test_known_deviations_are_those_that_are_documented() -> None:
    """`--allow known` is the codes of docs/known-deviations.md in its order; beside it a code is named once, and an unknown one refused."""
    page = (ROOT / "docs" / "known-deviations.md").read_text(encoding="utf-8")
    assert allowed(("known",)) == KNOWN_DEVIATIONS == tuple(re.findall(r"^## ([A-Z-]+)", page, re.MULTILINE))
    assert allowed(("KV-CONTENT", "known", "KV-CONTENT", KNOWN_DEVIATIONS[0])) == ("KV-CONTENT", *KNOWN_DEVIATIONS)
    with pytest.raises(UsageError, match=r"--allow KNOWN: no such finding code.*known"):
        allowed(("known", "KNOWN"))
