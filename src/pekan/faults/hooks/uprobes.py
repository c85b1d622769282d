"""Counting, and killing at the nth hit, by the kernel's own probes with a program of BPF: for root, where neither hook nor tracer can be.

::

    perf_event_open(uprobe, executable, offset, pid) <── program: is it this process? hits + 1;
                                                             │    at the trigger: write down who and when, SIGKILL
    Pekan: stores the trigger, looks at the firing ───> one map of one element, mapped into Pekan

Many members run one executable; the kernel leaves out the processes that are not asked for, and the program looks once more. A probe is
a trap of some microseconds for each hit. It cannot hold a thread: that would take a tracer, which is what a breakpoint is.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import signal
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pekan.errors import ClusterFailure, UsageError
from pekan.faults.ability import Ability, able, once, unable
from pekan.faults.equipment import Site
from pekan.faults.hooks import points, stub
from pekan.faults.hooks.asked import holds
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.mechanism import POLL_S, Firing, Placed
from pekan.faults.hooks.planting import not_here

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec

SYS_PERF_EVENT_OPEN: Final = 298  # arch/x86/entry/syscalls/syscall_64.tbl
SYS_BPF: Final = 321
# linux/bpf.h
BPF_MAP_CREATE, BPF_PROG_LOAD = 0, 5
BPF_MAP_TYPE_ARRAY, BPF_PROG_TYPE_KPROBE = 2, 2
BPF_F_MMAPABLE: Final = 1 << 10
LOOKUP, KTIME, PID_TGID, SEND_SIGNAL = 1, 5, 14, 109
# linux/perf_event.h
PERF_ATTR_BYTES: Final = 136
PERF_FLAG_FD_CLOEXEC: Final = 8
PERF_IOC_SET_BPF: Final = 0x40042408
PERF_IOC_ENABLE: Final = 0x2400
UPROBE_TYPE: Final = Path("/sys/bus/event_source/devices/uprobe/type")

WORDS: Final = 8
HITS, TRIGGER, SIGNAL, TGID, WHO, TIME_NS, FIRED = range(7)

_libc = ctypes.CDLL(None, use_errno=True)


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def program(map_fd: int) -> bytes:
    """The instructions. r7: the element, r8: process id, r9: process and thread id, r6: this hit's number."""
    out = "out"
    steps: list[tuple[int, int, int, int | str, int]] = [
        (0x85, 0, 0, 0, PID_TGID),
        (0xBF, 9, 0, 0, 0),
        (0xBF, 8, 0, 0, 0),
        (0x77, 8, 0, 0, 32),
        (0x62, 10, 0, -4, 0),  # the key
        (0xBF, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -4),
        (0x18, 1, 1, 0, map_fd),
        (0, 0, 0, 0, 0),
        (0x85, 0, 0, 0, LOOKUP),
        (0x15, 0, 0, out, 0),
        (0xBF, 7, 0, 0, 0),
        (0x79, 1, 7, 8 * TGID, 0),
        (0x5D, 1, 8, out, 0),
        (0xB7, 6, 0, 0, 1),
        (0xDB, 7, 6, 8 * HITS, 1),  # atomic fetch and add
        (0x07, 6, 0, 0, 1),
        (0x79, 1, 7, 8 * TRIGGER, 0),
        (0x5D, 6, 1, out, 0),
        (0x7B, 7, 9, 8 * WHO, 0),
        (0x85, 0, 0, 0, KTIME),
        (0x7B, 7, 0, 8 * TIME_NS, 0),
        (0x7B, 7, 6, 8 * FIRED, 0),
        (0x79, 1, 7, 8 * SIGNAL, 0),
        (0x15, 1, 0, out, 0),
        (0x85, 0, 0, 0, SEND_SIGNAL),
        (0xB7, 0, 0, 0, 0),
        (0x95, 0, 0, 0, 0),
    ]
    end = len(steps) - 2
    return b"".join(
        _instruction(code, to, source, end - at - 1 if isinstance(offset, str) else offset, value)
        for at, (code, to, source, offset, value) in enumerate(steps)
    )


def _bpf(command: int, attributes: bytes) -> int:
    memory = ctypes.create_string_buffer(attributes, len(attributes))
    fd: int = _libc.syscall(SYS_BPF, command, memory, len(attributes))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command}): {os.strerror(code)}")
    return fd


class Uprobe:
    """A probe at places of one process; open until `close`. It fires at the `nth` hit there is (0: never, it counts), with a signal where
    that is not 0. Raises `OSError`."""

    def __init__(self, path: Path, offsets: tuple[int, ...], pid: int, nth: int = 0, signal_number: int = 0) -> None:
        self.fds: list[int] = []
        self._closing = threading.Lock()
        try:
            attributes = struct.pack("<IIIII", BPF_MAP_TYPE_ARRAY, 4, WORDS * 8, 1, BPF_F_MMAPABLE)
            map_fd = self._keep(_bpf(BPF_MAP_CREATE, attributes.ljust(72, b"\0")))
            self.memory = mmap.mmap(map_fd, mmap.PAGESIZE)
            self.words = memoryview(self.memory).cast("Q")
            # Before it is anywhere: who comes by while it is being placed counts too.
            self.words[TGID], self.words[TRIGGER], self.words[SIGNAL] = pid, nth, signal_number
            code = program(map_fd)
            instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
            attributes = struct.pack(
                "<IIQQ", BPF_PROG_TYPE_KPROBE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)
            )
            loaded = self._keep(_bpf(BPF_PROG_LOAD, attributes.ljust(72, b"\0")))
            for offset in offsets:
                self._attach(loaded, path, offset, pid)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent, and over when it returns, whoever else closes it in another thread."""
        with self._closing:
            while self.fds:
                os.close(self.fds.pop())

    def _attach(self, loaded: int, path: Path, offset: int, pid: int) -> None:
        name = ctypes.create_string_buffer(os.fsencode(path))
        attributes = bytearray(PERF_ATTR_BYTES)
        struct.pack_into("<IIQQ", attributes, 0, int(UPROBE_TYPE.read_text()), PERF_ATTR_BYTES, 0, 1)
        struct.pack_into("<QQ", attributes, 56, ctypes.addressof(name), offset)
        memory = ctypes.create_string_buffer(bytes(attributes), PERF_ATTR_BYTES)
        fd = _libc.syscall(SYS_PERF_EVENT_OPEN, memory, pid, -1, -1, PERF_FLAG_FD_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), f"perf_event_open: {os.strerror(ctypes.get_errno())}")
        self._keep(fd)
        for request, argument in ((PERF_IOC_SET_BPF, loaded), (PERF_IOC_ENABLE, 0)):
            if _libc.ioctl(fd, request, argument) != 0:
                raise OSError(ctypes.get_errno(), f"ioctl({request:#x}) of the probe: {os.strerror(ctypes.get_errno())}")

    def _keep(self, fd: int) -> int:
        self.fds.append(fd)
        return fd


class Uprobes(Placed):
    """Probes of the kernel with a program of BPF, which count and kill: for root."""

    name: ClassVar[str] = "uprobe"
    loss: ClassVar[str] = "counting and killing at points where neither hook nor breakpoint can be"
    holds: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._probes: dict[tuple[str, str], Uprobe] = {}
        self._armed: set[tuple[str, str]] = set()
        self._fired_before: dict[tuple[str, str], int] = {}
        """By probes that have been replaced."""

    @classmethod
    def probe(cls) -> Ability:
        if reason := points.why_not() or why_not():
            return unable(cls.name, reason, "run as root, where bpf(2) and perf_event_open(2) are not barred")
        return able(cls.name, "counts and kills; holds no thread")

    async def prepare(self) -> None:
        """Raises `UsageError` for a hold as well."""
        await super().prepare()
        if any(holds(fault) and fault.parameters.get("mechanism") == self.name for fault in self.site.plan.schedule.faults):
            raise UsageError("a uprobe holds no thread; it takes action=kill and action=count")

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        for member in members:
            await asyncio.to_thread(self._find, member.binary)
        return members

    async def close(self) -> None:
        for probe in self._probes.values():
            await asyncio.to_thread(probe.close)

    async def arm(self, member: str, name: str, nth: int, action: int, hold_ms: int = 0) -> None:
        victim = self._members[member]
        if action & stub.HOLD:
            raise UsageError("a uprobe holds no thread")
        if (member, name) in self._armed:
            raise UsageError(f"another fault waits at {name} of {member}")
        if victim.pid is None:
            raise ClusterFailure(f"member {member} has ended")
        self._armed.add((member, name))
        signal_number = signal.SIGKILL if action & stub.KILL else 0
        places = self._places_in(victim, name)
        making = asyncio.ensure_future(asyncio.to_thread(Uprobe, Path(victim.spec.binary.path), places, victim.pid, nth, signal_number))
        try:
            probe = await asyncio.shield(making)
        except OSError as error:
            self._armed.discard((member, name))
            raise UsageError(f"no uprobe can be at {name} of {member}: {error.strerror}") from error
        except asyncio.CancelledError:
            self._armed.discard((member, name))
            making.add_done_callback(lambda made: None if made.cancelled() or made.exception() else made.result().close())
            raise
        self._fired_before[member, name] = self.firings(member, name)
        self._probes[member, name] = probe

    async def fired(self, member: str, name: str) -> Firing:
        words = self._probes[member, name].words
        while not words[FIRED]:
            await asyncio.sleep(POLL_S)
        return Firing(words[FIRED], words[WHO] & 0xFFFFFFFF, words[TIME_NS])

    def firings(self, member: str, name: str) -> int:
        probe = self._probes.get((member, name))
        return self._fired_before.get((member, name), 0) + int(probe is not None and probe.words[FIRED] > 0)

    def hits(self, member: str, name: str) -> int:
        return self._probes[member, name].words[HITS]

    def held(self, member: str, name: str) -> bool:
        return False

    def ended_ns(self, member: str, name: str) -> int:
        """When it fired: what is not held ends there."""
        return self._probes[member, name].words[TIME_NS]

    def release(self, member: str, name: str) -> None:
        """Nobody is held by these."""

    def disarm(self, member: str, name: str) -> None:
        probe = self._probes.get((member, name))
        if probe is not None and (member, name) in self._armed:
            self._armed.discard((member, name))
            probe.words[TRIGGER] = 0
            # The kernel waits for everybody who may be inside the program, a tenth of a second.
            asyncio.get_running_loop().run_in_executor(None, probe.close)

    def settle(self, member: str, name: str) -> None:
        """The process has ended: nobody is held."""

    def _placed(self, executable: GoBinary, name: str, addresses: tuple[int, ...], version: str) -> tuple[int, ...]:
        return tuple(map(executable.offset_of, addresses))


@once
def why_not() -> str:
    """Why there can be no probes on this machine; "" where one has counted a call of this process."""
    if reason := not_here("uprobes"):
        return reason
    address = ctypes.cast(_libc.getppid, ctypes.c_void_p).value or 0
    try:
        path, offset = _file_of(address)
        probe = Uprobe(path, (offset,), os.getpid())
    except OSError as error:
        return f"{error.strerror} (errno {error.errno})"
    try:
        _libc.getppid()
        counted = probe.words[HITS]
    finally:
        probe.close()
    return "" if counted else "a probe has not counted (is this a namespace of processes?)"


def _file_of(address: int) -> tuple[Path, int]:
    """The file that is mapped at that address of this process, and where in it that is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *path = line.split(maxsplit=5)
        first, last = (int(word, 16) for word in span.split("-"))
        if first <= address < last and path:
            return Path(path[0]), address - first + int(offset, 16)
    raise OSError(errno.ENOENT, "no file is mapped at the function to be probed")
