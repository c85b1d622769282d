"""What `import pekan` gives, and what it must not bring along."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pekan
from pekan.durations import parse_ms, show_ms
from pekan.errors import UsageError


def test_all_is_honest() -> None:
    """Every name in __all__ exists, and importing the package and the judge brings neither grpc nor asyncio servers along."""
    assert all(hasattr(pekan, name) for name in pekan.__all__)
    code = "import pekan, pekan.checkers.judge, sys; sys.exit('grpc' in sys.modules or 'cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("text", "ms"), [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("1.5s", 1_500)])
def test_durations(text: str, ms: int) -> None:
    """Lengths of time are read as people write them, and shown so that they read back the same."""
    assert parse_ms(text) == ms
    assert parse_ms(show_ms(ms)) == ms


@pytest.mark.parametrize("text", ["", "5", "-1s", "5 parsecs", "s"])
def test_no_duration(text: str) -> None:
    """What is no length of time is refused with an example of one."""
    with pytest.raises(UsageError, match="30s"):
        parse_ms(text, "--time")
