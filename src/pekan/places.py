"""Where Pekan keeps things of its own: runs that were given no other place, and journals of what has to be removed again."""

from __future__ import annotations

import os
from pathlib import Path


def data_directory() -> Path:
    """$PEKAN_DATA, else `pekan` in the user's data directory ($XDG_DATA_HOME, else ~/.local/share)."""
    if named := os.environ.get("PEKAN_DATA"):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "pekan"
