"""A file system of its own under a member's data, so that it can be shut down as a power failure does.

::

    member's data directory ── mount ── file system (ext4, xfs) ── loop device ── sparse file below the run's scratch directory

What power loss by account (`loss`) leaves out is the kernel's: the file system's own journal, names that no sync has made durable, the
order in which metadata reach the disk. This has all of that, and takes root and loop devices.

The process is killed *before* the file system is shut down. A sync that meets a journal which has just been aborted may return 0 for what
is lost (seen on ext4 and xfs, Linux 6.18): etcd would acknowledge it, and the loss would look like etcd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pekan.errors import EnvironmentFailure
from pekan.faults.ability import Ability, able, unable
from pekan.faults.disk.common import CLAIM, DOWN, TARGETS, down_ms
from pekan.faults.disk.supervisor import PAGE
from pekan.faults.drawing import weighted
from pekan.faults.equipment import Equipment
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, down_and_up

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec
    from pekan.faults.equipment import Site
    from pekan.faults.journal import Note

FS_IOC_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
NO_LOG_FLUSH = 2
"""Nothing more reaches the device, the file system's own journal included: as if the power had failed."""
DEVICE_BYTES = 4 << 30
"""Of the sparse file: etcd's default quota of 2 GiB, five WAL segments, a snapshot being received. Only what is written takes space."""
PROBE_BYTES = 16 << 20
TOOL_S = 30.0
"""For mkfs, losetup, mount: each takes milliseconds."""
BUSY_S = 20.0
"""How long somebody who reads the member's files may keep the file system from being unmounted."""
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"), "xfs": ("mkfs.xfs", "-q", "-f")}
DEFAULT = "ext4"
TOOLS = ("losetup", "mount", "umount", "unshare")
TOOL_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where they are looked for: the tools of administrators are often not on the PATH of a service or a user."""


class Mounted(NamedTuple):
    """The file system of one member, and what undoes it."""

    directory: Path
    image: Path
    device: str
    mount: Note
    loop: Note


class BlockDevice(Equipment):
    """A loop-mounted file system under each member's data directory."""

    name: ClassVar[str] = "block-device"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        asked = [
            fault.parameters.get("filesystem", DEFAULT) for fault in site.plan.schedule.faults if fault.kind == FilesystemShutdown.kind
        ]
        self.filesystem = str(asked[0]) if asked else DEFAULT
        self._mounted: dict[str, Mounted] = {}

    @classmethod
    def probe(cls) -> Ability:
        """A small file system is made, mounted and shut down in a mount namespace of its own, which takes everything with it."""
        missing = [tool for tool in (*TOOLS, MAKE[DEFAULT][0]) if shutil.which(tool, path=TOOL_PATH) is None]
        if missing:
            return unable(cls.name, f"{', '.join(missing)} not found", "install util-linux and e2fsprogs")
        with tempfile.TemporaryDirectory(prefix="pekan-probe-") as directory:
            image, target = Path(directory, "image"), Path(directory, "mounted")
            target.mkdir()
            try:
                make(DEFAULT, image, PROBE_BYTES)
                run("unshare", "--mount", "--propagation", "private", sys.executable, "-I", "-S", "-c", _SHUT_DOWN, str(image), str(target))
            except EnvironmentFailure as error:
                return unable(cls.name, str(error), "needs root and loop devices; in a container: --privileged")
        made = ", ".join(name for name, tool in MAKE.items() if shutil.which(tool[0], path=TOOL_PATH) is not None)
        return able(cls.name, f"members' data on loop devices ({made})")

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        for member in members:
            image = self.site.directory / "scratch" / f"{member.name}.{self.filesystem}"
            image.parent.mkdir(parents=True, exist_ok=True)
            member.data_dir.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(make, self.filesystem, image, DEVICE_BYTES)
            loop = await self.site.journal.loop(image)
            device = await asyncio.to_thread(run, "losetup", "--find", "--show", str(image))
            mount = await self.site.journal.mount(member.data_dir)
            self._mounted[member.name] = mounted = Mounted(member.data_dir, image, device, mount, loop)
            await asyncio.to_thread(mount_again, mounted)
        return members

    def of(self, member: str) -> Mounted:
        """The file system under that member's data."""
        return self._mounted[member]

    async def close(self) -> None:
        """What members have left is copied to where it would lie without the device, then everything is undone."""
        while self._mounted:
            _, mounted = self._mounted.popitem()
            copy = mounted.image.with_suffix(".copy")
            with contextlib.suppress(OSError, EnvironmentFailure):  # a file system that is shut down reads nothing
                await asyncio.to_thread(run, "cp", "-a", "--sparse=always", str(mounted.directory), str(copy))
            await self.site.journal.undo(mounted.mount)
            await self.site.journal.undo(mounted.loop)
            mounted.image.unlink(missing_ok=True)
            if copy.exists():
                await asyncio.to_thread(_move_into, copy, mounted.directory)


class FilesystemShutdown(Injector):
    """SIGKILL, and the file system under it loses power."""

    kind: ClassVar[str] = "filesystem-shutdown"
    summary: ClassVar[str] = (
        "SIGKILL, then the file system under the member's data is shut down as by a power failure, mounted again, and a start"
    )
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "down_ms": DOWN,
        "filesystem": Parameter(DEFAULT, "text", "of all members; the first such fault of a plan decides", tuple(MAKE)),
    }
    duration: ClassVar[str] = "down_ms"
    open_end: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS, CLAIM})
    needs: ClassVar[tuple[str, ...]] = (BlockDevice.name,)

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"down_ms": rng.randint(0, 1_000)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return down_ms(parameters)

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Kill, shut down, mount, start. Evidence is the wait status, what the dead file system answers, and how many pages differ."""
        await down_and_up(victim, armed, self._fail(victim, armed))

    @staticmethod
    async def _fail(victim: Member, armed: Armed) -> None:
        mounted = armed.equipment(BlockDevice).of(victim.name)
        end = await victim.kill()
        details = await asyncio.to_thread(fail, mounted)
        armed.fired({"pid": end.pid, "wait_status": end.wait_status, "incarnation": end.incarnation, "device": mounted.device, **details})


def fail(mounted: Mounted) -> dict[str, Any]:
    """Shut the file system down and mount it again; {"answer": errno of a file made after it, "lost_pages"}. Nobody uses it meanwhile."""
    before = pages(mounted.directory)
    answer = shut_down(mounted.directory)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            run("umount", str(mounted.directory))
            break
        except EnvironmentFailure:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
    mount_again(mounted)
    after = pages(mounted.directory)
    lost = sum(
        1
        for path, sums in before.items()
        for number, value in enumerate(sums)
        if path not in after or number >= len(after[path]) or after[path][number] != value
    )
    return {"answer": errno.errorcode.get(answer, str(answer)), "lost_pages": lost, "lost_files": len(before.keys() - after.keys())}


def pages(directory: Path) -> dict[str, list[int]]:
    """A checksum of each page of each file below `directory`; names are relative to it."""
    sums = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            sums[str(path.relative_to(directory))] = [zlib.crc32(content[at : at + PAGE]) for at in range(0, len(content), PAGE)]
    return sums


def shut_down(directory: Path) -> int:
    """Shut the file system of `directory` down; the errno with which it refuses a new file afterwards, 0 where it does not."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        try:
            os.close(os.open("after-the-end", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
        except OSError as error:
            return error.errno or 0
        return 0
    finally:
        os.close(fd)


def make(filesystem: str, image: Path, size: int) -> None:
    """A file system in a sparse file."""
    with image.open("wb") as file:
        file.truncate(size)
    run(*MAKE[filesystem], str(image))


def mount_again(mounted: Mounted) -> None:
    """Mount, as a data directory that etcd accepts."""
    run("mount", mounted.device, str(mounted.directory))
    os.chmod(mounted.directory, 0o700)


def run(*command: str) -> str:
    """Run a tool; what it printed. Raises `EnvironmentFailure` with what it said."""
    environment = {**os.environ, "PATH": TOOL_PATH}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_S, check=False, stdin=subprocess.DEVNULL, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise EnvironmentFailure(f"{command[0]} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def _move_into(source: Path, target: Path) -> None:
    for each in source.iterdir():
        shutil.move(each, target / each.name)
    source.rmdir()


_SHUT_DOWN = f"""
import fcntl, os, subprocess, sys, struct
image, target = sys.argv[1:]
done = subprocess.run(["mount", "-o", "loop", image, target], capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr.strip())
fcntl.ioctl(os.open(target, os.O_RDONLY), {FS_IOC_SHUTDOWN}, struct.pack("I", {NO_LOG_FLUSH}))
try:
    open(os.path.join(target, "after-the-end"), "w")
except OSError:
    sys.exit()
sys.exit("a file system that was shut down still takes files")
"""
