"""What is noted before it is made is undone on every path: a normal end, SIGKILL of the owner, SIGKILL of owner and watchdog."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pekan.faults import Journal, sweep
from pekan.faults.disk.device import TOOL_PATH
from pekan.faults.watchdog import mount_points, open_notes

DEADLINE_MS = 60_000
"""For processes to end that a test waits for: twice the watchdog's own patience."""
CPU = next((each for each in map(Path, ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")) if (each / "cgroup.procs").exists()), None)

# Owns one of each kind of thing, with a process in the control group and one that keeps the mount busy, and tells of itself.
OWNER = """
import asyncio, ctypes, os, subprocess, sys
from pathlib import Path
from pekan.faults import Journal

directory, group, home = map(Path, sys.argv[1:4])

async def own():
    journal = Journal(directory / "journals")
    target, image, file = directory / "target", directory / "image", directory / "outside"
    target.mkdir()
    await journal.file(file)
    file.mkdir()
    (file / "inside").write_text("x")
    await journal.loop(image)
    with open(image, "wb") as made:
        made.truncate(1 << 20)
    subprocess.run(["losetup", "-f", str(image)], check=True)
    await journal.mount(target)
    assert ctypes.CDLL(None).mount(b"none", os.fsencode(target), b"tmpfs", 0, None) == 0
    await journal.cgroup(group, home)
    group.mkdir()
    # Ends with its owner, as a launcher does: the mount is busy until then.
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=target)
    (group / "cgroup.procs").write_text(str(child.pid))
    print(journal.watchdog_pid, child.pid, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    child.communicate()
    await journal.close()

asyncio.run(own())
"""


@dataclass
class Owned:
    """A process that owns one of each kind of thing, below `directory`."""

    directory: Path
    group: Path
    process: subprocess.Popen[str]
    watchdog: int
    child: int

    def there(self) -> set[str]:
        """What exists of what it made."""
        backing = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):  # somebody else's, let go of in between
                backing.append(file.read_text().strip().removesuffix(" (deleted)"))
        found = {
            "file": (self.directory / "outside").exists(),
            "loop": str(self.directory / "image") in backing,
            "mount": str(self.directory / "target") in mount_points(),
            "cgroup": self.group.exists(),
        }
        return {name for name, exists in found.items() if exists}


def wait_for_the_end(*pids: int) -> None:
    """Of processes that need not be our children."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = poll.poll(DEADLINE_MS)
        os.close(fd)
        assert ended, f"process {pid} goes on"


@contextmanager
def owned(directory: Path) -> Iterator[Owned]:
    """Everything made, and gone after the block however the block ended."""
    if os.geteuid() != 0 or CPU is None:
        pytest.skip("mounts, loop devices and control groups need root")
    group = CPU / f"pekan-test-{os.getpid()}-{directory.name}"
    command = [sys.executable, "-c", OWNER, str(directory), str(group), str(CPU)]
    environment = {**os.environ, "PATH": TOOL_PATH}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the owner ended before it had made everything"
        it = Owned(directory, group, process, *map(int, line.split()))
        try:
            yield it
        finally:
            process.kill()
            wait_for_the_end(it.watchdog)
            sweep(directory / "journals")


EVERYTHING = {"file", "loop", "mount", "cgroup"}


def test_a_normal_end_undoes_everything(tmp_path: Path) -> None:
    """Closing a journal removes a mount, a loop device, a control group and a directory, and the journal itself."""
    with owned(tmp_path) as it:
        assert it.there() == EVERYTHING
        it.process.communicate("\n", timeout=DEADLINE_MS / 1000)
        assert it.process.returncode == 0
        assert it.there() == set()
        assert list((tmp_path / "journals").iterdir()) == []


def test_a_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    """After a SIGKILL of the owner the watchdog undoes everything, though the mount is busy until the owner's processes have ended."""
    with owned(tmp_path) as it:
        assert it.there() == EVERYTHING
        it.process.kill()
        wait_for_the_end(it.watchdog)
        assert it.there() == set()
        assert list((tmp_path / "journals").iterdir()) == []


def test_the_next_start_sweeps_up_after_a_killed_watchdog(tmp_path: Path) -> None:
    """A sweep leaves the journal of a living owner alone; once owner and watchdog are killed it undoes everything and says what."""
    with owned(tmp_path) as it:
        os.kill(it.watchdog, signal.SIGKILL)
        wait_for_the_end(it.watchdog)
        assert sweep(tmp_path / "journals") == sweep(tmp_path / "nowhere")
        assert it.there() == EVERYTHING
        it.process.kill()
        # What its own process keeps busy would go later than the rest, after a second look.
        wait_for_the_end(it.process.pid, it.child)
        swept = sweep(tmp_path / "journals")
        assert it.there() == set()
        assert [each.split()[0] for each in swept.undone] == ["cgroup", "mount", "loop", "file"]
        assert swept.left == ()


def test_a_killed_watchdog_is_stood_in_for(tmp_path: Path) -> None:
    """Closing a journal whose watchdog has been killed undoes everything all the same."""
    with owned(tmp_path) as it:
        os.kill(it.watchdog, signal.SIGKILL)
        wait_for_the_end(it.watchdog)
        it.process.communicate("\n", timeout=DEADLINE_MS / 1000)
        assert it.process.returncode == 0
        assert it.there() == set()


def test_one_thing_is_undone_before_the_end(tmp_path: Path) -> None:
    """`undo` removes its thing at once and no other; the rest goes when the journal is closed."""

    async def go() -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        async with Journal(tmp_path / "journals") as journal:
            note = await journal.file(first)
            first.write_text("x")
            await journal.file(second)
            second.write_text("y")
            await journal.undo(note)
            assert not first.exists()
            assert second.exists()
        assert not second.exists()

    asyncio.run(go())


def test_nothing_mounted_inside_is_removed(tmp_path: Path) -> None:
    """A directory with a mount inside stays, the mount's content too, and the sweep says why; once unmounted it goes with the next."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    libc = ctypes.CDLL(None)
    outside, elsewhere = tmp_path / "outside", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")

    (outside / "inside").mkdir(parents=True)
    journal = tmp_path / "journals" / "abandoned.jsonl"
    journal.parent.mkdir()
    journal.write_text(json.dumps({"note": 1, "kind": "file", "subject": str(outside)}) + "\n")
    bind = 4096  # MS_BIND of linux/mount.h: the same file system, so that device numbers do not tell
    assert libc.mount(os.fsencode(elsewhere), os.fsencode(outside / "inside"), None, bind, None) == 0
    try:
        swept = sweep(journal.parent)
        assert len(swept.left) == 1
        assert "something is mounted there" in swept.left[0]
        assert (elsewhere / "precious").exists()
        assert journal.exists()
    finally:
        libc.umount2(os.fsencode(outside / "inside"), 0)
    assert sweep(tmp_path / "journals").left == ()
    assert not outside.exists()
    assert (elsewhere / "precious").exists()


def test_a_cut_note_announced_nothing(tmp_path: Path) -> None:
    """Of a journal that ends in the middle of a line, the whole lines count, latest first, without those undone."""
    path = tmp_path / "journal"
    notes = [b'{"note": %d, "kind": "file", "subject": "/nowhere/%d"}' % (number, number) for number in (1, 2, 3)]
    path.write_bytes(b"\n".join([b'{"owner": 1}', *notes, b'{"undone": 2}', b'{"note": 4, "kind": "fi']))
    fd = os.open(path, os.O_RDONLY)
    try:
        assert [entry["note"] for entry in open_notes(fd)] == [3, 1]
    finally:
        os.close(fd)
