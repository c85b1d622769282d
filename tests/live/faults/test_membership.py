"""Members that join, are promoted, removed and replaced while clients write: what others see of it, and a whole cluster after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pekan.etcd.spec import MemberPart
from pekan.history.reading import load
from pekan.wire.errors import WireError
from pekan.wire.messages import PutRequest, RangeRequest, pb
from stage import Stage, stage

pytestmark = pytest.mark.live

UNHEALTHY = "etcdserver: unhealthy cluster"
NOTICED = "peer became inactive"
"""What a member logs that has lost its connection with another one."""
AT_ONCE = {"strict-reconfig-check": "false"}
"""Else etcd takes no newcomer before its members have been connected for 5 s; one test here is about that."""


async def listed(it: Stage, member: str) -> dict[str, bool]:
    """Names of the cluster's members, and whether each votes, as `member` tells a client."""
    reply = await it.answer(member, pb.MemberListRequest(linearizable=True))
    return {each.name: not each.isLearner for each in reply.output.members}


async def writing(it: Stage, stop: asyncio.Event) -> int:
    """Puts through m1, one after the other, until `stop`; how many were acknowledged."""
    client = it.context.open("load", "m1")
    done = 0
    while not stop.is_set():
        done += (await client.call(PutRequest(b"load", b"%d" % done))).outcome == "ok"
    return done


def refusals(it: Stage) -> int:
    """How many requests to add a member have been refused so far, for want of health."""
    operations = load(it.directory / "history.pb").of(pb.MemberAddRequest)
    return sum(isinstance(each.output, WireError) and each.output.message == UNHEALTHY for each in operations)


async def whole(it: Stage, members: int) -> None:
    """Every member votes, and answers a read of what was written before it joined."""
    names = [member.name for member in it.cluster.members]
    assert await listed(it, names[0]) == dict.fromkeys(names, True)
    assert len(names) == members
    for name in names:
        reply = await it.answer(name, RangeRequest(b"old", serializable=True))
        assert [kv.value for kv in reply.output.kvs] == [b"value"]


@pytest.mark.parametrize("version", ["3.5.30", "3.7.3"])
def test_members_come_and_go_under_load(version: str, tmp_path: Path) -> None:
    """A member is replaced, a learner joins, is refused promotion while it is behind, votes and goes; writes are acknowledged all along,
    and the removed members end by themselves."""

    async def go() -> None:
        async with stage(version, tmp_path, options=AT_ONCE) as it:
            assert (await it.answer("m1", PutRequest(b"old", b"value"))).outcome == "ok"
            assert await listed(it, "m1") == {"m1": True, "m2": True, "m3": True}
            stop = asyncio.Event()
            load = asyncio.create_task(writing(it, stop))
            await it.carry_out("member-replace m2 order=add-first at 0s")
            assert [member.name for member in it.cluster.members] == ["m1", "m3", "m4"]
            await whole(it, 3)
            await it.carry_out("learner any 300ms hold_ms=300 at 0s")
            stop.set()
            assert await load > 0
            await whole(it, 3)
            replace, learner = it.spans()
            assert replace.evidence["healed"]["wait_status"] == 0
            assert [(member.name, member.part) for member in it.cluster.departed] == [
                ("m2", MemberPart.DEPARTED),
                ("m5", MemberPart.DEPARTED),
            ]
            assert all(end.asked and end.exit_code == 0 for end in it.cluster.exits)
            assert "in sync with leader" in learner.evidence["healed"]["promoted_before_its_start"]
            before, after = learner.evidence["healed"]["revision_read"]
            assert 1 < before <= after
            gone = await it.get("m2", b"old", 1.0)
            assert gone.outcome != "ok"

    asyncio.run(go())


def test_a_leader_is_removed_and_a_fresh_member_joins(tmp_path: Path) -> None:
    """Two members are left until the fault is cancelled; then a newcomer holds what was written before it joined, under a name that was
    never used. Before, leadership moves by request."""

    async def go() -> None:
        async with stage("3.5.16", tmp_path, options=AT_ONCE) as it:
            assert (await it.answer("m1", PutRequest(b"old", b"value"))).outcome == "ok"
            await it.carry_out("move-leader leader at 0s")
            (moved,) = it.spans("move-leader")
            assert moved.evidence["from"] != moved.evidence["to"]
            while moved.evidence["to"] not in (told := await it.cluster.statuses()):
                pass
            heir = told[moved.evidence["to"]]
            assert heir.believes_it_leads or heir.raft_term > moved.evidence["term"]  # they have elected somebody since
            task = it.carry_out("member-remove leader 60s at 0s")
            while not it.cluster.departed:
                await asyncio.sleep(0.01)
            (gone,) = it.cluster.departed
            assert set(await listed(it, it.cluster.members[0].name)) == {"m1", "m2", "m3"} - {gone.name}
            task.cancel()
            await asyncio.wait({task})
            await whole(it, 3)
            assert it.cluster.members[-1].name == "m4"

    asyncio.run(go())


def test_a_change_that_etcd_refuses_at_first_is_asked_again(tmp_path: Path) -> None:
    """Members that have not been connected with each other for 5 s take no newcomer; the fault asks again. Its time over, it is undone."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path) as it:
            assert (await it.answer("m1", PutRequest(b"old", b"value"))).outcome == "ok"
            away = it.cluster.member("m3")
            await away.kill()
            others = [it.cluster.member(name) for name in ("m1", "m2")]
            while not all(NOTICED in member.spec.log.read_text() for member in others):
                await asyncio.sleep(0.05)
            task = it.carry_out("member-add any 0ms at 0s")
            while not refusals(it):
                await asyncio.sleep(0.05)
            await away.start()
            await task
            await whole(it, 3)
            (span,) = it.spans()
            assert span.evidence["healed"]["served"] == span.evidence["member"] == "m4"
            assert UNHEALTHY in span.evidence["healed"]["refused"]

    asyncio.run(go())


def test_the_only_member_is_replaced(tmp_path: Path) -> None:
    """A cluster of one has a second member first; its only member cannot be removed and left without."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, members=1, options=AT_ONCE) as it:
            assert (await it.answer("m1", PutRequest(b"old", b"value"))).outcome == "ok"
            await it.carry_out("member-remove m1 at 0s")
            assert [span.fired for span in it.spans()] == [None]
            await it.carry_out("member-replace m1 at 0s")
            await whole(it, 1)
            assert [member.name for member in it.cluster.members] == ["m2"]

    asyncio.run(go())
