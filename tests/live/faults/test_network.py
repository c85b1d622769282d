"""Faults of links, on real clusters, seen from outside: who leads, what is answered and when, and what the proxy counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pekan.checking import check
from pekan.errors import ClusterFailure
from pekan.etcd.client import Reply
from pekan.etcd.cluster import Member
from pekan.faults.network import Proxy
from pekan.history.types import FaultSpan
from pekan.plan import Plan
from stage import Stage, stage

pytestmark = pytest.mark.live

LONG_S = 10.0
"""A deadline for what is to be answered late."""


async def _another_leader(it: Stage, old: str) -> Member:
    """Wait for a leader that is not `old`; the stage's deadline bounds it."""
    while True:
        try:
            leader = await it.cluster.leader(1.0)
        except ClusterFailure:
            continue
        if leader.name != old:
            return leader


class _Carried:
    """A fault that is being carried out."""

    def __init__(self, it: Stage, fault: str) -> None:
        self.kind = fault.partition(" ")[0]
        self.context = it.context
        self.before = self.context.fired_by_kind.get(self.kind, 0)
        self.armed_before = self.context.armed
        self.task = it.carry_out(fault)

    async def armed(self) -> None:
        while self.context.armed == self.armed_before and not self.task.done():
            await asyncio.sleep(0.01)
        # Armed is what the record says; the proxy is told a moment later, and answers in the order in which it is asked.
        proxy = self.context.equipment["proxy"]
        assert isinstance(proxy, Proxy)
        for _ in range(2):
            await proxy.counts()

    async def fired(self) -> None:
        """It has done something; the stage's deadline bounds the wait."""
        await self.context.until_fired(self.kind, self.before + 1)

    async def end(self) -> None:
        """Undo it now."""
        self.task.cancel()
        await asyncio.wait({self.task})


async def _read(it: Stage, member: str, key: bytes) -> bytes:
    """A linearizable read through `member`; on a busy machine an election may cost it a try."""
    while (reply := await it.get(member, key, LONG_S)).outcome != "ok":
        pass
    value: bytes = reply.output.kvs[0].value
    return value


async def _written(it: Stage, key: bytes, value: bytes) -> None:
    """A put through the leader, until it is acknowledged."""
    while (await it.put((await it.cluster.leader()).name, key, value, LONG_S)).outcome != "ok":
        pass


async def _timed_put(it: Stage, member: str) -> tuple[Reply, float]:
    began = time.monotonic()
    reply = await it.put(member, b"timed", b"value", LONG_S)
    return reply, time.monotonic() - began


def _did(span: FaultSpan) -> dict[str, int]:
    """What the proxy counted until the end of a fault that has fired and was healed."""
    assert span.fired is not None
    assert span.healed is not None
    return dict(span.evidence["healed"])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_cut_links_depose_a_leader_and_come_back(tmp_path: Path, tls: bool) -> None:
    """An isolated leader is replaced and can write nothing; afterwards it serves again; a link that is cut one way only does the same."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "isolate leader 20s at 0s", "cut leader at 0s", tls=tls) as it:
            proxy = it.context.equipment["proxy"]
            assert isinstance(proxy, Proxy)
            names = {member.name for member in it.cluster.members}
            assert set(await proxy.counts()) >= {(a, b) for a in names for b in names if a != b}  # who dials is known by name

            old = (await it.cluster.leader()).name
            isolated = _Carried(it, "isolate leader 60s at 0s")
            new = await _another_leader(it, old)
            assert (await it.put(old, b"k", b"lost", 0.5)).outcome == "indefinite"
            assert (await it.put(new.name, b"k", b"v", LONG_S)).outcome == "ok"
            await isolated.end()
            await it.cluster.wait_ready()
            assert (await it.get(old, b"k")).output.kvs[0].value in (b"v", b"lost")
            (span,) = it.spans("isolate")
            assert span.target == old
            assert _did(span)["bytes"] > 0

            # Only what it says is lost: it hears the others, and steps down when they have elected one.
            old = (await it.cluster.leader()).name
            mute = _Carried(it, f"isolate {old} 60s direction=out at 0s")
            await _another_leader(it, old)
            await mute.end()
            await it.cluster.wait_ready()
            assert _did(it.spans("isolate")[-1])["bytes"] > 0

            # One link alone: the follower hears the other one, so nobody is deposed, and only what the leader says is missing there.
            leader = (await it.cluster.leader()).name
            deaf, other = (member.name for member in await it.cluster.followers())
            await _written(it, b"link", b"before")
            assert [await _read(it, name, b"link") for name in (deaf, other)] == [b"before", b"before"]
            cut = _Carried(it, f"cut {deaf} 60s peer={leader} at 0s")
            await cut.fired()
            assert (await it.put(leader, b"link", b"after", LONG_S)).outcome == "ok"
            await _has(it, other, b"link", b"after")
            assert (await it.get(deaf, b"link", serializable=True)).output.kvs[0].value == b"before"
            await cut.end()
            assert await _read(it, deaf, b"link") == b"after"
            assert _did(it.spans("cut")[-1])["bytes"] > 0

    asyncio.run(go())


async def _has(it: Stage, member: str, key: bytes, value: bytes) -> None:
    """Wait until `member` holds that value, by its own account; the stage's deadline bounds the wait."""
    while [kv.value for kv in (await it.get(member, key, serializable=True)).output.kvs] != [value]:
        await asyncio.sleep(0.01)


def test_groups_that_do_not_hear_each_other(tmp_path: Path) -> None:
    """Of five members: a leader in the minority is replaced; without a majority nobody is served; on a ring and across a bridge writes go
    on, and two members do not learn of them. When it is over all five tell the same."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "partition leader at 0s", members=5, seconds=90) as it:
            names = [member.name for member in it.cluster.members]

            async def ignorant(key: bytes, value: bytes) -> list[str]:
                """Who does not have it; the others are waited for: a majority."""
                found = {name: await it.get(name, key, serializable=True) for name in names}
                return [name for name, reply in found.items() if [kv.value for kv in reply.output.kvs] != [value]]

            async def whole(value: bytes) -> None:
                await it.cluster.wait_ready()
                await _written(it, b"k", value)
                assert [await _read(it, name, b"k") for name in names] == [value] * 5

            await whole(b"at first")  # and without a partition everybody learns of everything
            for shape, links in (("majority-minority", 12), ("half", 16), ("ring", 10), ("bridge", 8)):
                leader = (await it.cluster.leader()).name
                victim = leader if shape != "bridge" else (await it.cluster.followers())[0].name
                parted = _Carried(it, f"partition {victim} 60s shape={shape} at 0s")
                await parted.fired()
                if shape == "majority-minority":
                    new = await _another_leader(it, leader)
                    assert (await it.put(leader, b"lost", b"v", 0.5)).outcome == "indefinite"
                    assert (await it.put(new.name, b"k", b"v", LONG_S)).outcome == "ok"
                elif shape == "half":
                    replies = await asyncio.gather(*(it.put(name, b"lost", b"v", 0.5) for name in names))
                    assert [reply.outcome for reply in replies] == ["indefinite"] * 5
                else:
                    value = shape.encode()
                    assert (await it.put(leader, b"k", value, LONG_S)).outcome == "ok"
                    while len(await ignorant(b"k", value)) > 2:
                        await asyncio.sleep(0.01)
                    # Nothing is on its way to those two any more: a linearizable read of a member that heard of it came after it.
                    assert await _read(it, leader, b"k") == value
                    assert len(await ignorant(b"k", value)) == 2
                await parted.end()
                await whole(f"after {shape}".encode())
                (span,) = it.spans("partition")[-1:]
                assert span.target == victim
                assert len(span.evidence["links"]) == links
                assert _did(span)["bytes"] > 0

    asyncio.run(go())


def test_snapshots_lost_and_appends_altered(tmp_path: Path) -> None:
    """A member that lags behind the log does not serve until a snapshot gets through to it; a byte that is altered on one link is in the
    value that this member tells, and nobody notices."""
    kept = {"snapshot-count": "10", "snapshot-catchup-entries": "5"}

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "messages leader at 0s", "corrupt leader at 0s", options=kept) as it:
            leader = (await it.cluster.leader()).name
            late, other = (member.name for member in await it.cluster.followers())
            down = _Carried(it, f"kill {late} 60s at 0s")
            await down.fired()
            for number in range(60):
                await _written(it, b"k", str(number).encode())
            lost = _Carried(it, f"messages {leader} 60s kind=MsgSnap direction=out at 0s")
            await lost.armed()
            await down.end()
            await lost.fired()
            assert (await it.get(late, b"k", 0.5, serializable=True)).outcome != "ok"
            assert (await it.put(leader, b"k", b"last", LONG_S)).outcome == "ok"
            await lost.end()
            await it.cluster.wait_ready()
            assert await _read(it, late, b"k") == b"last"
            assert set(_did(it.spans("messages")[-1])["kinds"]) == {"MsgSnap"}  # type: ignore[call-overload]

            # So much longer than all that is said around it that the byte is one of the value.
            leader = (await it.cluster.leader()).name
            deceived, other = (member.name for member in await it.cluster.followers())
            value = b"v" * 400_000
            await _written(it, b"plain", value)
            assert [await _read(it, name, b"plain") for name in (deceived, other)] == [value, value]
            corrupt = _Carried(it, f"corrupt {leader} 60s percent=100 peer={deceived} direction=out at 0s")
            await corrupt.armed()
            keys = [b"altered-%d" % number for number in range(4)]
            for key in keys:
                assert (await it.put(leader, key, value, LONG_S)).outcome == "ok"
            await corrupt.fired()
            await corrupt.end()
            await it.cluster.wait_ready()
            told = {name: [await _read(it, name, key) for key in keys] for name in (deceived, leader, other)}
            assert told[leader] == told[other] == [value] * len(keys)
            assert {sum(a != b for a, b in zip(each, value, strict=True)) for each in told[deceived]} <= {0, 1}
            assert told[deceived] != told[other]
            (span,) = it.spans("corrupt")
            assert span.promise == "outside"
            assert _did(span)["messages"] >= 1

    asyncio.run(go())
    (tmp_path / "plan.json").write_text(Plan(etcd="3.7.3", seed=1).to_text())
    verdict = check(tmp_path)
    assert [answer.noticed for answer in verdict.outside] == [False]
    assert verdict.verdict != "broken"


def test_slow_links_delay_what_is_decided(tmp_path: Path) -> None:
    """Delayed, held and thin links make a write wait as long as they say, a reset loses connections, and nothing waits without them."""

    async def go() -> None:
        async with stage("3.5.30", tmp_path, "delay leader at 0s", seconds=90) as it:
            leader = (await it.cluster.leader()).name
            plain = [await _timed_put(it, leader) for _ in range(5)]
            assert {reply.outcome for reply, _ in plain} == {"ok"}

            delayed = _Carried(it, "delay leader 3s delay_ms=300 jitter_ms=50 at 0s")
            await delayed.fired()
            reply, late_s = await _timed_put(it, leader)
            await delayed.task
            assert reply.outcome == "ok"
            assert late_s >= 0.6  # the entry's way to a follower and the answer's way back
            assert min(seconds for _, seconds in plain) < 0.6

            held = _Carried(it, "hold leader 800ms at 0s")
            await held.fired()
            reply, _ = await _timed_put(it, leader)
            assert reply.outcome == "ok"
            await held.task
            assert _did(it.spans("hold")[-1])["bytes"] > 0

            size = 50_000
            thin = _Carried(it, "rate leader 60s bytes=25000 direction=out at 0s")
            await thin.fired()
            began = time.monotonic()
            reply = await it.put(leader, b"large", b"x" * size, LONG_S)
            assert time.monotonic() - began >= 1.0  # 2 s for 50 kB at 25 kB/s; an election may end it by another way, not at once
            await thin.end()
            await it.cluster.wait_ready()

            await it.carry_out("reset any 500ms every_ms=100 at 0s")
            assert _did(it.spans("reset")[-1])["connections"] > 1
            await it.cluster.wait_ready()
            assert (await it.put(leader, b"k", b"v", LONG_S)).outcome == "ok"

    asyncio.run(go())


@pytest.mark.parametrize("version", ["3.4.23", "3.7.3"])
def test_messages_by_kind(tmp_path: Path, version: str) -> None:
    """One kind of raft message is dropped or held while the others go on: no heartbeats depose a leader, no read answers wait."""

    async def go() -> None:
        async with stage(version, tmp_path, "messages leader at 0s", seconds=90) as it:
            leader = (await it.cluster.leader()).name

            # Appends that are left out are sent again; those that follow them name their own place in the log.
            thinned = _Carried(it, "messages leader 2s kind=MsgApp action=drop percent=30 direction=out at 0s")
            written = 0
            while not thinned.task.done():
                await _written(it, b"counted", str(written).encode())
                written += 1
            await thinned.task
            did = _did(it.spans("messages")[-1])
            assert did["messages"] > 0
            assert set(did["kinds"]) == {"MsgApp"}  # type: ignore[call-overload]
            for member in it.cluster.members:
                assert await _read(it, member.name, b"counted") == str(written - 1).encode()

            follower = (await it.cluster.followers())[0].name
            held = _Carried(it, f"messages {follower} 60s kind=MsgReadIndexResp action=hold direction=in at 0s")
            await held.armed()
            read = asyncio.create_task(it.get(follower, b"counted", LONG_S))
            await held.fired()
            assert (
                await it.put((await it.cluster.leader()).name, b"other", b"v", LONG_S)
            ).outcome == "ok"  # appends, and their answers, overtake
            assert not read.done()
            await held.end()
            assert (await read).outcome == "ok"
            assert set(_did(it.spans("messages")[-1])["kinds"]) == {"MsgReadIndexResp"}  # type: ignore[call-overload]

            leader = (await it.cluster.leader()).name
            silent = _Carried(it, f"messages {leader} 60s kind=MsgHeartbeat,MsgApp direction=out at 0s")
            await _another_leader(it, leader)
            await silent.end()
            await it.cluster.wait_ready()

            trickle = _Carried(it, "rate leader 3s messages=20 at 0s")
            await trickle.fired()
            await trickle.task
            assert _did(it.spans("rate")[-1])["messages"] > 0
            await it.cluster.wait_ready()

    asyncio.run(go())


def test_between_clients_and_members(tmp_path: Path) -> None:
    """Answers that do not come leave a write that happened, requests that do not arrive one that did not; a reset ends a call."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "client-cut m1 at 0s", members=1) as it:
            assert (await it.put("m1", b"k", b"0")).outcome == "ok"

            async def written_under(fault: str, value: bytes) -> Reply:
                carried = _Carried(it, fault)
                await carried.armed()
                reply = await it.put("m1", b"k", value, 1.0)
                await carried.end()
                await it.cluster.wait_ready()
                return reply

            assert (await written_under("client-cut m1 60s direction=out at 0s", b"arrives")).outcome == "indefinite"
            assert (await it.get("m1", b"k", LONG_S)).output.kvs[0].value == b"arrives"
            assert (await written_under("client-cut m1 60s direction=in at 0s", b"does not")).outcome == "indefinite"
            assert (await it.get("m1", b"k", LONG_S)).output.kvs[0].value == b"arrives"
            assert all(_did(span)["bytes"] > 0 for span in it.spans("client-cut"))

            late = _Carried(it, "client-delay m1 3s delay_ms=250 at 0s")
            await late.armed()
            reply, seconds = await _timed_put(it, "m1")
            assert reply.outcome == "ok"
            assert seconds >= 0.5
            await late.task

            await it.carry_out("client-reset m1 at 0s")
            assert _did(it.spans("client-reset")[-1])["connections"] > 0
            await it.cluster.wait_ready()
            assert (await it.put("m1", b"k", b"again", LONG_S)).outcome == "ok"

    asyncio.run(go())
