"""Which gofail sites of which releases a load passes: every site hooked and counting in every member, and everything done that etcd can do.

    make survey                                                    all releases, about three minutes, writes docs/failpoints.md
    cd tests && ../.venv/bin/python -m gofail.survey 3.7.3         one release, printed

A cluster of three, with what makes rare things frequent (snapshots each hundred entries, compaction in small batches, checkpoints of
leases): traffic through every member, transactions, watches, leases with keepalive and time to live, users and roles, compaction,
defragmentation, a snapshot over the wire, a change of membership, a follower that was away for so long that it is sent a snapshot, a
restart of each member.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from pekan.errors import UsageError
from pekan.etcd.binaries import find
from pekan.etcd.flags import spelling
from pekan.faults.hooks import Hooks
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.points import Points
from pekan.wire.messages import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
    encode,
    pb,
)
from stage import Stage, stage

RELEASES = ("3.4.23", "3.5.1", "3.5.16", "3.5.35", "3.6.16", "3.7.3")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "failpoints.md"

KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
RANGE_STREAM = "/etcdserverpb.KV/RangeStream"

WANTED = {
    "snapshot-count": "100",
    "snapshot-catchup-entries": "50",
    "compaction-batch-limit": "5",
    "lease-checkpoint": "true",
    "memory-mlock": "true",
}
"""What makes rare things frequent, where the release has the option."""
CATCH_UP = 5_000
"""Entries that a leader keeps for slow followers where that is no option (etcdserver/server.go, DefaultSnapshotCatchUpEntries)."""
AT_ONCE = 32
TIMEOUT_S = 10.0
"""Of each request: the machine may be busy, and nothing here is judged."""


async def survey(version: str) -> dict[str, int]:
    """Passages of each gofail site of that release, over all members."""
    binary = find(version)
    names = Points(GoBinary(binary.path), version).gofail_names()
    options = {name: value for name, value in WANTED.items() if _has(version, name)}
    faults = [f"failpoint any point={name} action=count at 0s" for name in names]
    with tempfile.TemporaryDirectory(prefix="pekan-survey-") as directory:
        async with stage(version, Path(directory), *faults, members=3, seconds=600.0, options=options) as it:
            hooks = it.equipment[Hooks.name]
            assert isinstance(hooks, Hooks)
            for part in (requests, leases, watches, users, maintenance, membership, lag(options), restarts, stream):
                await part(it)
            counters = [hooks.counters(member.name) for member in it.cluster.members]
    return {name: sum(counts[name] for counts in counters) for name in names}


def _has(version: str, option: str) -> bool:
    try:
        spelling(version, option)
    except UsageError:
        return False
    return True


async def ask(it: Stage, member: str, request: Any) -> Any:
    """The answer, or None; what fails fails, and shows in what was not passed."""
    reply = await it.call(member, request, TIMEOUT_S)
    return reply.output if reply.outcome == "ok" else None


async def requests(it: Stage) -> None:
    for number in range(120):
        for member in ("m1", "m2", "m3"):
            key = b"%s-%d" % (member.encode(), number)
            await ask(it, member, PutRequest(key, b"v" * 100))
            await ask(it, member, RangeRequest(key))
            if number % 4 == 0:
                await ask(it, member, TxnRequest((), (PutRequest(key, b"2"),), ()))
            if number % 5 == 0:
                await ask(it, member, DeleteRangeRequest(key))


async def leases(it: Stage) -> None:
    for member in ("m1", "m2", "m3"):
        granted = await ask(it, member, LeaseGrantRequest(30))
        if granted is None:
            continue
        await ask(it, member, PutRequest(b"leased", b"v", lease=granted.id))
        await ask(it, member, LeaseTimeToLiveRequest(granted.id, keys=True))
        client = it.context.open(f"lease-{member}", member)
        async with client.stream(KEEP_ALIVE) as stream:
            await stream.send(LeaseKeepAliveRequest(granted.id))
            await _received(stream)
        await ask(it, member, LeaseRevokeRequest(granted.id))


async def watches(it: Stage) -> None:
    for member in ("m1", "m2", "m3"):
        client = it.context.open(f"watch-{member}", member)
        async with client.watch() as stream:
            await stream.send(WatchCreateRequest(b"\0", b"\0", start_revision=2))
            await _received(stream)
            await ask(it, member, PutRequest(b"watched", b"v"))
            await _received(stream)
            await _received(stream)


async def users(it: Stage) -> None:
    for request in (
        pb.AuthRoleAddRequest(name="root"),
        pb.AuthUserAddRequest(name="root", password="secret"),
        pb.AuthUserGrantRoleRequest(user="root", role="root"),
        pb.AuthUserChangePasswordRequest(name="root", password="other"),
        pb.AuthUserDeleteRequest(name="root"),
        pb.AuthRoleDeleteRequest(role="root"),
    ):
        await ask(it, "m1", request)


async def maintenance(it: Stage) -> None:
    read = await ask(it, "m1", RangeRequest(b"none"))
    await ask(it, "m1", CompactionRequest(read.header.revision - 5, physical=True))
    for member in ("m1", "m2", "m3"):
        await ask(it, member, pb.DefragmentRequest())
        client = it.context.open(f"snapshot-{member}", member)
        async with client.stream(SNAPSHOT) as stream:
            await stream.send(pb.SnapshotRequest())
            while await _received(stream) is not None:
                pass


async def membership(it: Stage) -> None:
    added = await ask(it, "m1", pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True))
    if added is not None:
        await ask(it, "m1", pb.MemberRemoveRequest(ID=added.member.ID))


def lag(options: dict[str, str]) -> Callable[[Stage], Awaitable[None]]:
    """A follower that is away until the leader no longer has the entries that it lacks."""
    missed = 400 if "snapshot-catchup-entries" in options else CATCH_UP + 600

    async def lagging(it: Stage) -> None:
        leader = await it.cluster.leader()
        follower = next(member for member in it.cluster.members if member is not leader)
        await follower.kill()
        clients = [it.context.open(f"filler-{number}", leader.name) for number in range(AT_ONCE)]

        async def fill(number: int) -> None:
            for round_ in range(missed // AT_ONCE + 1):
                await clients[number].call(PutRequest(b"fill-%d" % number, b"%d" % round_), TIMEOUT_S)

        await asyncio.gather(*(fill(number) for number in range(AT_ONCE)))
        await follower.start()
        await follower.wait_ready(60.0)

    return lagging


async def restarts(it: Stage) -> None:
    for member in it.cluster.members:
        await member.kill()
        await member.start()
        await it.cluster.wait_ready(60.0)
        await ask(it, member.name, PutRequest(b"after", b"v"))


async def stream(it: Stage) -> None:
    """A range in pieces, which 3.7 has; elsewhere it is refused."""
    async with grpc.aio.insecure_channel(str(it.cluster.member("m1").spec.advertise_client)) as channel:
        call = channel.unary_stream(RANGE_STREAM)(encode(RangeRequest(b"m", b"n")), timeout=TIMEOUT_S)
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise


async def _received(stream: Any) -> Any:
    try:
        return await stream.receive(TIMEOUT_S)
    except TimeoutError:
        return None


HEAD = """# Failpoints

`pekan hunt --fault 'failpoint leader point=NAME action=hold-kill 200ms at 5s'` holds or kills a member of any unmodified etcd at a place of
its program: a gofail site by its name, a function (`applierV3backend.Apply`, `wal.(*WAL).Save`), or a source line
(`etcdserver/raft.go:240`).

gofail comments do nothing in a release build. Pekan knows from etcd's source where they stand, for every release from 3.4.0 on, checks that
the executable was built from the same lines, and puts a hook at the instruction at which the line after the comment begins. For a release
that it does not know, and for sites that a release does not have, some names stand for the entry of the function that goes on to the same
place; the others are refused.

## By which means

`mechanism=any`, the default, takes the first of these that can be at the point and do what is asked; the evidence of a fault names it.
`pekan doctor` says which of them work on your machine.

* `hook`: code in the member from its start on. Its file stays the stock one, nobody traces it, and no privilege is needed: it works in a
  default container. It counts all the time, at some nanoseconds a hit. It cannot be at every instruction.
* `breakpoint`: the processor's debug registers, with a tracer from the arming to the end of one shot. One at a time in a member, at four
  places at the most, never at the first hit after the arming.
* `uprobe`: a probe of the kernel with a program of BPF, for root. It counts from the arming on, at some microseconds a hit, and kills; it
  holds no thread.

`reached`, the default of `point`, draws a function from those that the hooks of this run have counted, so only hooks take it.

## The sites, and which of them a load passes

Generated by `make survey` on {date}: {machine}.

Each number is how often the members of one cluster of three passed the site together, under a load that does everything once that etcd can
do. A site that was not passed is 0 and can be hooked all the same; an empty cell is a site that the release does not have (the sites of
bbolt are those of the bbolt in the executable). Every site of every release shown resolves:

{totals}

"""


def page(found: dict[str, dict[str, int]]) -> str:
    """docs/failpoints.md."""
    names = sorted({name for counts in found.values() for name in counts}, key=str.lower)
    totals = "\n".join(
        f"* etcd {version}: {len(counts)} sites, {sum(map(bool, counts.values()))} of them passed" for version, counts in found.items()
    )
    machine = f"Linux {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    lines = ["| site | " + " | ".join(found) + " |", "|---|" + "--:|" * len(found)]
    lines += [f"| `{name}` | " + " | ".join(str(counts.get(name, "")) for counts in found.values()) + " |" for name in names]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return HEAD.format(date=today, machine=machine, totals=totals) + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="which gofail sites a load passes")
    parser.add_argument("releases", nargs="*", default=RELEASES)
    parser.add_argument("--write", action="store_true", help="write docs/failpoints.md")
    options = parser.parse_args()
    found: dict[str, dict[str, int]] = {}
    for version in options.releases:
        found[version] = asyncio.run(survey(version))
        never = [name for name, hits in found[version].items() if not hits]
        passed = len(found[version]) - len(never)
        print(f"{version}: {passed} of {len(found[version])} sites passed; not {', '.join(never) or 'one missed'}", flush=True)
    if options.write:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
