"""Where a member keeps its files, and how they are read: by offset and size, so that a slice of memory will do as well."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

Read = Callable[[int, int], bytes]
"""(offset, size) -> the bytes there; fewer at the end of the file."""


def reader(fd: int) -> Read:
    """What reads the open file `fd`, whatever its position."""

    def read(offset: int, size: int) -> bytes:
        data = os.pread(fd, size, offset)
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
        return data

    return read


def in_memory(data: bytes) -> Read:
    """What reads the content of a file that is `data`."""
    return lambda offset, size: data[offset : offset + size]


def wal_directory(spec: MemberSpec) -> Path:
    """Where a member keeps its write-ahead log."""
    return spec.wal_dir if spec.wal_dir is not None else spec.data_dir / "member" / "wal"


def database(spec: MemberSpec) -> Path:
    """Where a member keeps its database."""
    return spec.data_dir / "member" / "snap" / "db"


def segments(spec: MemberSpec) -> list[Path]:
    """The files of a member's log in their order: names are sequence and first index, in hexadecimal digits of a fixed number."""
    return sorted(path for path in wal_directory(spec).iterdir() if path.suffix == ".wal")
