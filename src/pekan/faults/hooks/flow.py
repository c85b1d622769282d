"""Where in the machine code a source line begins: the compiler mixes lines, and gives one line several ranges of instructions.

::

    1  call A              line 10
    2  mov rcx, [rsp+40]   line 14    a register that line 14 will want, reloaded early: says nothing about line 14
    3  test rax, rax       line 11
    4  jne  ...            line 11
    5  mov rax, [rcx]      line 14    <── the hook: nothing but loads between it and ...
    6  call B              line 14    ... the first thing that line 14 does

What a line *does* is a call, a return, a decision, a store that others can see; loads, moves between registers and stores to the own stack
frame are preparation, which the compiler puts where it likes. A line begins where the preparation of the first thing that it does begins,
without a branch, a call or another line's instruction between. A line that does nothing but preparation begins at its first instruction.
Where paths reach the line's first doing in several places, one or the other, all are hooked and count into one cell.

`after_call` is for places that have no line of their own, such as the end of a block: the instruction to which the last call of a line
returns.

Of the places that mean the same, the first is taken where a hook is possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from iced_x86 import FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register

from pekan.faults.hooks.gobinary import Function, GoBinary, LineRange
from pekan.faults.hooks.relocation import BRANCHES, CALLS, NEVER_FALLS_THROUGH, FunctionCode
from pekan.faults.hooks.stub import Refused

# What Go calls and never returns from (runtime/panic.go): the instruction after such a call is reached by nobody.
_ENDS: Final = ("runtime.panic", "runtime.goPanic", "runtime.gopanic", "runtime.throw", "runtime.fatal", "runtime.sigpanic")

_STACK: Final = frozenset({Register.RSP, Register.RBP})
_WRITES: Final = frozenset({OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE})

# Where a trial of moving instructions pretends to put them: near enough for every jump, as the real place is.
_TRIAL_ADDRESS: Final = 0x30000000


class Flow:
    """Who follows whom among one function's instructions."""

    def __init__(self, binary: GoBinary, function: Function) -> None:
        self.binary = binary
        self.code = FunctionCode(binary, function)
        self.function = function
        self.by_address = {instruction.ip: instruction for instruction in self.code.instructions}
        self._before = {instruction.next_ip: instruction for instruction in self.code.instructions}
        self._tables = [target for table in self.code.jump_tables.values() for target in table]
        self._jumps_to: dict[int, list[int]] = defaultdict(list)
        for instruction in self.code.instructions:
            if instruction.flow_control in BRANCHES:
                self._jumps_to[instruction.near_branch_target].append(instruction.ip)
        self._information = InstructionInfoFactory()

    def begins(self, ranges: Iterable[LineRange]) -> tuple[int, ...]:
        """Where the line with these ranges begins, in order of addresses; empty when no execution reaches it."""
        inside = self._inside(ranges)
        doing = {address for address in inside if self.does(self.by_address[address])}
        first = self._without_forerunners(self._first_of(doing)) if doing else ()
        if not first:
            return tuple(self._possible(self._preparation(address, inside)) for address in self._first_of(inside)[:1])
        found = dict.fromkeys(self._possible(self._preparation(address, inside)) for address in first)
        return tuple(sorted(found))

    def after_call(self, ranges: Iterable[LineRange]) -> tuple[int, ...]:
        """Where the last call of the line with these ranges returns to; empty when it has none."""
        calls = [
            self.by_address[address]
            for address in sorted(self._inside(ranges))
            if self.by_address[address].flow_control in CALLS and not self._never_returns(self.by_address[address])
        ]
        if not calls or calls[-1].next_ip not in self.by_address:
            return ()
        places = [calls[-1].next_ip]
        while (
            not self.does(last := self.by_address[places[-1]]) and last.next_ip in self.by_address and last.next_ip not in self.code.targets
        ):
            places.append(last.next_ip)
        return (self._possible(places),)

    def does(self, instruction: Instruction) -> bool:
        """Whether this is more than preparation."""
        kind = instruction.flow_control
        if kind != FlowControl.NEXT:
            return kind != FlowControl.UNCONDITIONAL_BRANCH
        return any(memory.access in _WRITES and memory.base not in _STACK for memory in self._information.info(instruction).used_memory())

    def followers(self, instruction: Instruction) -> list[int]:
        """Addresses in the function where execution goes on after `instruction`."""
        kind = instruction.flow_control
        found: list[int] = []
        if kind in BRANCHES and instruction.near_branch_target in self.by_address:
            found.append(instruction.near_branch_target)
        elif kind == FlowControl.INDIRECT_BRANCH:
            found.extend(target for target in self._tables if target in self.by_address)
        if kind not in NEVER_FALLS_THROUGH and instruction.next_ip in self.by_address and not self._never_returns(instruction):
            found.append(instruction.next_ip)
        return found

    def _never_returns(self, instruction: Instruction) -> bool:
        if instruction.flow_control != FlowControl.CALL:
            return False
        callee = self.binary.function_at(instruction.near_branch_target)
        return callee is not None and callee.name.startswith(_ENDS)

    def _first_of(self, wanted: Collection[int]) -> tuple[int, ...]:
        """The instructions of `wanted` that execution from the function's entry reaches before any other of them."""
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

    def _without_forerunners(self, addresses: tuple[int, ...]) -> tuple[int, ...]:
        """Without those after which another of them is passed on the way: of two that one passage of the line may pass both, the later,
        which every passage passes. Ways that go back in the text, as loops do, begin another passage."""
        if len(addresses) < 2:
            return addresses
        kept = []
        for address in addresses:
            others = set(addresses) - {address}
            seen = {address}
            waiting = [address]
            passes_another = False
            while waiting and not passes_another:
                here = waiting.pop()
                for follower in self.followers(self.by_address[here]):
                    if follower > here and follower not in seen:
                        passes_another = passes_another or follower in others
                        seen.add(follower)
                        waiting.append(follower)
            if not passes_another:
                kept.append(address)
        return tuple(kept) or addresses[-1:]

    def _preparation(self, address: int, inside: Collection[int]) -> list[int]:
        """The line's own instructions that lead without a branch to the one at `address`, in order, and it; after them, from near to far,
        those of other lines that lead to the first, for a hook that is not possible at any of the former.

        Where the one at `address` is in a loop of the line itself (a large value is copied), the line begins before that loop."""
        own = [address]
        others: list[int] = []
        while True:
            at = others[-1] if others else own[0]
            before = self._before.get(at)
            if before is None or before.flow_control != FlowControl.NEXT or self.does(before):
                break
            if at in self.code.targets:
                if others or not self._only_looped_to(at, inside):
                    break
                own = [before.ip]
                continue
            if before.ip in inside and not others:
                own.insert(0, before.ip)
            else:
                others.append(before.ip)
        return own + others

    def _only_looped_to(self, address: int, inside: Collection[int]) -> bool:
        """Whether all jumps to `address` are the line's own and go back."""
        jumps = self._jumps_to.get(address, [])
        return bool(jumps) and all(origin in inside and origin >= address for origin in jumps)

    def _possible(self, places: list[int]) -> int:
        """The first of `places` where a hook is possible; the first of all where none is."""
        for address in places:
            try:
                self.code.move(address, _TRIAL_ADDRESS)
            except Refused:
                continue
            return address
        return places[0]

    def _inside(self, ranges: Iterable[LineRange]) -> set[int]:
        spans = [(part.start, part.end) for part in ranges]
        return {address for address in self.by_address if any(start <= address < end for start, end in spans)}
