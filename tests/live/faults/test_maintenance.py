"""An operator's doings, seen from outside: what clients are refused, what files and streams hold, and that service is whole afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from pekan.checking import check
from pekan.faults import Album, Image
from pekan.history.reading import load
from pekan.hunt.images import copy_tree, examine
from pekan.hunt.planning import make_plan
from pekan.hunt.series import hunt_once
from pekan.plan import Plan
from pekan.wire.errors import COMPACTED, NO_SPACE
from pekan.wire.messages import PutRequest, RangeRequest, Request, pb
from stage import Stage, stage
from stage.releases import provided

pytestmark = pytest.mark.live

NEWEST = "3.7.3"


def message(output: object) -> str:
    return getattr(output, "message", "")


async def alarms(it: Stage) -> list[int]:
    reply = await it.answer("m1", pb.AlarmRequest())
    return [alarm.alarm for alarm in reply.output.alarms]


async def refused_for(it: Stage, member: str, request: Request, reason: str) -> None:
    """The member refuses the request for that reason, and does it in no case; asked again while an election or a dial is in between."""
    while True:
        reply = await it.call(member, request)
        assert reply.outcome != "ok"
        if reason in message(reply.output):
            return
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("version", "delivered"), [("3.5.1", False), (NEWEST, True)])
def test_a_compaction_at_a_tombstone(version: str, delivered: bool, tmp_path: Path) -> None:
    """Reads below are refused, and reads at it are not. The watch from it is told of the deletion, but by releases with #18089."""

    async def go() -> None:
        async with stage(version, tmp_path, members=1) as it:
            await it.carry_out("compact m1 place=tombstone physical=yes at 0s")
            (span,) = it.spans()
            revision = span.evidence["revision"]
            assert span.evidence["healed"]["delete_seen"] is delivered
            below = await it.answer("m1", RangeRequest(b"k", revision=revision - 1))
            assert message(below.output) == COMPACTED
            assert (await it.answer("m1", RangeRequest(b"k", revision=revision))).outcome == "ok"
            assert (await it.answer("m1", PutRequest(b"k", b"one revision more"))).outcome == "ok"
            await it.carry_out("compact m1 place=back revisions=1 at 0s")
            assert it.spans()[1].evidence["revision"] > revision

    asyncio.run(go())


def test_space_runs_out_and_comes_back(tmp_path: Path) -> None:
    """Under an alarm, and with a quota used up by writes, every member refuses writes and answers reads; then there is no alarm, the member
    has its old quota, its file is smaller, and writes are taken."""

    async def go() -> None:
        async with stage(NEWEST, tmp_path) as it:
            assert (await it.answer("m1", PutRequest(b"k", b"before"))).outcome == "ok"
            assert await alarms(it) == []
            task = it.carry_out("alarm m2 60s at 0s")
            await it.context.until_fired("alarm", 1)
            assert await alarms(it) == [pb.NOSPACE]
            for member in ("m1", "m2", "m3"):
                await refused_for(it, member, PutRequest(b"k", b"during"), NO_SPACE)
                assert (await it.answer(member, RangeRequest(b"k"))).output.kvs[0].value == b"before"
            heal_ms, it.context.heal_ms = it.context.heal_ms, 0
            task.cancel()
            await asyncio.wait({task})
            assert await alarms(it) == []
            assert (await it.answer("m1", PutRequest(b"k", b"after"))).outcome == "ok"
            it.context.heal_ms = heal_ms

            await it.carry_out("quota m2 at 0s")
            (span,) = it.spans("quota")
            assert span.evidence["writes"] > 3
            healed = span.evidence["healed"]
            assert healed["written_under_the_quota"]
            assert healed["bytes"] < span.evidence["quota_bytes"]
            assert await alarms(it) == []
            await it.cluster.wait_ready()
            assert "quota-backend-bytes" not in it.cluster.member("m2").spec.options
            assert (await it.answer("m2", PutRequest(b"k", bytes(1_000_000)))).outcome == "ok"
            assert [end.asked for end in it.cluster.exits] == [True, True]

    asyncio.run(go())


def test_a_database_is_streamed_and_made_smaller(tmp_path: Path) -> None:
    """The file of the snapshot is what the stream held, under the digest that the stream ended with; compacted and defragmented, the
    database is a tenth of what it was."""

    async def go() -> None:
        async with stage("3.5.16", tmp_path, members=1) as it:
            for number in range(20):
                assert (await it.answer("m1", PutRequest(b"big", b"%d" % number + bytes(100_000)))).outcome == "ok"
            await it.carry_out("snapshot-save m1 at 0s")
            await it.carry_out("compact m1 physical=yes at 0s")
            await it.carry_out("defragment m1 at 0s")
            save, _, defragment = it.spans()
            path = tmp_path / "snapshots" / str(save.id) / "db"
            data = path.read_bytes()
            assert save.evidence["healed"]["whole"]
            assert save.evidence["healed"]["bytes"] == len(data) > 2_000_000
            assert hashlib.sha256(data).hexdigest() == save.evidence["healed"]["sha256"]
            (stream,) = load(tmp_path / "history.pb").streams
            blobs = [each.message.blob for each in stream.messages if isinstance(each.message, pb.SnapshotResponse)]
            assert b"".join(blobs) == data + hashlib.sha256(data).digest()
            before, after = defragment.evidence["before"]["bytes"], defragment.evidence["after"]["bytes"]
            assert after * 10 < before

    asyncio.run(go())


def test_auth_is_turned_on_and_off(tmp_path: Path) -> None:
    """While it is on, a client without a token is refused by every member; before and afterwards it is served."""

    async def go() -> None:
        told: list[tuple[str, str] | None] = []
        async with stage(NEWEST, tmp_path, "auth-toggle any at 0s") as it:
            it.context.administrator = told.append
            assert (await it.answer("m1", RangeRequest(b"k"))).outcome == "ok"
            task = it.carry_out("auth-toggle m1 60s at 0s")
            await it.context.until_fired("auth-toggle", 1)
            for member in ("m1", "m2", "m3"):
                await refused_for(it, member, RangeRequest(b"k"), "user name is empty")
            task.cancel()
            await asyncio.wait({task})
            for member in ("m1", "m2", "m3"):
                assert (await it.answer(member, RangeRequest(b"k"))).outcome == "ok"
            # Once, or again where members did not answer in time.
            assert told == [("root", "root-of-a-fault"), None] * (len(told) // 2) != []
            assert it.spans()[0].evidence["healed"]["auth"] == "off"

    asyncio.run(go())


@pytest.mark.parametrize("version", ["3.5.30", NEWEST])
def test_a_snapshot_is_restored(version: str, tmp_path: Path) -> None:
    """A cluster of one starts on a snapshot that was streamed under load from a cluster of three, holds what had been told, delivers it to
    watches and takes writes; an older one in its place is found to have lost
    some of it."""

    async def go() -> tuple[Image, ...]:
        async with stage(version, tmp_path) as it:
            for number in range(30):
                assert (await it.answer("m1", PutRequest(b"k%d" % (number % 7), b"%d" % number))).outcome == "ok"
            kept = it.context.collection(Album).images
            for number in range(2):
                assert (await it.answer("m1", PutRequest(b"later", b"value"))).outcome == "ok"
                # Linearizable: what the member tells next is not older.
                assert (await it.answer("m2", RangeRequest(b"later"))).outcome == "ok"
                while len(kept) == number:  # a stream may be too slow for it once
                    await it.carry_out("snapshot-restore m2 at 0s")
            images = tuple(kept)
        assert 30 < images[0].revision < images[1].revision
        examined = await examine(list(images), seed=1)
        assert (examined.kept, examined.started, examined.up) == (2, 2, 2)
        return images

    older, newer = asyncio.run(go())
    (tmp_path / "plan.json").write_text(Plan(etcd=version, seed=1).to_text())
    verdict = check(tmp_path)
    judged = next(report.judged for report in verdict.checkers if report.name == "images")
    assert judged["answers"] == judged["judged"] == 2
    assert judged["watches"] > 0
    assert verdict.findings == ()
    # The older one in the place of the newer one: what had been told by then is missing.
    shutil.rmtree(newer.directory)
    copy_tree(older.directory / "data", newer.directory / "data")
    asyncio.run(examine([newer], seed=1))
    assert [finding.code for finding in check(tmp_path).findings] == ["IMAGE-LOST-WRITE"]


def test_streams_of_faults_are_the_administrators(tmp_path: Path) -> None:
    """With auth on a snapshot is saved, another one restored, and a deletion at the compacted revision watched; releases with
    CVE-2026-33413 mended refuse all three to who has no token."""
    faults = ("snapshot-save m1 at 2500ms", "snapshot-restore m1 at 3s", "compact m1 place=tombstone at 4s")
    asked = Plan(etcd=NEWEST, seed=3, members=1, time_ms=9_000, workloads=("auth",))
    judged = hunt_once(make_plan(asked, (), faults), provided(NEWEST), tmp_path / "run", lambda live: None, budget_s=60)
    assert judged.history is not None
    by_kind = {span.kind: span for span in judged.history.faults}
    assert all(span.fired is not None for span in by_kind.values())
    assert by_kind["snapshot-save"].evidence["healed"]["whole"]
    assert by_kind["snapshot-restore"].evidence["healed"]["image"] == 1
    assert by_kind["compact"].evidence["healed"]["delete_seen"]
    users = {stream.user for stream in judged.history.streams if stream.client.startswith("fault-")}
    assert users == {"root"}
