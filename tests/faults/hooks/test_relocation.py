"""What may be moved out of a function and what may not, on instructions written down by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from iced_x86 import Decoder, Instruction

from pekan.faults.hooks.gobinary import Function
from pekan.faults.hooks.relocation import FunctionCode
from pekan.faults.hooks.stub import Moved, Refused, jump

from .executables import points

AT = 0x401000
TO = 0x30000000


@dataclass(frozen=True)
class Program:
    """What `FunctionCode` asks of an executable: one function at `AT`, and memory with jump tables."""

    text: bytes
    resume: int | None = None
    memory: bytes = b""
    memory_at: int = 0x600000

    def code(self, _function: Function) -> bytes:
        return self.text

    def resume_address(self, _function: Function) -> int | None:
        return self.resume

    def holds(self, address: int, size: int) -> bool:
        return self.memory_at <= address and address + size <= self.memory_at + len(self.memory)

    def read(self, address: int, size: int) -> bytes:
        return self.memory[address - self.memory_at :][:size]


def function(text: str, **more: object) -> FunctionCode:
    data = bytes.fromhex(text)
    return FunctionCode(Program(data, **more), Function("f", AT, AT + len(data), 0))  # type: ignore[arg-type]


def moved(text: str, at: int = 0, **more: object) -> tuple[Moved, list[Instruction]]:
    result = function(text, **more).move(AT + at, TO)
    return result, list(Decoder(64, result.code, ip=TO))


def test_whole_instructions_move_and_a_jump_goes_back() -> None:
    """Three bytes and four: seven are replaced, and what was moved continues right after them."""
    result, code = moved("4889c8 4883ec10 90 c3")  # mov rax, rcx; sub rsp, 16; nop; ret
    assert result.length == 7
    assert [str(each) for each in code[:2]] == ["mov rax,rcx", "sub rsp,10h"]
    assert code[2].near_branch_target == AT + 7


def test_addresses_relative_to_the_instruction_keep_their_meaning() -> None:
    """A load relative to the instruction pointer and a conditional jump reach the same places from far away."""
    _, code = moved("488b0510000000 c3")  # mov rax, [rip+0x10]
    assert code[0].memory_displacement == AT + 7 + 0x10
    _, code = moved("4885c0 7504 90909090 c3 c3")  # test rax, rax; jne +4
    assert code[1].near_branch_target == AT + 9


def test_a_call_at_the_end_returns_to_where_it_was() -> None:
    """A call that is the last instruction becomes a push of the address after it and a jump: no return address lies in the stub."""
    result, code = moved("4889c8 e8f00f0000 c3")  # mov rax, rcx; call +0xff0
    assert result.length == 8
    assert [each.immediate(0) for each in code if str(each).startswith("push")] == [AT + 8]
    assert code[-1].near_branch_target == AT + 8 + 0xFF0
    result, code = moved("488b4818 ffd1 c3")  # mov rcx, [rax+0x18]; call rcx
    assert result.length == 6
    assert [str(each) for each in code[-2:]] == ["push 401006h", "jmp rcx"]


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("ffd1 4889c8 c3", 0, "the call at 0x401000 would return into the hook"),
        ("4889c8 4883ec10 ebf7 c3", 0, "something jumps to 0x401000"),
        ("4889c8 4889c1 4885c0 75f8 c3", 0, "something jumps to 0x401003, into the middle"),
        ("31c0 c3 4889c84889c8", 0, "the code ends 3 bytes after 0x401000"),
        ("31c0 31c0", 0, "the function ends 4 bytes after 0x401000"),
        ("06 4889c84889c8", 0, "the bytes at 0x401000 are no instruction"),
        ("4889c84889c8", 1, "no instruction begins at 0x401001"),
        ("48ffc0 ff542408 c3", 0, "relative to the stack pointer"),
        ("ff e1 4889c8 4889c8 c3", 2, "the function jumps through a table that was not found"),
    ],
)
def test_what_cannot_move_says_why(text: str, at: int, why: str) -> None:
    """Each reason of the module's table, and none of them silently."""
    code = function(text)
    if "something jumps to 0x401000" in why:
        # A jump to the first instruction of the patch lands on our own jump, and is no reason.
        assert code.move(AT + at, TO).length == 7
        return
    with pytest.raises(Refused, match=why):
        code.move(AT + at, TO)


def test_padding_after_a_short_function_may_be_overwritten() -> None:
    """The linker's filling between functions is reached by nobody; code is."""
    result, code = moved("31c0 c3 cc cc cc cc cc")
    assert result.length == 5
    assert [str(each) for each in code] == ["xor eax,eax", "ret"]


def test_entries_of_a_jump_table_are_jumped_to() -> None:
    """lea rax, [table]; jmp [rax+rcx*8]: what the table names cannot be in the middle of a patch, and other places can be hooked."""
    text = "488d05f9ef1f00 ff24c8 4889c8 4889c1 4889c2 4889c3 c3"
    table = b"".join((AT + offset).to_bytes(8, "little") for offset in (10, 16)) + bytes(8)
    with pytest.raises(Refused, match="something jumps to 0x401010"):
        moved(text, 13, memory=table)
    assert moved(text, 10, memory=table)[0].length == 6


def test_where_a_recovered_panic_resumes_is_jumped_to() -> None:
    """The runtime resumes a function at its call of deferreturn without a jump in the code."""
    text = "4889c8 4889c1 e8f00f0000 c3"
    assert moved(text)[0].length == 6
    with pytest.raises(Refused, match="something jumps to 0x401003"):
        moved(text, resume=AT + 3)


def test_a_jump_reaches_two_gigabytes() -> None:
    """Beyond that there is no hook, and no wrong one."""
    assert jump(0x401000, 0x401005) == b"\xe9\0\0\0\0"
    with pytest.raises(Refused, match="no jump reaches"):
        jump(0x401000, 0x401005 + (1 << 31))


@pytest.mark.parametrize("version", ["3.4.23", "3.5.1", "3.5.16", "3.7.3"])
def test_nearly_every_entry_of_etcd_can_be_hooked(version: str) -> None:
    """More than 99 of 100 functions of etcd's packages have an entry whose instructions can move."""
    here = points(version)
    refused = 0
    functions = [here.binary.by_name[name] for name in here.functions()]
    for each in functions[::7]:
        try:
            FunctionCode(here.binary, each).move(each.entry, TO)
        except Refused:
            refused += 1
    assert len(functions) > 3_000
    assert refused * 100 < len(functions) // 7
