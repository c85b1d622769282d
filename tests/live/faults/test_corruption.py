"""Files of a stopped member altered: what is on disk before and after, what etcd does about it, and a member to rely on again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pekan.checking import check
from pekan.etcd.spec import MemberState
from pekan.history.reading import load
from pekan.plan import Plan
from pekan.wire.messages import PutRequest, RangeRequest
from stage import Stage, stage

pytestmark = pytest.mark.live

KEYS = 40


async def filled(it: Stage) -> None:
    """Some keys through every member."""
    names = [member.name for member in it.cluster.members]
    for n in range(KEYS):
        assert (await it.answer(names[n % len(names)], PutRequest(b"k%d" % n, b"v" * 64))).outcome == "ok"


async def kept(it: Stage, member: str) -> int:
    """How many of them that member has, read linearizably."""
    count: int = (await it.answer(member, RangeRequest(b"k", b"l"))).output.count
    return count


async def struck(it: Stage) -> dict[str, Any]:
    """The evidence of the fault that the stage was made for, once it has been healed."""
    await it.carry_out()
    (span,) = it.spans()
    assert span.promise == "outside"
    assert span.fired is not None, "it altered nothing"
    assert span.healed is not None
    return span.evidence


def test_a_member_refuses_what_was_altered(tmp_path: Path) -> None:
    """A log with another byte is not started from: etcd's words are told, the byte is put back, and the member serves again. Another byte
    is tried where it is one of the few that make a log look cut (4 of 119 that were drawn) or make etcd stand still (1)."""

    async def refused(directory: Path, seed: int) -> bool:
        directory.mkdir()
        async with stage("3.5.30", directory, "flip-byte m1 file=wal place=record hold_ms=200 at 0s", members=1, seed=seed) as it:
            await filled(it)
            evidence = await struck(it)
            (member,) = it.cluster.members
            assert evidence["file"].endswith(".wal")
            assert evidence["before"] != evidence["after"]
            healed = evidence["healed"]
            assert member.state is MemberState.RUNNING
            if healed["served"] or not healed["noticed"]:
                return False
            assert healed["left"] == "put back"
            assert healed["how"].startswith("did not start: ")
            assert [end.asked for end in member.exits] == [True, True], "the stop, and the end that was predicted"
            assert await kept(it, "m1") == KEYS
            with (member.spec.data_dir / evidence["file"]).open("rb") as file:
                file.seek(evidence["offset"])
                assert file.read(1).hex() == evidence["before"]
            return True

    run = next(run for run in map(tmp_path.joinpath, "12345") if asyncio.run(refused(run, int(run.name))))
    (run / "plan.json").write_text(Plan(etcd="3.5.30", seed=1, members=1).to_text())
    verdict = check(run)
    (answer,) = verdict.outside
    assert (answer.fault, answer.noticed) == ("flip-byte on m1", True)
    assert verdict.verdict != "broken"


def test_a_member_serves_on_an_altered_index_and_is_replaced(tmp_path: Path) -> None:
    """With its consistent index ahead a member starts, leaves the next entry out and says nothing; a fresh one takes its place."""

    async def go() -> None:
        async with stage("3.5.30", tmp_path, "consistent-index follower hold_ms=600 at 0s") as it:
            await filled(it)
            task = it.carry_out()
            while not task.done():
                running = [member.name for member in it.cluster.members if member.state is MemberState.RUNNING]
                if running:
                    await it.put(running[0], b"while", b"it stands", 0.5)
                await asyncio.sleep(0.02)
            await task
            (span,) = it.spans()
            assert span.evidence["index_after"] == span.evidence["index_before"] + 1
            healed = span.evidence["healed"]
            assert (healed["served"], healed["left"]) == (True, "replaced")
            assert healed["noticed"] is False
            others = [member.name for member in it.cluster.members]
            assert span.target not in others
            assert len(others) == 3
            assert [await kept(it, name) for name in others] == [KEYS] * 3

    asyncio.run(go())
    assert load(tmp_path / "history.pb").faults[0].fired is not None


def test_a_member_alone_ends_as_it_served_or_whole(tmp_path: Path) -> None:
    """A byte of a page: whether the member serves on it or refuses, it answers in the end. What cannot be altered never fires, and a stop
    and a start without it change nothing."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, "flip-byte m1 place=leaf hold_ms=100 at 0s", members=1) as it:
            await filled(it)
            await it.carry_out("lost-rename m1 what=segment hold_ms=100 at 0s")
            (span,) = it.spans("lost-rename")
            assert span.fired is None, "a log with one segment has lost none"
            (member,) = it.cluster.members
            assert await kept(it, "m1") == KEYS
            await it.carry_out()
            (span,) = it.spans("flip-byte")
            assert span.fired is not None
            assert span.evidence["file"] == "member/snap/db"
            healed = span.evidence["healed"]
            assert healed["left"] == ("as it is" if healed["served"] else "put back")
            assert member.state is MemberState.RUNNING
            assert not list(member.spec.data_dir.parent.glob("*.unaltered"))
            if not healed["served"]:
                assert await kept(it, "m1") == KEYS

    asyncio.run(go())


def test_a_member_without_the_end_of_its_log(tmp_path: Path) -> None:
    """What a member had acknowledged to its leader is gone with the end of its log, and everything with the rename of its log's directory;
    the cluster ends with three that hold everything."""

    async def go() -> None:
        async with stage("3.5.30", tmp_path, "truncate-wal follower bytes=2000 hold_ms=100 at 0s") as it:
            await filled(it)
            evidence = await struck(it)
            assert evidence["file"].endswith(".wal")
            assert evidence["size_after"] == evidence["written"] - 2000
            assert evidence["healed"]["left"] in ("replaced", "put back")
            await it.carry_out("lost-rename follower what=directory hold_ms=100 at 0s")
            (span,) = it.spans("lost-rename")
            assert span.fired is not None
            assert (span.evidence["file"], span.evidence["old"]) == ("member/wal", "wal.tmp")
            healed = span.evidence["healed"]
            assert healed["left"] in ("replaced", "put back")
            assert len(it.cluster.members) == 3
            assert [await kept(it, member.name) for member in it.cluster.members] == [KEYS] * 3

    asyncio.run(go())
