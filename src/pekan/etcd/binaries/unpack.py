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

    Raises `BinaryUnavailable` when the archive is damaged or holds no file, or several files, of that name.
    """
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                name = _only(archive, [entry.filename for entry in zipped.infolist() if not entry.is_dir()])
                with zipped.open(name) as source:
                    copy_bounded(source, target)
        else:
            with tarfile.open(archive, "r:gz") as tarred:
                name = _only(archive, [entry.name for entry in tarred.getmembers() if entry.isreg()])
                stream = tarred.extractfile(name)
                if stream is None:
                    raise BinaryUnavailable(f"{archive}: {name} is not a regular file")
                with stream:
                    copy_bounded(stream, target)
    except _DAMAGE as error:
        raise BinaryUnavailable(f"{archive} is not a whole archive: {error}") from error


def _only(archive: Path, names: list[str]) -> str:
    """The one member whose file name is `etcd`."""
    found = [name for name in names if PurePosixPath(name).name == "etcd"]
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise BinaryUnavailable(f"{archive} holds {what} named etcd: expected one, as in etcd's release archives")
    return found[0]
