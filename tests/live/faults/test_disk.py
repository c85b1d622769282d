"""Disks that refuse, linger, tear, lie and lose power, under real members: each effect as a client sees it, and service after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from pekan.etcd.spec import MemberState
from pekan.faults.disk.device import BlockDevice, run
from pekan.faults.disk.supervision import Supervision
from pekan.wire.messages import PutRequest, RangeRequest
from stage import Stage, stage

pytestmark = pytest.mark.live

NEW = "3.7.3"
DEADLINE_S = 180.0
LOSS_TRIES = 5
"""How often something unsynced is written until it is lost: the kernel writes it when it likes, and a member may stand still meanwhile."""
FATAL, KILLED = 1 << 8, 9
QUICK = {"heartbeat-interval": "10", "election-timeout": "100"}
"""A lone member waits for an election timeout at each start; the default is a second."""


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    ability = Supervision.probe()
    if not ability.possible:
        pytest.skip(ability.why_not)


async def under_load(it: Stage, *faults: str, clients: int = 6) -> list[bytes]:
    """Carry out `faults` while `clients` write; returns the keys whose writes were acknowledged, in order."""
    task, round_ = it.carry_out(*faults), it.context.armed
    acknowledged: list[bytes] = []

    async def writes(number: int) -> None:
        count = 0
        client = it.context.open(f"load-{it.context.fired}-{number}", it.cluster.members[number % len(it.cluster.members)].name)
        while not task.done():
            key = b"%d-%d-%d" % (round_, number, count)
            count += 1
            if (await client.call(PutRequest(key, b"x" * 300), 1.0)).outcome == "ok":
                acknowledged.append(key)
            else:
                await asyncio.sleep(0.02)  # a member that is down refuses at once

    await asyncio.gather(*(writes(number) for number in range(clients)))
    await task
    await it.cluster.wait_ready()
    return acknowledged


async def missing(it: Stage, keys: list[bytes]) -> int:
    """How many of `keys` are not there, by one linearizable read of everything."""
    reply = await it.answer(it.cluster.members[0].name, RangeRequest(b"\0", b"\0", keys_only=True))
    assert reply.outcome == "ok"
    return len(set(keys) - {each.key for each in reply.output.kvs})


def evidence(it: Stage, kind: str) -> dict[str, Any]:
    """Of the last fault of that kind, which has fired and been healed."""
    span = it.spans(kind)[-1]
    assert span.fired is not None
    assert span.healed is not None
    return span.evidence


def test_errors_end_a_member_and_nothing_is_lost(tmp_path: Path) -> None:
    """EIO for a sync of the WAL, ENOSPC for a write of the database and for all that grows: etcd says so and ends, as predicted; started
    again it serves everything that it had acknowledged. A call that does not come disturbs nobody."""
    faults = (
        "disk-error m1 file=wal call=sync error=EIO nth=3 down_ms=0 at 0s",
        "disk-error m1 file=db call=write error=ENOSPC nth=2 down_ms=0 at 0s",
        "disk-full m1 600ms at 0s",
    )

    async def go() -> None:
        async with stage(NEW, tmp_path, *faults, members=1, options=QUICK) as it:
            (member,) = it.cluster.members
            for number, (fault, log) in enumerate(
                zip(faults, ("input/output error", "no space left on device", "no space left on device"), strict=True), 1
            ):
                acknowledged = await under_load(it, fault)
                end = member.exits[-1]
                assert (len(member.exits), end.wait_status, end.asked) == (number, FATAL, True)
                assert log in (end.crash or "")
                assert evidence(it, fault.split()[0])["healed"]["wait_status"] == FATAL
                assert await missing(it, acknowledged) == 0
            armed = it.context.armed
            while it.context.armed == armed:  # where this process stands still the phase is over before anything is armed
                it.context.heal_ms = it.context.elapsed_ms() + 500
                await under_load(it, "disk-error m1 file=wal nth=1000000 at 0s")
            assert it.spans("disk-error")[-1].fired is None
            assert (len(member.exits), member.state) == (len(faults), MemberState.RUNNING)

    asyncio.run(go())


def test_a_slow_disk_delays_what_needs_it(tmp_path: Path) -> None:
    """While syncs of the WAL take longer a write takes at least that long and a serializable read does not wait for it; healed, writes are
    quick."""
    delay_ms = 1_200

    async def go() -> None:
        async with stage(NEW, tmp_path, f"disk-slow m1 30s delay_ms={delay_ms} file=wal at 0s", members=1, options=QUICK) as it:

            async def put_ms() -> float:
                while True:
                    began = time.monotonic()
                    if (await it.put("m1", b"k", b"v")).outcome == "ok":
                        return (time.monotonic() - began) * 1000

            async def until_quick() -> None:
                while await put_ms() >= delay_ms:
                    pass

            await until_quick()
            task = it.carry_out()
            while not it.context.fired_by_kind:  # what was synced before the disk became slow is not delayed
                await put_ms()
            reading = it.context.open("reader", "m1")
            read_ms = 0.0
            while read_ms < delay_ms / 2:  # so late a read was sent, and answered while the put still waited
                began = time.monotonic()
                slow = asyncio.create_task(put_ms())
                while not slow.done():
                    sent_ms = (time.monotonic() - began) * 1000
                    if (await reading.call(RangeRequest(b"k", serializable=True))).outcome == "ok" and not slow.done():
                        read_ms = sent_ms
                    await asyncio.sleep(0.02)
                assert await slow >= delay_ms
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert evidence(it, "disk-slow")["healed"]["did"]["fdatasync wal"] >= 1
            await until_quick()
            assert it.cluster.exits == ()

    asyncio.run(go())


def test_power_losses_take_only_what_was_not_synced(tmp_path: Path) -> None:
    """Power fails before a sync, after one, in the middle of a commit, and a write is torn: bytes are gone from disk, and no acknowledged
    write."""
    faults = (
        "power-loss m1 moment=before-sync nth=8 kept=0 down_ms=0 at 0s",
        "power-loss m1 moment=before-sync nth=8 kept=50 down_ms=0 at 0s",
        "power-loss m1 moment=write nth=3 kept=50 down_ms=0 at 0s",
        "power-loss m1 moment=after-sync file=db nth=2 down_ms=0 at 0s",
        # A tear between two records leaves nothing to repair: the more tears, the less likely that each is such a one.
        *(f"torn-write m1 nth={nth} down_ms=0 at 0s" for nth in range(3, 11)),
    )

    async def go() -> None:
        async with stage(NEW, tmp_path, *faults, members=1, options=QUICK) as it:
            (member,) = it.cluster.members
            lost = written = 0
            repaired = False
            for number, fault in enumerate(faults, 1):
                acknowledged = await under_load(it, fault)
                written += len(acknowledged)
                end = member.exits[-1]
                assert (end.wait_status, end.asked) == (KILLED, True)
                lost += evidence(it, fault.split()[0])["lost_bytes"]
                assert await missing(it, acknowledged) == 0
                assert len(member.exits) == number
                repaired = any("repair" in line and "WAL" in line for line in member.spec.log.read_text().splitlines())
                if repaired and fault.startswith("torn-write"):
                    break
            assert lost > 0
            assert written > 0
            assert repaired

    asyncio.run(go())


def test_syncs_that_lie_cost_acknowledged_writes(tmp_path: Path) -> None:
    """After some time in which no sync was done the power fails, and writes that clients were told are durable are not there."""

    async def go() -> None:
        async with stage(NEW, tmp_path, "sync-lies m1 500ms kept=0 down_ms=0 at 0s", members=1, options=QUICK) as it:
            lost = tries = 0
            while not lost and tries < LOSS_TRIES:  # a member that stood still for that time has acknowledged nothing
                tries += 1
                lost = await missing(it, await under_load(it))
            assert lost > 0
            assert it.spans("sync-lies")[0].promise == "outside"
            assert evidence(it, "sync-lies")["lost_bytes"] > 0
            assert (await it.answer("m1", PutRequest(b"k", b"v"))).outcome == "ok"

    asyncio.run(go())


def test_a_supervisor_that_dies_is_no_finding(tmp_path: Path) -> None:
    """The member does not hang for ever without its supervisor: it ends, and the equipment says that this was not etcd's doing."""

    async def go() -> None:
        async with stage(NEW, tmp_path, "disk-slow m1 1s at 50s", members=1, options=QUICK) as it:
            supervision = it.equipment[Supervision.name]
            assert isinstance(supervision, Supervision)
            assert supervision.failure() == ""
            supervision.of("m1").process.kill()
            put = asyncio.create_task(it.put("m1", b"k", b"v"))
            end = await it.cluster.member("m1").wait_exit(DEADLINE_S)
            assert end.exit_code == 1
            assert "m1" in supervision.failure()
            assert (await put).outcome != "ok"

    asyncio.run(go())


def test_a_file_system_loses_power(tmp_path: Path) -> None:
    """A file that nobody synced is there after a kill and gone after a shutdown of the file system; one that was synced, and every
    acknowledged write, is there after both. Neither mount nor loop device is left."""
    ability = BlockDevice.probe()
    if not ability.possible:
        pytest.skip(ability.why_not)

    async def go() -> Path:
        async with stage(NEW, tmp_path, "filesystem-shutdown m1 0ms at 0s", members=1, options=QUICK) as it:
            data = it.cluster.member("m1").spec.data_dir
            assert os.path.ismount(data)
            with (data / "synced").open("wb") as file:
                file.write(b"x" * 5_000)
                os.fsync(file.fileno())
            (data / "killed").write_bytes(b"x" * 5_000)
            acknowledged = await under_load(it, "kill m1 0ms at 0s")
            assert (data / "killed").read_bytes() == b"x" * 5_000
            for number in range(LOSS_TRIES):
                # A new file each time: ext4 writes one that was made empty and filled again when it is closed (auto_da_alloc).
                unsynced = data / f"shut-down-{number}"
                unsynced.write_bytes(b"y" * 5_000)
                acknowledged += await under_load(it)
                assert evidence(it, "filesystem-shutdown")["answer"] == "EIO"
                assert (data / "synced").read_bytes() == b"x" * 5_000
                assert await missing(it, acknowledged) == 0
                if gone := not unsynced.exists() or b"y" not in unsynced.read_bytes():
                    break  # else the kernel had written it of its own accord, as it may at any time
            assert gone
            return data

    data = asyncio.run(go())
    assert not os.path.ismount(data)
    assert (data / "member" / "wal").is_dir()
    deadline = time.monotonic() + DEADLINE_S
    while str(tmp_path) in run("losetup", "-a"):  # a device that somebody else looks at just then lets go when that ends
        assert time.monotonic() < deadline
        time.sleep(0.1)


ALONE = """
import asyncio, os, sys
from pathlib import Path
from stage import stage

FAULTS = ("disk-error m1 nth=1 down_ms=0 at 0s", "power-loss m1 nth=2 down_ms=0 at 0s")

async def go():
    assert os.geteuid() != 0
    async with stage(sys.argv[1], Path(sys.argv[2]), *FAULTS, members=1) as it:
        for fault in FAULTS:
            task = it.carry_out(fault)
            while not task.done():
                await it.put("m1", b"k", b"v")
            await task
            await it.cluster.wait_ready()
        assert [each.wait_status for each in it.cluster.exits] == [256, 9], it.cluster.exits
        assert it.context.fired == 2

asyncio.run(go())
"""


def test_a_plain_user_needs_no_privileges(tmp_path: Path) -> None:
    """As a user without capabilities (but one to read a checkout in somebody else's home): refused syncs and a power loss, as above."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("privileges can only be given away by root, with setpriv of util-linux; the other tests run without them here")
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to other users
        os.chown(directory, 1000, 1000)
        options = [f"--{each}=-all,+dac_read_search" for each in ("bounding-set", "inh-caps", "ambient-caps")]
        command = [setpriv, "--reuid=1000", "--regid=1000", "--clear-groups", *options, sys.executable, "-c", ALONE, NEW, directory]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
