"""What a supervisor of system calls costs a member: throughput without one, with syncs watched, and with every write watched.

::

    python benchmarks/supervising.py 3.7.3 --rounds 12        about 8 s a round

Clusters of one member stand side by side. In each round every one of them is driven for a while, in an order drawn anew, by the same
clients; a round's figures are divided by those of its own bare cluster, so that what else the machine does falls on all alike. Prints the
median of the ratios with the 95 % interval of a bootstrap, and the processor time of etcd and its supervisor for an operation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec
from pekan.faults import Site, parse
from pekan.faults.disk.supervision import Supervision
from pekan.history.records import RecordWriter
from pekan.plan import Plan, Schedule
from pekan.wire.messages import PutRequest

ASKED = {
    "bare": "",
    "syncs": "disk-slow m1 at 0s",
    "pages": "power-loss m1 at 0s",
    "writes": "disk-error m1 file=any call=write at 0s",
}
"""What a plan asks for, and so how wide the filter is: none; syncs; those and writes of the database; every write(2), sockets included."""
CLIENTS = 32
SECONDS = 2.0
VALUE = b"x" * 100
SAMPLES = 5_000


class Side:
    """One cluster and its clients."""

    def __init__(self, cluster: Cluster, supervision: Supervision | None, clients: list[Client]) -> None:
        self.cluster = cluster
        self.supervision = supervision
        self.clients = clients
        self.count = 0

    async def drive(self, seconds: float) -> tuple[float, float]:
        """(operations a second, processor time of etcd and supervisor in us an operation)."""
        began, used = time.monotonic(), self._processor_s()
        done = await asyncio.gather(*(self._puts(client, began + seconds) for client in self.clients))
        operations, took = sum(done), time.monotonic() - began
        return operations / took, (self._processor_s() - used) / operations * 1e6

    async def _puts(self, client: Client, until: float) -> int:
        done = 0
        while time.monotonic() < until:
            self.count += 1
            reply = await client.call(PutRequest(b"k%d" % (self.count % 10_000), VALUE))
            assert reply.outcome == "ok", reply
            done += 1
        return done

    def _processor_s(self) -> float:
        pids = [self.cluster.members[0].pid]
        if self.supervision is not None:
            pids.append(self.supervision.of("m1").process.pid)
        return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in pids) / os.sysconf(
            "SC_CLK_TCK"
        )


async def side(stack: AsyncExitStack, version: str, name: str, directory: Path) -> Side:
    directory.mkdir()
    binary = find(version)
    recorder = Recorder(RecordWriter(directory / "history.pb"))
    stack.callback(recorder.close)
    supervision = None
    if ASKED[name]:
        plan = Plan(etcd=version, seed=1, members=1, schedule=Schedule(0, 1, 1, (parse(ASKED[name]),)))
        supervision = Supervision(Site(plan, binary, directory, {}))
        stack.push_async_callback(supervision.close)
    spec = ClusterSpec(binary, directory / "members", members=1)
    cluster = await stack.enter_async_context(Cluster(spec, arrange=supervision.surround if supervision else None))
    address = cluster.members[0].spec.advertise_client
    clients = [Client(name=f"{name}-{n}", member="m1", address=address, recorder=recorder, timeout_s=10.0) for n in range(CLIENTS)]
    for client in clients:
        stack.push_async_callback(client.close)
    return Side(cluster, supervision, clients)


def interval(ratios: list[float], rng: random.Random) -> tuple[float, float, float]:
    """The median and the 95 % interval of a bootstrap of it."""
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    return statistics.median(ratios), medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975)]


async def compare(version: str, rounds: int) -> None:
    rng = random.Random(1)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ASKED}
    with tempfile.TemporaryDirectory(prefix="pekan-supervising-") as directory:
        async with AsyncExitStack() as stack:
            sides = {name: await side(stack, version, name, Path(directory, name)) for name in ASKED}
            for name in ASKED:
                await sides[name].drive(SECONDS / 2)
            for _ in range(rounds):
                for name in rng.sample(list(ASKED), len(ASKED)):
                    figures[name].append(await sides[name].drive(SECONDS))
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"etcd {version}, one member, {CLIENTS} clients, {rounds} rounds of {SECONDS:g} s; {load}")
    for name, measured in figures.items():
        ratios = [rate / bare for (rate, _), (bare, _) in zip(measured, figures["bare"], strict=True)]
        middle, low, high = interval(ratios, rng)
        rate, cost = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:7} {rate:7.0f} operations/s   x {middle:.3f} [{low:.3f}, {high:.3f}]   {cost:6.0f} us of processor an operation")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    asyncio.run(compare(arguments.version, arguments.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
