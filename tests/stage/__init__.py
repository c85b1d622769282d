"""A stage for faults: a real cluster with the equipment that some faults need, one recorded client a member, and no hunter.

::

    async with stage("3.5.1", tmp_path, "pause leader 1s at 0s") as it:     # the faults decide what is put around the members
        task = it.carry_out()                                               # a task: armed, fired, healed
        reply = await it.put("m1", b"k", b"v")
        await task
    it.spans("pause")                                                       # what the record says of them
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pekan.etcd.client import Client, Reply, decided
from pekan.etcd.cluster import Cluster
from pekan.etcd.ports import PortLease
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import Address, ClusterSpec, MemberSpec
from pekan.faults import Context, Equipment, Journal, Site, equipment_for, inject, parse
from pekan.history.reading import load
from pekan.history.records import RecordWriter
from pekan.history.types import FaultSpan
from pekan.hunt.probe import Probe
from pekan.plan import Plan, Schedule
from pekan.wire.messages import PutRequest, RangeRequest, Request

from .releases import provided

DEADLINE_S = 120.0
"""For everything on one stage; several times what it takes on two busy cores."""
TIMEOUT_S = 2.0
"""Of a look at a member, which is repeated, and of clients that faults open."""
ANSWER_S = 20.0
"""Of a test's own request, which is expected to be answered unless it says how long it waits: ten elections, on a machine that is busy."""
PAUSE_S = 0.05
"""Between two looks for what comes by itself."""
UNDECIDED = "not_decided"
"""What a member says of the cluster's version before its first leader has set one (api/etcdhttp/version.go)."""


@dataclass
class Stage:
    """What a test has in hand. `directory` is a run directory."""

    directory: Path
    cluster: Cluster
    context: Context
    schedule: Schedule
    equipment: dict[str, Equipment]
    clients: dict[str, Client] = field(default_factory=dict)

    def carry_out(self, *faults: str) -> asyncio.Task[None]:
        """A task that carries out `faults`, or those that the stage was made for."""
        schedule = self.schedule
        if faults:
            end = self.context.heal_ms
            schedule = Schedule(0, end, end, tuple(parse(text) for text in faults))
        return asyncio.create_task(inject(schedule, self.context))

    async def call(self, member: str, request: Request, timeout_s: float = ANSWER_S) -> Reply:
        """One recorded request by the client of that member."""
        return await self._client(member).call(request, timeout_s)

    def _client(self, member: str) -> Client:
        client = self.clients.get(member)
        if client is None:
            spec = self.cluster.member(member).spec
            client = self.clients[member] = self.context.open(f"test-{member}", member)
            assert client.address == str(spec.advertise_client)
        return client

    async def put(self, member: str, key: bytes, value: bytes, timeout_s: float = ANSWER_S) -> Reply:
        return await self.call(member, PutRequest(key, value), timeout_s)

    async def answer(self, member: str, request: Request) -> Reply:
        """As `call`, again until etcd has decided the answer: a dial may take too long, an election be in between. For requests that may be
        done twice."""
        return await decided(lambda: self.call(member, request), math.inf)

    async def get(self, member: str, key: bytes, timeout_s: float = ANSWER_S, *, serializable: bool = False) -> Reply:
        return await self.call(member, RangeRequest(key, serializable=serializable), timeout_s)

    async def settled(self, member: str) -> None:
        """Return once the client of `member` is connected, and what a cluster asks of itself after its start, beside the first requests of
        clients, has been applied there: what is applied from now on, somebody has asked for."""
        await self.served(member)
        while await _cluster_version(self.cluster.member(member).spec.advertise_client) == UNDECIDED:
            await asyncio.sleep(PAUSE_S)

    async def served(self, member: str) -> None:
        """Return once the test's own client of `member` is `connected`."""
        await connected(self._client(member))

    def spans(self, kind: str = "") -> list[FaultSpan]:
        """The lives of the faults of `kind` (all) so far, in order of arming."""
        spans = load(self.directory / "history.pb").faults
        return [span for span in sorted(spans, key=lambda each: each.id) if not kind or span.kind == kind]


@asynccontextmanager
async def stage(
    version: str,
    directory: Path,
    *faults: str,
    members: int = 3,
    seconds: float = 240.0,
    tls: bool = False,
    seed: int = 1,
    options: dict[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """A running cluster of `version` with what `faults` (as `--fault` takes them) need; their phase ends after `seconds`, which is long
    after the end of any test that does not want to see it."""
    end = int(seconds * 1000)
    schedule = Schedule(0, end, end, tuple(parse(text) for text in faults))
    plan = Plan(etcd=version, seed=seed, members=members, time_ms=end, tls=tls, schedule=schedule)
    binary = provided(version)
    recorder = Recorder(RecordWriter(directory / "history.pb"))
    opened: list[Client] = []
    equipment: dict[str, Equipment] = {}

    async def surround(specs: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        for each in equipment.values():
            specs = await each.surround(specs, ports)
        return specs

    def open_client(name: str, spec: MemberSpec) -> Client:
        client = Client(name=name, member=spec.name, address=spec.advertise_client, recorder=recorder, timeout_s=TIMEOUT_S, tls=spec.tls)
        opened.append(client)
        return client

    async def close_clients() -> None:
        await asyncio.gather(*(client.close() for client in opened), return_exceptions=True)

    async with asyncio.timeout(DEADLINE_S + seconds), AsyncExitStack() as stack:
        stack.callback(recorder.close)
        journal = await stack.enter_async_context(Journal(directory / "journals"))
        spec = ClusterSpec(binary, directory / "members", members=members, tls=tls, options=options or {})
        for kind in equipment_for(schedule):
            each = equipment[kind.name] = kind(Site(plan, binary, directory, spec.options, journal))
            stack.push_async_callback(each.close)
            await each.prepare()
        probe = Probe(open_client, TIMEOUT_S)
        cluster = await stack.enter_async_context(Cluster(spec, probe, arrange=surround))
        stack.push_async_callback(close_clients)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def ask(member: str, request: Request, timeout_s: float) -> Reply:
            return await probe.ask(cluster.member(member).spec, request, timeout_s)

        context = Context(
            cluster,
            recorder,
            lambda: int((loop.time() - began) * 1000),
            end,
            ask=ask,
            open=lambda name, member: open_client(name, cluster.member(member).spec),
            directory=directory,
            seed=seed,
            equipment=equipment,
            journal=journal,
        )
        yield Stage(directory, cluster, context, schedule, equipment)


async def connected(client: Client) -> None:
    """Return once `client` has been answered by its member, which nobody cuts off. An attempt to dial may take a second, and calls fail at
    once when it fails, and until the next one: after the member was away, and where it has no processor just then."""
    while (await client.call(RangeRequest(b"connected", serializable=True), TIMEOUT_S)).outcome != "ok":
        await asyncio.sleep(PAUSE_S)


async def _cluster_version(address: Address) -> str:
    """The version that the members of the cluster have agreed on, as the one at `address` has it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET /version HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.transport.abort()
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["etcdcluster"])
