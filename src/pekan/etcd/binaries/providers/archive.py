"""`archive`: official release archives, from a mirror with checksums or from a file.

::

    PEKAN_ETCD_RELEASES = directory, or http(s) base URL; `{version}` in it becomes the version
        ├── SHA256SUMS                            the lines of sha256sum: hex, blanks, file name
        └── etcd-v3.5.1-linux-amd64.tar.gz        with exactly one file named `etcd` in it

That is the layout of etcd's own release pages. An archive without a line in SHA256SUMS is not taken, one with another
checksum is refused for good. A file named by the caller is held to a SHA256SUMS beside it, if that lists the file.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries.providers import ChecksumMismatch, Progress, Provided
from pekan.etcd.binaries.unpack import CHUNK_BYTES, extract_etcd

RELEASES_VARIABLE: Final = "PEKAN_ETCD_RELEASES"
OFFICIAL_RELEASES: Final = "https://github.com/etcd-io/etcd/releases/download/v{version}"
CHECKSUMS_NAME: Final = "SHA256SUMS"
CHECKSUMS_BYTES_MAX: Final = 1 << 20  # etcd's has 2 kB; a mirror of every release ever has 100 kB
ARCHIVE_BYTES_MAX: Final = 512 << 20  # etcd's archives have 16 to 25 MB
SOCKET_TIMEOUT_S: Final = 30.0
DOWNLOAD_TIMEOUT_S: Final = 15 * 60.0  # 25 MB at 30 kB/s

_SUM_LINE: Final = re.compile(r"(?P<sum>[0-9a-fA-F]{64})\s+\*?(?:\./)?(?P<name>\S+)")


def archive_name(version: str) -> str:
    """The file name of a release's archive for the one platform that Pekan drives etcd on."""
    return f"etcd-v{version}-linux-amd64.tar.gz"


def parse_checksums(text: str) -> dict[str, str]:
    """File name to lower-case sha256, from the output of sha256sum; lines of any other form are ignored."""
    matches = (_SUM_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match["name"]: match["sum"].lower() for match in matches if match is not None}


class ReleaseMirror:
    """The archives under a directory or base URL (`PEKAN_ETCD_RELEASES` unless given)."""

    def __init__(self, base: str | None = None, *, offline: bool = False) -> None:
        self._base = os.environ.get(RELEASES_VARIABLE, "") if base is None else base
        self._offline = offline
        self._listed: dict[str, str] | None = None  # checksums of a base that is the same for every version
        self._trouble: str | None = None  # why that base's checksums could not be read

    @property
    def name(self) -> str:
        return "archive"

    def why_not(self, version: str) -> str | None:
        if not self._base:
            return f"no mirror of etcd's release archives is configured: set {RELEASES_VARIABLE} to its URL or directory"
        if "{version}" in self._base:
            return None  # a directory or page per version: only asking for it tells
        if self._listed is None and self._trouble is None:
            if self._offline and _is_url(self._base):
                return None
            try:
                self._listed = _checksums(self._base)
            except BinaryUnavailable as error:
                self._trouble = str(error)
        if self._trouble is not None:
            return self._trouble
        if archive_name(version) not in (self._listed or {}):
            return f"{_shown(self._base)}/{CHECKSUMS_NAME} does not list {archive_name(version)}"
        return None

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        base = self._base.replace("{version}", version)
        name = archive_name(version)
        source = f"{base.rstrip('/')}/{name}"
        expected = _checksums(base).get(name)
        if expected is None:
            raise BinaryUnavailable(f"{_shown(base)}/{CHECKSUMS_NAME} does not list {name}: not taken without a checksum")
        progress(f"etcd {version}: downloading {_shown(source)}")
        archive = destination_dir / name
        found = _copy(source, archive, lambda text: progress(f"etcd {version}: {text}"))
        _must_match(_shown(source), found, expected)
        target = destination_dir / "etcd"
        extract_etcd(archive, target)
        return Provided(target, _shown(source))


class ArchiveFile:
    """One release archive on this machine, of whatever version is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return "archive"

    def why_not(self, version: str) -> str | None:
        """Why the file cannot serve; what version is in it shows only when it is unpacked."""
        del version
        return None if self._path.is_file() else f"{self._path} is not a file"

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        del version
        progress(f"unpacking {self._path}")
        # A copy, so that what is unpacked is what was hashed, whoever writes to the original.
        archive = destination_dir / f"archive-{self._path.name}"
        found = _copy(str(self._path), archive, progress)
        sums = self._path.parent / CHECKSUMS_NAME
        if sums.is_file():
            expected = _checksums(str(self._path.parent)).get(self._path.name)
            if expected is not None:
                _must_match(str(self._path), found, expected)
        target = destination_dir / "etcd"
        extract_etcd(archive, target)
        return Provided(target, str(self._path.absolute()))


def _must_match(source: str, found: str, expected: str) -> None:
    if found != expected:
        raise ChecksumMismatch(
            f"{source} is not the archive that {CHECKSUMS_NAME} promises: sha256 {found}, expected {expected}; "
            "nothing was installed. Fetch it again, and ask whoever runs the mirror if it stays so"
        )


def _is_url(base: str) -> bool:
    return base.startswith(("http://", "https://"))


def _shown(source: str) -> str:
    """A URL without what may be secret in it (user, password, query), fit for messages and for the record."""
    source = source.rstrip("/")
    if not _is_url(source):
        return source
    parts = urllib.parse.urlsplit(source)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _checksums(base: str) -> dict[str, str]:
    source = f"{base.rstrip('/')}/{CHECKSUMS_NAME}"
    with _opened(source) as stream:
        text = stream.read(CHECKSUMS_BYTES_MAX).decode("utf-8", "replace")
    return parse_checksums(text)


def _copy(source: str, target: Path, progress: Progress) -> str:
    """Copies a URL or file to a new file; returns the sha256 of what was written."""
    digest = hashlib.sha256()
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    size = 0
    with _opened(source) as stream, target.open("xb") as sink:
        while True:
            with _reading(source):
                chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return digest.hexdigest()
            size += len(chunk)
            if size > ARCHIVE_BYTES_MAX:
                raise BinaryUnavailable(f"{_shown(source)} has more than {ARCHIVE_BYTES_MAX >> 20} MiB: not taken")
            if time.monotonic() > deadline:
                raise BinaryUnavailable(f"{_shown(source)} was not complete after {DOWNLOAD_TIMEOUT_S:.0f} s")
            digest.update(chunk)
            sink.write(chunk)
            progress(f"{size / 1e6:.0f} MB")


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Turns every way in which a server or file can fail to answer into `BinaryUnavailable`."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise BinaryUnavailable(f"{_shown(source)}: HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise BinaryUnavailable(f"{_shown(source)}: {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise BinaryUnavailable(f"{_shown(source)}: {error}") from error


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    """A URL or a file, open for reading."""
    with _reading(source):
        stream: IO[bytes] = urllib.request.urlopen(_request(source), timeout=SOCKET_TIMEOUT_S)
    with stream:
        yield stream


def _request(source: str) -> urllib.request.Request:
    """The request for a URL or a file; user and password of a URL go into a header that no redirect carries along."""
    if not _is_url(source):
        return urllib.request.Request(Path(source).absolute().as_uri())
    parts = urllib.parse.urlsplit(source)
    credentials, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
    if at:
        token = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request
