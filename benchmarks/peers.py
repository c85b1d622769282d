"""Pekan beside Porcupine, on the same files: `python benchmarks/peers.py [--quick] [--only WORD] [--write docs/benchmarks.md]`.

::

    etcd_run, object_runs ──> files ──┬──> python peers.py --ours ...     a process a run: reads, then checks
                                      └──> porcupine/ (Go, built here)    the same; 60 s and 12 GiB at most

Both sides take turns, seven runs each, so that a slow minute of the machine meets both; beside stands a calibration loop (fixed pure-Python
work). *checking* is what the checker takes once the history is in memory, *all* is from the file to the answer; the start of a process
(Python's imports, Go's runtime) is in neither. Seconds are CPU seconds of a process on one core (GOMAXPROCS=1), so that other work on the
machine counts for neither. Figures are medians with the lowest and the highest run, ratios are those of the runs of one turn. A peer that
ran out of time or memory once is not asked again; what it had used by then is shown.

The peer is the newest release of Porcupine with models of ours, which hash and share what does not change; its model of etcd looks at the
revision of an answer first, and is several times faster than the one in etcd's robustness tests on the same files. It checks key-value
requests only, and not what watches, leases or serializable reads show; Pekan checks all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = 7
TIMEOUT_S = 60
"""Of the peer, for one file."""
MEMORY_KIB = 12 << 20
"""Of the peer's address space: 12 GiB. What grows beyond is not going to be done in time either."""
WARM_BYTES = 50 << 20
"""A smaller file is judged once before it is measured: what Python makes at first use belongs to neither column."""
SHORT = 100
"""Short histories of a register, timed together."""

# ---- our side, in a process of its own ----


def calibrate() -> float:
    """Seconds for fixed pure-Python work."""
    began = time.process_time()
    total = 0
    for i in range(5_000_000):
        total += i & 7
    return time.process_time() - began


def resident() -> int:
    """Peak resident bytes of this process."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))


def judged(path: Path, model: str) -> tuple[float, float, str, str]:
    """(seconds of reading, seconds of judging, answer, engine) by all that `pekan.check` does."""
    from pekan.checkers.case import Options
    from pekan.checkers.judge import judge
    from pekan.history.foreign import load_any

    began = time.process_time()
    history = load_any(path, None, engine="auto")
    read = time.process_time()
    verdict = judge(history, Options(model=None if model == "etcd" else model), "auto")
    return read - began, time.process_time() - read, verdict.verdict, verdict.engine


def searched(path: Path, model: str) -> tuple[float, float, str, str]:
    """The same by the generic engine alone, with the model that the core has."""
    from pekan.history.foreign import load_any
    from pekan.models.ready import ready

    began = time.process_time()
    history = load_any(path, None, engine="auto")
    read = time.process_time()
    return read - began, *decided(history, ready(model))


def searched_in_python(path: Path, model: str) -> tuple[float, float, str, str]:
    """The same by the generic engine, with a model that is written in Python: the core knows its like, and not this one."""
    from pekan.history.foreign import load_any
    from pekan.models.ready import ready

    machine = ready(model)
    own = type("Own", (type(machine),), {})()
    began = time.process_time()
    history = load_any(path, None, engine="auto")
    read = time.process_time()
    taken, word, engine = decided(history, own)
    return read - began, taken, word, f"{engine}, model in Python"


def decided(history: Any, model: Any) -> tuple[float, str, str]:
    """(seconds, answer, engine) of the generic engine alone: like the peer, it says whether, and not which few operations say so."""
    from pekan.models.ready import READY
    from pekan.native import core

    objects, bounds, monitors = history.operations.objects, (None, None, None), False
    began = time.process_time()
    if type(model) is READY[model.name]:
        *_, found = core.judge_objects(objects, model.name, monitors, *bounds)
    else:
        *_, found = core.judge_model(objects, model, *bounds)
    taken = time.process_time() - began
    words = {told[2] for told in found}
    return taken, "broken" if "illegal" in words else "undecided" if "unknown" in words else "holds", "generic (native)"


def only_read(path: Path, model: str) -> tuple[float, float, str, str]:
    """Reading alone."""
    from pekan.history.foreign import load_any

    began = time.process_time()
    load_any(path, None, engine="auto")
    return time.process_time() - began, 0.0, "read", ""


OURS: dict[str, Callable[[Path, str], tuple[float, float, str, str]]] = {
    "judged": judged,
    "searched": searched,
    "searched in Python": searched_in_python,
    "read": only_read,
}


def ours(way: str, model: str, files: Sequence[str]) -> None:
    """What a child process does: prints its figures over all `files` as JSON."""
    calibration = calibrate()
    import pekan.checkers.judge
    import pekan.checkers.objects
    import pekan.history.foreign  # noqa: F401

    if Path(files[0]).is_file() and Path(files[0]).stat().st_size < WARM_BYTES:
        OURS[way](Path(files[0]), model)
    before = resident()
    figures = [OURS[way](Path(file), model) for file in files]
    answers = sorted({answer for _, _, answer, _ in figures})
    print(
        json.dumps(
            {
                "read_s": sum(f[0] for f in figures),
                "check_s": sum(f[1] for f in figures),
                "answer": ", ".join(answers),
                "engine": figures[0][3],
                "grown": resident() - before,
                "calibration": calibration,
            }
        )
    )


# ---- both sides ----


@dataclass(frozen=True)
class Row:
    """One line of the table: what is judged, by which model and way, and what is to be reached."""

    what: str
    files: tuple[Path, ...]
    model: str
    way: str
    goal: str
    peer: bool = True
    runs: int = RUNS


def child(row: Row) -> dict[str, Any]:
    command = [sys.executable, __file__, "--ours", row.way, row.model, *map(str, row.files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def peer(binary: Path, row: Row) -> dict[str, Any]:
    """The figures of the peer over all files; only "gave_up" (CPU seconds) where it ran out of time or memory on one."""
    limited = ["sh", "-c", f'ulimit -v {MEMORY_KIB}; exec "$@"', "sh", str(binary), "--model", row.model, "--timeout", f"{TIMEOUT_S}s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "GOMAXPROCS": "1"}
    # Beyond its own timeout it gets as long again for reading and for noticing.
    try:
        files = map(str, row.files)
        done = subprocess.run([*limited, *files], capture_output=True, text=True, check=False, timeout=2 * TIMEOUT_S, env=environment)
        answered = not done.returncode
        if not answered and "memory" not in done.stderr:
            raise SystemExit(f"the peer failed on {row.what}: {done.stderr[-2000:]}")
        told = [json.loads(line) for line in done.stdout.splitlines()]
    except subprocess.TimeoutExpired:
        answered, told = False, []
    if not answered or any(one["answer"] == "unknown" for one in told):
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"gave_up": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    return {
        "read_s": sum(one["read_s"] for one in told),
        "check_s": sum(one["check_s"] for one in told),
        "answer": ", ".join(sorted({one["answer"] for one in told})),
        "unanswered": sum(one["unanswered"] for one in told),
    }


def build(directory: Path) -> Path | None:
    """The peer, built where there is Go."""
    if shutil.which("go") is None:
        print("no Go here: Pekan is measured alone", file=sys.stderr)
        return None
    binary = directory / "porcupine-peer"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=ROOT / "benchmarks" / "porcupine", check=True)
    return binary


SAME = {"holds": "ok", "broken": "illegal", "broken, holds": "illegal, ok"}


def measure(row: Row, binary: Path | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """(our runs, the peer's: None where it is not asked; one where it gave up)"""
    mine: list[dict[str, Any]] = []
    its: list[dict[str, Any]] | None = None if binary is None or not row.peer else []
    asked = its is not None
    for run in range(row.runs):
        print(f"{row.what}: run {run + 1} of {row.runs}", file=sys.stderr)
        mine.append(child(row))
        if asked:
            assert binary is not None
            assert its is not None
            told = peer(binary, row)
            if "gave_up" in told:
                asked, its = False, [told]
            else:
                its.append(told)
                if SAME.get(mine[-1]["answer"]) != told["answer"]:
                    raise SystemExit(f"{row.what}: Pekan says {mine[-1]['answer']}, Porcupine {told['answer']}")
    return mine, its


# ---- the table ----


def seconds(values: Sequence[float]) -> str:
    """Median (lowest-highest), in a unit that fits."""
    unit, scale = ("s", 1.0) if statistics.median(values) >= 1 else ("ms", 1e3) if statistics.median(values) >= 1e-3 else ("us", 1e6)
    low, middle, high = min(values) * scale, statistics.median(values) * scale, max(values) * scale
    digits = 2 if middle < 10 else 1 if middle < 100 else 0
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}-{high:.{digits}f})"


def ratio(mine: Sequence[float], its: Sequence[float]) -> str:
    ratios = [theirs / own for own, theirs in zip(mine, its, strict=True)]
    digits = 1 if statistics.median(ratios) < 10 else 0
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f}-{max(ratios):.{digits}f})"


def line(row: Row, mine: list[dict[str, Any]], its: list[dict[str, Any]] | None) -> str:
    """The row of the table."""
    checking = [run["check_s"] for run in mine]
    everything = [run["read_s"] + run["check_s"] for run in mine]
    size = sum(
        sum(f.stat().st_size for f in file.rglob("*") if f.is_file()) if file.is_dir() else file.stat().st_size for file in row.files
    )
    what, first = row.what, seconds(checking)
    if row.way == "read":
        first = "-"
        what += f", {size / 1e6:.0f} MB: {size / 1e6 / statistics.median(everything):.0f} MB/s"
    elif row.goal.endswith("MiB"):
        what += f", {(statistics.median(run['grown'] for run in mine) - size) / (1 << 20):.0f} MiB beyond the file"
    cells = [what, mine[0]["answer"], mine[0]["engine"], first, seconds(everything)]
    if its is None:
        cells += ["-", "-", "-", "-"]
    elif "gave_up" in its[0]:
        used = its[0]["gave_up"]
        ratios = [f"> {used / statistics.median(own):,.0f}" for own in (checking, everything)]
        cells += [f"gave up after {used:.0f} s", f"> {used:.0f} s", *ratios]
    else:
        theirs = [run["check_s"] for run in its]
        all_theirs = [run["read_s"] + run["check_s"] for run in its]
        cells += [seconds(theirs), seconds(all_theirs), ratio(checking, theirs), ratio(everything, all_theirs)]
    return "| " + " | ".join([*cells, row.goal]) + " |"


HEAD = (
    "| work | answer | engine | Pekan: checking | Pekan: all | Porcupine: checking | Porcupine: all | times faster, checking"
    " | times faster, all | to reach |\n|---|---|---|---|---|---|---|---|---|---|"
)


# ---- the files ----


def rows(directory: Path, quick: bool) -> list[tuple[Row, Callable[[], None]]]:
    """Each row with what makes its files."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
    import etcd_run
    import object_runs

    class Stale(etcd_run.Store):
        """Answers one read of a key with what it held 500 revisions ago."""

        def __init__(self) -> None:
            super().__init__()
            self.before: dict[bytes, Any] = {}
            self.lied = False

        def range(self, request: Any, header: Any) -> Any:
            answer = super().range(request, header)
            if self.revision >= 3_000 and not self.before:
                self.before = dict(self.held)
            old, now = self.before.get(request.key), self.held.get(request.key)
            if (
                not (self.lied or request.range_end or request.serializable)
                and self.revision > 3_500
                and old
                and now
                and old.mod != now.mod
            ):
                self.lied = True
                answer = etcd_run.pb.RangeResponse(header=header, kvs=[old.data], count=1)
            return answer

    million = 100_000 if quick else 1_000_000
    many = f"{million:,}"
    made: list[tuple[Row, Callable[[], None]]] = []

    def etcd(
        what: str, name: str, operations: int, goal: str, alone: bool = False, runs: int = RUNS, store: Any = None, **how: Any
    ) -> None:
        path = directory / f"{name}.pb"
        row = Row(what, (path,), "etcd", "judged", goal, not alone, runs)
        made.append((row, lambda: etcd_run.make(path, operations, store=store() if store else None, **how)))

    def thing(what: str, name: str, model: str, way: str, goal: str, count: int, operations: int, alone: bool = False, **how: Any) -> None:
        paths = tuple(directory / f"{name}-{number}.edn" for number in range(count))
        row = Row(what, paths, model, way, goal, not alone)

        def write() -> None:
            for number, path in enumerate(paths):
                if not path.exists():
                    object_runs.make(path, model, operations, seed=number + 1, **how)

        made.append((row, write))

    def report() -> None:
        from simulator.cluster import Config, simulate
        from simulator.robustness import MIX, write_report

        # Without leases: a client cannot know the id of one whose grant was not answered, and the history would not fit a report.
        mix = replace(MIX, grant=0, put_lease=0, revoke=0)
        simulated = simulate(Config(seed=1, operations=million // 20, clients=8, keys=20, mix=mix, watch=3))
        if not write_report(simulated.history, directory / "report"):
            raise SystemExit("the simulated history cannot be told as a report of the robustness tests")

    few = 3 if quick else RUNS
    goal = "<= 1.5 s, <= 600 MiB"
    etcd(f"etcd, {many} operations, 8 clients", "etcd-8", million, goal, alone=True, runs=few, clients=8)
    etcd(f"etcd, {many} operations, 64 clients", "etcd-64", million, "the same within 20 %", alone=True, runs=few, clients=64)
    etcd("etcd, 10,000 operations, 8 clients", "short", 10_000, ">= 300", clients=8, indefinite=0.0)
    etcd("the same, 32 clients", "wide", 10_000, "milliseconds", clients=32, indefinite=0.0)
    etcd("8 clients, 25 indefinite writes", "lost", 10_000, "milliseconds", clients=8, indefinite=0.0037)
    etcd("8 clients, one stale read", "stale", 10_000, "milliseconds", clients=8, indefinite=0.0, store=Stale)
    short = {"operations": 115, "clients": 5, "info": 0.1, "wrong": 0.04}
    thing(f"{SHORT} registers with compare-and-set, 80 operations each", "cas", "cas-register", "searched", ">= 100", SHORT, **short)
    thing("the same, model in Python", "cas", "cas-register", "searched in Python", ">= 50", SHORT, **short)
    thing("kv-append, 3 histories of 400 operations, 50 clients, by key", "kv", "kv-append", "judged", ">= 30", 3, 400, clients=50)
    for model in ("register", "fifo-queue", "stack"):
        thing(f"{model}, 10,000 operations, 8 clients", f"small-{model}", model, "judged", "-", 1, 10_000, clients=8)
        thing(f"{model}, {many} operations, 64 clients", model, model, "judged", "<= 2 s", 1, million, alone=True, clients=64)
    made.append((Row("reading EDN", (directory / "register-0.edn",), "register", "read", ">= 100 MB/s", False), lambda: None))
    made.append((Row("reading a robustness report", (directory / "report",), "etcd", "read", ">= 100 MB/s", False), report))
    return made


def versions() -> str:
    cpu = next(
        (text.partition(":")[2].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")), ""
    )
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout.split()[2:3] if shutil.which("go") else []
    module = (ROOT / "benchmarks" / "porcupine" / "go.mod").read_text().split("anishathalye/porcupine ")[1].split()[0]
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    return (
        f"{cpu or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {' '.join(go) or 'no Go'}, "
        f"Porcupine {module}, load {load}"
    )


BEGIN, END = "<!-- benchmarks/peers.py writes from here -->", "<!-- to here -->"


def write(path: Path, text: str) -> None:
    """Puts the table between its marks in the page, or at its end."""
    page = path.read_text()
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if BEGIN in page:
        page = page.partition(BEGIN)[0] + block + page.partition(END)[2]
    else:
        page = page.rstrip("\n") + f"\n\n## Beside Porcupine (`benchmarks/peers.py`)\n\n{block}\n"
    path.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pekan beside Porcupine, on the same files.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the long histories, three runs of those")
    parser.add_argument("--only", metavar="WORD", default="", help="only rows whose name has it")
    parser.add_argument("--runs", type=int, metavar="N", help=f"instead of {RUNS}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files there, and use those that are there")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--ours", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(options.ours[0], options.ours[1], options.ours[2:])
        return
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        binary = build(Path(temporary))
        machine = versions()
        print(machine)
        lines, calibrations = [HEAD], []
        print(HEAD)
        for row, make in rows(directory, options.quick):
            if options.only not in row.what:
                continue
            if not all(file.exists() for file in row.files):
                print(f"{row.what}: making the history", file=sys.stderr)
                make()
            if options.runs:
                row = replace(row, runs=options.runs)
            mine, its = measure(row, binary)
            calibrations += [run["calibration"] for run in mine]
            lines.append(line(row, mine, its))
            print(lines[-1], flush=True)
        beside = f"calibration {seconds(calibrations)}"
        print(beside)
        if options.write:
            write(options.write, f"{machine}; {beside}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
