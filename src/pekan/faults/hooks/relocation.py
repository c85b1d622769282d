"""Instructions moved elsewhere, so that a jump to a hook can take their place; or the reason why these cannot be.

::

    before                      after
    pc  ┌ instruction 1 ┐       pc  ┌ jmp stub      ┐        stub: count, perhaps fire
        │ instruction 2 │           │ nop ...       │              instruction 1
        └ instruction 3 ┘           └───────────────┘              instruction 2        relocated
    next                        next                 <───────────  instruction 3
                                                                   jmp next

A jump takes five bytes, so the whole instructions that cover them move. What cannot move, and why:

==========================================  ===========================================================================
a call that others of them follow           it would return into the stub, and Go's stack unwinder dies of a return
                                            address that is in no function. The last of them may be a call: the stub
                                            pushes the address after it, where it was, and jumps to what it calls
somebody jumps into the middle of them      he would arrive in the middle of our jump
the function ends before five bytes         what follows is not ours to overwrite; padding between functions is
bytes that are no instruction               nobody knows what they are
==========================================  ===========================================================================

"Somebody" is every branch of the function, every entry of its jump tables, and the runtime itself, which resumes a function that recovered
from a panic at its call of deferreturn. Where a jump table cannot be found, only the function's entry is hooked, to which none leads.

One thing changes for code that runs in a stub: an invalid memory access there (a nil pointer) ends the process as a fault outside of Go
instead of raising Go's panic. etcd recovers from neither.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import Final

from iced_x86 import BlockEncoder, Code, Decoder, FlowControl, Instruction, Mnemonic, Register

from pekan.faults.hooks.gobinary import Function, GoBinary
from pekan.faults.hooks.stub import JUMP_BYTES, Moved, Refused, jump

_PADDING: Final = 0xCC  # what Go's linker puts between functions on x86-64: int3, which nothing reaches

_JUMP_TABLE_ENTRIES_MAX: Final = 4096  # the largest that Go's compiler makes for a switch of etcd's dependencies has a few hundred

CALLS: Final = frozenset({FlowControl.CALL, FlowControl.INDIRECT_CALL})
BRANCHES: Final = frozenset({FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.XBEGIN_XABORT_XEND})
NEVER_FALLS_THROUGH: Final = frozenset(
    {FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN, FlowControl.INDIRECT_BRANCH, FlowControl.EXCEPTION, FlowControl.INTERRUPT}
)


class FunctionCode:
    """One function's instructions and every place in it that something jumps to."""

    def __init__(self, binary: GoBinary, function: Function) -> None:
        self.function = function
        self._bytes = binary.code(function)
        self._resume = binary.resume_address(function)
        self._binary = binary

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        return tuple(Decoder(64, self._bytes, ip=self.function.entry))

    @cached_property
    def targets(self) -> frozenset[int]:
        """Addresses inside the function that are jumped to."""
        function = self.function
        found = {
            instruction.near_branch_target
            for instruction in self.instructions
            if instruction.flow_control in BRANCHES and function.entry <= instruction.near_branch_target < function.end
        }
        if self._resume is not None:
            found.add(self._resume)
        for addresses in self.jump_tables.values():
            found.update(addresses)
        return frozenset(found)

    @cached_property
    def indirect_jumps(self) -> int:
        """How many jumps of the function go where a register or memory says: a switch through a table, or a tail call."""
        return sum(instruction.flow_control == FlowControl.INDIRECT_BRANCH for instruction in self.instructions)

    @cached_property
    def jump_tables(self) -> dict[int, tuple[int, ...]]:
        """Addresses in the tables that this function takes the address of, by the table's address. Go compiles a large switch to
        `lea table, reg; jmp [reg + index*8]` with absolute addresses in the table (since Go 1.19)."""
        if not self.indirect_jumps:
            return {}
        taken = {
            instruction.memory_displacement
            for instruction in self.instructions
            if instruction.mnemonic == Mnemonic.LEA and instruction.memory_base == Register.RIP
        }
        tables = {address: self._table_at(address) for address in sorted(taken)}
        return {address: table for address, table in tables.items() if table}

    def _table_at(self, address: int) -> tuple[int, ...]:
        found: list[int] = []
        for number in range(_JUMP_TABLE_ENTRIES_MAX):
            entry = address + 8 * number
            if not self._binary.holds(entry, 8):
                break
            target = struct.unpack("<Q", self._binary.read(entry, 8))[0]
            if not self.function.entry <= target < self.function.end:
                break
            found.append(target)
        return tuple(found)

    @cached_property
    def _index(self) -> dict[int, int]:
        return {instruction.ip: number for number, instruction in enumerate(self.instructions)}

    def move(self, address: int, destination: int) -> Moved:
        """The instructions at `address` that a jump would cover, made to run at `destination`. Raises `Refused`."""
        taken = self._taken(address)
        last = taken[-1]
        length = max(last.next_ip - address, JUMP_BYTES)
        if last.flow_control in CALLS:
            taken[-1:] = _as_jump(last)
        encoder = BlockEncoder(64)
        encoder.add_many(taken)
        try:
            code: bytes = encoder.encode(destination)
        except ValueError as error:
            raise Refused(f"the instructions at {address:#x} cannot be moved: {error}") from error
        if taken[-1].flow_control not in NEVER_FALLS_THROUGH:
            code += jump(destination + len(code), address + length)
        return Moved(length, code)

    def _taken(self, address: int) -> list[Instruction]:
        """The instructions that a jump at `address` covers, all of which may move."""
        number = self._index.get(address)
        if number is None:
            raise Refused(f"no instruction begins at {address:#x}")
        if len(self.jump_tables) < self.indirect_jumps and address != self.function.entry:
            raise Refused("the function jumps through a table that was not found, so who jumps to this place is unknown")
        taken: list[Instruction] = []
        end = address
        while end < address + JUMP_BYTES:
            if taken and taken[-1].flow_control in NEVER_FALLS_THROUGH:
                if self._is_padding(end, address + JUMP_BYTES):
                    break
                raise Refused(f"the code ends {end - address} bytes after {address:#x}, and a jump takes {JUMP_BYTES}")
            if number >= len(self.instructions):
                raise Refused(f"the function ends {end - address} bytes after {address:#x}, and a jump takes {JUMP_BYTES}")
            instruction = self.instructions[number]
            self._check(instruction, first=not taken, last=instruction.next_ip >= address + JUMP_BYTES)
            taken.append(instruction)
            end = instruction.next_ip
            number += 1
        return taken

    def _check(self, instruction: Instruction, *, first: bool, last: bool) -> None:
        """Raises `Refused` for an instruction that may not move."""
        if instruction.is_invalid:
            raise Refused(f"the bytes at {instruction.ip:#x} are no instruction")
        if instruction.flow_control in CALLS and not last:
            raise Refused(f"the call at {instruction.ip:#x} would return into the hook, which Go's stack unwinder does not survive")
        if not first and instruction.ip in self.targets:
            raise Refused(f"something jumps to {instruction.ip:#x}, into the middle of the hook's jump")

    def _is_padding(self, start: int, end: int) -> bool:
        """Whether [start, end) is inside the function's range and holds nothing but what the linker puts between functions."""
        function = self.function
        return end <= function.end and all(byte == _PADDING for byte in self._bytes[start - function.entry : end - function.entry])


def _as_jump(call: Instruction) -> list[Instruction]:
    """The same as the call without returning to where it is moved: a push of where it returned to, and a jump."""
    if call.flow_control == FlowControl.INDIRECT_CALL:
        if call.memory_base == Register.RSP or call.memory_index == Register.RSP:
            raise Refused(f"the call at {call.ip:#x} finds its target relative to the stack pointer, which the hook would move")
        target = call.copy()
        target.code = Code.JMP_RM64
    else:
        target = Instruction.create_branch(Code.JMP_REL32_64, call.near_branch_target)
    return [Instruction.create_i32(Code.PUSHQ_IMM32, call.next_ip), target]
