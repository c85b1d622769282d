"""What recording costs: `python benchmarks/recording.py [--etcd 3.5.1] [--pairs 20] [--seconds 2]`.

Two figures, against a real member of this machine:

* paired throughput with the recorder and with one that keeps nothing. The two take turns (and turns at being first), so that a slow moment
  of the machine meets both; the ratio is told with the 95 % interval of a bootstrap over pairs.
* client CPU of recording one operation: `invoked` and `completed` in a tight loop, into a real file. Budget: 60 us.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

from pekan.etcd.binaries import find
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Metadata, Recorder
from pekan.etcd.spec import Address, ClusterSpec
from pekan.history import RecordWriter, read_records
from pekan.wire.messages import PUT_METHOD, Header, PutRequest, PutResponse, RangeRequest, encode

BUDGET_US = 60.0
CLIENTS = 8
"""The default concurrency of a hunt."""
CPU_OPERATIONS = 50_000
BOOTSTRAPS = 10_000


class NullRecorder(Recorder):
    """Counts as the recorder does and keeps nothing: what a client costs by itself."""

    def invoked(self, process: int, client: str, member: str, method: str, request: bytes, metadata: Metadata = ()) -> int:
        self.operations += 1
        return self.operations

    def completed(self, operation: int, response: bytes = b"", code: int = 0, message: str = "") -> None:
        self.errors += bool(code)


async def throughput(address: Address, recorder: Recorder, seconds: float, seed: int) -> float:
    """Operations a second of eight clients, each with a connection of its own, half puts and half gets of 100 keys."""
    clients = [Client(name=f"kv-{number}", member="m1", address=address, recorder=recorder, timeout_s=10.0) for number in range(CLIENTS)]
    for client in clients:
        await client.call(RangeRequest(b"k"))  # connected before the clock starts
    end = time.perf_counter() + seconds

    async def work(client: Client, rng: random.Random) -> int:
        count = 0
        while time.perf_counter() < end:
            key = b"key-%03d" % rng.randrange(100)
            reply = await client.call(PutRequest(key, b"v" * 32) if count % 2 else RangeRequest(key))
            assert reply.outcome == "ok", reply
            count += 1
        return count

    begin = time.perf_counter()
    counts = await asyncio.gather(*(work(client, random.Random(seed * CLIENTS + number)) for number, client in enumerate(clients)))
    rate = sum(counts) / (time.perf_counter() - begin)
    for client in clients:
        await client.close()
    return rate


def recording_cpu_us(directory: Path) -> list[float]:
    """CPU microseconds of recording one operation, several times over."""
    request = encode(PutRequest(b"key-000", b"v" * 32))
    response = encode(PutResponse(Header(1 << 60, 1 << 61, 12345, 2), None))
    figures = []
    for repeat in range(5):
        recorder = Recorder(RecordWriter(directory / f"cpu-{repeat}.pb"))
        begin = time.process_time()
        for _ in range(CPU_OPERATIONS):
            recorder.completed(recorder.invoked(1, "kv-0", "m1", PUT_METHOD, request), response)
        figures.append((time.process_time() - begin) / CPU_OPERATIONS * 1e6)
        recorder.close()
    return figures


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median ratio."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAPS))
    return medians[BOOTSTRAPS * 25 // 1000], medians[BOOTSTRAPS * 975 // 1000]


def calibration() -> float:
    """CPU seconds of a fixed pure-Python loop, so that figures from different machines and moments can be compared."""
    begin = time.process_time()
    total = 0
    for i in range(5_000_000):
        total += i & 7
    return time.process_time() - begin


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", default="3.5.1", help="version or path (default: 3.5.1)")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each half of a pair")
    options = parser.parse_args()
    binary = find(options.etcd)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        processor = platform.processor() or platform.machine()
        print(f"machine        {processor}, Python {platform.python_version()}, etcd {binary.version}, calibration {calibration():.3f} s")
        cpu = recording_cpu_us(directory)
        verdict = "within" if min(cpu) < BUDGET_US else "OVER"
        figures = ", ".join(f"{figure:.1f}" for figure in cpu)
        print(f"recording CPU  {statistics.median(cpu):.1f} us/operation, {verdict} the budget of {BUDGET_US:.0f}")
        print(f"               ({figures}; n={CPU_OPERATIONS} each)")
        pairs: list[tuple[float, float]] = []
        async with Cluster(ClusterSpec(binary, directory / "cluster", members=1)) as cluster:
            address = cluster.members[0].spec.advertise_client
            await throughput(address, NullRecorder(RecordWriter("/dev/null")), options.seconds, 0)  # warm
            for number in range(options.pairs):
                rates = {}
                for recorded in (True, False) if number % 2 else (False, True):
                    if recorded:
                        path = directory / f"history-{number}.pb"
                        recorder = Recorder(RecordWriter(path))
                    else:
                        recorder = NullRecorder(RecordWriter("/dev/null"))
                    rates[recorded] = await throughput(address, recorder, options.seconds, number)
                    recorder.close()
                    if recorded:
                        assert len(read_records(path).records) == 2 * recorder.operations, "everything was recorded"
                        path.unlink()
                pairs.append((rates[True], rates[False]))
        ratios = [recorded / plain for recorded, plain in pairs]
        low, high = interval(ratios)
        recorded_rate, plain_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        print(f"throughput     {recorded_rate:.0f}/s recorded, {plain_rate:.0f}/s not, {CLIENTS} clients")
        print(f"ratio          {statistics.median(ratios):.3f}, 95 % interval {low:.3f} to {high:.3f}")
        print(f"               (n={len(pairs)} pairs of twice {options.seconds:g} s)")


if __name__ == "__main__":
    asyncio.run(main())
