"""What the switch between members costs while no rule is in force: `python benchmarks/packets.py [--pairs 12] [--seconds 2]`.

Two clusters of three members stand side by side, one on loopback, one in network namespaces. Each round measures both, in an order that
turns; a figure is a ratio or a difference in one round, with the 95 % interval of a bootstrap over rounds.

* throughput of eight clients over the three members, half puts and half linearizable gets (a hunt's default concurrency);
* median latency of puts of one client to the leader;
* processor time of switch and relay for an operation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec, MemberSpec
from pekan.faults import Site
from pekan.faults.packets import Packets
from pekan.history import RecordWriter
from pekan.plan import Plan
from pekan.wire.messages import PutRequest, RangeRequest

CLIENTS = 8
BOOTSTRAPS = 10_000
OPTIONS = {"election-timeout": "10000"}
"""A busy machine shall not cost one of the clusters an election in the middle of a round."""


def client(name: str, spec: MemberSpec, recorder: Recorder) -> Client:
    return Client(name=name, member=spec.name, address=spec.advertise_client, recorder=recorder, timeout_s=10.0, tls=spec.tls)


async def throughput(cluster: Cluster, recorder: Recorder, seconds: float) -> tuple[float, int]:
    """Operations a second, and how many."""
    clients = [client(f"kv-{number}", cluster.members[number % 3].spec, recorder) for number in range(CLIENTS)]
    await asyncio.gather(*(each.call(RangeRequest(b"k")) for each in clients))  # connected before the clock starts
    began = time.perf_counter()

    async def work(each: Client, number: int) -> int:
        count = 0
        while time.perf_counter() - began < seconds:
            key = b"key-%03d" % ((number * 13 + count) % 100)
            reply = await each.call(PutRequest(key, b"v" * 32) if count % 2 else RangeRequest(key))
            assert reply.outcome == "ok", reply
            count += 1
        return count

    count = sum(await asyncio.gather(*(work(each, number) for number, each in enumerate(clients))))
    elapsed = time.perf_counter() - began
    await asyncio.gather(*(each.close() for each in clients))
    return count / elapsed, count


async def latency_ms(cluster: Cluster, recorder: Recorder, seconds: float) -> float:
    """The median of a put's time at the leader."""
    each = client("latency", (await cluster.leader()).spec, recorder)
    await each.call(RangeRequest(b"k"))
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        assert (await each.call(PutRequest(b"latency", b"v" * 32))).outcome == "ok"
        took.append((time.perf_counter() - began) * 1000)
    await each.close()
    return statistics.median(took)


def cpu_s(pids: tuple[int, ...]) -> float:
    """Processor time that the processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def interval(values: list[float]) -> str:
    """The median and the 95 % interval of it, by bootstrap."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(BOOTSTRAPS))
    return f"{statistics.median(values):.3f} ({medians[int(0.025 * BOOTSTRAPS)]:.3f} to {medians[int(0.975 * BOOTSTRAPS)]:.3f})"


async def measure(version: str, pairs: int, seconds: float, directory: Path) -> None:
    binary = find(version)
    recorder = Recorder(RecordWriter(directory / "history.pb"))
    async with AsyncExitStack() as stack:
        packets = Packets(Site(Plan(etcd=version, seed=1), binary, directory, {}))
        stack.push_async_callback(packets.close)
        await packets.prepare()
        direct = await stack.enter_async_context(Cluster(ClusterSpec(binary, directory / "direct", options=OPTIONS)))
        spec = ClusterSpec(binary, directory / "switched", options=OPTIONS)
        switched = await stack.enter_async_context(Cluster(spec, arrange=packets.surround))
        ratios, added, cost, rates = [], [], [], []
        for number in range(pairs):
            found = {}
            for cluster in (direct, switched) if number % 2 else (switched, direct):
                used = cpu_s(packets.pids)
                rate, count = await throughput(cluster, recorder, seconds)
                if cluster is switched:
                    cost.append((cpu_s(packets.pids) - used) / count * 1e6)
                found[cluster] = rate, await latency_ms(cluster, recorder, seconds / 2)
            ratios.append(found[switched][0] / found[direct][0])
            added.append(found[switched][1] - found[direct][1])
            rates.append(found[direct][0])
        print(f"etcd {version}, {pairs} pairs of {seconds:g} s, load {os.getloadavg()[0]:.1f}, direct {statistics.median(rates):.0f}/s")
        print(f"throughput, switched / direct       {interval(ratios)}")
        print(f"put at the leader, median ms added  {interval(added)}")
        print(f"switch and relay, CPU us an operation  {interval(cost)}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--etcd", default="3.7.3")
    asked.add_argument("--pairs", type=int, default=12)
    asked.add_argument("--seconds", type=float, default=2.0)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-packets-") as scratch:
        asyncio.run(measure(options.etcd, options.pairs, options.seconds, Path(scratch)))


if __name__ == "__main__":
    main()
