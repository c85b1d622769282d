"""Real etcd executables for tests that read them and start nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries import find_installed
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.points import Points


def executable(version: str) -> Path:
    """The cached executable of a release; the test is skipped where there is none."""
    try:
        return find_installed(version).path
    except BinaryUnavailable as missing:
        pytest.skip(str(missing))


@cache
def points(version: str) -> Points:
    """The points of that executable."""
    return Points(GoBinary(executable(version)), version)
