"""An hour with a hundred hooks in every member.

::

    make soak-hooks [ETCD=3.7] [TIME=1h]
    .venv/bin/python tests/soak/hooks.py --etcd 3.5.1 --time 1h

    3 members, GOGC=15     garbage collection and preemption all the time, 100 points planted, 500 writes/s
    1,000 cycles           arm a point that is passed these days ── fires ── a thread held 1 to 150 ms ── released early, or by itself
    one in 25              is held and then killed; the member is started again

A member is *wedged* where a thread does not come out of its hold or a linearizable read is not answered, *lost* where its process has gone
without a word, *crashed* where it ended otherwise than by a kill on purpose. The soak fails with any of them, with too few cycles (in
shorter soaks: their share), and where fewer than nine in ten of the writes that were due were made. Prints one line of JSON, and a table
on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pekan.durations import parse_ms
from pekan.errors import ClusterFailure, PekanError
from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster, Member
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec, MemberExit
from pekan.faults import Site
from pekan.faults.hooks import Hooks, stub
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.patches import plan_patches
from pekan.faults.hooks.points import Points
from pekan.history.records import RecordWriter
from pekan.plan import Fault, Plan, Schedule, Trigger
from pekan.wire.messages import PutRequest

RUNTIME = ("runtime.mallocgc", "runtime.newstack", "runtime.gcDrain", "runtime.growslice")
"""Hooked and counted, never held: the busiest places that there are, some of them without a goroutine of their own."""
PATH_OF_A_WRITE = ("etcdserver", "mvcc", "backend", "wal", "raft", "lease", "rafthttp", "bbolt", "v3rpc")
"""Packages; the points are drawn from their functions."""
CYCLES_AN_HOUR = 1000
CLIENTS = 24
TIMEOUT_S = 5.0
NTH = (1, 3)
HOLD_MS = (1, 150)
FIRE_S = 2.0
KILL_EVERY = 25
RECOVERY_S = 120.0
"""Wedged is who does not come back at all. How long the slowest took is told: with garbage collection all the time, on a machine that does
other work beside, it can be most of a minute."""
STUCK_S = 5.0
"""A hold that has not ended so long after its time has not ended."""
LOOK_S = 0.2
HEALTH_S = 30.0
WRITES_SHARE_MIN = 0.9
TROUBLE = re.compile(rb"fatal error|SIGSEGV|SIGTRAP|SIGILL|^panic:|unexpected fault address|^runtime: ", re.MULTILINE)


@dataclass
class Outcome:
    """What is printed. `seconds` is the time of the soak itself; `worst_ms` the longest write, `worst_recovery_s` the
    longest way from a kill to a linearizable read."""

    etcd: str
    seconds: float = 0.0
    points: int = 0
    armed: int = 0
    cycles: int = 0
    released_early: int = 0
    killed: int = 0
    expired: int = 0
    points_fired: int = 0
    hits: int = 0
    writes: int = 0
    writes_failed: int = 0
    writes_due: int = 0
    worst_ms: float = 0.0
    worst_recovery_s: float = 0.0
    wedged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    log_trouble: list[str] = field(default_factory=list)

    def ok(self, cycles: int) -> bool:
        trouble = self.wedged or self.lost or self.crashed or self.log_trouble
        return not trouble and self.cycles >= cycles and self.writes >= WRITES_SHARE_MIN * self.writes_due


def choose_points(path: Path, release: str, sha256: str, count: int) -> tuple[str, ...]:
    """So many points that can be hooked, the same ones every time: the gofail sites, the runtime's busiest, functions of a write's path."""
    points = Points(GoBinary(path), release)
    own = [name for name in points.functions() if name.rpartition("/")[2].partition(".")[0] in PATH_OF_A_WRITE]
    wanted = [*RUNTIME, *points.gofail_names(), *random.Random(release).sample(own, len(own))][: 3 * count]
    known = []
    for name in wanted:
        with contextlib.suppress(PekanError):  # a gofail site that this build of the release does not have
            points.find(name)
            known.append(name)
    return tuple(list(plan_patches(path, known, release=release, sha256=sha256).cells)[:count])


class Soak:
    """One cluster and what is done to it."""

    def __init__(self, arguments: argparse.Namespace, cluster: Cluster, hooks: Hooks, names: tuple[str, ...], outcome: Outcome) -> None:
        self.arguments, self.cluster, self.hooks, self.outcome = arguments, cluster, hooks, outcome
        self.held_names = [name for name in names if name not in RUNTIME]
        self.rng = random.Random(arguments.seed)
        self.fired: Counter[str] = Counter()
        self.recorder = Recorder(RecordWriter("/dev/null"))

    async def go(self) -> None:
        outcome, arguments = self.outcome, self.arguments
        began = time.monotonic()
        end = began + arguments.seconds
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.write(number, end))
            group.create_task(self.health(end))
            # A fifth faster than needed, so that what expires can be made up for.
            pace = 3600 / (1.2 * CYCLES_AN_HOUR)
            while time.monotonic() < end and not (outcome.wedged or outcome.lost or outcome.crashed):
                started = time.monotonic()
                await self.cycle()
                await asyncio.sleep(min(max(0.0, started + pace - time.monotonic()), max(0.0, end - time.monotonic())))
        outcome.seconds = round(time.monotonic() - began, 1)
        outcome.points_fired = len(self.fired)
        outcome.hits = sum(sum(self.hooks.counters(member.name).values()) for member in self.cluster.members)
        self.recorder.close()

    async def write(self, number: int, end: float) -> None:
        """Its share of the writes, each at its time; one that is late is made up for."""
        member = self.cluster.members[number % len(self.cluster.members)]
        client = Client(
            name=f"soak-{number}", member=member.name, address=member.spec.advertise_client, recorder=self.recorder, timeout_s=TIMEOUT_S
        )
        pause = CLIENTS / self.arguments.rate
        due = time.monotonic() + pause * number / CLIENTS
        try:
            while due < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.outcome.writes_due += 1
                due += pause
                began = time.monotonic()
                reply = await client.call(PutRequest(b"k%d" % self.rng.randrange(1000), b"v" * 64))
                if reply.outcome == "ok":
                    self.outcome.writes += 1
                    self.outcome.worst_ms = max(self.outcome.worst_ms, round((time.monotonic() - began) * 1000, 1))
                else:
                    self.outcome.writes_failed += 1
        finally:
            await client.close()

    async def health(self, end: float) -> None:
        """Every member answers a linearizable read; one that is killed on purpose meanwhile has its time to come back."""
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(HEALTH_S, left))
            until = time.monotonic() + RECOVERY_S
            while True:
                try:
                    await self.cluster.wait_ready(max(0.0, until - time.monotonic()))
                    break
                except ClusterFailure as failure:
                    if time.monotonic() >= until:
                        self.outcome.wedged.append(f"no linearizable read: {failure}"[:300])
                        break
                    await asyncio.sleep(LOOK_S)

    async def cycle(self) -> None:
        member = self.rng.choice(self.cluster.members)
        if not member.alive:
            self.outcome.lost.append(repr(member))
            return
        name = await self.live_point(member.name)
        if name is None:
            return
        self.outcome.armed += 1
        kill = self.outcome.armed % KILL_EVERY == 0
        hold_ms = self.rng.randint(*HOLD_MS)
        if kill:
            member.expect_exit(lambda status: status == signal.SIGKILL)
        try:
            await self.hooks.arm(member.name, name, self.rng.randint(*NTH), stub.HOLD | (stub.KILL if kill else 0), hold_ms)
            async with asyncio.timeout(FIRE_S):
                await self.hooks.fired(member.name, name)
            if self.rng.random() < 0.5 and not kill:
                await asyncio.sleep(hold_ms / 2000)
                self.hooks.release(member.name, name)
                self.outcome.released_early += 1
            await self.until_out(member, name, hold_ms, kill)
            self.fired[name] += 1
            self.outcome.cycles += 1
        except TimeoutError:
            self.outcome.expired += 1
        finally:
            self.hooks.disarm(member.name, name)
            if member.alive:
                member.expect_exit(None)

    async def until_out(self, member: Member, name: str, hold_ms: int, kill: bool) -> None:
        try:
            async with asyncio.timeout(hold_ms / 1000 + STUCK_S):
                if kill:
                    await member.wait_exit()
                else:
                    while self.hooks.held(member.name, name) and member.alive:
                        await asyncio.sleep(0.002)
        except TimeoutError:
            self.outcome.wedged.append(f"{member!r} did not come out of {name} ({hold_ms} ms, {'kill' if kill else 'hold'})")
            return
        if kill:
            self.outcome.killed += 1
            self.hooks.disarm(member.name, name)
            began = time.monotonic()
            await member.start()
            try:
                await member.wait_ready(RECOVERY_S)
                self.outcome.worst_recovery_s = max(self.outcome.worst_recovery_s, round(time.monotonic() - began, 1))
            except ClusterFailure as failure:
                self.outcome.wedged.append(f"not ready after a kill: {failure}"[:300])

    async def live_point(self, member: str) -> str | None:
        """A point that the member is passing these days."""
        before = self.hooks.counters(member)
        await asyncio.sleep(LOOK_S)
        now = self.hooks.counters(member)
        live = [name for name in self.held_names if now[name] > before[name]]
        return self.rng.choice(live) if live else None


async def soak(arguments: argparse.Namespace, directory: Path) -> Outcome:
    binary = find(arguments.etcd)
    names = choose_points(binary.path, binary.version, binary.sha256, arguments.points)
    outcome = Outcome(binary.version, points=len(names))
    faults = tuple(Fault("failpoint", "any", Trigger(0), {"point": name, "action": "count"}) for name in names)
    hooks = Hooks(Site(Plan(etcd=binary.version, seed=1, schedule=Schedule(0, 0, 0, faults)), binary, directory, {}))

    def on_exit(end: MemberExit) -> None:
        if not end.asked:
            outcome.crashed.append(f"{end}: {end.crash or ''}")

    options = {"auto-compaction-mode": "revision", "auto-compaction-retention": "10000"}
    spec = ClusterSpec(binary, directory / "members", environment={"GOGC": "15"}, options=options)
    try:
        await hooks.prepare()
        async with Cluster(spec, on_exit=on_exit, arrange=hooks.surround) as cluster:
            await Soak(arguments, cluster, hooks, names, outcome).go()
            outcome.lost += [repr(member) for member in cluster.members if not member.alive]
    finally:
        await hooks.close()
    for log in sorted((directory / "members").glob("*/etcd.log")):
        outcome.log_trouble += [f"{log.parent.name}: {found.decode()}" for found in TROUBLE.findall(log.read_bytes())]
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", default="3.7")
    parser.add_argument("--time", default="1h")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--rate", type=int, default=500, help="writes a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.seconds = parse_ms(arguments.time, "--time") / 1000
    arguments.cycles = int(CYCLES_AN_HOUR * arguments.seconds / 3600)
    with tempfile.TemporaryDirectory(prefix="pekan-soak-") as directory:
        outcome = asyncio.run(soak(arguments, Path(directory)))
    for name, value in asdict(outcome).items():
        print(f"{name:<16} {value}", file=sys.stderr)
    print(json.dumps({"ok": outcome.ok(arguments.cycles), **asdict(outcome)}), flush=True)
    return 0 if outcome.ok(arguments.cycles) else 1


if __name__ == "__main__":
    sys.exit(main())
