"""The frames of a write-ahead log.

::

    frame*, then zeros to the preallocated end
    frame = length word (8 bytes, little-endian) | record | padding to 8 bytes
            bits 0-55: bytes of the record; bit 63 set: bits 56-58 are the bytes of padding

Source: etcd server/storage/wal/encoder.go and decoder.go. Offsets are bytes from the beginning of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pekan.faults.stored.files import Read

_LENGTH = struct.Struct("<Q").unpack_from
_RECORD_BITS = (1 << 56) - 1
_PADDED = 1 << 63
CHUNK_BYTES = 1 << 20


class Frame(NamedTuple):
    """One record of a write-ahead log: where its length word is, where the record, where the next frame."""

    start: int
    record: int
    size: int
    next: int


def frames(read: Read, start: int = 0) -> Iterator[Frame]:
    """The frames from `start`, which must be the beginning of one. The last may be cut by the end of the file, or of what was written."""
    at, base, chunk = start, start, read(start, CHUNK_BYTES)
    while True:
        if at + 8 > base + len(chunk):
            base, chunk = at, read(at, CHUNK_BYTES)
            if len(chunk) < 8:
                return
        (word,) = _LENGTH(chunk, at - base)
        size = word & _RECORD_BITS
        if not size:
            return
        following = at + 8 + size + ((word >> 56) & 7 if word & _PADDED else 0)
        yield Frame(at, at + 8, size, following)
        at = following


def end_of_log(read: Read, start: int = 0) -> int:
    """Where the frames that begin at `start` end: everything beyond has not been written yet."""
    end = start
    for frame in frames(read, start):
        end = frame.next
    return end
