"""Crash images of real members: taken while clients go on, started afterwards, and what is missing on one is found."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pekan.checking import check
from pekan.etcd.aside import alone, aside
from pekan.etcd.ports import PortLease
from pekan.etcd.recorder import boot_id
from pekan.etcd.spec import MemberState
from pekan.faults import Album, Image
from pekan.faults.stored.copies import copy_tree
from pekan.history.reading import load
from pekan.hunt.images import examine
from pekan.plan import Plan
from pekan.verdict import Verdict
from pekan.wire.messages import PutRequest, RangeRequest
from stage import Stage, stage

pytestmark = pytest.mark.live


@asynccontextmanager
async def written_to(it: Stage) -> AsyncIterator[dict[str, int]]:
    """Puts through every member while inside; how many each has acknowledged."""
    over = asyncio.Event()
    acknowledged = dict.fromkeys((member.name for member in it.cluster.members), 0)

    async def writer(member: str) -> None:
        n = 0
        while not over.is_set():
            acknowledged[member] += (await it.put(member, b"k%d" % (n % 20), f"{member}/{n}".encode())).outcome == "ok"
            n += 1

    async with asyncio.TaskGroup() as group:
        for member in it.cluster.members:
            group.create_task(writer(member.name))
        yield acknowledged
        over.set()


async def gone_on(acknowledged: dict[str, int]) -> None:
    """Return once every member has acknowledged a put that was sent from now on: it stands above what any member has now."""
    seen = dict(acknowledged)
    while any(acknowledged[member] < seen[member] + 2 for member in seen):  # the first one may be under way already
        await asyncio.sleep(0.01)


async def imaged(it: Stage, fault: str) -> list[Image]:
    """The images that `fault` keeps under traffic, twice; the members serve in between and afterwards, and have ended then."""
    it.context.recorder.mark("start", start="empty", boot_id=boot_id())
    async with written_to(it) as acknowledged:
        for _ in range(2):
            await it.carry_out(fault)
            await gone_on(acknowledged)
    for member in it.cluster.members:
        assert member.state is MemberState.RUNNING
        assert member.incarnation == 1, "nobody was ended"
        await member.kill()
    return it.context.collection(Album).images


def judged(directory: Path, members: int) -> Verdict:
    """The verdict over what lies in `directory`, as a run directory."""
    (directory / "plan.json").write_text(Plan(etcd="3.7.3", seed=1, members=members).to_text())
    return check(directory)


def of_images(verdict: Verdict) -> dict[str, int]:
    return next(report.judged for report in verdict.checkers if report.name == "images")


@pytest.mark.parametrize(("version", "members"), [("3.7.3", 3), ("3.4.23", 1)])
def test_images_are_what_a_crash_leaves(tmp_path: Path, version: str, members: int) -> None:
    """Members start on each image and hold what had been told, while those of the run went on; an older image in the place of a newer one
    is found to have lost it."""

    async def go() -> None:
        async with stage(version, tmp_path, members=members) as it:
            images = await imaged(it, "crash-image count=2 every_ms=120 at 0s")
            first, second = it.spans("crash-image")
            assert first.evidence["image"] == 1 < second.evidence["image"]
            taken = next(mark.detail for mark in load(it.directory / "history.pb").marks if mark.kind == "image")
            assert first.evidence["freeze_ms"] == round((taken["done_ns"] - taken["before_ns"]) / 1e6, 3) > 0
            for image in images:
                for spec in image.specs:
                    source, copy = spec.data_dir, image.directory / "data" / spec.name
                    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
                    assert names <= {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
                    assert {"member/snap/db"} < names
                    log = next(copy.glob("member/wal/*.wal"))
                    assert log.stat().st_size == (source / log.relative_to(copy)).stat().st_size, "preallocated as the original"
                    assert log.stat().st_blocks * 512 < log.stat().st_size / 2, "and not filled with zeros"
            # What the last image holds is replaced by what the first one holds: older than what had been told by then.
            oldest, newest = images[0], images[-1]
            assert oldest.revision < newest.revision
            shutil.rmtree(newest.directory / "data")
            copy_tree(oldest.directory / "data", newest.directory / "data")
            examined = await examine(images, seed=1)
            assert (examined.kept, examined.started, examined.up) == (len(images), len(images), len(images))

    asyncio.run(go())
    verdict = judged(tmp_path, members)
    assert of_images(verdict)["answers"] == of_images(verdict)["judged"] * members
    lost = [finding for finding in verdict.findings if finding.status == "counts"]
    assert {finding.code for finding in lost} == {"IMAGE-LOST-WRITE"}
    last = max(epoch.image for epoch in load(tmp_path).epochs)
    assert {finding.subject["image"] for finding in lost} == {last}


def test_without_the_fault_there_is_no_image(tmp_path: Path) -> None:
    """Another fault leaves no images, and members of a run can be started aside alone, on other addresses, beside the run."""

    async def go() -> None:
        async with stage("3.7.3", tmp_path, members=1) as it:
            await it.carry_out("pause 100ms at 0s")
            assert not (tmp_path / "images").exists()
            put = await it.answer("m1", PutRequest(b"k", b"v"))
            (member,) = it.cluster.members
            while not (copied := await it.cluster.standing_still(lambda: copy_tree(member.spec.data_dir, tmp_path / "aside" / "m1"))):
                await asyncio.sleep(0.05)  # a sync that takes long, or a machine that is busy
            assert copied.before <= copied.still <= copied.done
            assert member.state is MemberState.RUNNING
            await member.pause()
            assert await it.cluster.standing_still(lambda: None) is not None
            assert member.state is MemberState.PAUSED, "who was paused stays paused"
            await member.resume()
            with PortLease() as ports:
                spec = alone(member.spec, tmp_path / "aside" / "m1", tmp_path / "aside" / "m1.log", ports, forced=False)
                async with aside(tmp_path / "aside", [spec]) as side:
                    reply = await side.client("m1").call(RangeRequest(b"k"))
            assert [kv.value for kv in reply.output.kvs] == [b"v"]
            assert reply.output.header.revision == put.output.header.revision
            assert load(tmp_path / "aside" / "history.pb").operations[-1].output == reply.output
            assert (await it.answer("m1", RangeRequest(b"k"))).outcome == "ok", "the run's own member serves as before"

    asyncio.run(go())
