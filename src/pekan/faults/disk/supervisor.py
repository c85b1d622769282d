"""The small process that decides what one member's writes and syncs meet.

This file is a program. It is run as `python -I -S supervisor.py SETTINGS` and imports the standard library only. It has one thread and
lives as long as the cluster: through every start of its member.

::

    Pekan ── commands (fd 0, JSON lines) ──> supervisor <── listener of each start (socket, SCM_RIGHTS) ── launcher's child
      ▲                                       │    ▲
      └──────── events (fd 1, JSON lines) ────┘    └── every call of the filter, its thread waiting for the answer ── etcd

    the answers      let it run | refuse it with an errno | "done" without doing it | the same, later | none: the process has been killed

    dies             who notices                             what follows
    Pekan            end of file on fd 0                     this process ends; etcd ends with its launcher
    supervisor       the kernel answers ENOSYS               etcd ends by itself; Pekan reads the end of the events
    etcd             nobody is left behind the listener      nothing; the next start brings the next listener

Commands, each answered by an event of the same `rule`, and events that come by themselves::

    {"do": "arm", "rule": 1, "kind": "errors", ...}     {"event": "armed", "rule": 1}
    {"do": "disarm", "rule": 1}                         {"event": "disarmed", "rule": 1, "met": 12, "did": {...}, "counts": {...}}
    {"do": "settle", "rule": 1}                         {"event": "settled", "rule": 1, "files": [...]}     once the process has ended
                                                        {"event": "fired", "rule": 1, "call": "fdatasync", "path": "...", "nth": 3, ...}
                                                        {"event": "bug", "rule": 1, "text": "..."}          the rule is gone, all calls run

An event about a call is written before that call is answered: whoever learns of etcd's end finds the reason already in the pipe.

Sources: seccomp_unotify(2), linux/seccomp.h; the files are those of etcd's server/storage (WAL: write, fdatasync; database: pwrite64,
fdatasync through bbolt, which maps its file for reading only).
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

COMMANDS_FD = 0
EVENTS_FD = 1
COMMAND_BYTES_MAX = 64 * 1024

# linux/seccomp.h: ioctls of a listener, and its two structures.
NOTIFICATION_RECEIVE = 0xC0502100
NOTIFICATION_SEND = 0xC0182101
NOTIFICATION_VALID = 0x40082102
LISTENER_SET_FLAGS = 0x40082104
SYNCHRONOUS_WAKE_UP = 1  # hand the CPU straight to the thread that is answered (Linux 6.6)
NOTIFICATION = struct.Struct("<QIIiIQ6Q")
ANSWER = struct.Struct("<QqiI")
CONTINUE = 1

X86_64 = {
    "write": 1,
    "pwrite64": 18,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "fallocate": 285,
}
"""Calls that a filter may name (arch/x86/entry/syscalls/syscall_64.tbl). Each has a file descriptor for its first argument."""
NAMES = {number: name for name, number in X86_64.items()}
SYNCS = frozenset({"fsync", "fdatasync"})

PAGE = 4096
"""What a file system writes back at once. Sectors are smaller, but a page in the cache is written whole."""
SECTOR = 512
"""What a disk writes at once; etcd's WAL counts on it (wal/decoder.go, minSectorSize)."""
PAGES_MAX = 16_384
"""Old pages kept at a time: 64 MiB. What is beyond counts as written back, which a kernel may do at any time."""
FILES_MAX = 64
"""Files with unsynced writes at a time. etcd syncs two, and a snapshot now and then."""
ZEROS = bytes(1 << 20)
LOOK_AHEAD = 64 * 1024
"""Bytes behind the position of an appended file that have to be zero for it to count as one that is only appended to."""

FileClass = Literal["wal", "db", "snapshot", "other"]


class Places(NamedTuple):
    """Where the member keeps what: real paths, as the kernel shows them below /proc/PID/fd."""

    data: str
    wal: str

    def file_class(self, path: str) -> FileClass:
        """Of an open file of the member, by its path."""
        if path.startswith(self.wal):
            return "wal"
        if not path.startswith(self.data):
            return "other"
        head, _, name = path.removesuffix(" (deleted)").rpartition("/")
        if not head.endswith("/snap"):
            return "other"
        # A defragmentation writes db.tmp.NUMBER and renames it over db.
        return "db" if name == "db" or name.startswith("db.tmp") else "snapshot"

    def shown(self, path: str) -> str:
        """The path as a person reads it: below the data directory."""
        return path[len(self.data) :] if path.startswith(self.data) else path


class Call:
    """One call of the member whose thread waits for an answer."""

    __slots__ = ("arguments", "file", "id", "listener", "name", "path", "tid")

    def __init__(self, listener: Listener, data: bytearray, places: Places) -> None:
        self.id, self.tid, _, number, _, _, *arguments = NOTIFICATION.unpack(data)
        self.listener = listener
        self.name = NAMES.get(number, "")
        self.arguments = arguments
        try:
            self.path = os.readlink(f"/proc/{self.tid}/fd/{self.fd}")
        except OSError:
            self.path = ""
        self.file: FileClass = places.file_class(self.path)

    @property
    def fd(self) -> int:
        return int(self.arguments[0]) & 0xFFFFFFFF

    def open(self) -> int:
        """The same file, opened once more; it has an offset of its own."""
        return os.open(f"/proc/{self.tid}/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)

    def position(self) -> int:
        """The offset at which the member writes next (proc(5), fdinfo)."""
        with open(f"/proc/{self.tid}/fdinfo/{self.fd}", "rb") as file:
            for line in file:
                if line.startswith(b"pos:"):
                    return int(line[4:])
        raise OSError(errno.EINVAL, "no position in fdinfo")

    def process(self) -> int:
        """The process id of the member, of which this is a thread."""
        with open(f"/proc/{self.tid}/status", "rb") as file:
            return next(int(line[5:]) for line in file if line.startswith(b"Tgid:"))

    def evidence(self, places: Places) -> dict[str, Any]:
        return {"call": self.name, "path": places.shown(self.path), "file": self.file, "tid": self.tid}


class Listener:
    """The calls of one incarnation. `killed`: nothing of it is answered any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.killed = False
        with contextlib.suppress(OSError):  # an older kernel: only a little slower
            fcntl.ioctl(fd, LISTENER_SET_FLAGS, SYNCHRONOUS_WAKE_UP)

    def receive(self) -> bytearray | None:
        """The next notification; None where its thread has been killed meanwhile."""
        data = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(self.fd, NOTIFICATION_RECEIVE, data)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.ENOTCONN):
                return None
            raise
        return data

    def answer(self, notification: int, value: int, error: int, flags: int) -> None:
        """Let the thread go on; nothing happens where it has gone."""
        try:
            fcntl.ioctl(self.fd, NOTIFICATION_SEND, ANSWER.pack(notification, value, -error, flags))
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def waits(self, call: Call) -> bool:
        """Whether the thread of `call` still waits for the answer; then its process is the one that /proc shows by its id."""
        try:
            fcntl.ioctl(self.fd, NOTIFICATION_VALID, struct.pack("<Q", call.id))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def kill(self, call: Call, pid: int) -> None:
        """SIGKILL to the process `pid` of `call`; no call of this incarnation is answered from now on."""
        # A thread that waits for the answer lives, and an ended process keeps its id until its launcher reaps it: this hits no stranger.
        if self.waits(call):
            os.kill(pid, signal.SIGKILL)
        self.killed = True


class Refuse(NamedTuple):
    """The call fails with `errno` and has done nothing."""

    errno: int


class Pretend(NamedTuple):
    """The call returns 0 and has done nothing."""


class Wait(NamedTuple):
    """The call runs after `ns`."""

    ns: int


class Silence(NamedTuple):
    """No answer: the process is being killed."""


Reaction = Refuse | Pretend | Wait | Silence | None
"""What a rule makes of a call; None: let it run."""


class Unsynced:
    """What of one file would be lost if the power failed now.

    ::

        size     when it was synced last
        pages    number -> its bytes when it was synced last, for each page written since; shorter where the file ended in it
        mark     for a file that is only appended to: everything before it has been synced, what is behind it were zeros. None: not known

    Where it is not certain that something is unsynced, it counts as synced: to keep too much is always honest.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.size = os.fstat(fd).st_size
        self.pages: dict[int, bytes] = {}
        self.mark: int | None = None

    def before_write(self, offset: int, length: int) -> None:
        """`length` bytes are about to be written at `offset`."""
        for number in range(offset // PAGE, (offset + length + PAGE - 1) // PAGE):
            if number not in self.pages:
                found = os.pread(self.fd, PAGE, number * PAGE)
                # Of a file that is appended to, what is behind the mark has not been seen being written.
                synced = len(found) if self.mark is None else max(0, self.mark - number * PAGE)
                self.pages[number] = found[:synced].ljust(len(found), b"\0")

    def before_truncate(self, length: int) -> None:
        """The file is about to be cut to `length` bytes, or to grow to them."""
        for begin, end in data_extents(self.fd, length):
            if (end - begin) // PAGE > PAGES_MAX:
                self.synced(None)
                return
            self.before_write(begin, end - begin)

    def synced(self, position: int | None) -> None:
        """A sync of it begins: all that was written before counts as synced. `position` is that of a file which is appended to."""
        self.pages.clear()
        self.size = os.fstat(self.fd).st_size
        self.mark = self._marked(position)

    def _marked(self, position: int | None) -> int | None:
        if position is None or position < (self.mark or 0):
            return None
        return position if is_zero(os.pread(self.fd, LOOK_AHEAD, position)) else None

    def roll_back(self, rng: random.Random, kept_percent: int = 0) -> dict[str, Any]:
        """Make the file what it was when it was synced last; each page is kept as it is with a chance of `kept_percent`.

        Exact where no page is kept. A page that is kept may lie beyond the size that was synced: then the file ends with it, and what
        lies between is zero, as after a write-back that the power failure cut short.
        """
        now = os.fstat(self.fd).st_size
        wanted = {number: self.pages.get(number) for number in (*self.pages, *self._appended())}
        kept = {number for number in sorted(wanted) if kept_percent and rng.randrange(100) < kept_percent}
        end = max([self.size, *(min(now, (number + 1) * PAGE) for number in kept)])
        lost = 0
        os.ftruncate(self.fd, max(now, end))  # a cut is undone first: the pages that it cost are written below
        for number in sorted(wanted.keys() - kept):
            first = number * PAGE
            found = os.pread(self.fd, PAGE, first)
            old = wanted[number]
            if old is None:
                # Appended: what was before the mark stays.
                old = found[: max(0, (self.mark or 0) - first)]
            old = old.ljust(len(found), b"\0")
            lost += len(old) - (int.from_bytes(old) ^ int.from_bytes(found)).to_bytes(len(old)).count(0)
            os.pwrite(self.fd, old, first)
        os.ftruncate(self.fd, end)
        return {"path": self.path, "lost_bytes": lost, "lost_pages": len(wanted) - len(kept), "kept_pages": len(kept), "size": end}

    def tear(self, cut: int) -> int:
        """Zero what has been appended from `cut` (bytes) on; returns how many bytes that were."""
        torn = 0
        for number in self._appended():
            first = max(cut, number * PAGE)
            found = os.pread(self.fd, (number + 1) * PAGE - first, first) if first < (number + 1) * PAGE else b""
            torn += len(found) - found.count(0)
            os.pwrite(self.fd, bytes(len(found)), first)
        return torn

    def _appended(self) -> Iterator[int]:
        """Pages with bytes behind the mark."""
        if self.mark is None:
            return
        for begin, end in data_extents(self.fd, self.mark):
            # Preallocated space is read as data on some file systems: most of a segment is zeros, and is passed over in large pieces.
            for piece in range(begin // PAGE * PAGE, end, len(ZEROS)):
                found = os.pread(self.fd, len(ZEROS), piece)
                if not is_zero(found):
                    for first in range(0, len(found), PAGE):
                        behind = max(0, self.mark - piece - first)
                        if not is_zero(found[first : first + PAGE][behind:]):
                            yield (piece + first) // PAGE


def is_zero(data: bytes) -> bool:
    """Whether there is nothing but zeros; at most as many as `ZEROS`."""
    return data == (ZEROS if len(data) == len(ZEROS) else ZEROS[: len(data)])


def data_extents(fd: int, offset: int) -> Iterator[tuple[int, int]]:
    """The parts of a file, from `offset` to its end, that are no holes. Preallocated space counts as a hole (lseek(2))."""
    while True:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end
        offset = end


class Rule(ABC):
    """What has been armed. `met` counts the calls that it is about, `done` those on which it acted."""

    def __init__(self, number: int, command: Mapping[str, Any], places: Places) -> None:
        self.number = number
        self.calls = frozenset(command["calls"])
        self.file = command["file"]
        self.places = places
        self.met = 0
        self.done = 0
        self.killed = False
        self.did: dict[str, int] = {}
        """On which it acted, by "call class-of-file"."""

    def concerns(self, call: Call) -> bool:
        """Whether the rule counts this call: of the member's data, of the class of file asked for."""
        return call.name in self.calls and call.file != "other" and self.file in ("any", call.file)

    @abstractmethod
    def meet(self, call: Call) -> Reaction:
        """What is done with a call that the rule counts."""

    def fire(self, call: Call, **details: Any) -> None:
        """Report the first of what it does."""
        self.done += 1
        key = f"{call.name} {call.file}"
        self.did[key] = self.did.get(key, 0) + 1
        if self.done == 1:
            event("fired", rule=self.number, nth=self.met, **call.evidence(self.places), **details)

    def settle(self) -> list[dict[str, Any]]:
        """The process has ended: what is left to do to its files."""
        return []

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of everything."""


class Errors(Rule):
    """From the nth call on, `times` calls fail with `errno`."""

    def __init__(self, number: int, command: Mapping[str, Any], places: Places) -> None:
        super().__init__(number, command, places)
        self.nth = command["nth"]
        self.times = command["times"]
        self.errno = command["errno"]

    def meet(self, call: Call) -> Reaction:
        if not self.concerns(call):
            return None
        self.met += 1
        if self.met < self.nth or self.done >= self.times:
            return None
        self.fire(call, errno=self.errno)
        return Refuse(self.errno)


class Full(Rule):
    """No block is left: whatever would need a new one fails with ENOSPC, what was allocated before can be written.

    A WAL segment is preallocated, so that only the next one is refused. A snapshot is refused where it is synced, as a file system
    with delayed allocation may do (fsync(2)): its writes are not told from those to sockets.
    """

    def meet(self, call: Call) -> Reaction:
        if not self.concerns(call) or not self._grows(call):
            return None
        self.met += 1
        self.fire(call, errno=errno.ENOSPC)
        return Refuse(errno.ENOSPC)

    @staticmethod
    def _grows(call: Call) -> bool:
        if call.name == "fallocate":
            return True
        if call.name in SYNCS:
            return call.file == "snapshot"
        fd = call.open()
        try:
            size, offset, length = os.fstat(fd).st_size, int(call.arguments[3]), int(call.arguments[2])
            # bbolt makes its file longer without writing to it: inside, it is the hole that needs blocks.
            return offset + length > size or os.lseek(fd, offset, os.SEEK_HOLE) < offset + length
        finally:
            os.close(fd)


class Slow(Rule):
    """Each call runs after `delay_ms`, more or less by up to `jitter_ms`."""

    def __init__(self, number: int, command: Mapping[str, Any], places: Places) -> None:
        super().__init__(number, command, places)
        self.delay_ms = command["delay_ms"]
        self.jitter_ms = command["jitter_ms"]
        self.random = random.Random(command["seed"])

    def meet(self, call: Call) -> Reaction:
        if not self.concerns(call):
            return None
        self.met += 1
        delay_ms = max(0.0, self.delay_ms + self.random.uniform(-self.jitter_ms, self.jitter_ms))
        self.fire(call, delay_ms=round(delay_ms, 3))
        return Wait(int(delay_ms * 1e6))


class Loss(Rule):
    """The power fails, or a write is torn: keeps account of what is unsynced, kills at the moment asked for, and rolls back afterwards.

    moment     before-sync  the nth sync of the class of file asked for is not begun any more
               after-sync   it has been done, and the member has not learned of it
               write        the nth write to the database is not begun any more
               torn         as before-sync, and of what was appended since the last sync whole sectors of the first `torn_bytes` are kept
               later        the process is killed by somebody else
    lies       every sync returns 0 and is not done
    """

    def __init__(self, number: int, command: Mapping[str, Any], places: Places) -> None:
        super().__init__(number, command, places)
        self.moment = command["moment"]
        self.nth = command["nth"]
        self.lies = command["lies"]
        self.torn_bytes = command["torn_bytes"]
        self.kept_percent = command["kept_percent"]
        self.random = random.Random(command["seed"])
        self.files: dict[tuple[int, int], Unsynced] = {}
        self.forgotten = 0
        self.torn: tuple[Unsynced, int] | None = None

    def meet(self, call: Call) -> Reaction:
        if call.file == "other":
            return None
        if call.name in SYNCS:
            return self._sync(call)
        if call.name == "pwrite64":
            if self.moment == "write" and self.concerns(call) and self._is_the_one(call):
                return Silence()
            if call.arguments[2] > PAGES_MAX * PAGE:
                self._of(call).synced(None)
            else:
                self._of(call).before_write(call.arguments[3], call.arguments[2])
            self._bounded()
        elif call.name == "ftruncate":
            self._of(call).before_truncate(call.arguments[1])
            self._bounded()
        return None

    def _sync(self, call: Call) -> Reaction:
        file = self._of(call)
        # Only the WAL is appended to without being seen: by write(2), which sockets share.
        position = call.position() if call.file == "wal" else None
        if self.lies:
            if position is not None and file.mark is None and not self.done:
                file.synced(position)
            self.met += 1
            self.fire(call)
            return Pretend()
        # What an appended file was when it was synced last is known from the first sync on that is seen here.
        known = call.file != "wal" or file.mark is not None
        if known and self.moment in ("before-sync", "after-sync", "torn") and self.concerns(call) and self._tears(file, position):
            if self.moment == "after-sync" and self.met + 1 == self.nth:
                os.fdatasync(file.fd)
                file.synced(position)
            if self._is_the_one(call):
                return Silence()
        file.synced(position)
        return None

    def _tears(self, file: Unsynced, position: int | None) -> bool:
        """Whether this sync is a moment: always, unless a write is to be torn and has no border of sectors inside."""
        if self.moment != "torn":
            return True
        if position is None or file.mark is None:
            return False
        # At the border that `torn_bytes` reach, or the last one inside a shorter write.
        cut = min(file.mark + self.torn_bytes, position - 1) // SECTOR * SECTOR
        if not file.mark < cut < position:
            return False
        self.torn = (file, cut)
        return True

    def _is_the_one(self, call: Call) -> bool:
        """Count the call; kill, and True, where it is the nth."""
        self.met += 1
        if self.met < self.nth:
            return False
        pid = call.process()
        # Said first: who learns of the end finds the reason told.
        self.fire(call, pid=pid)
        call.listener.kill(call, pid)
        self.killed = True
        return True

    def _of(self, call: Call) -> Unsynced:
        """The account of the file of `call`. It is kept by the file itself, whatever its name becomes."""
        fd = call.open()
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        known = self.files.get(key)
        if known is not None:
            os.close(fd)
            return known
        if len(self.files) >= FILES_MAX:
            self._forget(next(iter(self.files)))
        file = self.files[key] = Unsynced(fd, self.places.shown(call.path))
        return file

    def _bounded(self) -> None:
        """Let the kernel have written back the file with the most pages, where there are too many."""
        if sum(len(file.pages) for file in self.files.values()) > PAGES_MAX:
            self._forget(max(self.files, key=lambda key: len(self.files[key].pages)))

    def _forget(self, key: tuple[int, int]) -> None:
        self.forgotten += 1
        os.close(self.files.pop(key).fd)

    def settle(self) -> list[dict[str, Any]]:
        if self.moment == "torn":
            if self.torn is None:
                return []
            file, cut = self.torn
            return [{"path": file.path, "lost_bytes": file.tear(cut), "cut": cut, "mark": file.mark}]
        return [file.roll_back(self.random, self.kept_percent) for file in self.files.values() if os.fstat(file.fd).st_nlink]

    def close(self) -> None:
        for file in self.files.values():
            os.close(file.fd)
        self.files.clear()


RULES: dict[str, type[Rule]] = {"errors": Errors, "full": Full, "slow": Slow, "loss": Loss}


def event(name: str, **details: Any) -> None:
    """One line to Pekan. A Pekan that is gone reads nothing; the end of the commands tells of that."""
    try:
        os.write(EVENTS_FD, json.dumps({"event": name, **details}).encode() + b"\n")
    except BrokenPipeError:
        return


class Supervisor:
    """The state of the process: listeners, the rule that is armed, calls that wait for their time."""

    def __init__(self, places: Places, handover: socket.socket) -> None:
        self.places = places
        self.handover = handover
        self.listeners: dict[int, Listener] = {}
        self.rule: Rule | None = None
        self.unsettled: Rule | None = None
        """A rule that has killed and been disarmed since; it can be settled until the next one is armed."""
        self.waiting: list[tuple[int, int, int]] = []
        """When (CLOCK_MONOTONIC, ns), fd of the listener, id of the notification."""
        self.counts: dict[str, int] = {}
        self.commands = b""
        self.poll = select.poll()
        self.poll.register(COMMANDS_FD, select.POLLIN)
        self.poll.register(handover.fileno(), select.POLLIN)

    def run(self) -> None:
        """Until Pekan closes the commands."""
        while True:
            for fd, flags in self.poll.poll(self._timeout_ms()):
                listener = self.listeners.get(fd)
                if listener is not None:
                    self._serve(listener, flags)
                elif fd == COMMANDS_FD:
                    if not self._command():
                        return
                elif fd == self.handover.fileno():
                    self._adopt()
            self._release()

    def _timeout_ms(self) -> float | None:
        if not self.waiting:
            return None
        return max(0.0, (self.waiting[0][0] - time.monotonic_ns()) / 1e6)

    def _adopt(self) -> None:
        """The listener of the next incarnation."""
        fds = array.array("i")
        _, ancillary, _, _ = self.handover.recvmsg(64, socket.CMSG_LEN(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for fd in fds:
            self.listeners[fd] = Listener(fd)
            self.poll.register(fd, select.POLLIN)

    def _serve(self, listener: Listener, flags: int) -> None:
        if not flags & select.POLLIN:
            self._leave(listener)  # an end: nobody is left behind it
            return
        data = listener.receive()
        if data is None:
            return
        call = Call(listener, data, self.places)
        key = f"{call.name} {call.file}"
        self.counts[key] = self.counts.get(key, 0) + 1
        reaction = self._reaction(call)
        match reaction:
            case None:
                listener.answer(call.id, 0, 0, CONTINUE)
            case Refuse(number):
                listener.answer(call.id, 0, number, 0)
            case Pretend():
                listener.answer(call.id, 0, 0, 0)
            case Wait(ns):
                heapq.heappush(self.waiting, (time.monotonic_ns() + ns, listener.fd, call.id))
            case Silence():
                self.poll.unregister(listener.fd)

    def _reaction(self, call: Call) -> Reaction:
        """What the rule makes of it; a rule with a bug is reported and gone: the member never waits for ever."""
        rule = self.rule
        if rule is None:
            return None
        try:
            return rule.meet(call)
        except Exception as error:
            if call.listener.killed:
                return Silence()
            if not call.listener.waits(call):
                return None  # its process has been killed meanwhile, and what /proc told of it is gone
            event("bug", rule=rule.number, text=f"{type(error).__name__}: {error} (at {call.name} of {call.path})")
            self._drop_rule()
            return None

    def _release(self) -> None:
        """Answer the calls whose time has come."""
        while self.waiting and self.waiting[0][0] <= time.monotonic_ns():
            _, fd, notification = heapq.heappop(self.waiting)
            listener = self.listeners.get(fd)
            if listener is not None:
                listener.answer(notification, 0, 0, CONTINUE)

    def _release_all(self) -> None:
        self.waiting = [(0, fd, notification) for _, fd, notification in self.waiting]
        self._release()

    def _leave(self, listener: Listener) -> None:
        if not listener.killed:
            self.poll.unregister(listener.fd)
        del self.listeners[listener.fd]
        # The number may be the next listener's.
        self.waiting = [each for each in self.waiting if each[1] != listener.fd]
        heapq.heapify(self.waiting)
        os.close(listener.fd)

    def _command(self) -> bool:
        """Carry out what has arrived; False at the end of the commands."""
        data = os.read(COMMANDS_FD, COMMAND_BYTES_MAX)
        self.commands += data
        *lines, self.commands = self.commands.split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, command: dict[str, Any]) -> None:
        number = command["rule"]
        match command["do"]:
            case "arm":
                self._drop_rule()
                self._drop_unsettled()
                self.rule = RULES[command["kind"]](number, command, self.places)
                event("armed", rule=number)
            case "settle":
                for listener in [each for each in self.listeners.values() if each.killed]:
                    self._leave(listener)
                rule = next((each for each in (self.rule, self.unsettled) if each is not None and each.number == number), None)
                event("settled", rule=number, files=rule.settle() if rule is not None else [])
                if rule is not None:
                    rule.close()  # the file system may be unmounted next
            case "disarm":
                details: dict[str, Any] = {"met": 0, "did": {}}
                rule = self.rule
                if rule is not None and rule.number == number:
                    details = {"met": rule.met, "did": rule.did}
                    if rule.killed:
                        # Perhaps just now: what is to be done to the files is still known here.
                        self._drop_unsettled()
                        self.rule, self.unsettled = None, rule
                    self._drop_rule()
                event("disarmed", rule=number, counts=self.counts, **details)

    def _drop_unsettled(self) -> None:
        if self.unsettled is not None:
            self.unsettled.close()
            self.unsettled = None

    def _drop_rule(self) -> None:
        if self.rule is not None:
            self.rule.close()
            self.rule = None
        self._release_all()


def main(arguments: list[str]) -> int:
    """`arguments` are {"data", "wal", "handover": fd} as JSON."""
    settings = json.loads(arguments[0])
    # A terminal's Ctrl-C is for Pekan, which ends this by closing the commands.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    places = Places(*(os.path.realpath(settings[key]) + "/" for key in ("data", "wal")))
    with socket.socket(fileno=settings["handover"]) as handover:
        Supervisor(places, handover).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
