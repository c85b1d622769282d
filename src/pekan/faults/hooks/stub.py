"""The machine code of a hook, and the cell of shared memory through which it is driven.

A hooked place jumps to a stub of its own, which counts into its cell and goes on with the instructions that were there. When the count
equals the cell's trigger, and at no other time, the code that all stubs share runs: it tells a pipe, holds its own thread, ends the
process.

::

    etcd's text          a stub, one a place                    shared by all: `FIRE`
    ┌──────────┐         ┌──────────────────────────────┐       ┌────────────────────────────────────────────────┐
    │ jmp stub │ ──────> │ hits += 1                    │       │ tid, time, fired += 1                          │
    └──────────┘         │ hits == trigger? ── call ──> │ ────> │ write the cell to the pipe, if there is one    │
    ┌──────────┐         │ what was in etcd's text      │       │ HOLD: wait for `release` != 0 or the deadline  │
    │ next     │ <────── │ jmp next                     │       │ end_ns, done += 1                              │
    └──────────┘         └──────────────────────────────┘       │ KILL: SIGKILL to the own process               │
                                                                └────────────────────────────────────────────────┘

    offset  bytes  in a cell of 128 bytes, little-endian                                     written by
    0       8      HITS       how often the place was passed since the process started       the hook
    8       8      TRIGGER    the value of HITS at which it fires; 0: never                  Pekan
    16      8      ACTION     KILL, HOLD, both (first the hold) or neither                   Pekan
    24      8      HOLD_NS    how long at most                                               Pekan
    32      4      RELEASE    futex word: store 1 and wake it to end a hold at once          Pekan
    40      8      FIRED      how often it fired                                             the hook
    48      8      TID        the thread that fired last                                     the hook
    56      8      TIME_NS    when, CLOCK_MONOTONIC by system call (the vDSO may be skewed)  the hook
    64      8      DONE       how many firings have come to the end of their hold            the hook
    72      8      END_NS     when the last one did                                          the hook
    80      8      FD         the pipe, non-blocking, or -1; gets the 128 bytes of the cell  Pekan, before the start
    88      8      INDEX      the number of the cell, so that a record says whose it is      Pekan, before the start
    96      32     the deadline and a time stamp                                             the hook

Two firings of one cell must not overlap: arm it again only when DONE equals FIRED. ACTION is read before the hold for HOLD and after it for
KILL: to let a held thread live, clear ACTION before RELEASE. The memory outlives the process, so a cell read after a SIGKILL is evidence.

What Go requires of code that it knows nothing about, and how it is met: all registers and flags are as before (vector registers are not
touched, and system calls keep them); less than 128 bytes of stack are used, which every goroutine has below its limit (StackSmall,
runtime/stack.go), and Go keeps nothing below the stack pointer; the return address of `call` never lies on the stack when Go walks it,
since a signal that arrives here finds a pc outside of Go's text and asks for no preemption (runtime/preempt.go, wantAsyncPreempt and
isAsyncSafePoint). Go interrupts a running thread every 10 ms (SIGURG), so the wait goes on after EINTR, to an absolute deadline.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

CELL_BYTES: Final = 128
"""Two cache lines, so that neighbours that count on different processors do not slow each other down."""

HITS: Final = 0
TRIGGER: Final = 8
ACTION: Final = 16
HOLD_NS: Final = 24
RELEASE: Final = 32
FIRED: Final = 40
TID: Final = 48
TIME_NS: Final = 56
DONE: Final = 64
END_NS: Final = 72
FD: Final = 80
INDEX: Final = 88

JUMP_BYTES: Final = 5
"""Length of `jmp rel32`, which reaches two gigabytes in either direction."""

KILL: Final = 1
HOLD: Final = 2

ALIGNMENT: Final = 16
"""Where stubs begin: a multiple of what the processor fetches at once."""

# Bytes of an instruction and what they mean, as a disassembler prints it (offsets of jumps are from the first row). rbx is the cell.
FIRE_LISTING: Final = (
    # Everything that system calls and the arithmetic below change; rax, rbx and the flags are saved by the stub.
    ("51", "push rcx"),
    ("52", "push rdx"),
    ("56", "push rsi"),
    ("57", "push rdi"),
    ("4150", "push r8"),
    ("4151", "push r9"),
    ("4152", "push r10"),
    ("4153", "push r11"),
    # TID = gettid()
    ("b8ba000000", "mov eax,0xba"),
    ("0f05", "syscall"),
    ("48894330", "mov [rbx+0x30],rax"),
    # TIME_NS = clock_gettime(CLOCK_MONOTONIC) in nanoseconds
    ("b8e4000000", "mov eax,0xe4"),
    ("bf01000000", "mov edi,1"),
    ("488d7370", "lea rsi,[rbx+0x70]"),
    ("0f05", "syscall"),
    ("4869437000ca9a3b", "imul rax,[rbx+0x70],0x3b9aca00"),
    ("48034378", "add rax,[rbx+0x78]"),
    ("48894338", "mov [rbx+0x38],rax"),
    # the deadline: TIME_NS + HOLD_NS as seconds and nanoseconds
    ("48034318", "add rax,[rbx+0x18]"),
    ("31d2", "xor edx,edx"),
    ("b900ca9a3b", "mov ecx,0x3b9aca00"),
    ("48f7f1", "div rcx"),
    ("48894360", "mov [rbx+0x60],rax"),
    ("48895368", "mov [rbx+0x68],rdx"),
    # FIRED += 1
    ("f048ff4328", "lock inc qword [rbx+0x28]"),
    # write(FD, cell, 128) unless FD is negative; one piece, or nothing when the pipe is full (PIPE_BUF, pipe(7))
    ("488b7b50", "mov rdi,[rbx+0x50]"),
    ("4885ff", "test rdi,rdi"),
    ("780f", "js 0x6a"),
    ("4889de", "mov rsi,rbx"),
    ("ba80000000", "mov edx,0x80"),
    ("b801000000", "mov eax,1"),
    ("0f05", "syscall"),
    # 6a: HOLD?
    ("f6431002", "test byte [rbx+0x10],2"),
    ("7436", "je 0xa6"),
    # 70: RELEASE != 0 ends it
    ("837b2000", "cmp dword [rbx+0x20],0"),
    ("7530", "jne 0xa6"),
    # futex(&RELEASE, FUTEX_WAIT_BITSET, 0, &deadline, NULL, FUTEX_BITSET_MATCH_ANY): shared between processes, absolute CLOCK_MONOTONIC
    ("b8ca000000", "mov eax,0xca"),
    ("488d7b20", "lea rdi,[rbx+0x20]"),
    ("be09000000", "mov esi,9"),
    ("31d2", "xor edx,edx"),
    ("4c8d5360", "lea r10,[rbx+0x60]"),
    ("4531c0", "xor r8d,r8d"),
    ("41b9ffffffff", "mov r9d,0xffffffff"),
    ("0f05", "syscall"),
    # again after a wake, EINTR or EAGAIN; ETIMEDOUT, and whatever else a kernel may refuse with, ends it
    ("4885c0", "test rax,rax"),
    ("74d6", "je 0x70"),
    ("4883f8fc", "cmp rax,0xfffffffffffffffc"),
    ("74d0", "je 0x70"),
    ("4883f8f5", "cmp rax,0xfffffffffffffff5"),
    ("74ca", "je 0x70"),
    # a6: END_NS = now
    ("b8e4000000", "mov eax,0xe4"),
    ("bf01000000", "mov edi,1"),
    ("488d7370", "lea rsi,[rbx+0x70]"),
    ("0f05", "syscall"),
    ("4869437000ca9a3b", "imul rax,[rbx+0x70],0x3b9aca00"),
    ("48034378", "add rax,[rbx+0x78]"),
    ("48894348", "mov [rbx+0x48],rax"),
    # DONE += 1
    ("f048ff4340", "lock inc qword [rbx+0x40]"),
    # KILL?
    ("f6431001", "test byte [rbx+0x10],1"),
    ("7415", "je 0xe6"),
    # kill(getpid(), SIGKILL)
    ("b827000000", "mov eax,0x27"),
    ("0f05", "syscall"),
    ("89c7", "mov edi,eax"),
    ("be09000000", "mov esi,9"),
    ("b83e000000", "mov eax,0x3e"),
    ("0f05", "syscall"),
    # e6: as if nothing had happened
    ("415b", "pop r11"),
    ("415a", "pop r10"),
    ("4159", "pop r9"),
    ("4158", "pop r8"),
    ("5f", "pop rdi"),
    ("5e", "pop rsi"),
    ("5a", "pop rdx"),
    ("59", "pop rcx"),
    ("c3", "ret"),
)

# The stub of cell 0x11223344 with `FIRE` right before it, at -0x100: the two numbers that differ between stubs.
STUB_LISTING: Final = (
    ("9c", "pushf"),
    ("50", "push rax"),
    ("53", "push rbx"),
    ("bb44332211", "mov ebx,0x11223344"),
    ("b801000000", "mov eax,1"),
    ("f0480fc103", "lock xadd [rbx],rax"),
    ("48ffc0", "inc rax"),
    ("483b4308", "cmp rax,[rbx+8]"),
    ("7505", "jne 0x20"),
    ("e8e0feffff", "call 0xffffffffffffff00"),
    ("5b", "pop rbx"),
    ("58", "pop rax"),
    ("9d", "popf"),
)


class Refused(Exception):
    """No hook can be at this place; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Moved:
    """`length` bytes at the old place may be overwritten; `code` does the same at the new place and goes on after them."""

    length: int
    code: bytes


def assemble(listing: tuple[tuple[str, str], ...]) -> bytes:
    """The bytes of a listing."""
    return b"".join(bytes.fromhex(code) for code, _ in listing)


FIRE: Final = assemble(FIRE_LISTING)
_STUB: Final = assemble(STUB_LISTING)
_CELL_AT: Final = 4  # the address in `mov ebx`
_CALL_AT: Final = 27  # the `call`
STUB_HEAD_BYTES: Final = len(_STUB)
"""From the beginning of a stub to the relocated instructions."""


def stub(address: int, cell: int, fire: int, moved: Moved) -> bytes:
    """The stub at `address` that counts into the cell at address `cell` (below 4 GiB) and calls `FIRE` at `fire`. `moved` was relocated to
    `address + STUB_HEAD_BYTES`."""
    head = bytearray(_STUB)
    struct.pack_into("<I", head, _CELL_AT, cell)
    struct.pack_into("<i", head, _CALL_AT + 1, fire - (address + _CALL_AT + 5))
    return bytes(head) + moved.code


def patch(address: int, stub_address: int, moved: Moved) -> bytes:
    """What replaces the first `moved.length` bytes at `address`: a jump to the stub; nobody comes to what is left, which is `nop`."""
    return jump(address, stub_address).ljust(moved.length, b"\x90")


def cells(count: int, fd: int = -1) -> bytes:
    """The initial contents of `count` cells: nothing armed, records go to `fd`."""
    fields = struct.Struct(f"<{FD}xqQ{CELL_BYTES - INDEX - 8}x")
    return b"".join(fields.pack(fd, index) for index in range(count))


def jump(origin: int, target: int) -> bytes:
    """`jmp target`, to be placed at `origin`. Raises `Refused` when it does not reach."""
    distance = target - (origin + JUMP_BYTES)
    if not -(1 << 31) <= distance < 1 << 31:
        raise Refused(f"no jump reaches from {origin:#x} to {target:#x}")
    return b"\xe9" + struct.pack("<i", distance)
