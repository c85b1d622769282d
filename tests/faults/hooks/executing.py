"""Random functions run as they are and run with hooks in them: `python executing.py SEED CASES`. A program of its own, since a mistake in
machine code ends the process.

Each function computes with nine registers and the flags, reads constants relative to the instruction pointer, jumps forward over some of
its instructions, calls directly and through a register, and in the end stores all registers and the flags. Then hooks are put at several
of its instructions, half of them armed, and it runs again: everything stored has to be the same, what no jump can skip is counted once,
what is armed has fired once if it was passed.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
import sys
from dataclasses import dataclass, field

from pekan.faults.hooks import stub
from pekan.faults.hooks.gobinary import Function
from pekan.faults.hooks.patches import CELLS_ADDRESS, CODE_ADDRESS, patches_for
from pekan.faults.hooks.points import Point

TEXT = 0x20000000
TEXT_BYTES = 0x4000
HELPER = TEXT + 0x3000  # add rax, 7; ret
CONSTANTS = TEXT + 0x3800
REGISTERS = (0, 1, 2, 6, 7, 8, 9, 10, 11)  # rax rcx rdx rsi rdi r8 to r11; rbx holds where to store
STORED = len(REGISTERS) + 1
HOOKS_MAX = 6
INSTRUCTIONS = (5, 40)

MAP_FIXED_NOREPLACE = 0x100000
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def mapped(address: int, size: int) -> None:
    """Private memory at exactly `address` that can be written and run."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    got = libc.mmap(address, size, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
    if got != address:
        raise OSError(ctypes.get_errno(), f"mmap at {address:#x}")


def both(register: int, other: int, *opcode: int) -> bytes:
    """An instruction with two registers of 64 bits: `opcode` r/m=register, reg=other."""
    return bytes([0x48 | (register > 7) | (other > 7) << 2, *opcode, 0xC0 | (other & 7) << 3 | register & 7])


def random_instruction(rng: random.Random, at: int) -> bytes:
    """One instruction for address `at` that neither jumps nor leaves anything on the stack."""
    a, b = rng.choice(REGISTERS), rng.choice(REGISTERS)
    match rng.randrange(12):
        case 0:
            return bytes([0x48 | (a > 7), 0xC7, 0xC0 | a & 7]) + rng.randbytes(4)  # mov a, imm32
        case 1:  # add, sub, xor, and the two that read the carry flag: adc, sbb
            return both(a, b, rng.choice((0x01, 0x29, 0x31, 0x11, 0x19)))
        case 2:  # mov from a constant, relative to the next instruction
            disp = CONSTANTS + 8 * rng.randrange(8) - (at + 7)
            return bytes([0x48 | (a > 7) << 2, 0x8B, 0x05 | (a & 7) << 3]) + struct.pack("<i", disp)
        case 3:
            return both(a, b, 0x39)  # cmp
        case 4:  # cmovcc
            return both(b, a, 0x0F, 0x40 | rng.randrange(16))
        case 5:
            return rng.choice((b"\xf8", b"\xf9", b"\xf5", b"\x90", b"\x66\x90"))  # clc, stc, cmc, nop, a longer nop
        case 6:
            return bytes([0x48 | (a > 7), 0xFF, 0xC0 | a & 7])  # inc, which keeps the carry flag
        case 7:
            return b"\xe8" + struct.pack("<i", HELPER - (at + 5))
        case 8:  # mov ecx, helper
            return b"\xb9" + struct.pack("<I", HELPER)
        case 9:  # lea relative to the next instruction
            return bytes([0x48 | (a > 7) << 2, 0x8D, 0x05 | (a & 7) << 3]) + struct.pack("<i", CONSTANTS - (at + 7))
        case 10:
            return both(a, b, 0x0F, 0xAF)  # imul
        case _:
            return bytes([0x0F, 0x90 | rng.randrange(16), 0xC0])  # setcc al


@dataclass
class Program:
    """One function at `TEXT`; what planning asks of an executable. `certain` are instructions that no jump skips."""

    text: bytes
    starts: list[int] = field(default_factory=list)
    certain: set[int] = field(default_factory=set)

    def function_at(self, address: int) -> Function | None:
        return Function("f", TEXT, TEXT + len(self.text), 0) if TEXT <= address < TEXT + len(self.text) else None

    def code(self, _function: Function) -> bytes:
        return self.text

    def read(self, address: int, size: int) -> bytes:
        return self.text[address - TEXT :][:size]

    def holds(self, address: int, size: int) -> bool:
        return address >= TEXT and address + size <= TEXT + len(self.text)

    def resume_address(self, _function: Function) -> int | None:
        return None


def random_program(rng: random.Random) -> Program:
    text = bytearray()
    program = Program(b"")
    open_jumps: list[tuple[int, int]] = []  # where the offset is, instructions until the target

    def add(code: bytes) -> None:
        at = TEXT + len(text)
        program.starts.append(at)
        if not open_jumps:
            program.certain.add(at)
        text.extend(code)

    add(b"\x53")  # push rbx
    add(b"\x48\x89\xfb")  # mov rbx, rdi
    for register in REGISTERS:
        add(bytes([0x48 | (register > 7), 0xC7, 0xC0 | register & 7]) + rng.randbytes(4))  # mov register, imm32
    for _ in range(rng.randint(*INSTRUCTIONS)):
        choice = rng.randrange(8)
        if choice == 0:  # jcc rel8, forward
            add(bytes([0x70 | rng.randrange(16), 0]))
            open_jumps.append((len(text) - 1, rng.randint(1, 4)))
        elif choice == 1:  # mov ecx, helper; call rcx
            add(b"\xb9" + struct.pack("<I", HELPER))
            add(b"\xff\xd1")
        elif choice == 2:  # push, pop
            a, b = rng.choice(REGISTERS[:5]), rng.choice(REGISTERS[:5])
            add(bytes([0x50 | a]))
            add(bytes([0x58 | b]))
        else:
            add(random_instruction(rng, TEXT + len(text)))
        left = []
        for place, count in open_jumps:
            if count == 0 or len(text) - place > 100:
                text[place] = len(text) - (place + 1)
            else:
                left.append((place, count - 1))
        open_jumps = left
    for place, _ in open_jumps:
        text[place] = len(text) - (place + 1)
    open_jumps = []
    for index, register in enumerate(REGISTERS):  # mov [rbx+8*index], register
        add(bytes([0x48 | (register > 7) << 2, 0x89, 0x43 | (register & 7) << 3, 8 * index]))
    add(b"\x9c")  # pushfq
    add(bytes([0x8F, 0x43, 8 * len(REGISTERS)]))  # pop [rbx+...]
    add(b"\x5b")
    add(b"\xc3")
    program.text = bytes(text)
    return program


def run() -> tuple[int, ...]:
    """Registers and flags that the function at `TEXT` stores."""
    stored = (ctypes.c_uint64 * STORED)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(TEXT)(ctypes.addressof(stored))
    return tuple(stored)


def case(rng: random.Random) -> int:
    """One function, as it is and hooked; how many hooks there were."""
    program = random_program(rng)
    ctypes.memmove(TEXT, program.text, len(program.text))
    expected = run()
    chosen = sorted(rng.sample(program.starts, HOOKS_MAX))
    points = [Point(hex(address), "line", (address,), "f", "f.go", 1) for address in chosen]
    patches = patches_for(program, points)  # type: ignore[arg-type]
    ctypes.memmove(CODE_ADDRESS, patches.code, len(patches.code))
    cells = bytearray(patches.initial_cells())
    armed = {cell for cell in patches.cells.values() if rng.random() < 0.5}
    for cell in armed:
        struct.pack_into("<Q", cells, cell * stub.CELL_BYTES + stub.TRIGGER, 1)
    ctypes.memmove(CELLS_ADDRESS, bytes(cells), len(cells))
    for address, code in patches.writes:
        ctypes.memmove(address, code, len(code))
    got = run()
    assert got == expected, f"stored {got}, without hooks {expected}; hooks at {list(patches.cells)}: {program.text.hex()}"
    after = ctypes.string_at(CELLS_ADDRESS, len(cells))
    for name, cell in patches.cells.items():
        (hits,) = struct.unpack_from("<Q", after, cell * stub.CELL_BYTES + stub.HITS)
        (fired,) = struct.unpack_from("<Q", after, cell * stub.CELL_BYTES + stub.FIRED)
        (done,) = struct.unpack_from("<Q", after, cell * stub.CELL_BYTES + stub.DONE)
        assert hits == 1 if int(name, 16) in program.certain else hits <= 1, (name, hits, program.text.hex())
        assert fired == done == (hits if cell in armed else 0), (name, hits, fired, program.text.hex())
    return len(patches.cells)


def main() -> None:
    seed, cases = int(sys.argv[1]), int(sys.argv[2])
    mapped(TEXT, TEXT_BYTES)
    mapped(CODE_ADDRESS, 0x10000)
    mapped(CELLS_ADDRESS, 0x10000)
    ctypes.memmove(HELPER, b"\x48\x83\xc0\x07\xc3", 5)
    ctypes.memmove(CONSTANTS, bytes(range(1, 65)), 64)
    rng = random.Random(seed)
    print(sum(case(rng) for _ in range(cases)))


if __name__ == "__main__":
    main()
