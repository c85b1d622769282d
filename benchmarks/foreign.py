"""How fast other people's histories are read: `python benchmarks/foreign.py [--entries N] [--operations N] [--runs N]`.

Writes a Jepsen EDN history and a robustness report of simulated traffic, and reads each with the core and with the reader in Python, one
after the other, several times. Figures are MB (10^6 bytes) of text a second of CPU time, from the file to the history: median, lowest and
highest. What the core reads is compared with what Python reads, so that a fast wrong reader does not count.

Budget: 100 MB/s on one core for both.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pekan.history import History
from pekan.history.foreign import READERS
from pekan.history.foreign.held import read_held

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 32


def write_edn(path: Path, entries: int, seed: int = 1) -> None:
    """Reads, writes and compare-and-sets of `CLIENTS` clients, as Jepsen writes them."""
    rng = random.Random(seed)
    busy: dict[int, tuple[str, str]] = {}
    clock = 0
    with path.open("w") as file:
        for index in range(entries):
            clock += rng.randint(100, 2_000)
            process = rng.randrange(CLIENTS)
            kind = "ok" if process in busy else "invoke"
            if kind == "ok":
                f, value = busy.pop(process)
                value = str(rng.randint(0, 1_000)) if f == "read" else value
            else:
                f = rng.choice(("read", "write", "cas"))
                value = {"read": "nil", "write": str(rng.randint(0, 100_000))}.get(f, f"[{rng.randint(0, 99)} {rng.randint(0, 99)}]")
                busy[process] = (f, value)
            file.write(f"{{:process {process}, :type :{kind}, :f :{f}, :value {value}, :time {clock}, :index {index}}}\n")


def write_report(path: Path, operations: int) -> None:
    """Simulated traffic with a watch of the whole keyspace on three members, as etcd's tests would report it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from simulator.cluster import Config, simulate
    from simulator.robustness import MIX
    from simulator.robustness import write_report as write

    mix = replace(MIX, grant=0, put_lease=0, revoke=0, compact=0, compact_refused=0)
    simulated = simulate(Config(seed=3, operations=operations, clients=8, keys=10, watch=3, mix=mix, indefinite=0.002))
    assert write(simulated.history, path)


def size_of(path: Path) -> int:
    """Bytes of text that a reader of `path` reads."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("client-*/*.json"))


def measure(read: Callable[[], History | None], size: int) -> float:
    """MB a second of CPU time."""
    began = time.process_time()
    read()
    return size / (time.process_time() - began) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, load average {os.getloadavg()[0]:.1f}")
    print("| history | MB | core, MB/s | Python, MB/s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        edn, report = Path(directory) / "history.edn", Path(directory) / "report"
        write_edn(edn, asked.entries)
        write_report(report, asked.operations)
        for form, path in (("edn", edn), ("robustness", report)):
            size = size_of(path)
            held = read_held(path, form)
            assert held is not None, "the core is not there, or declines"
            assert replace(held, operations=tuple(held.operations)) == READERS[form](path)
            del held
            core, reference = [], []
            for _ in range(asked.runs):
                core.append(measure(lambda form=form, path=path: read_held(path, form), size))
                reference.append(measure(lambda form=form, path=path: READERS[form](path), size))
            ratio = statistics.median(a / b for a, b in zip(core, reference, strict=True))
            print(f"| {form} | {size / 1e6:.0f} | {spread(core)} | {spread(reference)} | {ratio:.0f} |", flush=True)


def spread(figures: list[float]) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(figures):.1f} ({min(figures):.1f}-{max(figures):.1f})"


if __name__ == "__main__":
    main()
