"""Real etcd executables for tests that read them and start nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.points import Points
from stage.releases import provided


def executable(version: str) -> Path:
    """The executable of a release."""
    return Path(provided(version).path)


@cache
def points(version: str) -> Points:
    """The points of that executable."""
    return Points(GoBinary(executable(version)), version)
