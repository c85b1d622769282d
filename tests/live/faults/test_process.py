"""Kill, pause and restart of real members: what is held is healed on every path, and claims keep faults apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pekan.etcd.spec import MemberState
from stage import stage

pytestmark = pytest.mark.live

VERSION = "3.5.1"


def test_what_is_cancelled_is_healed(tmp_path: Path) -> None:
    """A pause that is cancelled while it holds continues its member before it ends, and says so in the record."""

    async def go() -> MemberState:
        async with stage(VERSION, tmp_path, "pause 50s at 0s", members=1) as it:
            task = it.carry_out()
            (member,) = it.cluster.members
            while member.state is not MemberState.PAUSED or not it.context.active:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (span,) = it.spans()
            assert span.fired is not None
            assert span.healed is not None
            assert span.healed - span.fired < 30_000_000_000
            return member.state

    assert asyncio.run(go()) is MemberState.RUNNING


def test_a_fault_without_a_victim_expires(tmp_path: Path) -> None:
    """A second fault on a process that is claimed already is armed and never fires; the first one is not disturbed."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "pause m1 60s at 0s", "kill m1 at 300ms", members=1, seconds=1.5) as it:
            await it.carry_out()
            context = it.context
            assert (context.fired, context.expired, context.active, context.claimed) == (1, 1, 0, set())
            pause, kill = it.spans()
            assert (pause.kind, kill.kind) == ("pause", "kill")
            assert pause.healed is not None
            assert kill.fired is None
            assert kill.target == "m1"

    asyncio.run(go())
