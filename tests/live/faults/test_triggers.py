"""Triggers on a real cluster: a fault is armed when what it waits for has happened, not before, and not on another occasion."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pekan.history.reading import load
from pekan.wire.messages import pb
from stage import Stage, stage

pytestmark = pytest.mark.live

VERSION = "3.7.3"
REVISION = 12
LAST_MS = 4_000
"""What is left of a phase in which a fault still has to begin."""
LINE = "finished defragmenting directory"


async def defragment(it: Stage, member: str) -> None:
    """The member defragments its database, once, and says so."""
    await it.served(member)
    assert (await it.call(member, pb.DefragmentRequest())).outcome == "ok"


async def until_fired(it: Stage, count: int) -> None:
    """Return once that many faults have fired; the stage bounds the wait."""
    while sum(span.fired is not None for span in it.spans()) < count:
        await asyncio.sleep(0.02)


def test_faults_wait_for_revision_log_and_each_other(tmp_path: Path) -> None:
    """A fault at a revision comes with the first reply that names it, one after another fault when that has fired, and one for "any" on a
    line of a log on the member that wrote the line; none of them comes before."""

    async def go() -> None:
        async with stage(VERSION, tmp_path) as it:
            task = it.carry_out(
                f"pause m1 100ms at revision {REVISION}",
                "pause m2 100ms after pause",
                f'pause any 100ms on log "{LINE}"',
                "kill m3 after pause#3",
            )
            recorder = it.context.recorder
            # The store begins at revision 1, and each put takes one, but for those that an election keeps from it, or from its answer.
            while recorder.revision < REVISION:
                assert not it.spans()
                await it.put("m3", b"k", b"v")
            await until_fired(it, 2)
            assert [span.target for span in it.spans()] == ["m1", "m2"]
            await defragment(it, "m3")
            await task
            first, second, third, last = it.spans()
            history = load(tmp_path / "history.pb")
            named = min(op.ret for op in history.operations if op.ret and op.outcome == "ok" and op.output.header.revision >= REVISION)
            assert first.armed >= named
            assert first.fired is not None
            assert second.armed >= first.fired
            assert third.target == "m3"
            assert third.armed >= min(op.call for op in history.operations if isinstance(op.input, pb.DefragmentRequest))
            assert third.fired is not None
            assert (last.kind, last.target) == ("kill", "m3")
            assert last.armed >= third.fired

    asyncio.run(go())


def test_a_fault_lasts_until_its_moment(tmp_path: Path) -> None:
    """Instead of a length of time: until another fault fires, until a step is done; and where that never is, to the end of the phase."""

    async def go() -> None:
        async with stage(VERSION, tmp_path) as it:
            context = it.context
            task = it.carry_out(
                "pause m1 until step over at 0s",
                "pause m2 until after kill at 0s",
                "kill m3 until step enough after pause#2",
            )
            await until_fired(it, 3)
            await context.until_healed("pause", 1)
            context.has_done("over")
            await context.until_healed("pause", 2)
            assert context.active == 1
            context.has_done("enough")
            await task
            steps, fault, last = (next(span for span in it.spans() if span.target == name) for name in ("m1", "m2", "m3"))
            times = [last.fired, fault.healed, steps.healed, last.healed]
            assert times == sorted(filter(None, times))
            # The phase comes to its end now, with one still waiting.
            context.heal_ms = context.elapsed_ms() + LAST_MS
            await it.carry_out("pause m1 until step never at 0s")
            never = it.spans()[-1]
            assert (never.target, never.fired is not None, never.healed is not None) == ("m1", True, True)
            assert context.elapsed_ms() >= context.heal_ms

    asyncio.run(go())


def test_a_trigger_that_never_comes_leaves_a_mark(tmp_path: Path) -> None:
    """What waits in vain is never armed; the record names the fault and what it waited for. A line that was there before does not count."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, members=1, seconds=3) as it:
            (member,) = it.cluster.members
            assert "serving client traffic" in member.spec.log.read_text(encoding="utf-8")
            await it.carry_out("pause m1 on log 'serving", "kill at revision 1000", 'kill on log "serving client traffic"')
            assert not it.spans()
            assert (it.context.expired, it.context.fired) == (3, 0)
        marks = [mark.detail for mark in load(tmp_path / "history.pb").marks if mark.kind == "untriggered"]
        assert all(detail["required"] for detail in marks)
        assert sorted((detail["fault"], detail["trigger"]["log"], detail["trigger"]["revision"]) for detail in marks) == [
            ("kill", "", 1000),
            ("kill", "serving client traffic", 0),
            ("pause", "'serving", 0),
        ]

    asyncio.run(go())


def test_a_fault_waits_for_a_failpoint(tmp_path: Path) -> None:
    """A trigger plants its point: the fault comes when a member has come by it the second time, not the first, and on that member."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "pause any 100ms on failpoint defragBeforeCopy#2") as it:
            task = it.carry_out()
            await defragment(it, "m2")
            await defragment(it, "m3")
            assert not it.spans()
            await defragment(it, "m3")
            await task
            (span,) = it.spans()
            assert (span.target, span.fired is not None) == ("m3", True)
            history = load(tmp_path / "history.pb")
            last = max((op for op in history.operations if isinstance(op.input, pb.DefragmentRequest)), key=lambda op: op.call)
            assert span.armed >= last.call

    asyncio.run(go())
