"""One member's clocks shifted, seen from outside: leases that end early, logs with another time, and nothing where nothing was shifted."""

from __future__ import annotations

import asyncio
import calendar
import json
import time
from pathlib import Path

import pytest

from pekan.faults.clock import Clock
from pekan.faults.clock.shifting import MONOTONIC, WALL
from pekan.wire.messages import LeaseGrantRequest, PutRequest, pb
from stage import Stage, stage

ability = Clock.probe()
# A skip of its own for each test: workers that run side by side have to find the same tests, whatever each of them was able to do.
pytestmark = [pytest.mark.live, pytest.mark.skipif(not ability.possible, reason=f"{ability.why_not}; {ability.remedy}")]

TTL_S = 60
JUMP_S = 58
SHORT_TTL_S = 3
JUMP = "clock-jump m1 58s at 0s"
SKEW = "clock-skew m1 skew_ms=7200000 hold_ms=55000 at 0s"
"""Until it is cancelled."""


async def lease_with_key(it: Stage, key: bytes, ttl_s: int) -> float:
    """A key with a lease of that length; the loop's time when it had not been granted yet."""
    before = asyncio.get_running_loop().time()
    granted = await it.call("m1", LeaseGrantRequest(ttl_s))
    assert granted.outcome == "ok"
    assert granted.output.ttl == ttl_s
    reply = await it.call("m1", PutRequest(key, b"v", lease=granted.output.id))
    assert reply.outcome == "ok"
    return before


async def until_gone(it: Stage, key: bytes, since: float) -> float:
    """How long the key lived at most, in seconds."""
    while (reply := await it.get("m1", key)).outcome != "ok" or reply.output.kvs:
        await asyncio.sleep(0.05)
    return asyncio.get_running_loop().time() - since


async def logged_at(it: Stage) -> float:
    """The time that the member writes into its log now, in seconds since the epoch."""
    member = it.cluster.member("m1")
    before = member.spec.log.stat().st_size
    assert (await it.call("m1", pb.DefragmentRequest())).outcome == "ok"
    lines = member.spec.log.read_bytes()[before:].splitlines()
    # What else is written just now may have looked at the clock a while ago.
    stamp = next(json.loads(line)["ts"] for line in lines if b"defragmenting" in line)
    return calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))


@pytest.mark.parametrize("version", ["3.5.1", "3.7.3"])
def test_clocks_of_one_member(tmp_path: Path, version: str) -> None:
    """A jump of the monotonic clock by 58 s ends a lease of a minute after 2 s, not before; a skew shifts the log by two hours and back."""

    async def go() -> None:
        async with stage(version, tmp_path, JUMP, SKEW, members=1) as it:
            clock = it.equipment[Clock.name]
            assert isinstance(clock, Clock)
            status = Path(f"/proc/{it.cluster.member('m1').pid}/status").read_text()
            assert "TracerPid:\t0\n" in status
            await it.settled("m1")
            # Nothing is shifted yet: the planted code runs and does nothing.
            assert abs(await logged_at(it) - time.time()) < 60
            assert (clock.readings("m1", WALL), clock.readings("m1", MONOTONIC)) == (0, 0)

            skewing = it.carry_out(SKEW)
            await it.context.until_fired("clock-skew", 1)
            assert clock.readings("m1", WALL) > 0
            assert abs(await logged_at(it) - time.time() - 7200) < 60
            skewing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await skewing
            assert abs(await logged_at(it) - time.time()) < 60

            since = await lease_with_key(it, b"early", TTL_S)
            await it.carry_out(JUMP)
            lived = await until_gone(it, b"early", since)
            # Not at once: 58 of its 60 s have passed. etcd looks twice a second (lessor.go), and the rest is for busy machines.
            assert TTL_S - JUMP_S <= lived < TTL_S

            assert (await it.put("m1", b"k", b"v")).outcome == "ok"
            (skew,) = it.spans("clock-skew")
            (jump,) = it.spans("clock-jump")
            assert skew.promise == jump.promise == "lease-time"
            assert skew.fired is not None
            assert skew.healed is not None
            assert jump.fired is not None
            assert clock.offset_ns("m1", MONOTONIC) == JUMP_S * 1_000_000_000
            assert clock.offset_ns("m1", WALL) == 0

    asyncio.run(go())


def test_a_lease_lives_as_long_as_it_should_while_the_wall_clock_is_wrong(tmp_path: Path) -> None:
    """A wall clock two hours ahead ends no lease early: a lease lives by the monotonic clock, which nobody shifted."""

    async def go() -> float:
        async with stage("3.7.3", tmp_path, SKEW, members=1) as it:
            await it.settled("m1")
            task = it.carry_out(SKEW)
            await it.context.until_fired("clock-skew", 1)
            since = await lease_with_key(it, b"k", SHORT_TTL_S)
            lived = await until_gone(it, b"k", since)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return lived

    assert asyncio.run(go()) >= SHORT_TTL_S
