"""What a record takes of memory is known beforehand, and a verdict says so where it is not there."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from pekan.checking import check
from pekan.history.memory import available_bytes, cgroup_left_bytes, too_large
from pekan.history.reading import load
from simulator.cluster import Config, simulate
from simulator.recording import write_history


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_half_of_what_is_available(engine: str, tmp_path: Path) -> None:
    """A file that takes more than half of the memory is refused with both figures, one that does not is not."""
    file = tmp_path / "history.pb"
    file.write_bytes(bytes(1_000_000))
    assert too_large([file], engine, available=20_000_000) == ""
    assert "available" in too_large([file], engine, available=2_000_000)


def test_the_kernel_says_what_is_available() -> None:
    """On Linux what is available is known, and is no more than the machine has."""
    available = available_bytes()
    assert available is not None
    assert 0 < available < 1 << 50


@pytest.mark.parametrize(
    ("limit", "current", "stat", "left"),
    [
        ("1000", "900", "anon 200\nactive_file 300\ninactive_file 400\n", 800),
        ("1000", "1000", "anon 990\nactive_file 0\ninactive_file 10\n", 10),
        ("1000", "1020", "active_file 0\ninactive_file 0\n", 0),
        ("max", "900", "active_file 300\ninactive_file 400\n", None),
    ],
)
def test_cached_files_of_a_cgroup_are_no_less_available(limit: str, current: str, stat: str, left: int | None, tmp_path: Path) -> None:
    """What the kernel would take back from files that were read and written is still to be had; without a limit a cgroup says nothing."""
    for name, content in (("memory.max", limit), ("memory.current", current), ("memory.stat", stat)):
        (tmp_path / name).write_text(content)
    assert cgroup_left_bytes(tmp_path) == left
    assert cgroup_left_bytes(tmp_path / "none") is None


def test_what_is_too_large_is_undecided(tmp_path: Path) -> None:
    """A history that was not read for its size gives `undecided` with the bound and what would decide, not `holds` of nothing."""
    file = tmp_path / "history.pb"
    write_history(simulate(Config(seed=1, operations=50)).history, file)
    history = load(file)
    assert not history.too_large
    verdict = check(replace(history, operations=(), too_large=too_large([file], "reference", available=1)))
    assert verdict.verdict == "undecided"
    assert "GB" in verdict.undecided[0].reason
    assert verdict.undecided[0].would_decide


def test_history_after_history_leaves_nothing_behind(tmp_path: Path) -> None:
    """What reading one history took is given back when the history goes, without waiting for the collector."""
    file = tmp_path / "history.pb"
    write_history(simulate(Config(seed=1, operations=50, watch=1)).history, file)
    load(file, engine="reference")
    # What reading leaves it leaves each time; what a thread of the test runner leaves meanwhile is there once.
    left = list(takewhile(bool, (left_of(lambda: load(file, engine="reference")) for _ in range(5))))
    assert len(left) < 5, left


def left_of(work: Callable[[], object]) -> list[str]:
    """The types of what only the collector takes away after `work`."""
    gc.collect()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        work()
        gc.collect()
        return [type(each).__name__ for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
