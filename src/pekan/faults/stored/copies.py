"""Copies of members' directories: logs are preallocated and databases grow ahead of their pages, so holes stay holes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def copy_tree(source: Path, target: Path) -> None:
    """Copy files and directories below `source`, holes as holes; where the file system can, the copy shares its blocks."""
    target.mkdir(mode=0o700, parents=True)
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            copy_tree(Path(entry.path), target / entry.name)
        elif entry.is_file(follow_symlinks=False):
            copy_file(Path(entry.path), target / entry.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file as above."""
    with source.open("rb", buffering=0) as original, target.open("xb", buffering=0) as copy:
        size = os.fstat(original.fileno()).st_size
        os.truncate(copy.fileno(), size)
        at = 0
        while at < size:
            try:
                at = os.lseek(original.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end
                break
            end = os.lseek(original.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += _some(original.fileno(), copy.fileno(), at, end - at)


def _some(source: int, target: int, offset: int, count: int) -> int:
    copied: Any = os.copy_file_range(source, target, count, offset, offset)
    if not copied:
        raise OSError("a file became shorter while it was copied")
    return int(copied)
