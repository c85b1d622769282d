"""Where a log ends, read from made ones."""

from __future__ import annotations

import struct

from pekan.faults.stored.files import in_memory
from pekan.faults.stored.wal import end_of_log, frames


def frame(record: bytes) -> bytes:
    """A frame as etcd's encoder writes it: padded to 8 bytes, the padding told in the length word."""
    padding = -len(record) % 8
    word = len(record) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", word) + record + bytes(padding)


def test_a_log_ends_where_zeros_begin() -> None:
    """Frames are found one after the other, padding left out of the record, and the preallocated rest is no frame."""
    records = [b"a" * size for size in (8, 1, 13, 4096)]
    log = b"".join(map(frame, records)) + bytes(8192)
    found = list(frames(in_memory(log)))
    assert [log[each.record : each.record + each.size] for each in found] == records
    assert end_of_log(in_memory(log)) == found[-1].next == len(log) - 8192
    assert [each.start for each in frames(in_memory(log), found[2].start)] == [found[2].start, found[3].start]


def test_a_log_that_is_cut_in_a_record() -> None:
    """The frame whose record is not whole is the last one; half a length word is none."""
    log = frame(b"a" * 16) + frame(b"b" * 64)
    assert len(list(frames(in_memory(log[:-20])))) == 2
    assert len(list(frames(in_memory(log[: 24 + 4])))) == 1
