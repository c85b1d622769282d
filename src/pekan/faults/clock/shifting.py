"""One member's clocks shifted: what its own program reads, and nobody else's.

Programs read the time through the vDSO, a small library that the kernel maps into every process and that answers without a system call. At
the member's exec stop its `clock_gettime` is replaced in that one process::

    Go's time.Now ──> __vdso_clock_gettime ──jmp──> planted code: asks the kernel, adds what the shared page says ──> the time

    shared page     word 0   added to the wall clocks, ns        word 2   readings of a wall clock that were shifted
                    word 1   added to the monotonic clocks, ns   word 3   readings of a monotonic clock that were shifted

A jump is then one store into the shared page: no stop, no permission. The price is a system call for each reading (about 0.1 us instead of
0.03 us). What waits in the kernel for a length of time is not shifted; Go keeps its timers by the clock it reads, so that a jump forward
lets all of them expire that it passes.

**A monotonic clock never goes backwards.** Nothing that etcd or Go promise holds where it does, and no machine has such a fault. So the
monotonic offset only grows, and it stays: over heals, and over restarts of the member, as on a machine that woke up from a suspension.
The wall clock may be set in any direction, and is.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from pekan.errors import EnvironmentFailure
from pekan.faults.ability import Ability, able, unable
from pekan.faults.equipment import Equipment, Site
from pekan.faults.hooks.planting import PAGE_BYTES, REMEDY, Code, Replacement, Shared, SharedMemory, attachment, why_not, write_patches

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec

CODE_AT: Final = 0x10000
SHARED_AT: Final = 0x11000
WALL, MONOTONIC, WALL_READ, MONOTONIC_READ = range(4)

_SIGNED = 1 << 63
_WORD = 1 << 64

# In: edi = which clock, rsi = where the seconds and nanoseconds go. Free to change: rax, rcx, rdx, r8 to r11 (System V ABI).
_CODE: Final = b"".join(
    (
        bytes.fromhex("b8e4000000 0f05"),  # mov eax, clock_gettime; syscall
        bytes.fromhex("85c0 7558"),  # test eax, eax; jnz done            an error: as it is
        bytes.fromhex("83ff0b 7753"),  # cmp edi, 11; ja done             clocks of processes and devices: as they are
        b"\x49\xb8" + struct.pack("<Q", SHARED_AT),  # mov r8, SHARED_AT
        bytes.fromhex("41b921090000 410fa3f9"),  # mov r9d, 0x921; bt r9d, edi      REALTIME, _COARSE, _ALARM, TAI
        bytes.fromhex("7210"),  # jc shift
        bytes.fromhex("41b9d2020000 410fa3f9"),  # mov r9d, 0x2d2; bt r9d, edi      MONOTONIC, _RAW, _COARSE, BOOTTIME, _ALARM
        bytes.fromhex("7331"),  # jnc done                                          processor time: as it is
        bytes.fromhex("4983c008"),  # add r8, 8
        bytes.fromhex("4d8b10"),  # shift: mov r10, [r8]                  after the clock was read: offsets only grow in the order of time
        bytes.fromhex("4d85d2 7425"),  # test r10, r10; jz done
        bytes.fromhex("f049ff4010"),  # lock inc qword [r8 + 16]
        bytes.fromhex("488b06 b900ca9a3b 48f7e1"),  # mov rax, [rsi]; mov ecx, 1000000000; mul rcx
        bytes.fromhex("48034608 4c01d0"),  # add rax, [rsi + 8]; add rax, r10
        bytes.fromhex("31d2 48f7f1"),  # xor edx, edx; div rcx
        bytes.fromhex("488906 48895608"),  # mov [rsi], rax; mov [rsi + 8], rdx
        bytes.fromhex("31c0"),  # xor eax, eax
        bytes.fromhex("c3"),  # done: ret
    )
)
_JUMP: Final = b"\x48\xb8" + struct.pack("<Q", CODE_AT) + b"\xff\xe0"  # mov rax, CODE_AT; jmp rax

AT_SYSINFO_EHDR = 33  # getauxval(3): where the vDSO is mapped
PT_LOAD, PT_DYNAMIC = 1, 2
DT_STRTAB, DT_SYMTAB = 5, 6
SYMBOL_BYTES = 24
VDSO_BYTES_MAX = 64 * 1024  # two pages on the kernels of today

POLL_S = 0.002
"""Between two looks at whether a member has read its clock: busy members read it thousands of times a second, idle ones each 100 ms."""


class Clock(Equipment):
    """Every member's `clock_gettime` replaced, offsets all zero at first."""

    name: ClassVar[str] = "clock"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._memory: dict[str, SharedMemory] = {}

    @classmethod
    def probe(cls) -> Ability:
        if reason := why_not():
            return unable(cls.name, reason, REMEDY)
        try:
            _replacement()
        except EnvironmentFailure as error:
            return unable(cls.name, str(error), "a kernel with a vDSO for x86-64 (not started with vdso=0)")
        return able(cls.name, "through the vDSO of the member")

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        """A member that comes again keeps its offsets: its monotonic clock must not go backwards."""
        surrounded = []
        for member in members:
            file = self.site.directory / "scratch" / f"clock-{member.name}"
            write_patches(file, [Code(CODE_AT, _CODE)], [Shared(SHARED_AT, PAGE_BYTES)], vdso=[_replacement()])
            memory = self._memory.get(member.name)
            if memory is None:
                memory = self._memory[member.name] = SharedMemory(f"clock-{member.name}", PAGE_BYTES)
            others = (each for each in member.attachments if memory.fd not in each.fds)
            surrounded.append(replace(member, attachments=(*others, attachment(file, memory))))
        return tuple(surrounded)

    async def close(self) -> None:
        for memory in self._memory.values():
            memory.close()

    def offset_ns(self, member: str, which: int) -> int:
        """What is added to the member's clock (`WALL` or `MONOTONIC`) now, ns."""
        word = self._memory[member].words[which]
        return word - _WORD if word >= _SIGNED else word

    def shift(self, member: str, which: int, ns: int) -> None:
        """Add `ns` to the offset of the member's clock. A monotonic clock takes no negative ones."""
        assert which == WALL or ns >= 0, "a monotonic clock never goes backwards"
        words = self._memory[member].words
        words[which] = (words[which] + ns) % _WORD

    def readings(self, member: str, which: int) -> int:
        """How many times the member has read that clock while it was shifted, over all its incarnations."""
        return self._memory[member].words[which + WALL_READ]

    async def until_read(self, member: str, which: int, after: int) -> int:
        """The number of readings once it is above `after`; the caller bounds the wait."""
        while (now := self.readings(member, which)) <= after:
            await asyncio.sleep(POLL_S)
        return now


def _replacement() -> Replacement:
    """The jump in the place of the first instructions of `clock_gettime` in the vDSO, which is the same in every process of one kernel."""
    image = _vdso()
    offset, size = _symbols(image).get("__vdso_clock_gettime", (0, 0))
    if size < len(_JUMP):
        raise EnvironmentFailure("the kernel's vDSO has no clock_gettime to replace")
    return Replacement(offset, image[offset : offset + len(_JUMP)], _JUMP)


def _vdso() -> bytes:
    """This process's own, from memory."""
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    address = libc.getauxval(ctypes.c_ulong(AT_SYSINFO_EHDR))
    if not address:
        raise EnvironmentFailure("this process has no vDSO")
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            if line.rstrip().endswith("[vdso]"):
                first, last = (int(part, 16) for part in line.split()[0].split("-"))
                return ctypes.string_at(address, min(last - first, VDSO_BYTES_MAX))
    raise EnvironmentFailure("the vDSO is not in /proc/self/maps")


def _symbols(image: bytes) -> dict[str, tuple[int, int]]:
    """Offset and size of each function in the image. Layout: elf(5); the kernel's linker script puts the string table right behind the
    symbols."""
    (program_headers,) = struct.unpack_from("<Q", image, 32)
    (count,) = struct.unpack_from("<H", image, 56)
    base = dynamic = None
    for number in range(count):
        kind, _, offset, address = struct.unpack_from("<IIQQ", image, program_headers + 56 * number)
        if kind == PT_LOAD and base is None:
            base = address
        if kind == PT_DYNAMIC:
            dynamic = offset
    if base is None or dynamic is None:
        raise EnvironmentFailure("the kernel's vDSO is laid out in an unknown way")
    tables = {}
    for tag, value in struct.iter_unpack("<QQ", image[dynamic : dynamic + (len(image) - dynamic) // 16 * 16]):
        if tag == 0:
            break
        tables[tag] = value - base
    symbols, strings = tables[DT_SYMTAB], tables[DT_STRTAB]
    found = {}
    for at in range(symbols, strings - SYMBOL_BYTES + 1, SYMBOL_BYTES):
        name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", image, at)
        if name:
            end = image.index(b"\0", strings + name)
            found[image[strings + name : end].decode("ascii", "replace")] = (value - base, size)
    return found
