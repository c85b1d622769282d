"""Faults of links, on real clusters, seen from outside: who leads, what is answered and when, and what the proxy counted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from pekan.checking import check
from pekan.errors import PekanError
from pekan.etcd.cluster import Member
from pekan.faults.network import Proxy
from pekan.history.types import FaultSpan
from pekan.plan import Plan
from stage import DEADLINE_S, Stage, stage

pytestmark = pytest.mark.live

LONG_S = 10.0
"""A deadline for what is to be answered late; what is not answered by then is asked again."""
PAUSE_S = 0.01
"""Between two looks, or tries."""
EARLY_S = 0.01
"""The proxy's timers may be half a millisecond early, on each way of a message."""
STALLS_S = (0.05, 0.2, 1.0, 5.0)
"""For how long Pekan does nothing at all, one try after the other."""


class Reign(NamedTuple):
    """Who leads whom, and in which term: in another term anybody may have learned anything."""

    leader: str
    followers: tuple[str, ...]
    term: int


async def _reign(it: Stage) -> Reign:
    """The one of this moment; a majority knows of it. The stage's deadline bounds the wait."""
    while True:
        with contextlib.suppress(PekanError, OSError):
            leader = await it.cluster.leader(1.0)
            status = await leader.status()
            if status.believes_it_leads:
                names = tuple(member.name for member in it.cluster.members if member is not leader)
                return Reign(leader.name, names, status.raft_term)
        await asyncio.sleep(PAUSE_S)


async def _another_leader(it: Stage, old: str) -> Member:
    """Wait for a leader that is not `old`; the stage's deadline bounds it."""
    while (reign := await _reign(it)).leader == old:
        await asyncio.sleep(PAUSE_S)
    return it.cluster.member(reign.leader)


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

    @property
    def has_fired(self) -> bool:
        """Whether one of its kind has done something since it was begun."""
        return self.context.fired_by_kind[self.kind] > self.before

    async def fired(self) -> None:
        """It has done something; the stage's deadline bounds the wait."""
        await self.context.until_fired(self.kind, self.before + 1)

    async def end(self) -> None:
        """Undo it now."""
        self.task.cancel()
        await asyncio.wait({self.task})


async def _recovered(it: Stage) -> None:
    """Every member answers a linearizable read; the stage's deadline bounds the wait."""
    await it.cluster.wait_ready(DEADLINE_S)


async def _read(it: Stage, member: str, key: bytes) -> bytes:
    """A linearizable read through `member`; an election, or a connection that was reset, may cost it a try."""
    while (reply := await it.get(member, key, LONG_S)).outcome != "ok":
        await asyncio.sleep(PAUSE_S)
    value: bytes = reply.output.kvs[0].value
    return value


async def _written(it: Stage, key: bytes, value: bytes) -> None:
    """A put through the leader of the moment, until it is acknowledged."""
    while (await it.put((await _reign(it)).leader, key, value, LONG_S)).outcome != "ok":
        await asyncio.sleep(PAUSE_S)


async def _timed_put(it: Stage, member: str, value: bytes = b"value") -> float:
    """How long a put through `member` takes, of those the one that is acknowledged."""
    while True:
        began = time.monotonic()
        if (await it.put(member, b"timed", value, LONG_S)).outcome == "ok":
            return time.monotonic() - began
        await asyncio.sleep(PAUSE_S)


async def _local(it: Stage, member: str, key: bytes) -> list[bytes]:
    """What `member` has of that key, by its own account."""
    while (reply := await it.get(member, key, LONG_S, serializable=True)).outcome != "ok":
        await asyncio.sleep(PAUSE_S)
    return [kv.value for kv in reply.output.kvs]


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
            # Who dials is known by name. Two followers may find each other after the leader has found both.
            while not set(await proxy.counts()) >= {(a, b) for a in names for b in names if a != b}:
                await asyncio.sleep(PAUSE_S)

            isolated = _Carried(it, "isolate leader 60s at 0s")
            await isolated.armed()
            (span,) = it.spans("isolate")
            old = span.target
            new = await _another_leader(it, old)
            assert (await it.put(old, b"k", b"lost", 0.5)).outcome == "indefinite"
            await _written(it, b"k", b"v")
            assert (await it.get(old, b"k", 0.5)).outcome == "failed"
            assert await _read(it, new.name, b"k") == b"v"
            await isolated.end()
            await _recovered(it)
            assert await _read(it, old, b"k") in (b"v", b"lost")
            (span,) = it.spans("isolate")
            assert _did(span)["bytes"] > 0

            # Only what it says is lost: it hears the others, and steps down when they have elected one.
            old = (await _reign(it)).leader
            mute = _Carried(it, f"isolate {old} 60s direction=out at 0s")
            await mute.fired()
            await _another_leader(it, old)
            await mute.end()
            await _recovered(it)
            assert _did(it.spans("isolate")[-1])["bytes"] > 0

            # One link alone: the follower hears the other one, so nobody is deposed, and only what the leader says is missing there. Where
            # somebody is elected all the same, the machine having held the leader up, the follower may hear of it.
            for number in itertools.count():
                leader, (deaf, other), term = await _reign(it)
                before, after = b"before %d" % number, b"after %d" % number
                await _written(it, b"link", before)
                assert [await _read(it, name, b"link") for name in (deaf, other)] == [before, before]
                cut = _Carried(it, f"cut {deaf} 60s peer={leader} at 0s")
                await cut.fired()
                await _written(it, b"link", after)
                while await _local(it, other, b"link") != [after]:
                    await asyncio.sleep(PAUSE_S)
                told = await _local(it, deaf, b"link")
                same = (await _reign(it)).term == term
                await cut.end()
                assert await _read(it, deaf, b"link") == after
                assert _did(it.spans("cut")[-1])["bytes"] > 0
                if same:
                    assert told == [before]
                    break

    asyncio.run(go())


def test_groups_that_do_not_hear_each_other(tmp_path: Path) -> None:
    """Of five members: a leader in the minority is replaced; without a majority nobody is served; on a ring and across a bridge writes go
    on, and two members do not learn of them. When it is over all five tell the same."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "partition leader at 0s", members=5) as it:
            names = [member.name for member in it.cluster.members]

            async def ignorant(key: bytes, value: bytes) -> int:
                """How many do not have it."""
                return sum([await _local(it, name, key) != [value] for name in names])

            async def whole(value: bytes) -> None:
                await _recovered(it)
                await _written(it, b"k", value)
                assert [await _read(it, name, b"k") for name in names] == [value] * 5

            async def parts(shape: str, links: int) -> bool:
                """Part them and look; False where somebody was elected meanwhile whom others hear: who learns of what is open then."""
                leader, followers, term = await _reign(it)
                victim = leader if shape != "bridge" else followers[0]
                parted = _Carried(it, f"partition {victim} 60s shape={shape} at 0s")
                await parted.fired()
                seen = True
                if shape == "majority-minority":
                    # The victim and one more are the minority, whoever leads.
                    await _another_leader(it, victim)
                    assert (await it.put(victim, b"lost", b"v", 0.5)).outcome == "indefinite"
                    await _written(it, b"k", b"v")
                elif shape == "half":
                    replies = await asyncio.gather(*(it.put(name, b"lost", b"v", 0.5) for name in names))
                    assert [reply.outcome for reply in replies] == ["indefinite"] * 5
                else:
                    value = f"{shape} in term {term}".encode()
                    await _written(it, b"k", value)
                    while await ignorant(b"k", value) > 2:
                        await asyncio.sleep(PAUSE_S)
                    # Nothing is on its way to those two any more: a linearizable read of a member that heard of it came after it.
                    assert await _read(it, (await _reign(it)).leader, b"k") == value
                    left = await ignorant(b"k", value)
                    seen = (await _reign(it)).term == term
                    assert left == 2 or not seen
                await parted.end()
                await whole(f"after {shape} in term {term}".encode())
                (span,) = it.spans("partition")[-1:]
                assert span.target == victim
                assert len(span.evidence["links"]) == links
                assert _did(span)["bytes"] > 0
                return seen

            await whole(b"at first")  # and without a partition everybody learns of everything
            for shape, links in (("majority-minority", 12), ("half", 16), ("ring", 10), ("bridge", 8)):
                while not await parts(shape, links):
                    pass

    asyncio.run(go())


def test_snapshots_lost_and_appends_altered(tmp_path: Path) -> None:
    """A member that lags behind the log does not serve until a snapshot gets through to it; a byte that is altered on one link is in the
    value that this member tells, and nobody notices."""
    kept = {"snapshot-count": "10", "snapshot-catchup-entries": "5"}

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "messages leader at 0s", "corrupt leader at 0s", options=kept) as it:
            leader, (late, other), _ = await _reign(it)
            down = _Carried(it, f"kill {late} 60s at 0s")
            await down.fired()
            for number in range(60):
                await _written(it, b"k", str(number).encode())
            # Whichever of the two leads by then sends it.
            lost = [_Carried(it, f"messages {name} 60s kind=MsgSnap direction=out at 0s") for name in (leader, other)]
            while it.context.armed < lost[0].armed_before + len(lost):
                await asyncio.sleep(PAUSE_S)
            await lost[0].armed()
            await down.end()
            await lost[0].fired()
            assert (await it.get(late, b"k", 0.5, serializable=True)).outcome != "ok"
            await _written(it, b"k", b"last")
            for each in lost:
                await each.end()
            await _recovered(it)
            assert await _read(it, late, b"k") == b"last"
            fired = [span for span in it.spans("messages") if span.fired is not None]
            assert {kind for span in fired for kind in _did(span)["kinds"]} == {"MsgSnap"}  # type: ignore[attr-defined]

            # So much longer than all that is said around it that the byte is one of the value. What is said around it is altered as well,
            # so that its stream may break and the value come again by another way: then the next one shows it.
            value = b"v" * 1_000_000
            altered = 0
            for number in itertools.count():
                leader, (deceived, other), _ = await _reign(it)
                plain, key = b"plain-%d" % number, b"altered-%d" % number
                await _written(it, plain, value)
                assert [await _read(it, name, plain) for name in (deceived, other)] == [value, value]
                corrupt = _Carried(it, f"corrupt {leader} 60s percent=100 peer={deceived} direction=out at 0s")
                await corrupt.armed()
                await _written(it, key, value)
                await corrupt.fired()
                await corrupt.end()
                await _recovered(it)
                told = await _read(it, deceived, key)
                assert [await _read(it, name, key) for name in (leader, other)] == [value, value]
                altered = sum(a != b for a, b in zip(told, value, strict=True))
                assert altered <= 1
                if altered:
                    break
            span = it.spans("corrupt")[-1]
            assert span.promise == "outside"
            assert _did(span)["messages"] >= 1

    asyncio.run(go())
    (tmp_path / "plan.json").write_text(Plan(etcd="3.7.3", seed=1).to_text())
    verdict = check(tmp_path)
    assert {answer.noticed for answer in verdict.outside} == {False}
    assert verdict.verdict != "broken"


def test_slow_links_delay_what_is_decided(tmp_path: Path) -> None:
    """Delayed, held and thin links make a write wait as long as they say, a reset loses connections, and nothing waits without them."""

    async def go() -> None:
        async with stage("3.5.30", tmp_path, "delay leader at 0s") as it:
            victim = (await _reign(it)).leader
            while await _timed_put(it, victim) >= 0.5 - EARLY_S:
                pass

            # The entry's way to a follower and the answer's way back; if another one leads by now, the proposal's way and the commit's.
            delayed = _Carried(it, f"delay {victim} 60s delay_ms=300 jitter_ms=50 at 0s")
            await delayed.fired()
            assert await _timed_put(it, victim) >= 0.6 - EARLY_S
            await delayed.end()
            await _recovered(it)

            held = _Carried(it, "hold leader 800ms at 0s")
            await held.fired()
            await _timed_put(it, victim)
            await held.task
            assert _did(it.spans("hold")[-1])["bytes"] > 0

            # 0.5 s for 12.5 kB at 25 kB/s: little enough that nobody misses the heartbeats behind it.
            thin = _Carried(it, f"rate {victim} 60s bytes=25000 direction=out at 0s")
            await thin.fired()
            assert await _timed_put(it, victim, b"x" * 12_500) >= 0.5 - EARLY_S
            await thin.end()
            await _recovered(it)

            await it.carry_out("reset any 500ms every_ms=100 at 0s")
            assert _did(it.spans("reset")[-1])["connections"] > 1
            await _recovered(it)
            await _written(it, b"k", b"v")

    asyncio.run(go())


@pytest.mark.parametrize("version", ["3.4.23", "3.7.3"])
def test_messages_by_kind(tmp_path: Path, version: str) -> None:
    """One kind of raft message is dropped or held while the others go on: no heartbeats depose a leader, no read answers wait."""

    async def go() -> None:
        async with stage(version, tmp_path, "messages leader at 0s") as it:
            # Appends that are left out are sent again; those that follow them name their own place in the log.
            written = 0
            fired = False
            while not fired:
                reign = await _reign(it)
                thinned = _Carried(it, f"messages {reign.leader} 60s kind=MsgApp action=drop percent=30 direction=out at 0s")
                await thinned.armed()
                # Some more after the first one; another leader's are not left out.
                for _ in range(30):
                    await _written(it, b"counted", str(written).encode())
                    written += 1
                fired = thinned.has_fired
                assert fired or await _reign(it) != reign
                await thinned.end()
            did = _did(it.spans("messages")[-1])
            assert did["messages"] > 0
            assert set(did["kinds"]) == {"MsgApp"}  # type: ignore[call-overload]
            for member in it.cluster.members:
                assert await _read(it, member.name, b"counted") == str(written - 1).encode()

            overtaken = False
            while not overtaken:
                reign = await _reign(it)
                follower = reign.followers[0]
                held = _Carried(it, f"messages {follower} 60s kind=MsgReadIndexResp action=hold direction=in at 0s")
                await held.armed()
                read = asyncio.create_task(it.get(follower, b"counted", LONG_S))
                hit = asyncio.create_task(held.fired())
                await asyncio.wait({read, hit}, return_when=asyncio.FIRST_COMPLETED)
                hit.cancel()
                await _written(it, b"other", b"v")  # appends, and their answers, overtake
                overtaken = held.has_fired and not read.done()
                # A member gives such a read up after 7 s, and once another one leads.
                assert overtaken or (await read).outcome != "ok" or await _reign(it) != reign
                await held.end()
                overtaken = overtaken and (await read).outcome == "ok"
                await asyncio.wait({read})
            assert set(_did(it.spans("messages")[-1])["kinds"]) == {"MsgReadIndexResp"}  # type: ignore[call-overload]

            leader = (await _reign(it)).leader
            silent = _Carried(it, f"messages {leader} 60s kind=MsgHeartbeat,MsgApp direction=out at 0s")
            await silent.armed()
            await _another_leader(it, leader)
            await silent.end()
            await _recovered(it)

            trickle = _Carried(it, "rate leader 3s messages=20 at 0s")
            await trickle.fired()
            await trickle.task
            assert _did(it.spans("rate")[-1])["messages"] > 0
            await _recovered(it)

    asyncio.run(go())


def test_between_clients_and_members(tmp_path: Path) -> None:
    """Answers that do not come leave a write that happened, requests that do not arrive one that did not; a reset ends a call."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "client-cut m1 at 0s", members=1) as it:
            await _written(it, b"k", b"0")

            async def told_after(fault: str, value: bytes) -> bytes:
                """Put `value` under `fault`, until something has been swallowed; what is there afterwards."""
                carried = _Carried(it, fault)
                await carried.armed()
                while not carried.has_fired:
                    assert (await it.put("m1", b"k", value, 1.0)).outcome == "indefinite"
                await carried.end()
                await _recovered(it)
                return await _read(it, "m1", b"k")

            # A member that is held up may come to a request when its client has given it up, and does nothing then.
            while await told_after("client-cut m1 60s direction=out at 0s", b"arrives") != b"arrives":
                pass
            assert await told_after("client-cut m1 60s direction=in at 0s", b"does not") == b"arrives"
            assert all(_did(span)["bytes"] > 0 for span in it.spans("client-cut"))

            late = _Carried(it, "client-delay m1 60s delay_ms=250 at 0s")
            await late.armed()
            assert await _timed_put(it, "m1") >= 0.5 - EARLY_S
            await late.end()

            await it.carry_out("client-reset m1 at 0s")
            assert _did(it.spans("client-reset")[-1])["connections"] > 0
            await _recovered(it)
            await _written(it, b"k", b"again")

    asyncio.run(go())


def test_what_was_done_at_the_last_moment_has_fired(tmp_path: Path) -> None:
    """A fault that ends before anybody has listened to its first effect is recorded as one that fired, with what it did."""

    async def go() -> None:
        async with stage("3.5.1", tmp_path, "client-cut m1 at 0s", members=1) as it:
            for stall_s in STALLS_S:
                cut = _Carried(it, "client-cut m1 60s direction=in at 0s")
                await cut.armed()
                with socket.create_connection(it.cluster.member("m1").spec.advertise_client) as stranger:
                    stranger.sendall(b"x" * 100)
                    # Nobody here listens to anything from the bytes on to the end of the fault; a proxy that is slow gets more time.
                    time.sleep(stall_s)
                    await cut.end()
                (span,) = it.spans("client-cut")[-1:]
                if span.fired is not None:
                    break
            assert _did(span)["bytes"] > 0

    asyncio.run(go())
