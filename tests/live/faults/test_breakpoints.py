"""Breakpoints of the processor in running members, seen from outside: kills and holds at the nth hit, a pause meanwhile, no tracer left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.etcd.spec import MemberState
from pekan.faults.hooks import Breakpoints, Hooks, stub
from pekan.wire.messages import PutRequest, RangeRequest
from stage import ANSWER_S, Stage, connected, stage

ability = Breakpoints.probe()
# A skip of its own for each test: workers that run side by side have to find the same tests, whatever each of them was able to do.
pytestmark = [pytest.mark.live, pytest.mark.skipif(not ability.possible, reason=f"{ability.why_not}; {ability.remedy}")]

APPLY = "applierV3backend.Apply"
DEADLINE_SECONDS = 60.0
HOLD_SECONDS = 60
"""As long as nobody ends it sooner, and as a put waits for it."""
READS = 20
"""As many reads are answered while a put is held as puts were before it."""


def breakpoints_of(it: Stage) -> Breakpoints:
    found = it.equipment[Breakpoints.name]
    assert isinstance(found, Breakpoints)
    found.use(it.cluster.member("m1"))
    return found


def of_threads(pid: int | None, name: str) -> list[str]:
    """That file of each thread of the process (proc(5)); a thread may end while it is looked at."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{pid}/task/{thread}/{name}").read_text())
    return found


def tracers(pid: int | None) -> set[str]:
    """Who traces the threads of that process; "0" is nobody."""
    return {status.partition("TracerPid:")[2].split()[0] for status in of_threads(pid, "status")}


def ended(pid: int | None) -> bool:
    """Whether every thread of that process is dead, reaped or not."""
    return all(stat.rpartition(")")[2].split()[0] in "ZX" for stat in of_threads(pid, "stat"))


async def put(it: Stage) -> None:
    assert (await it.put("m1", b"k", b"v")).outcome == "ok"


@pytest.mark.parametrize("version", ["3.5.1", "3.7.3"])
def test_hold_pause_release_and_kill(tmp_path: Path, version: str) -> None:
    """A put waits as long as its apply is held while others are served; a pause meanwhile is told as ever; a kill ends at the very hit; who
    is not armed is not traced."""
    faults = (
        f"failpoint m1 point={APPLY} action=hold 60s mechanism=breakpoint at 0s",
        f"failpoint m1 point={APPLY} action=kill nth=3 down_ms=0 mechanism=breakpoint at 0s",
    )

    async def go() -> None:
        async with stage(version, tmp_path, *faults, members=1) as it:
            traps, member = breakpoints_of(it), it.cluster.member("m1")
            assert Hooks.name not in it.equipment
            await it.settled("m1")
            for _ in range(READS):
                await put(it)
            assert tracers(member.pid) == {"0"}

            await traps.arm("m1", APPLY, 3, stub.HOLD, HOLD_SECONDS * 1000)
            assert tracers(member.pid) == {str(member.launcher_pid)}
            await put(it)
            await put(it)
            held = asyncio.create_task(it.put("m1", b"k", b"v", HOLD_SECONDS))
            firing = await traps.fired("m1", APPLY)
            assert firing.hits == 3
            assert str(firing.tid) in os.listdir(f"/proc/{member.pid}/task")
            for _ in range(READS):
                assert (await it.context.ask("m1", RangeRequest(b"k", serializable=True), ANSWER_S)).outcome == "ok"
            assert not held.done()
            with pytest.raises(UsageError, match="another fault"):
                await traps.arm("m1", APPLY, 2, stub.HOLD, 10)

            await member.pause()
            assert member.state is MemberState.PAUSED
            assert (await it.context.ask("m1", RangeRequest(b"k", serializable=True), 0.3)).outcome != "ok"
            await member.resume()
            assert member.state is MemberState.RUNNING
            assert (await it.context.ask("m1", RangeRequest(b"k", serializable=True), ANSWER_S)).outcome == "ok"
            assert not held.done()

            traps.disarm("m1", APPLY)
            assert (await held).outcome == "ok"
            await until_over(traps)
            assert tracers(member.pid) == {"0"}
            assert not member.exits

            # Nothing is left of it: what was held is passed, and nobody stops there.
            for _ in range(20):
                await put(it)

            first = member.pid
            task = it.carry_out(faults[1])
            while not task.done():
                await it.put("m1", b"k", b"v", 0.3)
            await task
            assert member.pid != first
            assert [end.wait_status for end in member.exits] == [signal.SIGKILL]
            assert member.exits[-1].asked
            (span,) = it.spans()
            assert span.fired is not None
            assert span.evidence["mechanism"] == "breakpoint"
            assert span.evidence["hits"] == 3
            assert span.evidence["wait_status"] == signal.SIGKILL
            await member.wait_ready()
            assert tracers(member.pid) == {"0"}

    asyncio.run(go())


async def until_over(traps: Breakpoints) -> None:
    """Until nobody is traced any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while traps.held("m1", APPLY):
            await asyncio.sleep(0.005)


def test_rounds_under_load(tmp_path: Path) -> None:
    """Armed, held and let go again and again under load, a member answers every request, and traps that are on their way end nobody."""
    fault = f"failpoint m1 point={APPLY} action=hold 20ms mechanism=breakpoint at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path, fault, members=1) as it:
            traps, member = breakpoints_of(it), it.cluster.member("m1")
            stop = asyncio.Event()

            async def load(number: int) -> None:
                client = it.context.open(f"load-{number}", "m1")
                await connected(client)
                while not stop.is_set():
                    assert (await client.call(PutRequest(b"k%d" % number, b"v"), ANSWER_S)).outcome == "ok"

            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(load(number))
                for number in range(10):
                    await traps.arm("m1", APPLY, 2, stub.HOLD if number % 2 else 0, 20)
                    await traps.fired("m1", APPLY)
                    traps.disarm("m1", APPLY)
                    await until_over(traps)
                # Whoever is disarmed in the middle of the hits that it counts.
                for _ in range(10):
                    await traps.arm("m1", APPLY, 1_000_000, stub.HOLD | stub.KILL, 20)
                    traps.disarm("m1", APPLY)
                    await until_over(traps)
                stop.set()
            assert traps.firings("m1", APPLY) == 10
            assert (member.state, member.incarnation) == (MemberState.RUNNING, 1)
            assert tracers(member.pid) == {"0"}

    asyncio.run(go())


def test_a_killed_launcher_leaves_nothing(tmp_path: Path) -> None:
    """When the tracer is killed in the middle of a hold, the member ends with it, and by SIGKILL: nothing of a trap is in its log."""
    fault = f"failpoint m1 point={APPLY} action=hold 60s mechanism=breakpoint at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path, fault, members=1) as it:
            traps, member = breakpoints_of(it), it.cluster.member("m1")
            await it.settled("m1")
            await traps.arm("m1", APPLY, 2, stub.HOLD, HOLD_SECONDS * 1000)
            await put(it)
            held = asyncio.create_task(it.put("m1", b"k", b"v", HOLD_SECONDS))
            await traps.fired("m1", APPLY)
            pid, launcher = member.pid, member.launcher_pid
            assert launcher is not None
            os.kill(launcher, signal.SIGKILL)
            await member.wait_exit(DEADLINE_SECONDS)
            assert (await held).outcome != "ok"
            # The kernel kills what a dead tracer has traced; that takes it a moment.
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not ended(pid):
                    await asyncio.sleep(0.01)
            assert not any("SIGTRAP" in line for line in member.log_tail())

    asyncio.run(go())


def test_where_no_hook_can_be(tmp_path: Path) -> None:
    """A point that hooks refuse is taken by a breakpoint, unless a hook is asked for, which is refused before anything starts. A hold that
    ends in a kill kills as late as it says."""
    # Each record of the log comes by here in 3.7.3, and something jumps to where a hook's jump would have its end.
    point = "wal/encoder.go:117"
    fault = f"failpoint m1 point={point} action=hold 50ms nth=2 at 0s"
    deadly = f"failpoint m1 point={APPLY} action=hold-kill 100ms nth=3 down_ms=0 mechanism=breakpoint at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path / "any", fault, deadly, members=1) as it:
            member = it.cluster.member("m1")
            for each in (fault, deadly):
                assert not member.exits
                task = it.carry_out(each)
                while not task.done():
                    await it.put("m1", b"k", b"v", 0.3)
                await task
                span = it.spans()[-1]
                assert span.fired is not None
                assert span.evidence["mechanism"] == "breakpoint"
            assert span.evidence["held_ns"] >= 100_000_000
            assert span.evidence["hits"] == 3
            assert [end.wait_status for end in member.exits] == [signal.SIGKILL]
            assert member.exits[-1].asked
            await member.wait_ready()
            await it.served("m1")
            await put(it)
        with pytest.raises(UsageError, match="no hook can be at"):
            async with stage("3.7.3", tmp_path / "hook", f"{fault} mechanism=hook", members=1):
                pass

    (tmp_path / "any").mkdir()
    (tmp_path / "hook").mkdir()
    asyncio.run(go())


def test_what_only_hooks_can_tell(tmp_path: Path) -> None:
    """A breakpoint at whatever is reached is refused before anything starts."""

    async def go() -> None:
        with pytest.raises(UsageError, match="only hooks can tell"):
            async with stage("3.7.3", tmp_path, "failpoint m1 mechanism=breakpoint at 0s", members=1):
                pass

    asyncio.run(go())
    assert not (tmp_path / "members").exists()
