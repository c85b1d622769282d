"""Hooks in stock binaries, seen from outside: exact counts, one thread held while others run on, kills with a wait status; no tracer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.etcd.spec import MemberState
from pekan.faults.hooks import Hooks, stub
from pekan.wire.messages import RangeRequest
from stage import ANSWER_S, Stage, stage
from stage.container import environment, plain_python
from stage.releases import provided

ability = Hooks.probe()
# A skip of its own for each test: workers that run side by side have to find the same tests, whatever each of them was able to do.
pytestmark = [pytest.mark.live, pytest.mark.skipif(not ability.possible, reason=f"{ability.why_not}; {ability.remedy}")]

APPLY = "applierV3backend.Apply"
SAVE = "wal.(*WAL).Save"
PUTS = 50
HOLD_S = 60
"""As long as nobody ends it sooner, and as a put waits for it."""
STALL_S = 4
"""A disk or a neighbour may keep a process for as long."""


def hooks_of(it: Stage) -> Hooks:
    hooks = it.equipment[Hooks.name]
    assert isinstance(hooks, Hooks)
    return hooks


async def put(it: Stage, number: int) -> None:
    assert (await it.put("m1", b"k%d" % number, b"v")).outcome == "ok"


@pytest.mark.parametrize("version", ["3.4.23", "3.5.1", "3.7.3"])
def test_count_hold_release_and_kill(tmp_path: Path, version: str) -> None:
    """Every put is one hit more; a put waits as long as its apply is held, while reads are answered; a kill ends at the very hit."""
    file = Path(provided(version).path)
    before = hashlib.sha256(file.read_bytes()).digest()
    faults = (f"failpoint m1 point={APPLY} action=hold 60s at 0s", f"failpoint m1 point={APPLY} action=kill nth=3 down_ms=0 at 0s")

    async def go() -> None:
        async with stage(version, tmp_path, *faults, members=1) as it:
            hooks, member = hooks_of(it), it.cluster.member("m1")
            status = Path(f"/proc/{member.pid}/status").read_text()
            assert "TracerPid:\t0\n" in status
            assert os.readlink(f"/proc/{member.pid}/exe") == str(file)
            await it.settled("m1")

            at = hooks.hits("m1", APPLY)
            for number in range(PUTS):
                await put(it, number)
            # Reads and internal requests do not come by here.
            assert hooks.hits("m1", APPLY) == at + PUTS
            assert hooks.firings("m1", APPLY) == 0

            await hooks.arm("m1", APPLY, 2, stub.HOLD, HOLD_S * 1000)
            await put(it, 0)
            held = asyncio.create_task(it.put("m1", b"k1", b"v", HOLD_S))
            firing = await hooks.fired("m1", APPLY)
            assert firing.hits == at + PUTS + 2
            assert firing.tid in map(int, os.listdir(f"/proc/{member.pid}/task"))
            # The member goes on without that one thread: it answers from its memory, as often as it has answered puts before.
            for _ in range(PUTS):
                assert (await it.context.ask("m1", RangeRequest(b"k0", serializable=True), ANSWER_S)).outcome == "ok"
            assert hooks.held("m1", APPLY)
            assert not held.done()
            hooks.disarm("m1", APPLY)
            assert (await held).outcome == "ok"
            assert not hooks.held("m1", APPLY)

            at = hooks.hits("m1", APPLY)
            first = member.pid
            task = it.carry_out(faults[1])
            while not task.done():
                await it.put("m1", b"k", b"v", 0.3)
            await task
            assert member.pid != first
            assert member.exits[-1].wait_status == signal.SIGKILL
            assert member.exits[-1].asked
            (span,) = it.spans()
            assert span.fired is not None
            assert span.evidence["hits"] >= at + 3  # puts may come by between the reading above and the arming
            assert span.evidence["wait_status"] == signal.SIGKILL
            await member.wait_ready()
            await it.served("m1")
            # The count went on where the killed process left it, and the hook is in the new one as well.
            before_put = hooks.hits("m1", APPLY)
            assert before_put >= at + 3
            await put(it, 0)
            assert hooks.hits("m1", APPLY) > before_put

    asyncio.run(go())
    assert hashlib.sha256(file.read_bytes()).digest() == before


def test_a_cancelled_hold_is_released(tmp_path: Path) -> None:
    """A hold of a minute that is cancelled lets its thread go on at once, and who was to be killed then lives; a point is one fault's."""
    fault = f"failpoint m1 point={SAVE} action=hold-kill 60s at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path, fault, members=1) as it:
            hooks, member = hooks_of(it), it.cluster.member("m1")
            before = member.pid
            await it.settled("m1")
            task = it.carry_out()
            # The point is armed at some time from now on, and a lone member that nobody asks saves nothing.
            put_task = asyncio.create_task(it.put("m1", b"k", b"v"))
            while not hooks.held("m1", SAVE):
                assert not task.done()
                if put_task.done():
                    put_task = asyncio.create_task(it.put("m1", b"k", b"v"))
                await asyncio.sleep(0.005)
            with pytest.raises(UsageError, match="another fault waits"):
                await hooks.arm("m1", SAVE, 1, stub.HOLD, 10)
            assert hooks.held("m1", SAVE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await put_task).outcome == "ok"
            assert (member.state, member.pid) == (MemberState.RUNNING, before)
            # A put may be answered while the log learns that it is committed, which is saved as well.
            async with asyncio.timeout(HOLD_S / 2):
                while hooks.held("m1", SAVE):
                    await asyncio.sleep(0.005)

    asyncio.run(go())


def test_a_process_that_ends_late(tmp_path: Path) -> None:
    """Who gets no processor between its hold and its end for some seconds is waited for: the kill has fired, and the end was asked for."""
    fault = f"failpoint m1 point={APPLY} action=hold-kill 500ms down_ms=0 at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path, fault, members=1) as it:
            hooks, member = hooks_of(it), it.cluster.member("m1")
            process = member.process
            assert process is not None
            await it.settled("m1")
            task = it.carry_out()
            put_task = asyncio.create_task(it.put("m1", b"k", b"v"))
            while not hooks.held("m1", APPLY):
                assert not task.done()
                if put_task.done():
                    put_task = asyncio.create_task(it.put("m1", b"k", b"v"))
                await asyncio.sleep(0.005)
            process.signal(signal.SIGSTOP)
            await asyncio.sleep(STALL_S)
            process.signal(signal.SIGCONT)
            await task
            assert (await put_task).outcome != "ok"
            (end,) = member.exits
            assert (end.wait_status, end.asked) == (signal.SIGKILL, True)
            (span,) = it.spans()
            assert span.fired is not None
            assert span.evidence["wait_status"] == signal.SIGKILL

    asyncio.run(go())


def test_points_that_are_reached(tmp_path: Path) -> None:
    """With hooks at every function of etcd's packages a member starts, and what is drawn is a function that it really passes."""
    fault = "failpoint m1 point=reached action=hold 50ms at 0s"

    async def go() -> None:
        async with stage("3.7.3", tmp_path, fault, members=1) as it:
            hooks = hooks_of(it)
            # What a start alone does, and does once, would not be passed again.
            await it.settled("m1")
            task = it.carry_out()
            number = 0
            while not task.done():
                await put(it, number)
                number += 1
            await task
            (span,) = it.spans()
            assert span.fired is not None
            point = span.evidence["point"]
            assert point.startswith("go.etcd.io/")
            assert hooks.hits("m1", point) >= span.evidence["hits"]
            assert sum(hits > 0 for hits in hooks.counters("m1").values()) > 500

    asyncio.run(go())


def test_a_point_that_there_is_not(tmp_path: Path) -> None:
    """A point unknown to the release is refused before anything starts, with names that come near."""

    async def go() -> None:
        with pytest.raises(UsageError, match=r"beforeComit.*near it are.*beforeCommit"):
            async with stage("3.7.3", tmp_path, "failpoint m1 point=beforeComit at 0s", members=1):
                pass

    asyncio.run(go())
    assert not (tmp_path / "members").exists()


PLAIN = """
import asyncio, os, sys
from pathlib import Path
from stage import stage

FAULTS = ("failpoint m1 point=applierV3backend.Apply action=hold-kill 50ms nth=3 down_ms=0 at 0s", "clock-jump m1 1s at 0s")

async def go():
    async with stage(sys.argv[1], Path(sys.argv[2]), *FAULTS, members=1) as it:
        task = it.carry_out()
        while not task.done():
            await it.put("m1", b"k", b"v", 0.3)
        await task
        await it.cluster.wait_ready()
        for span in it.spans():
            print(span.kind, span.fired is not None, span.evidence.get("wait_status"))
    print(os.getuid())

asyncio.run(go())
"""


def test_as_a_plain_user_in_a_container() -> None:
    """A user without capabilities, under the system call filter of a default container, plants hooks, holds, kills and shifts a clock."""
    python = plain_python()
    if python is None:
        pytest.skip("no interpreter here that a plain user can read: install Python outside of root's home")
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories are for one user only
        directory = Path(place)
        directory.chmod(0o777)
        etcd = shutil.copy2(provided("3.7.3").path, directory / "etcd")
        variables = {**environment(), "HOME": place}
        command = [*python, "-c", PLAIN, str(etcd), str(directory / "run")]
        (directory / "run").mkdir(mode=0o777)
        (directory / "run").chmod(0o777)
        done = subprocess.run(command, env=variables, cwd=place, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    *spans, user = done.stdout.splitlines()
    assert sorted(spans) == ["clock-jump True None", f"failpoint True {signal.SIGKILL.value}"]
    assert int(user) != 0
