"""What judging costs: the reference checkers over 10 thousand, 100 thousand and a million operations.

::

    python benchmarks/checking.py           10k, 100k and 1M operations, about ten minutes
    python benchmarks/checking.py --quick   10k and 100k, three runs each, under a minute

The histories are simulated (tests/simulator): 64 clients over 100 keys, 10 % lists (of a prefix, limit 20), 1 % indefinite operations, a
watch of the whole keyspace with previous values on each of three members. Each is written once as a real record file. Every run is a
process of its own that reads the file, then judges; runs of all sizes are interleaved so that a slow minute of the machine hits all alike,
and beside each stands a calibration loop (fixed pure-Python work), by which figures of different machines and minutes can be compared.

Seconds are CPU seconds of that one single-threaded process: what one core does, whoever else is on the machine.

=========  =====================================================================================
column     what
=========  =====================================================================================
kv         operations a second of the key-value checker, decoded in memory, merging the watch evidence included
kv alone   the same without that merging, which all checkers share
all        the same of all checkers together
file       operations a second from the file to the verdict: reading, decoding, all checkers
RSS        peak resident memory of that process
=========  =====================================================================================

Figures are medians with the lowest and highest run. Nothing is written but temporary files.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = {10_000: 7, 100_000: 7, 1_000_000: 3}
"""Operations -> runs. The million is run three times only: a run takes a minute and its spread is the smallest."""
QUICK = {10_000: 3, 100_000: 3}
CALIBRATION_STEPS = 2_000_000
"""Enough work for 100 ms or so, far above the clock's grain."""


def calibrate() -> float:
    """Seconds for fixed pure-Python work: integers, a dict, a list."""
    began = time.process_time()
    table: dict[int, int] = {}
    total = 0
    for step in range(CALIBRATION_STEPS):
        total = (total * 31 + step) & 0xFFFF
        if step & 7 == 0:
            table[total] = step
    return time.process_time() - began


def make(operations: int, path: Path) -> None:
    """Simulates a history of `operations` and writes it to `path`."""
    sys.path.insert(0, str(ROOT / "tests"))
    from simulator.cluster import Config, simulate
    from simulator.recording import write_history
    from simulator.traffic import Mix

    mix = Mix(
        put=38, get=16, list=10, old=2, local=6, delete=6, delete_range=0, cas=12, txn=6, nested=1, read_txn=1,
        ranged_txn=0, grant=0.2, put_lease=1, revoke=0.1, ignore=0.6, compact=0.01, compact_refused=0.01,
    )  # fmt: skip
    simulated = simulate(Config(seed=1, operations=operations, clients=64, keys=100, mix=mix, indefinite=0.01, watch=3, list_limit=20))
    write_history(simulated.history, path)


def measure(path: Path) -> dict[str, float]:
    """One run: seconds of each step, and the peak memory of this process in bytes."""
    from pekan.checkers.case import Case, Options
    from pekan.checkers.evidence import watched
    from pekan.checkers.judge import judge
    from pekan.checkers.kv import check_kv
    from pekan.history.reading import load

    calibration = calibrate()
    began = time.process_time()
    history = load(path)
    loaded = time.process_time()
    verdict = judge(history, Options())
    judged = time.process_time()
    if verdict.verdict == "broken":
        raise SystemExit(f"a false alarm over a history that is right: {verdict.codes}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gc.collect()
    gc.disable()  # as judge does around all checkers
    case = Case(history)
    started = time.process_time()
    watched(case)
    merged = time.process_time()
    report = check_kv(case)
    done = time.process_time()
    if report.undecided:
        print(f"undecided: {report.undecided[0].reason}", file=sys.stderr)
    return {
        "operations": len(history.operations),
        "calibration": calibration,
        "kv": done - started,
        "kv alone": done - merged,
        "all": judged - loaded,
        "file": judged - began,
        "rss": peak,
    }


def child(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark step {arguments} failed (its message is above)")
    return done.stdout


def rate(runs: list[dict[str, float]], column: str) -> str:
    rates = sorted(run["operations"] / run[column] for run in runs)
    return f"{statistics.median(rates):>9,.0f} ({rates[0]:,.0f}-{rates[-1]:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="What judging costs, in operations a second and memory.")
    parser.add_argument("--quick", action="store_true", help="10k and 100k operations, three runs each")
    parser.add_argument("--make", nargs=2, metavar=("OPERATIONS", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(int(options.make[0]), Path(options.make[1]))
        return
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return
    sizes = QUICK if options.quick else SIZES
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as directory:
        files = {size: Path(directory) / f"{size}.pb" for size in sizes}
        for size, path in files.items():
            print(f"simulating {size:,} operations ...", file=sys.stderr)
            child("--make", str(size), str(path))
        for turn in range(max(sizes.values())):
            for size, wanted in sizes.items():
                if turn < wanted:
                    print(f"run {turn + 1} of {wanted}, {size:,} operations ...", file=sys.stderr)
                    runs[size].append(json.loads(child("--measure", str(files[size]))))
        bytes_of = {size: path.stat().st_size for size, path in files.items()}
    show(runs, bytes_of)


def show(runs: dict[int, list[dict[str, float]]], bytes_of: dict[int, int]) -> None:
    everything: list[dict[str, Any]] = [run for of_size in runs.values() for run in of_size]
    calibrations = sorted(run["calibration"] for run in everything)
    print(f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}, one core used")
    print(f"calibration loop: {statistics.median(calibrations) * 1e3:.0f} ms ({calibrations[0] * 1e3:.0f}-{calibrations[-1] * 1e3:.0f})")
    print("operations per CPU second, median (lowest-highest)")
    print(f"{'operations':>12} {'runs':>4} {'kv':>28} {'kv alone':>28} {'all':>28} {'file':>28} {'RSS':>9} {'file size':>9}")
    for size, of_size in runs.items():
        columns = " ".join(f"{rate(of_size, column):>28}" for column in ("kv", "kv alone", "all", "file"))
        rss = max(run["rss"] for run in of_size) / 2**20
        print(f"{size:>12,} {len(of_size):>4} {columns} {rss:>5,.0f} MiB {bytes_of[size] / 2**20:>5,.0f} MiB")


if __name__ == "__main__":
    main()
