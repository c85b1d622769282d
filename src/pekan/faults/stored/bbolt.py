"""The pages of a database.

::

    page*; pages 0 and 1 are metas, the valid one with the higher transaction id counts
    meta = page header (16 bytes) | magic version pagesize flags root(2) freelist highwater txid checksum

Source: bbolt internal/common/page.go, meta.go, bucket.go. Offsets are bytes from the beginning of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pekan.faults.stored.files import Read

MAGIC = 0xED0CDAED
PAGE_HEADER = struct.Struct("<QHHI")
"""id, flags, count, overflow."""
META = struct.Struct("<IIIIQQQQQQ")
"""magic, version, page size, flags, root page, sequence, freelist page, high-water mark, transaction id, checksum."""
BRANCH, LEAF, META_PAGE, FREELIST = 0x01, 0x02, 0x04, 0x10
_LEAF_ELEMENT = struct.Struct("<IIII").unpack_from
_BRANCH_ELEMENT = struct.Struct("<IIQ").unpack_from
_ELEMENT_BYTES = 16
_BUCKET = struct.Struct("<QQ").unpack_from
_IS_BUCKET = 1


class Meta(NamedTuple):
    """A valid meta page."""

    page: int
    page_size: int
    root: int
    high_water: int
    transaction: int


class Place(NamedTuple):
    """Where the value of a key lies."""

    offset: int
    size: int


def checksum(data: bytes) -> int:
    """FNV-1a of 64 bits, which a meta page has of its other 56 bytes."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def metas(read: Read) -> tuple[Meta, ...]:
    """The valid meta pages, the one that counts first; none of a file that is no database."""
    found = []
    page_size = 0
    # Where the first meta is damaged its page size is not known: bbolt looks in the same places (db.go, getPageSize).
    for offset in (0, *(1024 << shift for shift in range(15))):
        data = read(offset, PAGE_HEADER.size + META.size)
        if len(data) < PAGE_HEADER.size + META.size:
            break
        meta = META.unpack_from(data, PAGE_HEADER.size)
        if meta[0] != MAGIC or checksum(data[PAGE_HEADER.size : PAGE_HEADER.size + META.size - 8]) != meta[9]:
            continue
        page_size = page_size or meta[2]
        if offset in (0, page_size):
            found.append(Meta(offset // page_size, page_size, meta[4], meta[7], meta[8]))
    return tuple(sorted(found, key=lambda each: -each.transaction))


class Database:
    """A bbolt file as its newest meta shows it. Raises ValueError where it has none."""

    def __init__(self, read: Read) -> None:
        self._read = read
        valid = metas(read)
        if not valid:
            raise ValueError("no valid meta page: not a bbolt database")
        self.meta = valid[0]

    def page(self, number: int) -> tuple[int, int, bytes]:
        """Flags, count and all bytes of a page with its overflow."""
        size = self.meta.page_size
        head = self._read(number * size, PAGE_HEADER.size)
        _, flags, count, overflow = PAGE_HEADER.unpack_from(head)
        return flags, count, self._read(number * size, size * (1 + overflow))

    def pages(self, root: int | None = None) -> Iterator[tuple[int, int]]:
        """(page number, flags) of every branch and leaf page that is in use."""
        number = self.meta.root if root is None else root
        flags, count, data = self.page(number)
        yield number, flags
        for index in range(count):
            at = PAGE_HEADER.size + index * _ELEMENT_BYTES
            if flags & BRANCH:
                yield from self.pages(_BRANCH_ELEMENT(data, at)[2])
            elif flags & LEAF:
                kind, position, key_size, _ = _LEAF_ELEMENT(data, at)
                if kind & _IS_BUCKET and (inner := _BUCKET(data, at + position + key_size)[0]):
                    yield from self.pages(inner)

    def used(self, number: int) -> int:
        """Bytes of a page from its beginning that mean something: the header, the elements, and what they point to."""
        flags, count, data = self.page(number)
        end = PAGE_HEADER.size + count * _ELEMENT_BYTES
        for index in range(count):
            at = PAGE_HEADER.size + index * _ELEMENT_BYTES
            if flags & LEAF:
                _, position, key_size, size = _LEAF_ELEMENT(data, at)
                end = max(end, at + position + key_size + size)
            else:
                position, key_size, _ = _BRANCH_ELEMENT(data, at)
                end = max(end, at + position + key_size)
        return end

    def value(self, bucket: bytes, key: bytes) -> Place | None:
        """Where the value of `key` in the top-level `bucket` lies; None where there is no such key."""
        return next((place for name, place in self.entries(bucket) if name == key), None)

    def entries(self, bucket: bytes) -> Iterator[tuple[bytes, Place]]:
        """The keys of the top-level `bucket` in order, each with where its value lies; none where there is no such bucket."""
        for place, kind, name in self._elements(self.meta.root):
            if name == bucket and kind & _IS_BUCKET:
                inner = _BUCKET(self._read(place.offset, 16))[0]
                found = self._elements(inner) if inner else self._inline(place.offset + 16)
                yield from ((each, at) for at, _, each in found)

    def _elements(self, root: int) -> Iterator[tuple[Place, int, bytes]]:
        flags, count, data = self.page(root)
        start = root * self.meta.page_size
        if flags & LEAF:
            yield from self._leaf(data, count, start)
            return
        for index in range(count):
            yield from self._elements(_BRANCH_ELEMENT(data, PAGE_HEADER.size + index * _ELEMENT_BYTES)[2])

    def _inline(self, start: int) -> Iterator[tuple[Place, int, bytes]]:
        """A small bucket is a leaf page inside the value that names it."""
        data = self._read(start, self.meta.page_size)
        yield from self._leaf(data, PAGE_HEADER.unpack_from(data)[2], start)

    @staticmethod
    def _leaf(data: bytes, count: int, start: int) -> Iterator[tuple[Place, int, bytes]]:
        for index in range(count):
            at = PAGE_HEADER.size + index * _ELEMENT_BYTES
            kind, position, key_size, size = _LEAF_ELEMENT(data, at)
            begin = at + position
            yield Place(start + begin + key_size, size), kind, data[begin : begin + key_size]
