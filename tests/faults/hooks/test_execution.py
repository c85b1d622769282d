"""Random machine code does the same with hooks in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = 150
HOOKS_MIN = 3 * CASES  # of six that are tried in each; the others would cover a call's return or a jump's target


@pytest.mark.parametrize("seed", [1, 2])
def test_hooked_functions_compute_what_they_computed_before(seed: int) -> None:
    """Registers, flags and calls are as without hooks, and every hook counts and fires as often as its instruction runs."""
    program = Path(__file__).with_name("executing.py")
    result = subprocess.run([sys.executable, str(program), str(seed), str(CASES)], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > HOOKS_MIN
