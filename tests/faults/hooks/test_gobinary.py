"""Go's own tables in real executables, and executables that are none."""

from __future__ import annotations

import shutil
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from pekan.errors import EnvironmentFailure
from pekan.faults.hooks.gobinary import GoBinary
from stage.releases import RELEASES

from .executables import executable

# RELEASES have three layouts of the table (Go 1.16, 1.18, 1.20), with and without a start of the text in the header, static and linked
# with C code.


@pytest.mark.parametrize("version", RELEASES)
def test_functions_and_lines_cover_the_text(version: str) -> None:
    """Functions follow each other without gap or overlap, and every line range of one lies inside it."""
    binary = GoBinary(executable(version))
    functions = binary.functions
    assert len(functions) > 25_000
    assert all(before.end == after.entry for before, after in pairwise(functions))
    assert all(binary.function_at(function.entry) is function for function in functions[::1000])
    for function in (each for each in functions[::50] if each.name.startswith("go.etcd.io/")):
        ranges = binary.lines(function)
        assert ranges[0].start == function.entry
        assert all(before.end == after.start for before, after in pairwise(ranges))
        assert ranges[-1].end <= function.end


@pytest.mark.parametrize("version", RELEASES)
def test_a_function_knows_its_file_and_first_line(version: str) -> None:
    """The apply of an entry begins in etcd's server package, at the line that the table of lines and the function's own record agree on."""
    binary = GoBinary(executable(version))
    (function,) = [each for each in binary.functions if each.name.endswith("etcdserver.(*EtcdServer).applyEntryNormal")]
    ranges = binary.lines(function)
    assert ranges[0].file.endswith("etcdserver/server.go")
    assert binary.first_line(function) == ranges[0].line > 1
    assert ranges[0].file in binary.files(function)


def test_code_that_is_not_in_the_file_is_refused() -> None:
    """An address outside of every segment is an error that names it, not other bytes."""
    binary = GoBinary(executable("3.5.1"))
    assert not binary.holds(0x10, 1)
    with pytest.raises(EnvironmentFailure, match=r"address 0x10 is not in the file"):
        binary.read(0x10, 1)


def copied(tmp_path: Path, *changes: tuple[int, bytes]) -> Path:
    """A copy of an etcd with other bytes at some places."""
    path = tmp_path / "etcd"
    shutil.copyfile(executable("3.5.1"), path)
    with path.open("r+b") as file:
        for offset, data in changes:
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize(
    ("offset", "data", "why"),
    [
        (0, b"#!/bin/sh\n", "no 64-bit little-endian ELF"),
        (16, struct.pack("<H", 3), "position independent"),
        (16, struct.pack("<H", 1), "no executable"),
        (18, struct.pack("<H", 183), "ELF machine 183"),
        (40, struct.pack("<Q", 1 << 40), "lead outside of the file"),
    ],
)
def test_what_cannot_be_hooked_says_why(tmp_path: Path, offset: int, data: bytes, why: str) -> None:
    """Each kind of unusable file is refused with its name and the reason."""
    path = copied(tmp_path, (offset, data))
    with pytest.raises(EnvironmentFailure, match=why) as refused:
        GoBinary(path)
    assert str(path) in str(refused.value)


def test_a_table_of_another_go_is_refused(tmp_path: Path) -> None:
    """An unknown magic number is not guessed at."""
    data = executable("3.5.1").read_bytes()
    at = data.index(b"\xfa\xff\xff\xff\x00\x00\x01\x08")
    path = copied(tmp_path, (at, b"\xf2"))
    with pytest.raises(EnvironmentFailure, match=r"magic 0xfffffff2, which Go 1\.16 to 1\.26 do not write"):
        GoBinary(path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """No file, an empty file, and an executable that is no Go program."""
    with pytest.raises(EnvironmentFailure, match="No such file"):
        GoBinary(tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(EnvironmentFailure, match="cannot be read"):
        GoBinary(empty)
    foreign = tmp_path / "foreign"
    # The smallest header of a static executable: no sections, so no table.
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + bytes(44))
    with pytest.raises(EnvironmentFailure, match=r"no \.gopclntab section"):
        GoBinary(foreign)
