"""What is planted in a member at its exec stop: pages mapped, instructions replaced, and no tracer left afterwards.

Loaded by the launcher, by its path and only where an attachment of kind "patches" asks for it; the standard library only. The launcher is
the parent and has one thread, which is what ptrace(2) asks for: all requests to a tracee come from the thread that forked it.

::

    child                            launcher
    PTRACE_TRACEME
    execve ──── exec stop: one thread, no instruction of the new program has run, its memory is new
                                     PTRACE_O_EXITKILL                          a dying launcher takes the half-made program along
                                     mmap, mmap, close ... run in the child     code: private, r-x     cells: shared with Pekan, rw-
                                     text and vDSO written, compared before     through /proc/PID/mem, else PTRACE_POKETEXT
                                     PTRACE_DETACH
    runs, TracerPid 0

What to plant lies in a file, because an argument of a program is 128 KiB at most (MAX_ARG_STRLEN, execve(2)) and ten thousand points take
megabytes. It is one line of JSON, followed by bytes that the line points into::

    {"maps":   [{"address": A, "length": L, "at": offset, "bytes": n}         private code, r-x, filled with those n bytes
                {"address": A, "length": L, "shared": true}, ...],            the file descriptor "shared" of the attachment, rw-
     "writes": [[address, offset, length], ...],                              at offset: `length` old bytes, then `length` new ones
     "vdso":   [[address, offset, length], ...]}                              the same, addresses counted from the start of the vDSO

x86-64 only. The program has to be linked to fixed addresses (ELF type EXEC) unless it has no "writes".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# linux/ptrace.h, sys/ptrace.h
PTRACE_TRACEME = 0
PTRACE_PEEKDATA = 2
PTRACE_POKEDATA = 5
PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SETOPTIONS = 0x4200
PTRACE_O_EXITKILL = 1 << 20
WALL = 0x40000000  # __WALL: also of children that are no thread of this one (waitpid(2))

# asm/unistd_64.h
SYS_MMAP = 9
SYS_CLOSE = 3

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS = 0x01, 0x02, 0x20
MAP_FIXED_NOREPLACE = 0x100000  # Linux 4.17; an older kernel takes the address for a wish, so the answer is compared

# struct user_regs_struct (sys/user.h): 27 words, these are the ones used here.
REGISTER_COUNT = 27
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16
ARGUMENT_REGISTERS = (RDI, RSI, RDX, R10, R8, R9)
WORD = (1 << 64) - 1

SYSCALL_THEN_TRAP = b"\x0f\x05\xcc"
SIGTRAP = 5
COMPARED_BYTES_SHOWN = 16
ERRNO_MAX = 4095  # results from -4095 to -1 are errors (syscall convention of the x86-64 ABI)

REMEDY = (
    "ptrace(2) of the member by its own parent has to be allowed: kernel.yama.ptrace_scope at most 1, "
    "and no seccomp profile or sandbox that bars it (docker run --cap-add SYS_PTRACE)"
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
Registers = ctypes.c_ulonglong * REGISTER_COUNT


def trace_me() -> None:
    """In the child, last before exec: its parent is its tracer from now on. Raises `OSError` with the remedy."""
    if _libc.ptrace(PTRACE_TRACEME, 0, None, None) == -1:
        raise _refused("ptrace(PTRACE_TRACEME)", ctypes.get_errno())


def plant(pid: int, attachments: Sequence[Mapping[str, Any]]) -> None:
    """In the launcher, after exec has succeeded: wait for the exec stop of `pid`, do what each of `attachments` asks, and let it go.

    Parameters of an attachment: `file`, and `shared`, the descriptor of its shared memory, which the program does not keep.
    Raises `OSError` and `ValueError`; the program stands still then, traced, and has run nothing.
    """
    _, status = os.waitpid(pid, WALL)
    if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != SIGTRAP:
        raise ValueError(f"the program came to no exec stop (wait status {status:#x})")
    _ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_EXITKILL)
    with _memory(pid) as memory:
        for attachment in attachments:
            _plant_one(pid, memory, attachment)
    _ptrace(PTRACE_SETOPTIONS, pid, 0, 0)
    _ptrace(PTRACE_DETACH, pid)


def _plant_one(pid: int, memory: int, attachment: Mapping[str, Any]) -> None:
    with open(attachment["file"], "rb") as file:
        header = json.loads(file.readline())
        blob = file.read()
    shared = int(attachment.get("shared", -1))
    with _calls(pid, memory) as call:
        for wanted in header.get("maps", ()):
            own = not wanted.get("shared")
            protection = PROT_READ | PROT_EXEC if own else PROT_READ | PROT_WRITE
            flags = (MAP_PRIVATE | MAP_ANONYMOUS if own else MAP_SHARED) | MAP_FIXED_NOREPLACE
            _map(call, wanted["address"], wanted["length"], protection, flags, -1 if own else shared)
        if shared >= 0:
            call(SYS_CLOSE, shared)
    for wanted in header.get("maps", ()):
        if "at" in wanted:
            _write(pid, memory, wanted["address"], blob[wanted["at"] : wanted["at"] + wanted["bytes"]])
    _replace(pid, memory, header.get("writes", ()), blob, 0)
    if vdso := header.get("vdso"):
        _replace(pid, memory, vdso, blob, _vdso(pid))


def _map(call: Any, address: int, length: int, protection: int, flags: int, fd: int) -> None:
    got = call(SYS_MMAP, address, length, protection, flags, fd, 0)
    if got == address:
        return
    code = -got if -ERRNO_MAX <= got < 0 else errno.EEXIST
    raise OSError(code, f"mmap of {length} bytes at {address:#x} in the member: {os.strerror(code)}")


def _replace(pid: int, memory: int, writes: Sequence[Sequence[int]], blob: bytes, base: int) -> None:
    """Replace old bytes by new ones. Few long pieces are faster than many short ones: each is a system call to read and one to write."""
    for relative, offset, length in writes:
        address = base + relative
        old, new = blob[offset : offset + length], blob[offset + length : offset + 2 * length]
        found = _read(pid, memory, address, length)
        if found != old:
            shown = slice(0, COMPARED_BYTES_SHOWN)
            raise ValueError(f"at {address:#x} the program has {found[shown].hex()}, not {old[shown].hex()}: another program")
        _write(pid, memory, address, new)


@contextlib.contextmanager
def _calls(pid: int, memory: int) -> Iterator[Any]:
    """System calls made by the stopped process, at the instruction it stands at; that and its registers are as before afterwards."""
    saved = Registers()
    _ptrace(PTRACE_GETREGS, pid, 0, ctypes.addressof(saved))
    place = saved[RIP]
    before = _read(pid, memory, place, len(SYSCALL_THEN_TRAP))
    _write(pid, memory, place, SYSCALL_THEN_TRAP)

    def call(number: int, *arguments: int) -> int:
        registers = Registers(*saved)
        for register, value in zip(ARGUMENT_REGISTERS, arguments, strict=False):
            registers[register] = value & WORD
        # No call is under way in the kernel's eyes, so that it restarts none.
        registers[RAX], registers[ORIG_RAX], registers[RIP] = number, WORD, place
        _ptrace(PTRACE_SETREGS, pid, 0, ctypes.addressof(registers))
        _ptrace(PTRACE_CONT, pid)
        _, status = os.waitpid(pid, WALL)
        if not os.WIFSTOPPED(status):
            raise ValueError(f"the program ended while it was prepared (wait status {status:#x})")
        _ptrace(PTRACE_GETREGS, pid, 0, ctypes.addressof(registers))
        if registers[RIP] != place + len(SYSCALL_THEN_TRAP):
            raise ValueError(f"system call {number} in the member did not return: it stands at {registers[RIP]:#x}")
        return ctypes.c_long(registers[RAX]).value

    yield call
    _write(pid, memory, place, before)
    _ptrace(PTRACE_SETREGS, pid, 0, ctypes.addressof(saved))


@contextlib.contextmanager
def _memory(pid: int) -> Iterator[int]:
    """The memory of `pid` as a file, -1 where that is not to be had."""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        fd = -1
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _read(pid: int, memory: int, address: int, length: int) -> bytes:
    if memory >= 0:
        with contextlib.suppress(OSError):
            found = os.pread(memory, length, address)
            if len(found) == length:
                return found
    first = address & ~7
    words = [_peek(pid, place) for place in range(first, address + length, 8)]
    return struct.pack(f"<{len(words)}Q", *words)[address - first : address - first + length]


def _write(pid: int, memory: int, address: int, data: bytes) -> None:
    """Also into pages that the program itself cannot write. The kernel may refuse that through the file (proc_mem.force_override, Linux
    6.12) and not by POKEDATA."""
    if memory >= 0:
        with contextlib.suppress(OSError):
            if os.pwrite(memory, data, address) == len(data):
                return
    first = address & ~7
    last = (address + len(data) + 7) & ~7
    whole = bytearray(_read(pid, memory, first, last - first))
    whole[address - first : address - first + len(data)] = data
    for index, (word,) in enumerate(struct.iter_unpack("<Q", whole)):
        _ptrace(PTRACE_POKEDATA, pid, first + 8 * index, word)


def _peek(pid: int, address: int) -> int:
    # The C library's wrapper returns the word itself, so that an error is known by errno only.
    ctypes.set_errno(0)
    word: int = _libc.ptrace(PTRACE_PEEKDATA, pid, address, None)
    if word == -1 and (code := ctypes.get_errno()):
        raise _refused(f"ptrace(PTRACE_PEEKDATA) at {address:#x}", code)
    return word & WORD


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        raise _refused(f"ptrace(request {request:#x})", ctypes.get_errno())


def _refused(what: str, code: int) -> OSError:
    remedy = f"; {REMEDY}" if code in (errno.EPERM, errno.EACCES, errno.ENOSYS) else ""
    return OSError(code, f"{what}: {os.strerror(code)}{remedy}")


def _vdso(pid: int) -> int:
    """Where the kernel has mapped the vDSO of `pid`."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            if line.rstrip().endswith("[vdso]"):
                return int(line.partition("-")[0], 16)
    raise ValueError("the program has no vDSO (is the kernel started with vdso=0?)")
