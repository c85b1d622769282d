"""Taking one executable out of an archive, and nothing else.

No archive is ever extracted as a whole: the one member named `etcd` is copied as a stream of bytes to a path of our
choosing, up to a bound. Member paths, links, owners and modes in the archive have no say.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from pekan.errors import BinaryUnavailable

EXECUTABLE_BYTES_MAX: Final = 512 << 20  # ten times today's largest etcd with debug information
CHUNK_BYTES: Final = 1 << 20
ARCHIVE_SUFFIXES: Final = (".tar.gz", ".tgz", ".zip")

# What the standard library raises over damaged archives; RuntimeError is zipfile's word for "encrypted" or "unknown
# compression". BadGzipFile is an OSError and would else read as trouble with the disk.
_DAMAGE: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
)


def copy_bounded(source: IO[bytes], target: Path) -> None:
    """Copies a stream to a new executable file; raises `BinaryUnavailable` when it has no end in sight."""
    left = EXECUTABLE_BYTES_MAX
    with target.open("xb") as sink:
        while chunk := source.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise BinaryUnavailable(f"an etcd executable of more than {EXECUTABLE_BYTES_MAX >> 20} MiB: not taken")
            sink.write(chunk)
    target.chmod(0o755)


def extract_etcd(archive: Path, target: Path) -> None:
    """Copies the file `etcd` out of a release archive (`.tar.gz`, `.tgz` or `.zip`) to `target`.

    Raises `BinaryUnavailable`, leaving no `target`, when the archive is damaged or holds no file, or several files, of
    that name.
    """
    try:
        names = _from_zip(archive, target) if archive.name.endswith(".zip") else _from_tar(archive, target)
    except _DAMAGE as error:
        target.unlink(missing_ok=True)
        raise BinaryUnavailable(f"{archive} is not a whole archive: {error}") from error
    if len(names) != 1:
        target.unlink(missing_ok=True)
        what = "no file" if not names else f"{len(names)} files"
        raise BinaryUnavailable(f"{archive} holds {what} named etcd: expected one, as in etcd's release archives")


def _from_zip(archive: Path, target: Path) -> list[str]:
    """Copies the first member named `etcd`; returns the names of all such. zipfile checks the member's CRC."""
    with zipfile.ZipFile(archive) as zipped:
        names = [entry.filename for entry in zipped.infolist() if not entry.is_dir() and _is_server(entry.filename)]
        if names:
            with zipped.open(names[0]) as source:
                copy_bounded(source, target)
    return names


def _from_tar(archive: Path, target: Path) -> list[str]:
    """Copies the first regular file named `etcd`; returns the names of all such. One pass over the stream."""
    names: list[str] = []
    with gzip.open(archive, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tarred:
            for entry in tarred:
                if not (entry.isreg() and _is_server(entry.name)):
                    continue
                names.append(entry.name)
                source = tarred.extractfile(entry)
                if source is not None and len(names) == 1:
                    copy_bounded(source, target)
        # gzip's checksum stands at its end, behind what tarfile reads: reading on is what verifies it.
        while stream.read(CHUNK_BYTES):
            pass
    return names


def _is_server(name: str) -> bool:
    return PurePosixPath(name).name == "etcd"
