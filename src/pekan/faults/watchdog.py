"""The process that undoes what the kernel does not undo by itself, also when Pekan cannot any more.

This file is a program, run as `python -I -S watchdog.py JOURNAL FD OWNER`; it imports the standard library only. `pekan.faults.journal`
starts it before the first thing is made, and uses its functions for the journals of Pekans whose watchdog died as well.

::

    Pekan ──note, fsync──> journal <──reads── watchdog              lifeline (fd 0): Pekan holds the other end
      │ makes the thing                          │
      │ closes the lifeline, or dies in any way  │
      └────────────────────────────────────────> undoes what is noted, latest first, again and again until it is gone or its time is up;
                                                 removes the journal where nothing is left, else leaves it to the next Pekan

A normal end of a run goes this way too: what cleans up after a SIGKILL is what every run has tried.

The journal is JSON lines. What a cut last line would have announced was never made: a note is on disk before the thing exists::

    {"owner": 4711, "started": 12345}                  for a reader; whether anybody still minds the journal is told by its lock
    {"note": 1, "kind": "cgroup", "subject": "/sys/fs/cgroup/cpu/pekan-1f2e", "home": "/sys/fs/cgroup/cpu"}
    {"undone": 1}

    kind    how it is undone                                                     what counts as gone already
    cgroup  its processes are moved to `home`, the directory is removed          no such directory
    mount   unmounted, as often as something is mounted on `subject`             nothing is mounted there
    loop    every loop device on the file `subject` is told to let go of it      no device has that file
    file    file, link or whole directory `subject` removed, never across mounts no such name

The lock (flock(2)) is on the journal's open file, which Pekan and the watchdog share: it is free once both are gone. Unlike a process id
that holds across pid namespaces and cannot be mistaken for a later process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

LIFELINE_FD = 0

# Launchers kill their members as soon as Pekan is gone; what takes long is a process that waits for a disk, and a file system that writes
# back at umount. The same patience as for the end of a process (pekan.etcd.process.END_SECONDS_MAX).
PATIENCE_SECONDS = 30.0

# Between two rounds.
PAUSE_SECONDS = 0.02

# A journal holds a few notes a run; more than this is no journal of ours.
JOURNAL_BYTES_MAX = 4 << 20

LOOP_CLR_FD = 0x4C01  # linux/loop.h
MNT_DETACH = 2  # linux/fs.h
BLOCK_DEVICES = "/sys/block"
MOUNTS = "/proc/self/mountinfo"

Entry = dict[str, Any]


def undo_cgroup(entry: Entry, _last: bool) -> None:
    """Move whoever is inside to where they came from, and remove the directory. Nobody is killed: they may be none of ours."""
    directory = entry["subject"]
    try:
        with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as file:
            inside = file.read().split()
    except FileNotFoundError:
        return
    for pid in inside:
        with contextlib.suppress(OSError), open(os.path.join(entry["home"], "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(pid)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


def undo_mount(entry: Entry, last: bool) -> None:
    """Unmount whatever is on `subject`. In the last round it is detached from the tree, and goes with its last user."""
    libc = ctypes.CDLL(None, use_errno=True)
    while entry["subject"] in mount_points():
        if libc.umount2(os.fsencode(entry["subject"]), MNT_DETACH if last else 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def mount_points() -> set[str]:
    """Where something is mounted, as seen from here; mountinfo writes blanks and backslashes as octal numbers (proc(5))."""
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        return {re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4]) for line in file}


def undo_loop(entry: Entry, _last: bool) -> None:
    """Have each loop device on the file let go of it; one that is mounted still does so when that ends."""
    for name in os.listdir(BLOCK_DEVICES):
        try:
            with open(f"{BLOCK_DEVICES}/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                backing = file.read().removesuffix("\n").removesuffix(" (deleted)")
        except OSError:
            continue  # no loop device, or one without a file
        if backing != entry["subject"]:
            continue
        device = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_CLR_FD, 0)
        except OSError as error:
            if error.errno != errno.ENXIO:  # let go of in between
                raise
        finally:
            os.close(device)


def undo_file(entry: Entry, _last: bool) -> None:
    """Remove a file or a whole directory, but nothing of another file system that is mounted inside."""
    path = entry["subject"]
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    _remove(path, status.st_dev, mount_points())


def _remove(path: str, device: int, mounted: set[str]) -> None:
    status = os.lstat(path)
    if status.st_dev != device or path in mounted:  # a directory of the same file system may be mounted as well
        raise OSError(errno.EXDEV, "something is mounted there", path)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        _remove(os.path.join(path, name), device, mounted)
    os.rmdir(path)


UNDO: dict[str, Callable[[Entry, bool], None]] = {"cgroup": undo_cgroup, "mount": undo_mount, "loop": undo_loop, "file": undo_file}


def open_notes(fd: int) -> list[Entry]:
    """What is noted in the journal behind `fd` and not undone yet, latest first."""
    text = os.pread(fd, JOURNAL_BYTES_MAX, 0)
    notes: dict[int, Entry] = {}
    for line in text.split(b"\n")[:-1]:  # what follows the last line end was not written to its end
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "undone" in entry:
            notes.pop(entry["undone"], None)
        elif "note" in entry:
            notes[entry["note"]] = entry
    return sorted(notes.values(), key=lambda each: -each["note"])


def settle(path: str, fd: int, patience_s: float) -> tuple[list[Entry], list[Entry]]:
    """Undo what the journal has noted. Returns what was undone, and what is left after `patience_s`, each of these with its "error".

    The journal is removed where nothing is left. The caller holds its lock.
    """
    left = open_notes(fd)
    undone = []
    deadline = time.monotonic() + patience_s
    while True:
        last = time.monotonic() >= deadline
        for entry in tuple(left):
            try:
                UNDO[entry["kind"]](entry, last)
            except (OSError, KeyError) as error:
                entry["error"] = str(error)
                continue
            left.remove(entry)
            undone.append(entry)
            mark_undone(fd, entry["note"])
        if not left:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            break
        if last:
            break
        time.sleep(PAUSE_SECONDS)
    return undone, left


def mark_undone(fd: int, note: int) -> None:
    """Not synced: to undo a thing twice is harmless."""
    os.write(fd, json.dumps({"undone": note}).encode() + b"\n")


def wait_for_the_end(owner: int) -> None:
    """Return when the lifeline speaks or ends, or the owner ends, whose forks may hold the lifeline open."""
    poll = select.poll()
    poll.register(LIFELINE_FD, select.POLLIN)
    owner_fd = -1
    # Kernels before 5.3 have no such descriptor; there the lifeline has to do.
    with contextlib.suppress(OSError):
        owner_fd = os.pidfd_open(owner)
        poll.register(owner_fd, select.POLLIN)
    if os.getppid() != owner:
        return  # it died before it was looked at, and its number may be another's
    poll.poll()


def main(arguments: list[str]) -> int:
    """`arguments` are the journal's path, its inherited descriptor (locked) and the process id of Pekan, whose child this is."""
    path, fd, owner = arguments[0], int(arguments[1]), int(arguments[2])
    # What ends a session or a service shall not end this: it ends by itself, soon after its owner.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")  # whatever Pekan's directory is on shall be free to be unmounted
    os.write(1, b"ready\n")
    wait_for_the_end(owner)
    _, left = settle(path, fd, PATIENCE_SECONDS)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(left).encode() + b"\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
