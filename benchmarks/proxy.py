"""What the proxy costs while nothing is armed: `python benchmarks/proxy.py [--pairs 12] [--seconds 2] [--clients 8] [--tls] [--floor]`.

Four clusters of three members stand side by side: one without a proxy, a second one like it, one behind the proxy, and one behind it with
raft messages taken apart; with --floor a fifth one behind benchmarks/relay.c, which only reads and writes (wants a C compiler, and no TLS).
Each round measures all of them, in an order that turns, so that a slow moment of the machine meets all; every figure is a ratio or a
difference to the first cluster without proxy in the same round, with the 95 % interval of a bootstrap over rounds. What the second one
differs by is the noise.

* throughput of clients over the three members, half puts and half linearizable gets; eight by default, as in a hunt. With few clients each
  request is a handful of raft messages of its own; with many, raft sends many requests in one;
* operations for a CPU second of everything (members, proxy, clients), which a busy machine does not change;
* median latency of puts of one client to the leader.

Budget: throughput at least 90 % of a direct connection's, 0.5 ms or less added at the median.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.ports import PortLease
from pekan.etcd.recorder import Metadata, Recorder
from pekan.etcd.spec import Address, ClusterSpec, MemberSpec
from pekan.faults import Site
from pekan.faults.network import Proxy
from pekan.history import RecordWriter
from pekan.plan import Fault, Plan, Schedule, Trigger
from pekan.wire.messages import PutRequest, RangeRequest

BOOTSTRAPS = 10_000
OPTIONS = {"election-timeout": "10000"}
"""A busy machine shall not cost one of the clusters an election in the middle of a round."""
THROUGHPUT_SHARE_MIN = 0.90
ADDED_MS_MAX = 0.5


class NullRecorder(Recorder):
    """Counts as the recorder does and keeps nothing."""

    def invoked(self, process: int, client: str, member: str, method: str, request: bytes, metadata: Metadata = ()) -> int:
        self.operations += 1
        return self.operations

    def completed(self, operation: int, response: bytes = b"", code: int = 0, message: str = "") -> None:
        self.errors += bool(code)


def planned(*kinds: str) -> Schedule:
    """A schedule that never comes to its faults: the proxy is put around the members for them."""
    return Schedule(0, 1, 1, tuple(Fault(kind, "any", Trigger(1)) for kind in kinds))


class Process(Protocol):
    """What stands between members."""

    @property
    def pid(self) -> int: ...


class Relay:
    """benchmarks/relay.c between members."""

    def __init__(self, directory: Path) -> None:
        self.program = directory / "relay"
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("--floor compiles benchmarks/relay.c: install a C compiler (cc), or leave --floor out")
        subprocess.run([compiler, "-O2", "-o", str(self.program), str(Path(__file__).with_name("relay.c"))], check=True)

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        behind = tuple(replace(member, advertise_peer=Address(member.listen_peer.host, ports.take())) for member in members)
        pairs = [f"{after.advertise_peer.port}:{before.advertise_peer.port}" for before, after in zip(members, behind, strict=True)]
        self._process = subprocess.Popen([str(self.program), *pairs], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return behind

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.communicate()


class Variant:
    """A way to the members: a cluster, and whether clients go through its proxy too."""

    def __init__(self, name: str, cluster: Cluster, proxy: Process | None, recorder: Recorder, count: int, *, clients: bool) -> None:
        self.count = count
        self.name = name
        self.cluster = cluster
        self.proxy = proxy
        self.recorder = recorder
        self.clients = clients
        self.leader = ""

    def client(self, name: str, spec: MemberSpec) -> Client:
        address: Address = spec.advertise_client if self.clients else spec.listen_client
        return Client(name=name, member=spec.name, address=address, recorder=self.recorder, timeout_s=30.0, tls=spec.tls)

    async def throughput(self, seconds: float, seed: int) -> float:
        members = self.cluster.members
        clients = [self.client(f"kv-{number}", members[number % len(members)].spec) for number in range(self.count)]
        for client in clients:
            await client.call(RangeRequest(b"k"))  # connected before the clock starts
        end = time.perf_counter() + seconds

        async def work(client: Client, rng: random.Random) -> int:
            count = 0
            while time.perf_counter() < end:
                key = b"key-%03d" % rng.randrange(100)
                reply = await client.call(PutRequest(key, b"v" * 32) if count % 2 else RangeRequest(key))
                assert reply.outcome == "ok", (self.name, reply)
                count += 1
            return count

        began = time.perf_counter()
        counts = await asyncio.gather(*(work(client, random.Random(seed + number)) for number, client in enumerate(clients)))
        elapsed = time.perf_counter() - began
        await asyncio.gather(*(client.close() for client in clients))
        return sum(counts) / elapsed

    async def latency_ms(self, seconds: float) -> float:
        leader = await self.cluster.leader()
        client = self.client("latency", leader.spec)
        await client.call(RangeRequest(b"k"))
        took: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            reply = await client.call(PutRequest(b"latency", b"v" * 32))
            assert reply.outcome == "ok", (self.name, reply)
            took.append((time.perf_counter() - began) * 1000)
        await client.close()
        return statistics.median(took)

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds so far: of the proxy, and of everything: its members, its proxy, and this process, which is its clients."""
        proxy = _cpu_s(self.proxy.pid) if self.proxy is not None else 0.0
        return proxy, proxy + sum(_cpu_s(member.pid) for member in self.cluster.members if member.pid is not None) + time.process_time()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interval(values: list[float], rng: random.Random) -> tuple[float, float, float]:
    """(median, low, high): the 95 % interval of the median by bootstrap."""
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(BOOTSTRAPS))
    return statistics.median(values), medians[int(0.025 * BOOTSTRAPS)], medians[int(0.975 * BOOTSTRAPS)]


async def measure(version: str, pairs: int, seconds: float, tls: bool, clients: int, floor: bool, directory: Path) -> None:
    binary = find(version)
    recorder = NullRecorder(RecordWriter(directory / "history.pb"))
    async with AsyncExitStack() as stack:

        async def around(name: str, schedule: Schedule) -> tuple[Cluster, Proxy]:
            spec = ClusterSpec(binary, directory / name, tls=tls, options=OPTIONS)
            proxy = Proxy(Site(Plan(etcd=version, seed=1, schedule=schedule, tls=tls), binary, directory / name, {}))
            (directory / name).mkdir()
            stack.push_async_callback(proxy.close)
            await proxy.prepare()

            async def arrange(specs: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
                return await proxy.surround(specs, ports)

            return await stack.enter_async_context(Cluster(spec, arrange=arrange)), proxy

        direct, second = [
            await stack.enter_async_context(Cluster(ClusterSpec(binary, directory / name, tls=tls, options=OPTIONS)))
            for name in ("direct", "second")
        ]
        through, proxy = await around("through", planned("cut", "client-cut"))
        framed, framing = await around("framed", planned("messages", "client-cut"))
        base = Variant("direct", direct, None, recorder, clients, clients=False)
        others = [
            Variant("a second one, direct", second, None, recorder, clients, clients=False),
            Variant("peers", through, proxy, recorder, clients, clients=False),
            Variant("peers and clients", through, proxy, recorder, clients, clients=True),
            Variant("peers, messages taken apart", framed, framing, recorder, clients, clients=False),
        ]
        if floor:
            relay = Relay(directory)
            spec = ClusterSpec(binary, directory / "relayed", options=OPTIONS)
            relayed = await stack.enter_async_context(Cluster(spec, arrange=relay.surround))
            stack.callback(relay.close)
            others.append(Variant("peers, relay.c", relayed, relay, recorder, clients, clients=False))
        variants = [base, *others]
        rates: dict[str, list[float]] = {each.name: [] for each in variants}
        medians: dict[str, list[float]] = {each.name: [] for each in variants}
        costs: dict[str, list[float]] = {each.name: [] for each in variants}
        shares: dict[str, list[float]] = {each.name: [] for each in variants}
        for each in variants:
            await each.throughput(0.5, 0)  # warm
        for round_ in range(pairs):
            order = variants[round_ % len(variants) :] + variants[: round_ % len(variants)]
            if round_ // len(variants) % 2:
                order.reverse()
            for each in order:
                before = each.cpu_s()
                rate = await each.throughput(seconds, round_)
                proxy_s, all_s = (now - then for now, then in zip(each.cpu_s(), before, strict=True))
                rates[each.name].append(rate)
                costs[each.name].append(all_s / (rate * seconds) * 1000)
                shares[each.name].append(proxy_s / all_s)
                medians[each.name].append(await each.latency_ms(seconds / 2))
    load = os.getloadavg()[0]
    rng = random.Random(1)
    print(f"etcd {version}, {'TLS' if tls else 'plain'}, {pairs} rounds of {seconds:g} s, load {load:.1f} on {os.cpu_count()} processors")
    print(
        f"direct: {clients} clients, {statistics.median(rates['direct']):.0f} operations/s, "
        f"median put {statistics.median(medians['direct']):.2f} ms, "
        f"{statistics.median(costs['direct']):.2f} ms of CPU an operation"
    )
    for each in others:
        ratio = interval([a / b for a, b in zip(rates[each.name], rates["direct"], strict=True)], rng)
        added = interval([a - b for a, b in zip(medians[each.name], medians["direct"], strict=True)], rng)
        cost = interval([b / a for a, b in zip(costs[each.name], costs["direct"], strict=True)], rng)
        budget = "within" if ratio[0] >= THROUGHPUT_SHARE_MIN and added[0] <= ADDED_MS_MAX else "over"
        print(
            f"{each.name:28s} throughput {ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}] of direct, "
            f"median put {added[0]:+.2f} [{added[1]:+.2f}, {added[2]:+.2f}] ms: {budget} budget"
        )
        print(
            f"{'':28s} operations for a CPU second {cost[0]:.3f} [{cost[1]:.3f}, {cost[2]:.3f}] of direct; "
            f"the proxy takes {statistics.median(shares[each.name]):.0%} of the CPU time"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", default="3.7.3")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--floor", action="store_true", help="beside a relay in C that only reads and writes")
    arguments = parser.parse_args()
    if arguments.floor and arguments.tls:
        parser.error("--floor: relay.c knows no TLS; leave one of the two out")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(
            measure(arguments.etcd, arguments.pairs, arguments.seconds, arguments.tls, arguments.clients, arguments.floor, Path(directory))
        )


if __name__ == "__main__":
    main()
