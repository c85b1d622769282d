"""A record judged while it grows: what the core suspects, when, and in how much memory."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from pekan import native
from pekan.history.types import History
from pekan.wire.errors import WireError, is_definite
from simulator.cluster import Config, Simulated, simulate
from simulator.mutations import MUTATIONS
from simulator.recording import write_history

pytestmark = pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")

SEEN = (
    "stale read",
    "wrong value",
    "wrong version",
    "wrong mod revision",
    "duplicated slot",
    "resurrected key",
    "revision rollback",
    "dropped key",
    "wrong count",
    "refused but applied",
    "watch: reordered events",
    "watch: dropped event",
    "watch: duplicated event",
    "watch: progress before event",
)
"""Broken promises of the catalogue of lies that must not wait for the end of a run."""


def followed(history: History, path: Path, piece: int = 4_096) -> tuple[list[tuple[str, int, int]], int, Any]:
    """What the core suspects of `history`, fed in pieces as a recorder would append them; the largest window; the checker at the end."""
    write_history(history, path)
    live = native.core.Live(lambda code, message: is_definite(WireError(code, message)))
    data = path.read_bytes()
    suspicions, window = [], 0
    for start in range(0, len(data), piece):
        suspicions += live.feed(data[start : start + piece])
        window = max(window, live.window)
    return suspicions, window, live


def sample(seed: int) -> Simulated:
    return simulate(Config(seed=seed, operations=400, clients=6, keys=5, watch=3, progress=0.2, lag=0.2, reconnect=0.1))


@pytest.mark.parametrize("seed", range(15))
def test_what_is_right_is_not_suspected(seed: int, tmp_path: Path) -> None:
    """A history that an etcd may have given wakes no suspicion, lost answers, lagging members and broken streams included."""
    suspicions, _, live = followed(sample(seed).history, tmp_path / "history.pb")
    assert [each for each in suspicions if each[0] != "COMPARES-ONLY-STALE"] == []
    assert live.settled is not None
    assert live.settled > 50


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in SEEN], ids=lambda m: m.name.replace(" ", "-"))
def test_what_is_broken_is_suspected(mutation: Any, tmp_path: Path) -> None:
    """Each lie of the list is suspected in most histories that hold it, and in none of them only after the record's end."""
    found = tried = 0
    for seed in range(8):
        simulated = sample(seed)
        lying = mutation.change(simulated, Random(seed))
        if lying is not None:
            tried += 1
            suspicions, _, _ = followed(lying, tmp_path / f"{seed}.pb")
            found += bool(suspicions)
    assert tried >= 3
    # Some lies tell of the past (an old revision, a sorted list), which only the whole check looks at.
    assert found >= tried / 2, f"{found} of {tried}"


def test_memory_does_not_grow_with_the_record(tmp_path: Path) -> None:
    """The window depends on what happens within a timeout, not on how long the record is."""
    windows = []
    for operations in (3_000, 12_000):
        config = Config(seed=5, operations=operations, clients=8, keys=20, watch=3, indefinite=0.01)
        _, window, live = followed(simulate(config).history, tmp_path / f"{operations}.pb")
        assert live.operations == operations
        assert live.settled == live.reached
        windows.append(window)
    assert windows[1] < 2 * windows[0]


def test_damage_is_named(tmp_path: Path) -> None:
    """A changed byte in the middle of a growing record is an error that names the byte, never a panic."""
    write_history(sample(1).history, tmp_path / "history.pb")
    data = bytearray((tmp_path / "history.pb").read_bytes())
    data[len(data) // 2] ^= 0x40
    live = native.core.Live(lambda code, message: True)
    with pytest.raises(ValueError, match=r"byte [0-9]+"):
        live.feed(bytes(data))
