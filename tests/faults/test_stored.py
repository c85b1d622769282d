"""Where a log ends, which pages of a database are in use, where a value lies: read from what etcd has written, and from made ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pekan.faults.corruption.altered import Edit, Rename
from pekan.faults.stored import META, PAGE_HEADER, Read, checksum, end_of_log, frames, metas


def read_of(data: bytes) -> Read:
    """What reads from `data`."""
    return lambda offset, size: data[offset : offset + size]


def frame(record: bytes) -> bytes:
    """A frame as etcd's encoder writes it: padded to 8 bytes, the padding told in the length word."""
    padding = -len(record) % 8
    word = len(record) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", word) + record + bytes(padding)


def test_a_log_ends_where_zeros_begin() -> None:
    """Frames are found one after the other, padding left out of the record, and the preallocated rest is no frame."""
    records = [b"a" * size for size in (8, 1, 13, 4096)]
    log = b"".join(map(frame, records)) + bytes(8192)
    found = list(frames(read_of(log)))
    assert [log[each.record : each.record + each.size] for each in found] == records
    assert end_of_log(read_of(log)) == found[-1].next == len(log) - 8192
    assert [each.start for each in frames(read_of(log), found[2].start)] == [found[2].start, found[3].start]


def test_a_log_that_is_cut_in_a_record() -> None:
    """The frame whose record is not whole is the last one; half a length word is none."""
    log = frame(b"a" * 16) + frame(b"b" * 64)
    assert len(list(frames(read_of(log[:-20])))) == 2
    assert len(list(frames(read_of(log[: 24 + 4])))) == 1


def meta(number: int, transaction: int, *, page_size: int = 4096, damaged: bool = False) -> bytes:
    """A meta page as bbolt writes it."""
    body = META.pack(0xED0CDAED, 2, page_size, 0, 3, 0, 0xFFFFFFFFFFFFFFFF, 9, transaction, 0)
    body = body[:-8] + struct.pack("<Q", checksum(body[:-8]) ^ damaged)
    return (PAGE_HEADER.pack(number, 4, 0, 0) + body).ljust(page_size, b"\0")


@pytest.mark.parametrize("page_size", [4096, 16384])
def test_the_meta_page_that_counts(page_size: int) -> None:
    """The valid one with the higher transaction; the other where that is damaged; none of two damaged ones."""
    first = meta(0, 10, page_size=page_size)
    assert [each.transaction for each in metas(read_of(first + meta(1, 11, page_size=page_size)))] == [11, 10]
    assert [each.page for each in metas(read_of(first + meta(1, 11, page_size=page_size, damaged=True)))] == [0]
    damaged = meta(0, 10, page_size=page_size, damaged=True)
    assert [each.page for each in metas(read_of(damaged + meta(1, 11, page_size=page_size)))] == [1]
    assert metas(read_of(damaged + meta(1, 11, page_size=page_size, damaged=True))) == ()


def test_an_edit_is_taken_back_only_where_nothing_has_changed_since(tmp_path: Path) -> None:
    """Bytes and cut-off ends are put back as long as the file is as it was left, and not over what somebody has written meanwhile."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    edit = Edit(path, 3, b"3", b"x")
    edit.do()
    assert path.read_bytes() == b"012x456789"
    assert edit.undo()
    assert path.read_bytes() == b"0123456789"
    edit.do()
    path.write_bytes(b"012y456789")
    assert not edit.undo()
    path.write_bytes(b"0123456789")
    cut = Edit(path, 6, b"6789", b"")
    cut.do()
    assert path.read_bytes() == b"012345"
    assert cut.undo()
    assert path.read_bytes() == b"0123456789"
    cut.do()
    os.truncate(path, 10)
    assert not cut.undo(), "it has grown again"
    path.unlink()
    assert not cut.undo()


def test_a_lost_rename_is_taken_back_only_where_there_is_no_other(tmp_path: Path) -> None:
    """A directory has its old name, and gets the new one again unless another has been made in its place."""
    new, old = tmp_path / "wal", tmp_path / "wal.tmp"
    new.mkdir()
    rename = Rename(new, old)
    rename.do()
    assert (new.exists(), old.exists()) == (False, True)
    assert rename.undo()
    assert (new.exists(), old.exists()) == (True, False)
    rename.do()
    new.mkdir()
    assert not rename.undo()
