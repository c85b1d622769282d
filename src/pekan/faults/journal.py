"""What the kernel does not undo by itself when processes end, noted on disk before it is made.

::

    journal = Journal()                               # nothing happens yet
    note = await journal.mount(directory)             # on disk, and a watchdog process runs; now mount it
    await journal.undo(note)                          # undone before the run ends, where it is in the way
    await journal.close()                             # the watchdog has undone the rest, latest first

    Pekan ends how                     who undoes
    normally, Ctrl-C, an exception     the watchdog, when `close` ends its lifeline; `close` waits for it
    SIGKILL                            the watchdog, which outlives it
    SIGKILL, the watchdog too          the next Pekan that starts: `sweep`

Control groups, mounts, loop devices and files outside the run are such things. Processes are not (launchers and helper programs end with
Pekan by their lifelines), nor are namespaces and network devices without a name, which vanish with their last process. What undoing means,
and the format: `pekan.faults.watchdog`. Journals lie in Pekan's data directory, never in a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pekan.errors import EnvironmentFailure
from pekan.faults import watchdog
from pekan.places import data_directory

CLOSE_SECONDS_MAX = watchdog.PATIENCE_SECONDS + 15.0
"""The watchdog's own patience, and a busy machine."""
UNDO_SECONDS_MAX = 10.0
"""For one note undone while the run goes on; what does not go now is tried again at the end."""
SWEEP_SECONDS_MAX = 2.0
"""For one journal of a Pekan that is gone, with all its processes: what does not go at once will not go."""
NEW_FILE_TRIES = 5
"""A sweep may take a new journal for an abandoned one between its creation and its lock, and remove it."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that will be undone."""

    number: int
    kind: Literal["cgroup", "mount", "loop", "file"]
    subject: str
    home: str = ""

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"note": self.number, "kind": self.kind, "subject": self.subject}
        return {**entry, "home": self.home} if self.home else entry


@dataclass(frozen=True, slots=True)
class Swept:
    """What one look for abandoned journals led to; each text names a thing, those of `left` also why it stays."""

    undone: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Journal:
    """The journal of one run, shared by all that needs one. An async context manager, or closed by hand."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` of journals; None is Pekan's own. Nothing is written or started before the first note."""
        self._directory = directory
        self._path: Path | None = None
        self._fd = -1
        self._count = 0
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    @property
    def watchdog_pid(self) -> int | None:
        """Process id of the watchdog, once there is one."""
        return self._watchdog.pid if self._watchdog is not None else None

    async def cgroup(self, directory: Path, home: Path) -> Note:
        """A control group about to be made; its processes go back to the group `home`, in the same hierarchy."""
        return await self._note("cgroup", directory, home)

    async def mount(self, target: Path) -> Note:
        """Something about to be mounted on `target`, a directory that nobody else mounts anything on."""
        return await self._note("mount", target)

    async def loop(self, backing_file: Path) -> Note:
        """A loop device about to be set up on a file that no other device has."""
        return await self._note("loop", backing_file)

    async def file(self, path: Path) -> Note:
        """A file or directory about to be made outside the run."""
        return await self._note("file", path)

    async def undo(self, note: Note) -> None:
        """Undo one thing now. What does not go in a while stays noted, and `OSError` says why."""
        async with self._lock:
            await asyncio.to_thread(_undo_one, self._fd, note, UNDO_SECONDS_MAX)

    async def close(self) -> None:
        """Undo everything. Raises `EnvironmentFailure` naming what could not be removed. Further calls do nothing."""
        async with self._lock:
            process, path, fd = self._watchdog, self._path, self._fd
            self._watchdog, self._path, self._fd = None, None, -1
            if path is None:
                return
            # From here on the watchdog does it, whether or not anybody waits.
            if process is not None:
                assert process.stdin is not None
                # Said, not only closed: a fork of Pekan's may hold the other copy of the lifeline. A watchdog that is dead hears nothing.
                with contextlib.suppress(BrokenPipeError), process.stdin as lifeline:
                    lifeline.write(b"\n")
            left = await asyncio.to_thread(_await_settled, process, path, fd)
        if left:
            what = "; ".join(_told(each) for each in left)
            raise EnvironmentFailure(f"could not be removed: {what}. It is noted in {path}; the next start of Pekan tries again")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _note(self, kind: Literal["cgroup", "mount", "loop", "file"], subject: Path, home: Path | None = None) -> Note:
        async with self._lock:
            if self._path is None:
                await asyncio.to_thread(self._open)
            self._count += 1
            # As the kernel will name it: mountinfo and loop devices know no symbolic links.
            note = Note(self._count, kind, os.path.realpath(subject), "" if home is None else os.path.realpath(home))
            await asyncio.to_thread(_append, self._fd, note.to_json())
            return note

    def _open(self) -> None:
        directory = data_directory() / "journals" if self._directory is None else self._directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path, fd = _new_file(directory)
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot keep a journal in {directory}: {error.strerror}; set PEKAN_DATA to a directory of yours on a local file system"
            ) from error
        try:
            _append(fd, {"owner": os.getpid(), "started": _start_time()})
            _sync_directory(directory)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, str(path), str(fd), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(fd,),
                start_new_session=True,
            )
        except OSError as error:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise EnvironmentFailure(f"cannot start the watchdog of {path}: {error.strerror}") from error
        assert process.stdout is not None
        if not process.stdout.readline():
            path.unlink(missing_ok=True)
            os.close(fd)
            raise EnvironmentFailure(f"the watchdog of {path} ended with status {process.wait()} before it was ready")
        self._path, self._fd, self._watchdog = path, fd, process


def sweep(directory: Path | None = None) -> Swept:
    """Undo what Pekans that are gone, watchdogs included, have left; journals that somebody minds are not touched."""
    directory = data_directory() / "journals" if directory is None else directory
    undone: list[str] = []
    left: list[str] = []
    for path in sorted(directory.glob("*.jsonl")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            continue  # settled by somebody else meanwhile, or another user's
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                gone, stays = watchdog.settle(str(path), fd, SWEEP_SECONDS_MAX)
                undone += [_told(each) for each in gone]
                left += [_told(each) for each in stays]
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return Swept(tuple(undone), tuple(left))


def _new_file(directory: Path) -> tuple[Path, int]:
    """A journal that nobody else has, locked."""
    for _ in range(NEW_FILE_TRIES):
        path = directory / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return path, fd
        except BlockingIOError:
            pass
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        os.close(fd)
    raise BlockingIOError("another process removes every new journal")


def _append(fd: int, entry: dict[str, Any]) -> None:
    os.write(fd, json.dumps(entry).encode() + b"\n")
    os.fsync(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _start_time() -> int:
    """Of this process, in clock ticks since boot (proc(5))."""
    return int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])


def _undo_one(fd: int, note: Note, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            watchdog.UNDO[note.kind](note.to_json(), False)
        except OSError:
            if time.monotonic() >= deadline:
                raise
        else:
            break
        time.sleep(watchdog.PAUSE_SECONDS)
    watchdog.mark_undone(fd, note.number)


def _await_settled(process: subprocess.Popen[bytes] | None, path: Path, fd: int) -> Sequence[dict[str, Any]]:
    """What is left after the watchdog, or, where that has died or given up, after trying once more."""
    try:
        if process is not None:
            assert process.stdout is not None
            with process.stdout, contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_SECONDS_MAX)
        if not path.exists():
            return ()
        _, left = watchdog.settle(str(path), fd, UNDO_SECONDS_MAX)
        return left
    finally:
        os.close(fd)


def _told(entry: dict[str, Any]) -> str:
    told = f"{entry['kind']} {entry['subject']}"
    return f"{told} ({entry['error']})" if "error" in entry else told
