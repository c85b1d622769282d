"""What hooks cost that count and do not fire: `python benchmarks/hooks.py [--etcd 3.7] [--pairs 100] [--seconds 2] [--everywhere]`.

Three figures:

* nanoseconds a hit: a Go program that calls a function of four instructions, with and without a hook at its entry. Processes take
  turns; each figure is CPU time, so that other work on the machine moves it little. Beside it stand a loop without any call, which tells
  the machine's state, and the same calls by two threads on one counter.
* hits a second of one member under load with a hook at every function of etcd's packages, times that, as a share of the CPU time it used.
* paired throughput of two members, one with hooks and one without any, that are loaded in turns (and in turns first); the ratio is told
  with the 95 % interval of a bootstrap over pairs. Once with a hundred points, as a hunt plants them: drawn from the functions that the
  load passes. With `--everywhere` once more with every function hooked, as only the profile of a release is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from recording import CLIENTS, NullRecorder, interval, throughput

import pekan.etcd.launcher
from pekan.etcd.binaries import Binary, find
from pekan.etcd.cluster import Cluster
from pekan.etcd.spec import Attachment, ClusterSpec
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.patches import plan_patches
from pekan.faults.hooks.planting import Code, Replacement, Shared, SharedMemory, attachment, write_patches
from pekan.faults.hooks.profile import Counting, reached
from pekan.history import RecordWriter

BUDGET_NS = 10.0
SHARE_MAX = 0.01
RUNS = 7
CALLS = 50_000_000
POINTS = 100

PROGRAM = """package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
)

//go:noinline
func work(x uint64) uint64 { return x*2862933555777941757 + 3037000493 }

func cpu() int64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func calls(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = work(x)
	}
	return x
}

func main() {
	n, _ := strconv.Atoi(os.Args[1])
	begin := cpu()
	x := calls(n, 1)
	alone := cpu() - begin
	begin = cpu()
	var both sync.WaitGroup
	for t := 0; t < 2; t++ {
		both.Add(1)
		go func() {
			defer both.Done()
			if calls(n/2, 1) == 0 {
				fmt.Println("never")
			}
		}()
	}
	both.Wait()
	shared := cpu() - begin
	begin = cpu()
	for i := 0; i < n; i++ {
		x = x*2862933555777941757 + 3037000493
	}
	empty := cpu() - begin
	fmt.Println(float64(alone)/float64(n), float64(shared)/float64(n), float64(empty)/float64(n), x&1)
}
"""


class Cost(NamedTuple):
    """CPU nanoseconds of one call of a process: one thread, two threads, and of one turn of the loop without a call."""

    alone: float
    shared: float
    empty: float


def built(directory: Path) -> Path | None:
    """The program above, or None where there is no Go."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None
    (directory / "main.go").write_text(PROGRAM)
    (directory / "go.mod").write_text("module calls\n\ngo 1.21\n")
    program = directory / "calls"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    subprocess.run([go, "build", "-o", program, "."], cwd=directory, check=True, env=environment)
    return program


def run(program: Path, attachments: list[Attachment]) -> Cost:
    """One process of the program, started by the launcher as members are."""
    spec = {
        "arguments": [str(program), str(CALLS)],
        "environment": {"GOMAXPROCS": "2"},
        "attachments": [{"kind": each.kind, "parameters": dict(each.parameters)} for each in attachments],
    }
    command = [sys.executable, "-I", "-S", pekan.etcd.launcher.__file__, json.dumps(spec), str(os.getpid())]
    fds = [fd for each in attachments for fd in each.fds]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, pass_fds=fds) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        reports = [json.loads(launcher.stdout.readline()), json.loads(launcher.stdout.readline())]
        launcher.stdin.close()
        output = launcher.stderr.read()
    assert reports[1] == {"event": "exited", "status": 0}, (reports, output)
    alone, shared, empty, _ = output.split()
    return Cost(float(alone), float(shared), float(empty))


def spread(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def micro(directory: Path) -> float | None:
    """Nanoseconds that a hook adds to a call, printed and returned."""
    program = built(directory)
    if program is None:
        print("a hit          not measured: there is no Go here to build the program with")
        return None
    go = GoBinary(program)
    patches = plan_patches(program, ["main.work"])
    memory = SharedMemory("benchmark", patches.cells_bytes)
    memory.memory[:] = patches.initial_cells().ljust(memory.length, b"\0")
    file = directory / "patches"
    write_patches(
        file,
        [Code(patches.code_address, patches.code)],
        [Shared(patches.cells_address, patches.cells_bytes)],
        [Replacement(address, go.read(address, len(new)), new) for address, new in patches.writes],
    )
    pairs: list[tuple[Cost, Cost]] = []
    for number in range(RUNS):
        costs = {}
        for hooked in (True, False) if number % 2 else (False, True):
            costs[hooked] = run(program, [attachment(file, memory)] if hooked else [])
        pairs.append((costs[True], costs[False]))
    assert memory.words[0] == RUNS * 2 * CALLS, "every call was counted"
    memory.close()
    added = [hooked.alone - bare.alone for hooked, bare in pairs]
    cost = statistics.median(added)
    print(f"a hit          {spread(added)} ns, {'within' if cost < BUDGET_NS else 'OVER'} the budget of {BUDGET_NS:.0f}")
    print(
        f"               a call {spread([bare.alone for _, bare in pairs])} ns, hooked {spread([hooked.alone for hooked, _ in pairs])} ns"
    )
    print(f"               two threads on one counter: {spread([hooked.shared - bare.shared for hooked, bare in pairs])} ns a hit")
    print(f"               loop without a call {spread([cost.empty for pair in pairs for cost in pair])} ns a turn")
    print(f"               (median, lowest to highest of {RUNS} turns of {CALLS:,} calls each)")
    return cost


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(etcd: str, pairs: int, seconds: float, directory: Path, cost_ns: float | None, *, everywhere: bool) -> None:
    """The second and third figure."""
    binary = find(etcd)
    passed = await hits(binary, seconds, directory / "hits", cost_ns)
    planted = random.Random(binary.version).sample(sorted(passed), POINTS)
    print(
        f"planted        {POINTS} points, passed {sum(passed[name] for name in planted):,.0f} times a second of {sum(passed.values()):,.0f}"
    )
    await paired(binary, planted, pairs, seconds, directory / "points")
    if everywhere:
        print("planted        every function")
        await paired(binary, (), pairs, seconds, directory / "everywhere")


async def hits(binary: Binary, seconds: float, directory: Path, cost_ns: float | None) -> dict[str, float]:
    """How often a second a loaded member passes each function that it passes at all."""
    directory.mkdir()
    null = NullRecorder(RecordWriter("/dev/null"))
    seen: list[dict[str, float]] = []
    shares: list[float] = []
    with contextlib.closing(Counting(binary, directory)) as counting:
        async with Cluster(ClusterSpec(binary, directory / "cluster", members=1), arrange=counting.arrange) as cluster:
            (member,) = cluster.members
            assert member.pid is not None
            await throughput(member.spec.advertise_client, null, seconds, 0)  # warm
            for number in range(RUNS):
                spent, before = cpu_seconds(member.pid), counting.read()
                await throughput(member.spec.advertise_client, null, seconds, number)
                spent = cpu_seconds(member.pid) - spent
                seen.append({name: count / seconds for name, count in reached(before, counting.read()).items()})
                if cost_ns is not None:
                    shares.append(sum(seen[-1].values()) * seconds * cost_ns / 1e9 / spent)
        functions = len(counting.cells)
    totals = [sum(each.values()) for each in seen]
    print(f"hits           {statistics.median(totals):,.0f} a second, {functions:,} functions of etcd {binary.version} hooked")
    if shares:
        share = statistics.median(shares)
        within = "within" if share < SHARE_MAX else "OVER"
        print(f"               {share:.2%} of the member's CPU time ({min(shares):.2%} to {max(shares):.2%}), {within} {SHARE_MAX:.0%}")
    return seen[-1]


async def paired(binary: Binary, points: Collection[str], pairs: int, seconds: float, directory: Path) -> None:
    """Throughput and CPU time of a member with hooks at `points` (none: everywhere) against one without."""
    directory.mkdir()
    null = NullRecorder(RecordWriter("/dev/null"))
    rates: list[tuple[float, float]] = []
    used: list[tuple[float, float]] = []
    async with contextlib.AsyncExitStack() as stack:
        counting = stack.enter_context(contextlib.closing(Counting(binary, directory, points)))
        hooked = await stack.enter_async_context(Cluster(ClusterSpec(binary, directory / "hooked", members=1), arrange=counting.arrange))
        bare = await stack.enter_async_context(Cluster(ClusterSpec(binary, directory / "bare", members=1)))
        for cluster in (hooked, bare):
            await throughput(cluster.members[0].spec.advertise_client, null, seconds, 0)  # warm
        for number in range(pairs):
            rate: dict[bool, float] = {}
            cpu: dict[bool, float] = {}
            for with_hooks in (True, False) if number % 2 else (False, True):
                (member,) = (hooked if with_hooks else bare).members
                assert member.pid is not None
                before = cpu_seconds(member.pid)
                rate[with_hooks] = await throughput(member.spec.advertise_client, null, seconds, number)
                cpu[with_hooks] = (cpu_seconds(member.pid) - before) / (rate[with_hooks] * seconds) * 1e6
            rates.append((rate[True], rate[False]))
            used.append((cpu[True], cpu[False]))
        assert sum(counting.read().values()), "the hooks were there"
    ratios = [with_hooks / without for with_hooks, without in rates]
    low, high = interval(ratios)
    with_hooks, without = (statistics.median(figures) for figures in zip(*rates, strict=True))
    print(f"throughput     {with_hooks:.0f}/s hooked, {without:.0f}/s not, {CLIENTS} clients, half puts and half gets")
    print(f"ratio          {statistics.median(ratios):.3f}, 95 % interval {low:.3f} to {high:.3f} (n={pairs} pairs of twice {seconds:g} s)")
    cpu_ratios = [with_hooks / without for with_hooks, without in used]
    low, high = interval(cpu_ratios)
    print(
        f"CPU            {statistics.median(cpu_ratios):.3f} of the bare member's for an operation, 95 % interval {low:.3f} to {high:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", default="3.7", help="version or path (default: the newest 3.7)")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each half of a pair")
    parser.add_argument("--everywhere", action="store_true", help="pairs with every function hooked, too")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    print(f"machine        {machine}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="pekan-hooks-") as name:
        directory = Path(name)
        (directory / "program").mkdir()
        cost = micro(directory / "program")
        asyncio.run(load(options.etcd, options.pairs, options.seconds, directory, cost, everywhere=options.everywhere))


if __name__ == "__main__":
    main()
