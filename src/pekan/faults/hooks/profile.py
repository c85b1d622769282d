"""Which functions of etcd belong to which kind of operation, found by doing each kind to a member that counts.

A point drawn from all functions of etcd is passed in one run of ten; drawn from those that the run's operations reach, in eight of ten. And
most functions that anything reaches, everything reaches: the log, the raft loop, the commit. So a kind of operation is drawn first, evenly,
then a function by how much it is that kind's own::

    one member, every function of etcd's packages hooked, counters read in between, about two seconds
        nothing    put    txn    range    ...    restart
           │        └────────┴─────┴──────────────┘ hits of each function for each operation, less what happened in that time anyway
           v
    weight of a function for a kind = log((1 + kinds) / kinds that reach it)        inverse document frequency

A profile is made once for an executable and kept in Pekan's cache by the executable's sha256.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pekan.errors import EnvironmentFailure
from pekan.etcd.binaries.binary import file_sha256
from pekan.etcd.binaries.cache import cache_root
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec
from pekan.faults.hooks import stub
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.patches import plan_patches, write_atomically
from pekan.faults.hooks.planting import Code, Replacement, Shared, SharedMemory, attachment, write_patches
from pekan.faults.hooks.points import Points
from pekan.history.records import RecordWriter
from pekan.history.types import OK
from pekan.wire.errors import is_decided
from pekan.wire.messages import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    Request,
    TxnRequest,
    WatchCreateRequest,
    pb,
)

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import EtcdBinary, MemberSpec

IDLE_S: Final = 0.4
"""How long the member is watched doing nothing: four ticks of raft and four commits of the backend, at etcd's defaults of 100 ms."""
SETTLE_S: Final = 0.03
"""After a kind's last answer: what goes on behind it (an apply, a synchronization of watchers) has begun by then."""
REACHED_MIN: Final = 0.5
"""Hits for each operation from which on a kind reaches a function; what happens once in ten operations is another kind's business."""
TIMEOUT_S: Final = 15.0
"""A disk may have stalls of some seconds."""
MEASURE_SECONDS_MAX: Final = 60.0
"""Bound of the whole; it takes two to four seconds, a start included."""

KINDS: Final = (
    "range", "put", "txn", "delete", "lease", "watch", "compact", "snapshot", "maintenance", "auth", "membership", "defragment", "restart"
)  # fmt: skip
"""The kinds that a profile tells apart; one that a release cannot do is missing from its profile."""

KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"


@dataclass(frozen=True, slots=True)
class Profile:
    """Of each kind of operation the functions that it reaches, by full name, with weights above 0: the greater, the more its own."""

    kinds: Mapping[str, Mapping[str, float]]


def draw_point(profile: Profile, rng: random.Random, kind: str | None = None, among: Collection[str] | None = None) -> str | None:
    """A function that operations of `kind` reach (None: of a kind drawn evenly); only one of `among`, where that is given.

    None where there is no such function, and for a kind that the profile does not have. A function of its arguments."""
    kinds = {
        name: {function: weight for function, weight in functions.items() if among is None or function in among}
        for name, functions in profile.kinds.items()
        if kind is None or name == kind
    }
    possible = sorted(name for name, functions in kinds.items() if functions)
    if not possible:
        return None
    functions = kinds[rng.choice(possible)]
    names = sorted(functions)
    return rng.choices(names, [functions[name] for name in names])[0]


def weigh(hits: Mapping[str, Mapping[str, float]]) -> Profile:
    """A profile from the hits for one operation of each function, by kind."""
    reached = {kind: {name for name, count in counts.items() if count >= REACHED_MIN} for kind, counts in hits.items()}
    kinds_of: dict[str, int] = {}
    for names in reached.values():
        for name in names:
            kinds_of[name] = kinds_of.get(name, 0) + 1
    return Profile(
        {kind: {name: math.log((1 + len(reached)) / kinds_of[name]) for name in sorted(names)} for kind, names in reached.items()}
    )


async def profile_of(binary: EtcdBinary, *, keep: Path | None = None) -> Profile:
    """The profile of an executable, made when it is not kept in `keep` (`hooks` in Pekan's cache). Raises `EnvironmentFailure`."""
    path = Path(binary.path)
    sha256 = await asyncio.to_thread(file_sha256, path)
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    file = (keep or cache_root() / "hooks") / f"{sha256}-{made_by}.profile"
    kept = load(file)
    if kept is not None:
        return kept
    with tempfile.TemporaryDirectory(prefix="pekan-profile-") as directory:
        async with asyncio.timeout(MEASURE_SECONDS_MAX):
            measured = await measure(binary, Path(directory))
    profile = weigh(measured.hits)
    if measured.complete:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(profile.kinds).encode())
    return profile


def load(file: Path) -> Profile | None:
    """A kept profile; None where there is none or it is damaged."""
    try:
        kinds = json.loads(file.read_bytes())
        return Profile({str(kind): {str(name): float(weight) for name, weight in names.items()} for kind, names in kinds.items()})
    except (OSError, ValueError, AttributeError, TypeError):
        return None


class Counting:
    """Memory in which a member counts how often it passes `points`, by default the entries of every function of etcd's packages;
    `arrange` is a cluster's."""

    def __init__(self, binary: EtcdBinary, directory: Path, points: Collection[str] = ()) -> None:
        path = Path(binary.path)
        go = GoBinary(path)
        patches = plan_patches(path, points or Points(go, binary.version).functions())
        self.cells = patches.cells
        self._file = directory / "patches"
        self.memory = SharedMemory("profile", patches.cells_bytes)
        self.memory.memory[:] = patches.initial_cells().ljust(self.memory.length, b"\0")
        write_patches(
            self._file,
            [Code(patches.code_address, patches.code)],
            [Shared(patches.cells_address, patches.cells_bytes)],
            [Replacement(address, go.read(address, len(new)), new) for address, new in patches.writes],
        )

    async def arrange(self, members: tuple[MemberSpec, ...], _ports: PortLease) -> tuple[MemberSpec, ...]:
        return tuple(replace(member, attachments=(*member.attachments, attachment(self._file, self.memory))) for member in members)

    def read(self) -> dict[str, int]:
        """Entries so far, by function."""
        step = stub.CELL_BYTES // self.memory.words.itemsize
        counts = self.memory.words[::step].tolist()
        return {name: counts[cell] for name, cell in self.cells.items()}

    def close(self) -> None:
        """Idempotent; after the members have ended."""
        self.memory.close()


def reached(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was passed between two readings of counters, and how often."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}


class Measured(NamedTuple):
    """Hits of each function for one operation, by kind; `complete` unless a kind is missing because of a moment's want of time."""

    hits: dict[str, dict[str, float]]
    complete: bool


async def measure(binary: EtcdBinary, directory: Path) -> Measured:
    """Do every kind of operation to one member in `directory`. Raises `EnvironmentFailure`."""
    counting = await asyncio.to_thread(Counting, binary, directory)
    recorder = Recorder(RecordWriter(directory / "history.pb"))
    found: dict[str, dict[str, float]] = {}
    complete = True
    try:
        async with Cluster(ClusterSpec(binary, directory / "members", members=1), arrange=counting.arrange) as cluster:
            (member,) = cluster.members
            async with Client(
                name="profile", member=member.name, address=member.spec.advertise_client, recorder=recorder, timeout_s=TIMEOUT_S
            ) as client:
                hand = _Hand(client)
                try:
                    await hand.prepare()
                except _NotAnswered as error:
                    raise EnvironmentFailure(f"{binary.path} started and answers no put, so its functions cannot be told apart") from error
                before = counting.read()
                await asyncio.sleep(IDLE_S)
                idle = {name: count / IDLE_S for name, count in reached(before, counting.read()).items()}
                for kind, (act, times) in hand.kinds().items():
                    before, began = counting.read(), time.monotonic()
                    try:
                        for number in range(times):
                            await act(number)
                    except _NotAnswered as error:
                        # A release that cannot do it, or a busy machine: the profile does without this kind.
                        complete = complete and error.refused
                        continue
                    await asyncio.sleep(SETTLE_S)
                    elapsed = time.monotonic() - began
                    passed = reached(before, counting.read())
                    found[kind] = {name: count / times - idle.get(name, 0.0) * elapsed / times for name, count in passed.items()}
            before = counting.read()
            await member.kill()
            await member.start()
            await cluster.wait_ready()
            found["restart"] = {name: float(count) for name, count in reached(before, counting.read()).items()}
    finally:
        recorder.close()
        counting.close()
    return Measured(found, complete)


class _NotAnswered(Exception):
    """etcd refused, or did not answer in time."""

    def __init__(self, *, refused: bool) -> None:
        super().__init__()
        self.refused = refused


class _Hand:
    """One client that does each kind of operation."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.revision = 0

    def kinds(self) -> dict[str, tuple[Callable[[int], Awaitable[None]], int]]:
        """What to do for each kind, and how often: enough that a commit or a tick in between does not look like a part of it."""
        return {
            "range": (self.get, 20),
            "put": (self.put, 20),
            "txn": (self.txn, 20),
            "delete": (self.delete, 20),
            "lease": (self.lease, 5),
            "watch": (self.watch, 5),
            "compact": (self.compact, 3),
            "snapshot": (self.snapshot, 3),
            "maintenance": (self.maintain, 3),
            "auth": (self.auth, 3),
            "membership": (self.membership, 3),
            "defragment": (self.defragment, 2),
        }

    async def prepare(self) -> None:
        """Keys to read and to delete."""
        for number in range(20):
            await self.ask(PutRequest(b"old-%d" % number, b"value"))

    async def ask(self, request: Request) -> Any:
        reply = await self.client.call(request)
        if reply.outcome != OK:
            raise _NotAnswered(refused=is_decided(reply.output))
        self.revision = getattr(getattr(reply.output, "header", None), "revision", self.revision)
        return reply.output

    async def get(self, number: int) -> None:
        await self.ask(RangeRequest(b"old-%d" % number, serializable=bool(number % 2)))

    async def put(self, number: int) -> None:
        await self.ask(PutRequest(b"new-%d" % number, b"value"))

    async def txn(self, number: int) -> None:
        key = b"txn-%d" % number
        await self.ask(TxnRequest((), (PutRequest(key, b"1"), RangeRequest(key)), ()))

    async def delete(self, number: int) -> None:
        await self.ask(DeleteRangeRequest(b"old-%d" % number))

    async def lease(self, number: int) -> None:
        granted = await self.ask(LeaseGrantRequest(60))
        await self.ask(PutRequest(b"leased", b"value", lease=granted.id))
        async with self.client.stream(KEEP_ALIVE) as stream:
            await stream.send(LeaseKeepAliveRequest(granted.id))
            await self._receive(stream)
        await self.ask(LeaseRevokeRequest(granted.id))

    async def watch(self, number: int) -> None:
        async with self.client.watch() as stream:
            await stream.send(WatchCreateRequest(b"watched", start_revision=max(1, self.revision - number)))
            await self._receive(stream)
            await self.ask(PutRequest(b"watched", b"value"))
            await self._receive(stream)

    async def compact(self, number: int) -> None:
        await self.ask(PutRequest(b"compacted", b"%d" % number))
        await self.ask(CompactionRequest(self.revision - 1, physical=True))

    async def snapshot(self, _number: int) -> None:
        async with self.client.stream(SNAPSHOT) as stream:
            await stream.send(pb.SnapshotRequest())
            while await self._receive(stream) is not None:
                pass

    async def maintain(self, _number: int) -> None:
        for request in (pb.StatusRequest(), pb.HashKVRequest(), pb.AlarmRequest()):
            await self.ask(request)

    async def auth(self, number: int) -> None:
        name = f"user-{number}"
        for request in (
            pb.AuthUserAddRequest(name=name, password="secret"),
            pb.AuthRoleAddRequest(name=name),
            pb.AuthUserGrantRoleRequest(user=name, role=name),
            pb.AuthUserDeleteRequest(name=name),
        ):
            await self.ask(request)

    async def membership(self, number: int) -> None:
        # A learner that never comes has no vote, so that the one voter goes on. Raft drops a change of the membership, and the request then
        # waits for ever, where it has not yet heard that the last one was applied, of which etcd tells the client first (mended in 3.5.12).
        added = await self.ask(pb.MemberAddRequest(peerURLs=[f"http://127.0.0.1:{1 + number}"], isLearner=True))
        await asyncio.sleep(SETTLE_S)
        await self.ask(pb.MemberListRequest(linearizable=True))
        await self.ask(pb.MemberRemoveRequest(ID=added.member.ID))
        await asyncio.sleep(SETTLE_S)

    async def defragment(self, _number: int) -> None:
        await self.ask(pb.DefragmentRequest())

    async def _receive(self, stream: Any) -> Any:
        try:
            return await stream.receive(TIMEOUT_S)
        except TimeoutError as error:
            raise _NotAnswered(refused=False) from error
