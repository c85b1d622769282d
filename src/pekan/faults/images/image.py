"""What all members' files hold at one moment, as a SIGKILL of all of them would leave it.

::

    before            while every member stands still                    afterwards
    end of the logs   the rest of each log, the pages in use of each     the logs' beginnings (nothing changes there any more),
    so far            database, every small file ──> memory              memory ──> run/images/N/data/NAME/member/...

Only what exists is read: a log is preallocated to 64 MB of zeros and a database grows ahead of its pages, so an image keeps the sizes and
leaves the rest as holes. What a SIGKILL leaves is what read(2) shows: the page cache survives, unsynced writes included.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pekan.etcd.spec import MemberSpec, MemberState
from pekan.faults.stored.bbolt import metas
from pekan.faults.stored.files import reader, wal_directory
from pekan.faults.stored.wal import end_of_log, frames

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

MEMBER_BYTES_MAX = 96 << 20
"""Of one member in one image; reading more would keep the members still for too long (some 50 ms at 2 GB/s)."""
FILES_MAX = 64
"""A member has 5 to 20: at most 5 logs and 5 snapshots by etcd's default, and what a crash left over."""
DIGEST_HEAD_BYTES = 16 << 10
DIGEST_TAIL_BYTES = 64 << 10
"""Of the database (its meta pages change with every commit) and of each log: two images that agree in these are the same."""


class _Part(NamedTuple):
    """A stretch of a file."""

    offset: int
    data: bytes


class _File(NamedTuple):
    """One file: its size, what was read of it, and where what is still to be read ends (a log's unchanging beginning)."""

    path: str
    size: int
    parts: tuple[_Part, ...]
    later: int


@dataclass
class Taken:
    """One member's files while it stood still, and what it was at that moment."""

    spec: MemberSpec
    state: MemberState
    incarnation: int
    files: list[_File] = field(default_factory=list)
    bytes: int = 0
    digest: str = ""


class TooMuch(Exception):
    """There is more than an image may hold."""


class Reader:
    """Reads the files of one member again and again; knows how far its logs went the last time."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._incarnation = -1

    def prepare(self, spec: MemberSpec, incarnation: int) -> None:
        """Find the ends of the logs so far, so that the member need not stand still for it."""
        if incarnation != self._incarnation:
            # A start may cut a torn end off and write over it.
            self._incarnation, self._known = incarnation, {}
        directory = wal_directory(spec)
        for name in _names(directory):
            if name.endswith(".wal"):
                self._known[name] = _settled(directory / name, self._known.get(name, 0))

    def take(self, member: Member) -> Taken:
        """Read what is there now. Raises `TooMuch`, and OSError where the files are not as a member's."""
        spec, incarnation = member.spec, member.incarnation
        known = self._known if incarnation == self._incarnation else {}
        taken = Taken(spec, member.state, incarnation)
        digest = blake2b(digest_size=16)
        wal = wal_directory(spec)
        for folder, prefix in ((spec.data_dir / "member" / "snap", "snap"), (wal, "wal")):
            names = _names(folder)
            if len(taken.files) + len(names) > FILES_MAX:
                raise TooMuch(f"{len(names)} files in {folder}")
            for name in names:
                fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    found = _read(fd, f"{prefix}/{name}", known.get(name, 0) if prefix == "wal" else 0)
                finally:
                    os.close(fd)
                taken.files.append(found)
                taken.bytes += sum(len(part.data) for part in found.parts) + found.later
                if taken.bytes > MEMBER_BYTES_MAX:
                    raise TooMuch(f"{taken.bytes} bytes of {spec.name}")
                digest.update(f"{found.path}\0{found.later}\0".encode())
                for part in found.parts:
                    digest.update(part.data[:DIGEST_HEAD_BYTES] if name == "db" else part.data[-DIGEST_TAIL_BYTES:])
        taken.digest = digest.hexdigest()
        return taken


def write(taken: Taken, target: Path) -> None:
    """Make `target` a data directory with what was taken. Raises FileNotFoundError where a log that was to be completed is gone."""
    for found in taken.files:
        path = target / "member" / found.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, found.size)
            for part in found.parts:
                _pwrite(fd, part.data, part.offset)
            if found.later:
                source = os.open(wal_directory(taken.spec) / path.name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    _pwrite(fd, reader(source)(0, found.later), 0)
                finally:
                    os.close(source)
        finally:
            os.close(fd)


def told(taken: Taken) -> dict[str, Any]:
    """What the record says of one member's part: sizes of what was read, and the digest of what changes."""
    return {
        "state": str(taken.state),
        "incarnation": taken.incarnation,
        "files": len(taken.files),
        "bytes": taken.bytes,
        "digest": taken.digest,
    }


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _settled(path: Path, start: int) -> int:
    """Up to where a log will not change any more: a log is written in order, so only its last frame may still be in the making."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        for frame in frames(reader(fd), start):
            start = frame.start
        return start
    finally:
        os.close(fd)


def _read(fd: int, name: str, known: int) -> _File:
    """What there is of one open file. `known`: up to here a log does not change any more."""
    size, read = os.fstat(fd).st_size, reader(fd)
    if name.startswith("wal/"):
        # A segment that is not in use yet (N.tmp) has the same form.
        end = min(size, end_of_log(read, known))
        return _File(name, size, (_Part(known, read(known, end - known)),) if end > known else (), known)
    end = size
    if name == "snap/db":
        valid = metas(read)
        # Both metas: pages that only the older one names are as much a part of what is there.
        end = min(size, max((meta.high_water * meta.page_size for meta in valid), default=size))
    if end > MEMBER_BYTES_MAX:
        raise TooMuch(f"{end} bytes in {name}")
    return _File(name, size, (_Part(0, read(0, end)),), 0)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
