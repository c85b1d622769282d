"""Kill, pause and restart of real members, seen from outside; what is held is healed on every path, and claims keep faults apart."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from pekan.etcd.spec import MemberState
from pekan.wire.messages import PutRequest, RangeRequest
from stage import stage

pytestmark = pytest.mark.live

VERSION = "3.5.1"
CLOSED = "closed etcd server"
"""What etcd logs last when it ends as it should."""
SHORT_S = 0.3


def test_stopped_ended_and_killed(tmp_path: Path) -> None:
    """A paused process is stopped and answers nothing until its pause is cancelled; a restarted one has closed its files and a killed one
    has not; before and after each the data is served."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, members=1) as it:
            (member,) = it.cluster.members
            assert (await it.answer("m1", PutRequest(b"k", b"v"))).outcome == "ok"

            def state() -> str:
                return Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()[0]

            assert state() != "T"
            task = it.carry_out("pause 50s at 0s")
            await it.context.until_fired("pause", 1)
            assert member.state is MemberState.PAUSED
            assert state() == "T"
            assert (await it.get("m1", b"k", SHORT_S, serializable=True)).outcome != "ok"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (span,) = it.spans()
            assert span.fired is not None
            assert span.healed is not None
            assert span.healed - span.fired < 30_000_000_000
            assert state() != "T"
            await member.wait_ready()
            assert not member.exits

            log = member.spec.log
            for fault, ended, closed in (
                ("restart m1 grace_ms=60000 at 0s", signal.SIGTERM, True),
                ("kill m1 0ms at 0s", signal.SIGKILL, False),
            ):
                first, logged = member.pid, log.stat().st_size
                await it.carry_out(fault)
                await member.wait_ready()
                assert member.pid != first
                assert member.exits[-1].asked
                assert member.exits[-1].signal == ended
                assert (CLOSED in log.read_text()[logged:]) is closed
                assert [kv.value for kv in (await it.answer("m1", RangeRequest(b"k"))).output.kvs] == [b"v"]

    asyncio.run(go())


def test_a_fault_without_a_victim_expires(tmp_path: Path) -> None:
    """A second fault on a process that is claimed already is armed and never fires; the first one is not disturbed."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, members=1) as it:
            context = it.context
            expired = 0
            while not context.fired:  # where this process stands still the phase is over before anything is armed
                expired = context.expired
                context.heal_ms = context.elapsed_ms() + 1_000
                await it.carry_out("pause m1 60s at 0s", "kill m1 at 0s")
            assert (context.fired, context.expired - expired, context.active, context.claimed) == (1, 1, 0, set())
            pause, kill = it.spans()
            assert (pause.kind, kill.kind) == ("pause", "kill")
            assert pause.healed is not None
            assert kill.fired is None
            assert kill.target == "m1"

    asyncio.run(go())
