"""Drawn faults on a real cluster: one that waits in vain gives way, and a storm waits for the calm before it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pekan.faults import inject, parse
from pekan.plan import Fault, Schedule
from stage import stage

pytestmark = pytest.mark.live

VERSION = "3.7.3"
RARE = "failpoint m1 point=defragBeforeCopy action=kill down_ms=100 at 0s"


def drawn(spec: str) -> Fault:
    """The same, as if a seed had drawn it."""
    return replace(parse(spec), required=False, fault_class="year")


def test_a_drawn_fault_that_waits_in_vain_gives_way(tmp_path: Path) -> None:
    """A kill at a point that nobody comes by gives up after its own time, long before the phase ends, and leaves its member to others."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, RARE, members=1, seconds=100) as it:
            context = it.context
            await inject(Schedule(0, context.heal_ms, context.heal_ms, (drawn(RARE),)), context)
            assert context.elapsed_ms() < context.heal_ms / 2
            assert (context.expired, context.fired, context.active, context.claimed) == (1, 0, 0, set())
            await it.carry_out("kill m1 100ms at 0s")
            (rare, kill) = it.spans()
            assert (rare.fired, kill.fired is not None) == (None, True)

    asyncio.run(go())


def test_a_storm_waits_for_the_calm(tmp_path: Path) -> None:
    """The faults of the second storm are armed when the calm has been declared, in their order; those asked for by name do not wait."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, seconds=90) as it:
            context = it.context
            # Each its own victim: two of one wait for each other, and a drawn one not for long.
            faults = (drawn("pause m1 10ms at 0s"), drawn("pause m2 20ms at 10ms"), parse("pause m3 30ms at 11ms"))
            task = asyncio.create_task(inject(Schedule(0, context.heal_ms, context.heal_ms, faults, storms=(0, 5)), context))
            while context.fired < 2 or context.active:
                await asyncio.sleep(0.01)
            assert sorted(span.parameters["hold_ms"] for span in it.spans()) == [10, 30]
            context.calm.set()
            await task
            assert [span.parameters["hold_ms"] for span in it.spans()][2:] == [20]

    asyncio.run(go())
