"""Which meta page of a database counts, read from made ones."""

from __future__ import annotations

import struct

import pytest

from pekan.faults.stored.bbolt import META, PAGE_HEADER, checksum, metas
from pekan.faults.stored.files import in_memory


def meta(number: int, transaction: int, *, page_size: int = 4096, damaged: bool = False) -> bytes:
    """A meta page as bbolt writes it."""
    body = META.pack(0xED0CDAED, 2, page_size, 0, 3, 0, 0xFFFFFFFFFFFFFFFF, 9, transaction, 0)
    body = body[:-8] + struct.pack("<Q", checksum(body[:-8]) ^ damaged)
    return (PAGE_HEADER.pack(number, 4, 0, 0) + body).ljust(page_size, b"\0")


@pytest.mark.parametrize("page_size", [4096, 16384])
def test_the_meta_page_that_counts(page_size: int) -> None:
    """The valid one with the higher transaction; the other where that is damaged; none of two damaged ones."""
    first = meta(0, 10, page_size=page_size)
    assert [each.transaction for each in metas(in_memory(first + meta(1, 11, page_size=page_size)))] == [11, 10]
    assert [each.page for each in metas(in_memory(first + meta(1, 11, page_size=page_size, damaged=True)))] == [0]
    damaged = meta(0, 10, page_size=page_size, damaged=True)
    assert [each.page for each in metas(in_memory(damaged + meta(1, 11, page_size=page_size)))] == [1]
    assert metas(in_memory(damaged + meta(1, 11, page_size=page_size, damaged=True))) == ()
