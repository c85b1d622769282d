"""What a Go executable says about its own program: functions with their addresses, and the source line of every instruction.

Stripping takes symbols and DWARF away and leaves what the Go runtime itself needs for stack traces, so a stock etcd still answers::

    ELF section .gopclntab                                             firstmoduledata (.noptrdata, .go.module)
    ├── header: magic, sizes, offsets of what follows                  ├── address of .gopclntab   how it is found
    ├── names of functions           "go.etcd.io/bbolt.(*DB).mmap"     └── minpc, maxpc, text, etext
    ├── names of files, by compilation unit
    ├── tables: pc -> file, pc -> line, as deltas
    └── functab: entry, offset of the function's record

    magic        Go          entries in functab            start of the text
    0xfffffffa   1.16        absolute, 8 bytes             -
    0xfffffff0   1.18        from start of text, 4 bytes   in the header
    0xfffffff1   1.20        from start of text, 4 bytes   in the header; 1.26 writes 0 there: moduledata tells

Source of the layouts: Go's `runtime/symtab.go` (pcHeader, moduledata, _func) and `debug/gosym/pclntab.go`, releases 1.16 to 1.26. The start
of .text is not the start of Go's text where C code is linked in, so the section's address is never used for it.
"""

from __future__ import annotations

import bisect
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from pekan.errors import EnvironmentFailure

ET_EXEC: Final = 2
ET_DYN: Final = 3
EM_X86_64: Final = 62
PT_LOAD: Final = 1

_MAGIC_1_16: Final = 0xFFFFFFFA
_MAGIC_1_18: Final = 0xFFFFFFF0
_MAGIC_1_20: Final = 0xFFFFFFF1

# Sections in which the linker keeps the pc table and the module data; the second names are those of relocatable data (PIE, cgo).
_TABLE_SECTIONS: Final = (".gopclntab", ".data.rel.ro.gopclntab")
_MODULE_SECTIONS: Final = (".go.module", ".noptrdata", ".data", ".data.rel.ro")

# moduledata: pcHeader pointer, then six slices of 24 bytes and findfunctab; minpc, maxpc, text, etext follow (Go 1.16 to 1.26).
_MODULE_RANGE_AT: Final = 160

# The largest etcd so far has 35,000 functions; a table that claims more than this is not one.
_FUNCTIONS_MAX: Final = 1_000_000


class Function(NamedTuple):
    """One function of the program: addresses [entry, end) at link time, `record` where the table describes it."""

    name: str
    entry: int
    end: int
    record: int


class LineRange(NamedTuple):
    """Instructions in [start, end) that a stack trace shows as `file`:`line` (of the innermost inlined call)."""

    start: int
    end: int
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A loadable part of the file: `size` bytes at `offset` of the file are at `address` in memory."""

    address: int
    offset: int
    size: int
    memory_size: int


class GoBinary:
    """One Go executable for x86-64 that is loaded at the addresses it was linked for. Reading takes about a fifth of a second.

    Raises `EnvironmentFailure` naming the file and what about it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise EnvironmentFailure(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._read_elf()
            self._read_table()
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise self._unusable(f"its headers or tables lead outside of the file ({error})") from error

    def _unusable(self, why: str) -> EnvironmentFailure:
        return EnvironmentFailure(f"{self.path} cannot be hooked: {why}")

    # -- the file ------------------------------------------------------------------------------------------------------------------

    def _read_elf(self) -> None:
        data = self._data
        if data[:6] != b"\x7fELF\x02\x01":
            raise self._unusable("it is no 64-bit little-endian ELF file")
        kind, machine = struct.unpack_from("<HH", data, 16)
        if machine != EM_X86_64:
            raise self._unusable(f"it is for ELF machine {machine}, and hooks are written for x86-64 ({EM_X86_64})")
        if kind == ET_DYN:
            raise self._unusable("it is position independent (PIE), so its addresses are not known before it runs; use a release build")
        if kind != ET_EXEC:
            raise self._unusable(f"it is no executable (ELF type {kind})")
        programs_at, sections_at = struct.unpack_from("<QQ", data, 32)
        program_size, programs, section_size, sections, names_index = struct.unpack_from("<HHHHH", data, 54)
        segments: list[Segment] = []
        for number in range(programs):
            kind, _, offset, address, _, size, memory_size, _ = struct.unpack_from("<IIQQQQQQ", data, programs_at + number * program_size)
            if kind == PT_LOAD:
                segments.append(Segment(address, offset, size, memory_size))
        self.segments = tuple(segments)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + number * section_size) for number in range(sections)]
        # name -> (address, offset, size)
        self._sections: dict[str, tuple[int, int, int]] = {}
        if names_index < len(headers):
            names_at = headers[names_index][4]
            for header in headers:
                self._sections[self._text_at(names_at + header[0])] = (header[3], header[4], header[5])

    def _text_at(self, offset: int) -> str:
        end = self._data.find(b"\0", offset)
        if end < 0:
            raise IndexError(f"no end of the text at {offset:#x}")
        return self._data[offset:end].decode()

    def offset_of(self, address: int) -> int:
        """Where in the file the byte is that is loaded at `address`; raises `EnvironmentFailure` when none is."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        raise self._unusable(f"address {address:#x} is not in the file")

    def holds(self, address: int, size: int) -> bool:
        """Whether the file has the `size` bytes that are loaded at `address`."""
        return any(segment.address <= address and address + size <= segment.address + segment.size for segment in self.segments)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as they are loaded at `address`."""
        offset = self.offset_of(address)
        return self._data[offset : offset + size]

    # -- the runtime's table -------------------------------------------------------------------------------------------------------

    def _read_table(self) -> None:
        data = self._data
        section = next((self._sections[name] for name in _TABLE_SECTIONS if name in self._sections), None)
        if section is None:
            raise self._unusable("it has no .gopclntab section, so it is no Go program or one whose tables were removed")
        self._table_address, at, _ = section
        magic, padding, quantum, pointer_size = struct.unpack_from("<IHBB", data, at)
        if magic not in (_MAGIC_1_16, _MAGIC_1_18, _MAGIC_1_20) or padding or quantum != 1 or pointer_size != 8:
            raise self._unusable(f"its function table has magic {magic:#x}, which Go 1.16 to 1.26 do not write")
        self._wide = magic == _MAGIC_1_16
        self._has_first_line = magic == _MAGIC_1_20
        if self._wide:
            functions, _, *offsets = struct.unpack_from("<7Q", data, at + 8)
            self.text_start = 0
        else:
            functions, _, start, *offsets = struct.unpack_from("<8Q", data, at + 8)
            self.text_start = self._text_start(start)
        if not 0 < functions < _FUNCTIONS_MAX:
            raise self._unusable(f"its function table claims {functions} functions")
        self._names_at, self._units_at, self._files_at, self._deltas_at, self._functions_at = (at + offset for offset in offsets)
        self._function_count: int = functions
        self._files: dict[int, str] = {}

    def _text_start(self, in_header: int) -> int:
        """The address that functab counts from. Go 1.26 leaves it out of the header, and moduledata has it in every release."""
        pattern = struct.pack("<Q", self._table_address)
        for name in _MODULE_SECTIONS:
            if name not in self._sections:
                continue
            _, at, size = self._sections[name]
            found = self._data.find(pattern, at, at + size)
            while found >= 0:
                first, last, text, text_end = struct.unpack_from("<4Q", self._data, found + _MODULE_RANGE_AT)
                # maxpc may be one past the end of the text.
                if text and text <= first < last <= text_end + 1:
                    if in_header and in_header != text:
                        raise self._unusable(f"its text starts at {in_header:#x} by one table and at {text:#x} by another")
                    return int(text)
                found = self._data.find(pattern, found + 8, at + size)
        if in_header:
            return in_header
        raise self._unusable("no moduledata tells where its text starts")

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """Every function in order of its address."""
        width, form = (16, "<QQ") if self._wide else (8, "<II")
        start = self._functions_at
        end = start + self._function_count * width
        table = list(struct.iter_unpack(form, self._data[start:end]))
        # The end of the last function follows the table as one more entry.
        last = struct.unpack_from("<Q" if self._wide else "<I", self._data, end)[0]
        name_offset = struct.Struct("<i")
        name_in_record = 8 if self._wide else 4
        names = self._data[self._names_at : self._units_at]
        data, base = self._data, self.text_start
        found: list[Function] = []
        ends = [entry for entry, _ in table[1:]]
        ends.append(last)
        try:
            for (entry, record), limit in zip(table, ends, strict=True):
                at = start + record
                name_at = name_offset.unpack_from(data, at + name_in_record)[0]
                name = names[name_at : names.index(b"\0", name_at)].decode()
                found.append(Function(name, entry + base, limit + base, at))
        except (struct.error, ValueError) as error:
            raise self._unusable(f"its function table is damaged ({error})") from error
        return tuple(found)

    @cached_property
    def by_name(self) -> dict[str, Function]:
        """The function of each name; of two with one name (wrappers of assembly code) the first in the text."""
        found: dict[str, Function] = {}
        for function in self.functions:
            found.setdefault(function.name, function)
        return found

    @cached_property
    def _entries(self) -> list[int]:
        return [function.entry for function in self.functions]

    def function_at(self, address: int) -> Function | None:
        """The function that holds `address`, or None."""
        index = bisect.bisect_right(self._entries, address) - 1
        if index < 0 or address >= self.functions[index].end:
            return None
        return self.functions[index]

    def code(self, function: Function) -> bytes:
        """The function's instructions (and the padding after them)."""
        return self.read(function.entry, function.end - function.entry)

    def resume_address(self, function: Function) -> int | None:
        """Where the runtime may resume this function without a jump to it being in the code: its call of deferreturn, after a recovered
        panic (runtime/panic.go). None for a function without `defer`."""
        offset = struct.unpack_from("<I", self._data, function.record + (16 if self._wide else 12))[0]
        return function.entry + offset if offset else None

    def first_line(self, function: Function) -> int:
        """The line of the keyword `func`. Go 1.20 and later record it; before, the line of the first instruction, which is the same in
        every function that checks its stack."""
        if self._has_first_line:
            return int(struct.unpack_from("<i", self._data, function.record + 36)[0])
        ranges = self.lines(function)
        return ranges[0].line if ranges else 0

    def lines(self, function: Function) -> tuple[LineRange, ...]:
        """The source lines of the function's instructions, in order of addresses; empty for code without line tables (assembly stubs)."""
        at = function.record + (20 if self._wide else 16)
        _, files_at, lines_at, _, unit = struct.unpack_from("<IIIII", self._data, at)
        if not files_at or not lines_at:
            return ()
        try:
            return tuple(self._lines(function, files_at, lines_at, unit))
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise self._unusable(f"the line table of {function.name} is damaged ({error})") from error

    def files(self, function: Function) -> tuple[str, ...]:
        """The source files that the function has code of: its own, and those of inlined functions."""
        files_at, _, _, unit = struct.unpack_from("<IIII", self._data, function.record + (24 if self._wide else 20))
        if not files_at:
            return ()
        indexes = dict.fromkeys(index for _, _, index in self._steps(files_at, function.entry))
        return tuple(self._file_name(unit, index) for index in indexes)

    def _lines(self, function: Function, files_at: int, lines_at: int, unit: int) -> Iterator[LineRange]:
        files = list(self._steps(files_at, function.entry))
        names: dict[int, str] = {}
        current = 0
        for start, end, line in self._steps(lines_at, function.entry):
            while current < len(files) - 1 and files[current][1] <= start:
                current += 1
            index = files[current][2]
            if index not in names:
                names[index] = self._file_name(unit, index)
            yield LineRange(start, end, names[index], line)

    def _file_name(self, unit: int, index: int) -> str:
        if index < 0:
            return "?"
        offset = struct.unpack_from("<I", self._data, self._units_at + (unit + index) * 4)[0]
        if offset not in self._files:
            self._files[offset] = "?" if offset == 0xFFFFFFFF else self._text_at(self._files_at + offset)
        return self._files[offset]

    def _steps(self, table: int, entry: int) -> Iterator[tuple[int, int, int]]:
        """A pc table: (start, end, value) of each step. Deltas are zigzag varints of the value, then varints of the pc; 0 ends it."""
        data = self._data
        at = self._deltas_at + table
        pc, value, first = entry, -1, True
        while True:
            delta, at = _varint(data, at)
            if not delta and not first:
                return
            first = False
            value += (delta >> 1) ^ -(delta & 1)
            size, at = _varint(data, at)
            yield pc, pc + size, value
            pc += size


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 35:
            raise IndexError(f"no end of the number at {at:#x}")
