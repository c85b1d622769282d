"""Probes of the kernel in a running member: exact counts, a kill at the very hit, and nothing while nobody is armed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.faults.hooks import Hooks, Uprobes
from stage import stage

ability = Uprobes.probe()
# A skip of its own for each test: workers that run side by side have to find the same tests, whatever each of them was able to do.
pytestmark = [pytest.mark.live, pytest.mark.skipif(not ability.possible, reason=f"{ability.why_not}; {ability.remedy}")]

APPLY = "applierV3backend.Apply"
DEADLINE_S = 90


def test_count_and_kill(tmp_path: Path) -> None:
    """Every put is one hit more, which alone ends nobody; a kill ends the process at the very hit."""
    faults = tuple(f"failpoint m1 point={APPLY} action={action} nth=3 down_ms=0 mechanism=uprobe at 0s" for action in ("kill", "count"))

    async def go() -> None:
        async with stage("3.7.3", tmp_path, *faults, members=1) as it:
            probes, member = it.equipment[Uprobes.name], it.cluster.member("m1")
            assert isinstance(probes, Uprobes)
            assert Hooks.name not in it.equipment
            probes.use(member)
            await it.settled("m1")
            await probes.arm("m1", APPLY, 20, 0)
            for number in range(19):
                assert (await it.put("m1", b"k", b"v")).outcome == "ok"
                assert probes.hits("m1", APPLY) == number + 1
            assert probes.firings("m1", APPLY) == 0
            assert (await it.put("m1", b"k", b"v")).outcome == "ok"
            assert (await probes.fired("m1", APPLY)).hits == 20
            probes.disarm("m1", APPLY)
            await probes.close()

            for fault in faults[::-1]:
                task = it.carry_out(fault)
                while not task.done():
                    await it.put("m1", b"k", b"v", 0.3)
                await task
            assert [end.wait_status for end in member.exits] == [signal.SIGKILL]
            assert member.exits[-1].asked
            for span in it.spans():
                assert span.fired is not None
                assert span.evidence["mechanism"] == "uprobe"
                # Nobody stands still for a count: it goes on until it is read.
                assert span.evidence["hits"] == 3 if span.parameters["action"] == "kill" else span.evidence["hits"] >= 3

    asyncio.run(go())


WITHOUT_PTRACE = """
import asyncio, sys
from pathlib import Path
from pekan.faults import ability_of, fault_ability, parse
from stage import stage
from stage.container import install, refusing

SYS_PTRACE = 101
FAULT = "failpoint m1 point=applierV3backend.Apply action=%s nth=3 at 0s"

async def go():
    async with stage("3.7.3", Path(sys.argv[1]), FAULT % "kill", members=1) as it:
        task = it.carry_out()
        while not task.done():
            await it.put("m1", b"k", b"v", 0.3)
        await task
        (span,) = it.spans()
        await it.cluster.wait_ready()
        print(*it.equipment, span.evidence["mechanism"], span.evidence["hits"], span.evidence["wait_status"])

install(refusing((SYS_PTRACE,)))
found, hold = ability_of("failpoint"), fault_ability(parse(FAULT % "hold"))
print(found.possible, found.detail)
print(hold.possible, hold.why_not)
asyncio.run(go())
"""


def test_where_nothing_can_be_traced(tmp_path: Path) -> None:
    """Where ptrace(2) is refused none are drawn, a hold is refused with the reason, and a kill at a point by name is a uprobe's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_PTRACE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    drawn, held, killed = done.stdout.splitlines()
    assert drawn == "False only at a point asked for by name, with mechanism uprobe"
    assert held.startswith("False it needs hooks: ")
    assert "ptrace(PTRACE_TRACEME): Operation not permitted" in held
    assert killed == "uprobe uprobe 3 9"


def test_no_hold(tmp_path: Path) -> None:
    """A hold by a uprobe is refused before anything starts."""

    async def go() -> None:
        with pytest.raises(UsageError, match="holds no thread"):
            async with stage("3.7.3", tmp_path, f"failpoint m1 point={APPLY} mechanism=uprobe at 0s", members=1):
                pass

    asyncio.run(go())
    assert not (tmp_path / "members").exists()
