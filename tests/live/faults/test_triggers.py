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
LINE = "finished defragmenting directory"


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
            # The store begins at revision 1, and each put takes one: two short of the trigger.
            for number in range(REVISION - 3):
                await it.put("m3", b"k", b"%d" % number)
            assert it.context.recorder.revision == REVISION - 2
            assert not it.spans()
            for number in range(5):
                await it.put("m3", b"k", b"%d" % number)
            await until_fired(it, 2)
            assert [span.target for span in it.spans()] == ["m1", "m2"]
            defragmented = await it.call("m3", pb.DefragmentRequest())
            assert defragmented.outcome == "ok"
            await task
            first, second, third, last = it.spans()
            history = load(tmp_path / "history.pb")
            named = min(op.ret for op in history.operations if op.ret and op.outcome == "ok" and op.output.header.revision >= REVISION)
            assert first.armed >= named
            assert first.fired is not None
            assert second.armed >= first.fired
            (defragmentation,) = (op for op in history.operations if isinstance(op.input, pb.DefragmentRequest))
            assert third.target == "m3"
            assert third.armed >= defragmentation.call
            assert third.fired is not None
            assert (last.kind, last.target) == ("kill", "m3")
            assert last.armed >= third.fired

    asyncio.run(go())


def test_a_fault_lasts_until_its_moment(tmp_path: Path) -> None:
    """Instead of a length of time: until another fault fires, until a step is done; and where that never is, to the end of the phase."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, seconds=6) as it:
            task = it.carry_out(
                "pause m1 until step over at 0s",
                "pause m2 until after kill at 0s",
                "kill m3 until step never after pause#2",
            )
            await until_fired(it, 3)
            await it.context.until_healed("pause", 1)
            it.context.has_done("over")
            await it.context.until_healed("pause", 2)
            assert it.context.active == 1
            await task
            steps, fault, never = (next(span for span in it.spans() if span.target == name) for name in ("m1", "m2", "m3"))
            times = [never.fired, fault.healed, steps.healed, never.healed]
            assert times == sorted(filter(None, times))
            assert it.context.elapsed_ms() >= it.context.heal_ms

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
            await it.call("m2", pb.DefragmentRequest())
            await it.call("m3", pb.DefragmentRequest())
            assert not it.spans()
            await it.call("m3", pb.DefragmentRequest())
            await task
            (span,) = it.spans()
            assert (span.target, span.fired is not None) == ("m3", True)
            history = load(tmp_path / "history.pb")
            last = max((op for op in history.operations if isinstance(op.input, pb.DefragmentRequest)), key=lambda op: op.call)
            assert span.armed >= last.call

    asyncio.run(go())
