"""Where in the machine code a source line begins: the compiler mixes lines, and gives one line several ranges of instructions.

::

    function entry ──> ... ──> first instruction of the line      this is hooked
                                   │
                                   v
                               other lines, inlined calls ──> more instructions of the same line      these are not

A line is passed when execution that comes from the function's entry, or from the line's own end around a loop, reaches one of its
instructions before any other. Where paths reach it in two places (one side of a branch each), both are hooked and count into one cell.

`after_call` is for places that have no line of their own, such as the end of a block: the instruction to which the last call of a line
returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from iced_x86 import FlowControl, Instruction

from pekan.faults.hooks.gobinary import Function, GoBinary, LineRange
from pekan.faults.hooks.relocation import FunctionCode

# What Go calls and never returns from (runtime/panic.go): the instruction after such a call is reached by nobody.
_ENDS: Final = ("runtime.panic", "runtime.goPanic", "runtime.gopanic", "runtime.throw", "runtime.fatal", "runtime.sigpanic")

_BRANCHES: Final = frozenset({FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH})
_STOPS: Final = frozenset(
    {FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN, FlowControl.INDIRECT_BRANCH, FlowControl.EXCEPTION, FlowControl.INTERRUPT}
)


class Flow:
    """Who follows whom among one function's instructions."""

    def __init__(self, binary: GoBinary, function: Function) -> None:
        self.binary = binary
        self.code = FunctionCode(binary, function)
        self.function = function
        self.by_address = {instruction.ip: instruction for instruction in self.code.instructions}
        self._tables = [target for table in self.code.jump_tables.values() for target in table]

    def followers(self, instruction: Instruction) -> list[int]:
        """Addresses in the function where execution goes on after `instruction`."""
        kind = instruction.flow_control
        found: list[int] = []
        if kind in _BRANCHES and instruction.near_branch_target in self.by_address:
            found.append(instruction.near_branch_target)
        elif kind == FlowControl.INDIRECT_BRANCH:
            found.extend(target for target in self._tables if target in self.by_address)
        if kind not in _STOPS and instruction.next_ip in self.by_address and not self._never_returns(instruction):
            found.append(instruction.next_ip)
        return found

    def _never_returns(self, instruction: Instruction) -> bool:
        if instruction.flow_control != FlowControl.CALL:
            return False
        callee = self.binary.function_at(instruction.near_branch_target)
        return callee is not None and callee.name.startswith(_ENDS)

    def first_of(self, ranges: Iterable[LineRange]) -> tuple[int, ...]:
        """The instructions of these ranges that execution reaches before any other of them, in order of addresses."""
        wanted = self._inside(ranges)
        found: set[int] = set()
        seen = {self.function.entry}
        waiting = [self.function.entry]
        while waiting:
            address = waiting.pop()
            if address in wanted:
                found.add(address)
                continue
            for follower in self.followers(self.by_address[address]):
                if follower not in seen:
                    seen.add(follower)
                    waiting.append(follower)
        return tuple(sorted(found))

    def after_call(self, ranges: Iterable[LineRange], callee: str | None = None) -> tuple[int, ...]:
        """The instruction after the last call of these ranges; with `callee`, of the last call of a function whose name contains it.
        A call through an interface or a function value has no name."""
        found: list[int] = []
        for address in sorted(self._inside(ranges)):
            instruction = self.by_address[address]
            if instruction.flow_control not in (FlowControl.CALL, FlowControl.INDIRECT_CALL) or self._never_returns(instruction):
                continue
            if callee is not None:
                called = self.binary.function_at(instruction.near_branch_target) if instruction.flow_control == FlowControl.CALL else None
                if called is None or callee not in called.name:
                    continue
            if instruction.next_ip in self.by_address:
                found.append(instruction.next_ip)
        return tuple(found[-1:])

    def _inside(self, ranges: Iterable[LineRange]) -> set[int]:
        spans = [(part.start, part.end) for part in ranges]
        return {address for address in self.by_address if any(start <= address < end for start, end in spans)}


def lines_where(binary: GoBinary, function: Function, matches: Callable[[LineRange], bool]) -> list[LineRange]:
    """The ranges of the function's line table that match."""
    return [part for part in binary.lines(function) if matches(part)]
