"""How much memory judging a record takes, and whether that is there: half of what is available, and no more.

A process that is killed for its memory gives no verdict; one that asks beforehand says `undecided`, and what would decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SHARE = 0.5
"""Of the memory that is available: the rest is for the members of a hunt beside it, and for the page cache that holds the record."""
PER_BYTE = {"reference": 6.5, "native": 1.2}
"""Bytes of memory for a byte of record, from reading to the verdict; docs/benchmarks.md has the measurements behind them."""
TEXT_PER_BYTE = {"reference": 7.0, "native": 3.0}
"""The same for a byte of another tool's text. Measured from file to verdict: 4.5 and 1.6 (EDN of a register), 4.6 and 2.0 (a robustness
report of 86 MB); short entries with distinct values take more."""
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """What this process may still take, by the kernel's estimate and by its cgroup's limit; None where neither says (not Linux)."""
    known = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    left = cgroup_left_bytes(_CGROUP)
    if left is not None:
        known.append(left)
    return min(known, default=None)


def cgroup_left_bytes(cgroup: Path) -> int | None:
    """What a cgroup (version 2) may still take; None where it has no limit.

    Cached files count as used (memory.current), and whoever writes much has the cgroup full of them soon; the kernel takes that memory back
    when it is asked for, and counts it as available where it speaks of the whole machine (Documentation/admin-guide/cgroup-v2.rst).
    """
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))  # ValueError where it says "max"
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        told = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(told["active_file"]) + int(told["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return None


def too_large(files: Iterable[Path], engine: str, available: int | None = None, per_byte: dict[str, float] = PER_BYTE) -> str:
    """Why `files` cannot be judged by `engine` ("native" or "reference") here, empty where they can.

    `available`: bytes, where the caller knows better than the kernel.
    """
    size = sum(file.stat().st_size for file in files if file.exists())
    there = available_bytes() if available is None else available
    need = int(size * per_byte[engine])
    if there is None or need <= there * SHARE:
        return ""
    return (
        f"judging {size / 1e6:,.0f} MB by the {engine} engine takes about {need / 1e9:,.1f} GB of memory, "
        f"more than half of the {there / 1e9:,.1f} GB that are available"
    )
