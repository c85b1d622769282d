"""What a machine has of the things that faults are made of: taken before and after a hunt, the difference is what was left over.

::

    aside = Aside(directory)           # a mark in the environment of everything that the hunt starts, and places of its own
    before = aside.look()
    subprocess.run([...], env=aside.environment)
    aside.settle(before, seconds=30)   # {} or {"mounts": {...}, "processes": {...}}

Other hunts on the same machine do not disturb: processes are known by the mark that they inherit, mounts and loop devices by the directory,
temporary files and journals by theirs. Control groups, namespaces with a name and network devices are the machine's.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

CGROUPS = "/sys/fs/cgroup"
CGROUP_DEPTH_MAX = 5
LOOK_PAUSE_S = 0.5
MARK = "PEKAN_SOAK"


@dataclass(frozen=True)
class Aside:
    """A hunt's own corner of the machine, below `directory`."""

    directory: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def environment(self) -> dict[str, str]:
        """For the hunt: this process's, with the mark, and places for runs, journals and temporary files."""
        places = {"TMPDIR": self.directory / "tmp", "PEKAN_DATA": self.directory / "data"}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        return {**os.environ, MARK: self.mark, **{name: str(place) for name, place in places.items()}}

    def look(self) -> dict[str, set[str]]:
        """Everything there is now, by kind."""
        pids = [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
        ours = [pid for pid in pids if self._is_ours(pid)]
        return {
            "processes": {f"{pid} {_read(f'/proc/{pid}/cmdline')[:80].replace(chr(0), ' ')}" for pid in ours},
            "traced processes": {pid for pid in ours if _tracer(pid) != "0"},
            "mounts": {line for line in _read("/proc/self/mountinfo").splitlines() if str(self.directory) in line},
            "loop devices": {
                str(path) for path in Path("/sys/block").glob("loop*") if str(self.directory) in _read(f"{path}/loop/backing_file")
            },
            "named namespaces": {str(path) for path in Path("/run/netns").glob("*")},
            "control groups": {path for path in _below(CGROUPS, CGROUP_DEPTH_MAX) if "pekan" in os.path.basename(path)},
            "network devices": {line.split(":")[0].strip() for line in _read("/proc/net/dev").splitlines() if ":" in line},
            "temporary files": _below(str(self.directory / "tmp")),
            "journals": {path for path in _below(str(self.directory / "data")) if os.path.basename(os.path.dirname(path)) == "journals"},
        }

    def settle(self, before: dict[str, set[str]], seconds: float) -> dict[str, set[str]]:
        """What is there beyond `before`, once nothing is or after that many seconds: a watchdog is allowed to take its time."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.look()
            more = {kind: found for kind in now if (found := now[kind] - before.get(kind, set()))}
            if not more or time.monotonic() > deadline:
                return more
            time.sleep(LOOK_PAUSE_S)

    def _is_ours(self, pid: str) -> bool:
        """Whether that process has inherited the mark, or its command line names the directory."""
        return f"{MARK}={self.mark}" in _read(f"/proc/{pid}/environ") or str(self.directory) in _read(f"/proc/{pid}/cmdline")


def _below(directory: str, depth_max: int = 64) -> set[str]:
    """Paths of everything below a directory, down to that many levels. What vanishes while it is looked at is left out."""
    found: set[str] = set()
    for place, directories, files in os.walk(directory):
        found.update(os.path.join(place, name) for name in (*directories, *files))
        depth = 0 if place == directory else os.path.relpath(place, directory).count(os.sep) + 1
        if depth + 1 >= depth_max:
            directories.clear()
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tracer(pid: str) -> str:
    told = (line.split()[1] for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith("TracerPid:"))
    return next(told, "0")
