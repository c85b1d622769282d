"""The machine code of hooks says what its listing says, and driving it is storing to the cell that the listing names."""

from __future__ import annotations

import struct

import pytest
from iced_x86 import Decoder, Formatter, FormatterSyntax

from pekan.faults.hooks import stub
from pekan.faults.hooks.stub import Moved


def disassembled(code: bytes) -> list[str]:
    formatter = Formatter(FormatterSyntax.NASM)
    formatter.uppercase_hex = False
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    formatter.branch_leading_zeros = False
    formatter.show_branch_size = False
    return [formatter.format(instruction) for instruction in Decoder(64, code, ip=0)]


@pytest.mark.parametrize("listing", [stub.FIRE_LISTING, stub.STUB_LISTING])
def test_the_listing_is_what_a_disassembler_reads(listing: tuple[tuple[str, str], ...]) -> None:
    """Each row's text is what its bytes mean, jumps at their places included."""
    assert disassembled(stub.assemble(listing)) == [text for _, text in listing]


def test_a_stub_counts_into_its_own_cell_and_calls_the_shared_code() -> None:
    """The address of the cell and the distance of the call are the only bytes in which the heads of two stubs differ."""
    address, cell, fire = 0x30000400, 0x38000080, 0x30000000
    code = stub.stub(address, cell, fire, Moved(5, b"\xc3"))
    instructions = list(Decoder(64, code, ip=address))
    assert f"mov ebx,{cell:#x}" in disassembled(code)
    assert [each.near_branch_target for each in instructions if "call" in str(each)] == [fire]
    assert instructions[-1].ip == address + stub.STUB_HEAD_BYTES


def test_cells_begin_unarmed_and_know_their_number() -> None:
    """A fresh cell has no trigger, the pipe's descriptor, and its own index."""
    memory = stub.cells(3, 7)
    assert len(memory) == 3 * stub.CELL_BYTES
    for index in range(3):
        cell = memory[index * stub.CELL_BYTES :]
        assert struct.unpack_from("<Q", cell, stub.TRIGGER) == (0,)
        assert struct.unpack_from("<q", cell, stub.FD) == (7,)
        assert struct.unpack_from("<Q", cell, stub.INDEX) == (index,)
