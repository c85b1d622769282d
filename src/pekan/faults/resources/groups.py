"""Control groups for one member at a time: made when a fault is armed, removed when it is healed.

::

    hierarchy       /sys/fs/cgroup/cpu (version 1) or /sys/fs/cgroup (version 2, where its root hands the controller down)
      pekan-PID-N   noted in the run's journal, then made; the member's process is moved in, and back to where it was

A member that another fault starts again meanwhile is moved in as well (`Group.keep`). What it had taken before it was moved stays charged
to where it came from, in both versions.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from pekan.faults.journal import Journal, Note

MOUNTS = Path("/proc/self/mountinfo")
VERSION_1 = 1
VERSION_2 = 2
_numbers = itertools.count(1)
"""Names are unique in one process, and the process id makes them so between processes."""


class Hierarchy(NamedTuple):
    """Where groups with one controller are made. `inside` is what of the kernel's paths the mount shows as its root."""

    controller: str
    root: Path
    version: int
    inside: str

    def home_of(self, pid: int) -> Path:
        """The group that a process is in now."""
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" if self.version == VERSION_2 else self.controller in controllers.split(","):
                home = self.root / os.path.relpath(path, self.inside)
                if (home / "cgroup.procs").exists():
                    return home
        return self.root


class Group:
    """One control group, of one member."""

    def __init__(self, hierarchy: Hierarchy, journal: Journal, note: Note) -> None:
        self.hierarchy = hierarchy
        self.path = Path(note.subject)
        self._journal = journal
        self._note = note
        self._inside = 0

    @classmethod
    async def make(cls, hierarchy: Hierarchy, journal: Journal, pid: int) -> Group:
        """A new group without anybody in it; `pid` is the process that it is for. Raises `OSError`."""
        path = hierarchy.root / f"pekan-{os.getpid()}-{next(_numbers)}"
        note = await journal.cgroup(path, hierarchy.home_of(pid))
        path.mkdir()
        return cls(hierarchy, journal, note)

    def keep(self, pid: int | None) -> bool:
        """See that the process is inside. False where there is none, or it has just ended."""
        if pid is None or pid == self._inside:
            return pid is not None
        try:
            self.write("cgroup.procs", str(pid))
        except ProcessLookupError:
            return False
        self._inside = pid
        return True

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="ascii")

    def count(self, name: str, key: str) -> int:
        """A counter from a file of lines "key number"; 0 where this kernel has none."""
        with contextlib.suppress(OSError):
            for line in (self.path / name).read_text(encoding="ascii").splitlines():
                word, _, number = line.partition(" ")
                if word == key:
                    return int(number)
        return 0

    async def remove(self) -> None:
        """Move the process back and remove the group."""
        await self._journal.undo(self._note)


def limit_cpu(group: Group, quota_us: int, period_us: int) -> None:
    """At most `quota_us` of processor time in every `period_us`, over all processors."""
    if group.hierarchy.version == VERSION_1:
        group.write("cpu.cfs_period_us", str(period_us))
        group.write("cpu.cfs_quota_us", str(quota_us))
    else:
        group.write("cpu.max", f"{quota_us} {period_us}")


def limit_memory(group: Group, limit_bytes: int) -> None:
    """At most so much, swap included where the kernel counts it."""
    if group.hierarchy.version == VERSION_1:
        group.write("memory.limit_in_bytes", str(limit_bytes))
        with contextlib.suppress(OSError):
            group.write("memory.memsw.limit_in_bytes", str(limit_bytes))
    else:
        group.write("memory.max", str(limit_bytes))
        with contextlib.suppress(OSError):
            group.write("memory.swap.max", "0")


def killed_for_memory(group: Group) -> int:
    """How many processes of the group the kernel has killed because they had no memory left."""
    return group.count("memory.oom_control" if group.hierarchy.version == VERSION_1 else "memory.events", "oom_kill")


@functools.cache
def hierarchy(controller: str) -> Hierarchy | str:
    """Where groups with `controller` ("cpu", "memory") can be made here, found by making one and moving a process in; else why not.

    Looked for once a process: what a machine allows does not change under a run.
    """
    why = f"no {controller} controller is mounted"
    for found in _mounted(controller):
        try:
            _try(found)
        except OSError as error:
            why = f"{found.root}: {error.strerror} (errno {error.errno})"
        else:
            return found
    return why


def _mounted(controller: str) -> list[Hierarchy]:
    """Hierarchies with the controller, by mountinfo (proc(5)): 36 35 98:0 /inside /root options [fields] - type source options."""
    found = []
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        inside, root = left.split(" ")[3:5]
        if kind == "cgroup" and controller in options.split(","):
            found.append(Hierarchy(controller, Path(root), VERSION_1, inside))
        elif kind == "cgroup2":
            with contextlib.suppress(OSError):
                if controller in (Path(root) / "cgroup.subtree_control").read_text(encoding="ascii").split():
                    found.append(Hierarchy(controller, Path(root), VERSION_2, inside))
    return found


def _try(found: Hierarchy) -> None:
    """Make a group, move a process in, and leave nothing behind."""
    path = found.root / f"pekan-{os.getpid()}-probe"
    path.mkdir()
    try:
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            (path / "cgroup.procs").write_text(str(child.pid), encoding="ascii")
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
    finally:
        path.rmdir()
