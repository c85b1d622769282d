"""Places of etcd's program against what a real etcd does: lines and gofail sites are passed when their code runs, and as often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from pekan.faults.hooks import Hooks
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.patches import patches_for
from pekan.faults.hooks.points import Point, Points
from pekan.faults.hooks.profile import KINDS, profile_of
from stage import Stage, stage
from stage.releases import provided

ability = Hooks.probe()
# A skip of its own for each test: workers that run side by side have to find the same tests, whatever each of them was able to do.
pytestmark = [pytest.mark.live, pytest.mark.skipif(not ability.possible, reason=f"{ability.why_not}; {ability.remedy}")]

PUTS = 100
WARM_UP = 3
ROUNDS_MAX = 20
"""Of warming up: one is enough but where a thread lost the processor at the very end of an apply."""
TAIL_S = 30.0
"""How long the end of an apply may take whose put has been answered."""

# What runs once for each put, without a loop: from the request over the log to the index in memory.
ONCE = (
    "v3rpc.(*kvServer).Put",
    "etcdserver.(*EtcdServer).processInternalRaftRequestOnce",
    "wal.(*WAL).saveEntry",
    "etcdserver.(*EtcdServer).applyEntryNormal",
    "mvcc.(*storeTxnWrite).put",
    "mvcc.(*treeIndex).Put",
)
LINES_MIN = 120

# gofail sites that every put on a lone member passes, and some that none does.
EACH_PUT = ("beforeApplyOneEntryNormal", "beforeWritebackBuf", "afterWritebackBuf", "walBeforeSync", "walAfterSync")
NO_PUT = ("beforeApplyOneConfChange", "raftBeforeApplySnap", "raftAfterSaveSnap", "defragBeforeCopy", "compactBeforeSetFinishedCompact")


def lines(points: Points, names: tuple[str, ...]) -> list[Point]:
    """Every line of the functions `names` that has a place of its own there."""
    found: list[Point] = []
    for name in names:
        function = points.binary.by_name[points.find(name).function]
        ranges = points.binary.lines(function)
        file = ranges[0].file
        for line in sorted({part.line for part in ranges if part.file == file and part.line > ranges[0].line}):
            point = points.find(f"{file}:{line}")
            # Lines of other functions of the file are inlined here as well.
            if point.function == function.name and len(point.addresses) == 1:
                found.append(point)
    return found


async def passed_by(it: Stage, puts: int, names: Sequence[str]) -> dict[str, int]:
    """Do so many puts: how often each point was passed by them. A put is answered before the function that has applied it comes to its end,
    so that this waits until `names` were passed that often or never, or one of them too often: by the end of what came before."""
    hooks = it.equipment[Hooks.name]
    assert isinstance(hooks, Hooks)
    before = hooks.counters("m1")
    for _ in range(puts):
        assert (await it.put("m1", b"key", b"value")).outcome == "ok"
    end = asyncio.get_running_loop().time() + TAIL_S
    while True:
        passed = {name: hits - before[name] for name, hits in hooks.counters("m1").items()}
        counts = {passed[name] for name in names}
        if counts <= {0, puts} or max(counts) > puts or asyncio.get_running_loop().time() > end:
            return passed
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", ["3.5.1", "3.7.3"])
def test_lines_and_sites_are_passed_when_their_code_runs_and_as_often(tmp_path: Path, version: str) -> None:
    """A hundred puts: each line of six functions is passed a hundred times or never, each gofail site as etcd's source has it."""
    points = Points(GoBinary(provided(version).path), version)
    known = points.gofail_names()
    sites = [name for name in (*EACH_PUT, *NO_PUT) if name in known or version == "3.7.3"]
    of_lines = lines(points, ONCE)
    planted = patches_for(points.binary, [*map(points.find, sites), *of_lines])
    assert [name for name in sites if name in planted.refused] == []
    of_lines = [point for point in of_lines if point.name in planted.cells]
    assert len(of_lines) > LINES_MIN

    async def go() -> None:
        names = [*sites, *(point.name for point in of_lines)]
        async with stage(version, tmp_path, *(f"failpoint m1 point={name} action=count at 0s" for name in names), members=1) as it:
            await it.settled("m1")
            applied = [point.name for point in of_lines]
            await it.put("m1", b"key", b"value")  # the first of a key takes another way
            for _ in range(ROUNDS_MAX):
                passed = await passed_by(it, WARM_UP, applied)
                if {passed[name] for name in applied} <= {0, WARM_UP}:
                    break
            passed = await passed_by(it, PUTS, applied)
            by_function: dict[str, dict[str, int]] = {}
            for point in of_lines:
                by_function.setdefault(point.function, {})[point.name] = passed[point.name]
            assert len(by_function) == len(ONCE)
            for function, counts in by_function.items():
                assert set(counts.values()) <= {0, PUTS}, (function, counts)
                assert PUTS in counts.values(), function
            for name in sites:
                assert passed[name] == 0 if name in NO_PUT else passed[name] >= PUTS, (name, passed[name])

    asyncio.run(go())


def test_kinds_of_operation_are_told_apart(tmp_path: Path) -> None:
    """What only a delete, a lease, a compaction or a start does is in the profile of that kind and of no other; it is kept."""

    async def go() -> None:
        profile = await profile_of(provided("3.7.3"), keep=tmp_path)
        assert set(profile.kinds) == set(KINDS)
        only = {
            "delete": "etcdserver.(*EtcdServer).DeleteRange",
            "lease": "lease.(*lessor).Grant",
            "compact": "etcdserver.(*EtcdServer).Compact",
            "defragment": "backend.defragdb",
            "restart": "wal.(*WAL).ReadAll",
        }
        for kind, end in only.items():
            assert [each for each, functions in profile.kinds.items() if any(name.endswith(end) for name in functions)] == [kind]
        (kept,) = tmp_path.iterdir()
        written = kept.stat().st_mtime_ns
        assert await profile_of(provided("3.7.3"), keep=tmp_path) == profile
        assert kept.stat().st_mtime_ns == written

    asyncio.run(go())
