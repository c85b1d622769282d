"""The history file: Records one after the other, written with one write(2) each, read back or refused.

::

    file   = record*
    record = length (varint) | time_ns (tag 0x09, 8 bytes) | body (tag, length, bytes) | crc (tag 0x7d, 4 bytes)
             '- of the rest -'  '------- covered by the CRC-32 (zlib) in the last field -------'

What a reader makes of a file:

====================================================  =============================================================
every record whole                                    the records, `cut` 0
the end does not make a record, nothing valid after   the records before it, `cut` = bytes dropped (a writer was killed)
anything else                                         EvidenceError with file, byte offset and what was expected
====================================================  =============================================================

A single flipped bit is always seen (CRC-32 detects all of them), and so is a change of a length, which moves the place where the checksum
is looked for. Nothing is ever skipped: a history with a hole in it is another history.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from pekan.errors import EvidenceError, RecorderFailure
from pekan.wire._generated.pekan_record_pb2 import Record

CRC_TAG = 0x7D
"""Field 15, wire type 5 (fixed32): 15 << 3 | 5."""
_TRAILER = 5
"""Bytes of the crc field, tag included."""
_LENGTH_BITS = 31
"""Lengths that need more bits than a protobuf message can be long (2 GiB) are damage."""
_CHUNK = 1 << 20
"""Bytes asked of the file at a time: large enough that read(2) does not show in a profile, small beside what is decoded from them."""
_RECORD_HEAD = re.compile(rb"(?=\x09.{8}[\x12\x1a\x22\x2a\x32\x3a\x42\x4a\x52\x5a\x62\x6a\x72])", re.DOTALL)
"""How every record begins: its time, then a length-delimited body of field 2 to 14."""


class Reading(NamedTuple):
    """All records of one file in append order; `cut` is the number of bytes dropped at its end."""

    records: list[Record]
    cut: int


class RecordWriter:
    """Appends Records to a new file. When `write` has returned, the kernel has the record: a SIGKILL of the caller does not lose it.

    One writer a file: the file must be empty and is locked. After the first failure every further `write` raises the same failure, since
    a record after a torn one would make the file unreadable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.bytes_written = 0
        """Bytes written so far."""
        self._failure: str | None = None
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecorderFailure(f"{self.path}: cannot be created: {_text(error)}") from None
        try:
            status = os.fstat(self._fd)
            if stat.S_ISREG(status.st_mode):  # a device (/dev/null) may have any number of writers
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(self._fd)  # again, now that nobody else writes
            occupied = status.st_size > 0
        except OSError as error:
            os.close(self._fd)
            raise RecorderFailure(f"{self.path}: another writer has it: {_text(error)}") from None
        if occupied:
            os.close(self._fd)
            raise RecorderFailure(f"{self.path}: is not empty; evidence is never written over, give another directory")

    def write(self, record: Record) -> None:
        """Append `record` with its length and checksum; its own `crc` field must be unset. Raises RecorderFailure."""
        if self._failure is not None:
            raise RecorderFailure(self._failure)
        body = record.SerializeToString()
        size = len(body) + _TRAILER
        prefix = bytearray()
        while size > 0x7F:
            prefix.append(size & 0x7F | 0x80)
            size >>= 7
        prefix.append(size)
        data = b"".join((prefix, body, b"\x7d", zlib.crc32(body).to_bytes(4, "little")))
        try:
            written = os.write(self._fd, data)
            while written < len(data):  # a full disk or a file size limit lets a part through before it refuses
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._failure = f"{self.path}: cannot be written after {self.bytes_written} bytes: {_text(error)}"
            raise RecorderFailure(self._failure) from None
        self.bytes_written += len(data)

    def close(self) -> None:
        """Flush to the device and close; idempotent. Raises RecorderFailure where the device reports a late error."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._failure = self._failure or f"{self.path}: is closed"
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS):  # a device without anything to flush
                raise RecorderFailure(f"{self.path}: cannot be flushed: {_text(error)}") from None
        finally:
            os.close(fd)


class RecordFile:
    """Reads a history file record by record: ``for offset, record in RecordFile(path)``.

    Each file is read once from the beginning in bounded memory. `cut` is set when the iteration has come to its end.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.cut = 0

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        """Byte offset and Record, in append order. Raises EvidenceError where the file is no evidence (see the module's table)."""
        for offset, data in self.raw():
            try:
                record = Record.FromString(data)
            except DecodeError as error:
                raise EvidenceError(f"{self.path}: byte {offset}: checksum right, but not a record: {error}") from None
            yield offset, record

    def raw(self) -> Iterator[tuple[int, bytes]]:
        """Byte offset and encoded Record (its crc included), in append order. Raises EvidenceError as above."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                yield from self._whole(file.fileno())
        except OSError as error:
            raise EvidenceError(f"{self.path}: cannot be read as a history: {_text(error)}") from None

    def _whole(self, fd: int) -> Iterator[tuple[int, bytes]]:
        checksum = zlib.crc32
        stored = struct.Struct("<I").unpack_from
        buffer = os.read(fd, _CHUNK)
        if not buffer:
            raise EvidenceError(f"{self.path}: byte 0: the file is empty; expected the record of a run's start")
        view = memoryview(buffer)
        available = len(buffer)
        base = 0  # offset in the file of buffer[0]
        position = 0
        while True:
            # Inlined for the length that nearly every record has, one or two bytes: this loop is the floor of every reading.
            start = position + 2
            if start < available and (length := buffer[position]) < 0x80:
                start -= 1
            elif start < available and (high := buffer[position + 1]) < 0x80:
                length += (high << 7) - 0x80
            else:
                length, start = _length_at(buffer, position, available)
            end = start + length
            if length < 0 or end > available:
                if length == _NO_LENGTH:
                    self._stop(base + position, "expected the length of a record")
                    return
                # The buffer ends before this record does (or before its length does): keep the rest and read on.
                more = os.read(fd, max(_CHUNK, end - available))
                if not more:
                    if position < available:
                        self._stop(base + position, _expectation(length, available - position))
                    return
                buffer = buffer[position:] + more
                view = memoryview(buffer)
                available = len(buffer)
                base += position
                position = 0
                continue
            tail = end - _TRAILER
            if length <= _TRAILER or buffer[tail] != CRC_TAG or checksum(view[start:tail]) != stored(buffer, tail + 1)[0]:
                self._stop(base + position, f"expected a record of {length} bytes that ends with its checksum, which does not match")
                return
            yield base + position, buffer[start:end]
            position = end

    def _stop(self, offset: int, expected: str) -> None:
        """No record at `offset`: either the end of a file whose writer was killed, or damage."""
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            size = len(data)
            later = _find_record(data, offset)
        if later is not None:
            raise EvidenceError(
                f"{self.path}: byte {offset}: {expected}; a whole record lies after it (at byte {later}), so the file is damaged and not "
                "only cut short. Nothing can be concluded from it: take another copy"
            )
        if offset == 0:
            raise EvidenceError(f"{self.path}: byte 0: {expected}; this is not a history that Pekan recorded")
        self.cut = size - offset


def read_records(path: str | os.PathLike[str]) -> Reading:
    """All records of a history file at once. Raises EvidenceError naming file, byte offset and what was expected."""
    file = RecordFile(path)
    records = [record for _, record in file]
    return Reading(records, file.cut)


_UNFINISHED = -1
"""The buffer ends inside the length."""
_NO_LENGTH = -2
"""The bytes are no length that a record can have."""


def _length_at(buffer: bytes, position: int, available: int) -> tuple[int, int]:
    """(length, where the record begins), or one of the two marks above and `position`."""
    if position >= available:
        return _UNFINISHED, position
    byte = buffer[position]
    if byte < 0x80:
        return byte, position + 1
    length = byte & 0x7F
    at = position + 1
    shift = 7
    while at < available:
        byte = buffer[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (length, at) if length < 1 << _LENGTH_BITS else (_NO_LENGTH, position)
        shift += 7
        if shift >= _LENGTH_BITS + 4:
            return _NO_LENGTH, position
    return _UNFINISHED, position


def _expectation(length: int, left: int) -> str:
    if length == _UNFINISHED:
        return f"expected the length of a record, found {left} bytes of one"
    return f"expected a record of {length} bytes, found {left} bytes to the end of the file"


def _find_record(data: mmap.mmap, offset: int) -> int | None:
    """Where the first record with a valid checksum begins at or after `offset`, its own length not counted.

    Does not trust the length before a record, which may be what is damaged: a record says inside where its body ends.
    """
    size = len(data)
    with memoryview(data) as view:
        for match in _RECORD_HEAD.finditer(data, offset):
            start = match.start()
            length, body = _length_at(bytes(data[start + 10 : start + 15]), 0, min(5, size - start - 10))
            end = start + 10 + body + length
            if length < 0 or end + _TRAILER > size or data[end] != CRC_TAG:
                continue
            with view[start:end] as covered:
                if zlib.crc32(covered) == int.from_bytes(data[end + 1 : end + _TRAILER], "little"):
                    return start
    return None


def _text(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "")
    return f"{error.strerror or error} ({name})" if name else str(error)
