"""The simulator, by which checkers are judged, is itself judged by real etcd."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest

from oracle.brute import same
from pekan.etcd.binaries import Binary, find, installed
from pekan.etcd.cluster import Cluster
from pekan.etcd.spec import ClusterSpec
from pekan.wire.errors import WireError
from pekan.wire.messages import WATCH, Decoder, Event, TxnRequest, WatchCreateRequest, encode, method_of
from simulator.machine import Store
from simulator.traffic import Mix, World

pytestmark = pytest.mark.live

TEST_SECONDS = 400.0
REQUESTS = 350
"""For each size of key space: every kind of request comes often, and all takes seconds."""
# Without compaction, so that a watch from the first revision sees everything; `compacted` has a run of its own.
MIX = Mix(
    compact=0, grant=4, put_lease=8, nested=12, txn=12, ranged_txn=5, read_txn=5, compares_only=2, delete_range=5, list=20, open_delete=4
)


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def binaries() -> list[str]:
    """3.5.1, and the newest of every later minor that is in the cache."""
    newest: dict[tuple[int, ...], str] = {}
    for binary in installed():
        newest.setdefault(minor(binary.version), binary.version)
    return ["3.5.1", *(version for of, version in sorted(newest.items()) if of > (3, 5))]


@pytest.mark.parametrize("compact", [0.0, 3.0], ids=["whole", "compacted"])
@pytest.mark.parametrize("version", binaries())
def test_real_etcd_answers_as_the_simulated_store(version: str, compact: float, tmp_path: Path) -> None:
    """A thousand random requests, one after the other, get the same answers and leave the same events as in the simulator."""
    asyncio.run(asyncio.wait_for(compared(find(version), compact, tmp_path), TEST_SECONDS))


async def compared(binary: Binary, compact: float, directory: Path) -> None:
    decoder = Decoder()
    store = Store(hides_lease=minor(binary.version) >= (3, 7))
    async with Cluster(ClusterSpec(binary, directory, members=1)) as cluster:
        address = str(cluster.members[0].spec.advertise_client)
        async with grpc.aio.insecure_channel(address) as channel:

            async def ask(request: Any) -> Any:
                method = method_of(request)
                try:
                    return decoder.response(method, await channel.unary_unary(method)(encode(request), timeout=60))
                except grpc.aio.AioRpcError as error:
                    return WireError(error.code().value[0], error.details() or "")

            for keys in (2, 5, 30):
                world = World(Random(keys), [b"k%02d" % n for n in range(keys)], MIX_COMPACTING if compact else MIX, ttl=600)
                world.skip(keys * 10_000)
                world.revision = store.revision
                for _ in range(REQUESTS):
                    request = world.draw()
                    theirs = await ask(request)
                    reasons = store.refusals(request) if isinstance(request, TxnRequest) else []
                    ours = store.apply(request, hint=theirs)
                    if isinstance(theirs, WireError):
                        assert theirs in (reasons or [ours]), f"{request}:\n simulator {ours}\n etcd      {theirs}"
                    else:
                        assert same(ours, theirs), f"{request}:\n simulator {ours}\n etcd      {theirs}"
                    world.revision = store.revision
            await watched(channel, decoder, store)


MIX_COMPACTING = Mix(compact=3, compact_refused=2, old=15, ranged_txn=8, grant=2, put_lease=4)


async def watched(channel: grpc.aio.Channel, decoder: Decoder, store: Store) -> None:
    """A watch from the first revision that is left delivers the store's events, with the previous key-values that are left."""
    first = max(store.compacted, 1)
    stream = channel.stream_stream(WATCH)()
    await stream.write(encode(WatchCreateRequest(b"\x00", b"\x00", first + 1, prev_kv=True)))
    seen: dict[int, list[Event]] = {}
    while not seen or max(seen) < store.revision:
        for event in decoder.response(WATCH, await stream.read()).events:
            seen.setdefault(event.kv.mod_revision, []).append(event)
    stream.cancel()
    assert sorted(seen) == list(range(first + 1, store.revision + 1))
    for revision, events in seen.items():
        assert events == list(store.events[revision]), f"revision {revision}"
