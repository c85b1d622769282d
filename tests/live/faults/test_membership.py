"""Members that join, are promoted, removed and replaced while clients write: what others see of it, and a whole cluster after it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pekan.etcd.spec import MemberPart
from pekan.wire.messages import PutRequest, pb
from stage import Stage, stage

pytestmark = pytest.mark.live

AT_ONCE = {"strict-reconfig-check": "false"}
"""Else etcd takes no newcomer before its members have been connected for 5 s; one test here waits for that."""


async def listed(it: Stage, member: str) -> dict[str, bool]:
    """Names of the cluster's members, and whether each votes, as `member` tells a client."""
    reply = await it.call(member, pb.MemberListRequest(linearizable=True))
    while reply.outcome != "ok":  # an election was in between
        reply = await it.call(member, pb.MemberListRequest(linearizable=True))
    return {each.name: not each.isLearner for each in reply.output.members}


async def writing(it: Stage, stop: asyncio.Event) -> int:
    """Puts through m1, one after the other, until `stop`; how many were acknowledged."""
    client = it.context.open("load", "m1")
    done = 0
    while not stop.is_set():
        done += (await client.call(PutRequest(b"load", b"%d" % done))).outcome == "ok"
    return done


async def whole(it: Stage, members: int) -> None:
    """Every member votes, and answers a read of what was written before it joined."""
    names = [member.name for member in it.cluster.members]
    assert await listed(it, names[0]) == dict.fromkeys(names, True)
    assert len(names) == members
    for name in names:
        reply = await it.get(name, b"old", serializable=True)
        assert [kv.value for kv in reply.output.kvs] == [b"value"]


@pytest.mark.parametrize("version", ["3.5.30", "3.7.3"])
def test_members_come_and_go_under_load(version: str, tmp_path: Path) -> None:
    """A member is replaced, a learner joins, is refused promotion while it is behind, votes and goes; writes are acknowledged all along,
    and the removed members end by themselves."""

    async def go() -> None:
        async with stage(version, tmp_path, options=AT_ONCE) as it:
            await it.put("m1", b"old", b"value")
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
            await it.put("m1", b"old", b"value")
            leader = await it.cluster.leader()
            task = it.carry_out("move-leader leader at 0s")
            await task
            (moved,) = it.spans("move-leader")
            heir = await it.cluster.leader()
            assert heir.name == moved.evidence["to"] != leader.name
            task = it.carry_out(f"member-remove {heir.name} 60s at 0s")
            while heir.part is not MemberPart.DEPARTED:
                await asyncio.sleep(0.01)
            assert set(await listed(it, leader.name)) == {"m1", "m2", "m3"} - {heir.name}
            task.cancel()
            await asyncio.wait({task})
            await whole(it, 3)
            assert it.cluster.members[-1].name == "m4"

    asyncio.run(go())


def test_a_change_that_etcd_refuses_at_first_is_asked_again(tmp_path: Path) -> None:
    """Members that have been connected for less than 5 s take no newcomer; the fault asks again. Its phase over, it is undone."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path) as it:
            await it.put("m1", b"old", b"value")
            task = it.carry_out("member-add any 60s at 0s")
            while "m4" not in await listed(it, "m1"):
                await asyncio.sleep(0.05)
            it.context.heal_ms = 0
            await task
            await whole(it, 3)
            (span,) = it.spans()
            assert span.evidence["members"] == 4
            assert re.search("unhealthy cluster", str(span.evidence["healed"]["refused"]))

    asyncio.run(go())


def test_the_only_member_is_replaced(tmp_path: Path) -> None:
    """A cluster of one has a second member first; its only member cannot be removed and left without."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, members=1, options=AT_ONCE) as it:
            await it.put("m1", b"old", b"value")
            await it.carry_out("member-remove m1 at 0s")
            assert [span.fired for span in it.spans()] == [None]
            await it.carry_out("member-replace m1 at 0s")
            await whole(it, 1)
            assert [member.name for member in it.cluster.members] == ["m2"]

    asyncio.run(go())
