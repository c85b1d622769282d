"""Where a source line begins among instructions, on programs written by hand; the comments are their lines."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pekan.faults.hooks.flow import Flow
from pekan.faults.hooks.gobinary import Function, LineRange

AT = 0x401000


@dataclass(frozen=True)
class Program:
    """What `Flow` asks of an executable that is one function at `AT`."""

    text: bytes

    def code(self, _function: Function) -> bytes:
        return self.text

    def resume_address(self, _function: Function) -> int | None:
        return None

    def holds(self, _address: int, _size: int) -> bool:
        return False

    def function_at(self, _address: int) -> Function | None:
        return None


def program(*rows: tuple[int, str]) -> tuple[Flow, dict[int, list[LineRange]]]:
    """A function of rows (line, bytes of one instruction), and the ranges of each line."""
    ranges: dict[int, list[LineRange]] = {}
    at = AT
    for line, text in rows:
        size = len(bytes.fromhex(text))
        ranges.setdefault(line, []).append(LineRange(at, at + size, "f.go", line))
        at += size
    code = b"".join(bytes.fromhex(text) for _, text in rows)
    return Flow(Program(code), Function("f", AT, at, 0)), ranges  # type: ignore[arg-type]


def test_a_reload_before_other_lines_is_no_beginning() -> None:
    """What the compiler fetches early for a later line says nothing about when that line begins."""
    flow, lines = program(
        (10, "e8fb0f0000"),  # call A
        (14, "488b4c2428"),  # mov rcx, [rsp+40]
        (11, "4885c0"),  # test rax, rax
        (11, "7509"),  # jne to the ret
        (14, "488b01"),  # mov rax, [rcx]
        (14, "e8ee0f0000"),  # call B
        (15, "90"),  # nop
        (16, "c3"),  # ret
    )
    assert flow.begins(lines[14]) == (AT + 15,)


def test_a_loop_inside_of_a_line_is_entered_once() -> None:
    """A line that copies a large value in a loop begins before the loop."""
    flow, lines = program(
        (20, "c6042401"),  # mov byte [rsp], 1
        (21, "488d91f0000000"),  # lea rdx, [rcx+0xf0]
        (21, "bf0f000000"),  # mov edi, 15
        (21, "0f110a"),  # movups [rdx], xmm1     the first that does something, and the head of the loop
        (21, "ffcf"),  # dec edi
        (21, "75f9"),  # jne to the movups
        (21, "e8fb0f0000"),  # call
        (22, "c3"),
    )
    assert flow.begins(lines[21]) == (AT + 4,)


def test_a_line_that_two_ways_lead_to_has_two_places() -> None:
    """One side of a branch each: both are the line, and no passage takes both."""
    flow, lines = program(
        (30, "4885c0"),  # test rax, rax
        (30, "7408"),  # je to the second store
        (31, "48c70301000000"),  # mov qword [rbx], 1
        (32, "c3"),
        (31, "48c70302000000"),  # mov qword [rbx], 2
        (32, "c3"),
    )
    assert flow.begins(lines[31]) == (AT + 5, AT + 13)


def test_of_two_places_on_one_way_the_later_counts() -> None:
    """A place that one way passes before the place that all ways pass is not a second passage."""
    flow, lines = program(
        (40, "4885c0"),  # test rax, rax
        (40, "7407"),  # je to the shared store
        (41, "48c70301000000"),  # mov qword [rbx], 1
        (41, "48c70302000000"),  # mov qword [rbx], 2
        (42, "c3"),
    )
    assert flow.begins(lines[41]) == (AT + 12,)


def test_after_a_call_is_where_it_returns() -> None:
    """The end of a block has no code of its own: the place is after the last call of the statement before."""
    flow, lines = program(
        (50, "e8fb0f0000"),  # call
        (50, "4889c1"),  # mov rcx, rax
        (50, "e8f30f0000"),  # call
        (50, "4885c0"),  # test rax, rax
        (50, "7502"),  # jne
        (51, "9090"),
        (52, "c3"),
    )
    assert flow.after_call(lines[50]) == (AT + 13,)
    assert flow.after_call(lines[51]) == ()


@pytest.mark.parametrize("dead", ["c3", "0f0b"])
def test_a_line_that_nothing_reaches_has_no_place(dead: str) -> None:
    """Code after a return or an undefined instruction is passed by nobody."""
    flow, lines = program((60, dead), (61, "48c70301000000"), (61, "c3"))
    assert flow.begins(lines[61]) == ()
