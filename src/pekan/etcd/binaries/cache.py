"""Where etcd executables are kept, so that two installs, a crash and a curious hand all leave it whole.

::

    $PEKAN_CACHE, else $XDG_CACHE_HOME/pekan, else ~/.cache/pekan
    └── etcd/
        ├── content/SHA256/etcd    the executable, named by its bytes; read-only; appears by one rename, complete
        ├── names/NAME.json        what `3.6.16` (or an archive file, by its sha256) was found to be: a Binary
        ├── locks/NAME.lock        held (flock) while NAME is being made; the kernel drops it if the holder dies
        ├── staging/NAME.XXXX/     work in progress of the lock's holder; leftovers of a killed one go at the next try
        └── indexes/               what package indexes said, for a while

A name is written only after its content is in place and has been asked for its version. A reader needs no lock: it
checks size and sha256 of what a name points to, and takes the name for absent when they differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pekan.errors import EnvironmentFailure, EvidenceError, UsageError
from pekan.etcd.binaries.binary import Binary, file_sha256
from pekan.etcd.binaries.versions import version_key

LOCK_TIMEOUT_S: Final = 45 * 60.0  # longer than the longest bound of any provider (a build: 30 min)
LOCK_POLL_S: Final = 0.1
JSON_BYTES_MAX: Final = 1 << 20

_NAME: Final = re.compile(r"[0-9a-z][0-9a-z.-]{0,99}")


def cache_root() -> Path:
    """Pekan's cache directory, absolute; it need not exist yet."""
    chosen = os.environ.get("PEKAN_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    # The XDG base directory specification: a relative value is to be ignored.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if xdg.startswith("/") else Path.home() / ".cache"
    return base / "pekan"


@contextlib.contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns an `OSError` of cache work (full disk, no permission) into an `EnvironmentFailure` that says what to do."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot use the cache of etcd binaries under {root}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; "
            "make room or permit writing there, or set PEKAN_CACHE to another directory"
        ) from error


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache under one directory. Methods raise `OSError`; callers wrap whole operations in `explained`."""

    root: Path

    @classmethod
    def of_user(cls) -> Cache:
        """The cache of the user who runs Pekan."""
        return cls(cache_root() / "etcd")

    def look_up(self, name: str) -> Binary | None:
        """What `name` stands for, if its file is here with the size and sha256 that were recorded."""
        binary = self._read(self._name_file(name))
        if binary is None or not self._has_size(binary):
            return None
        return binary if file_sha256(binary.path) == binary.sha256 else None

    def entries(self) -> list[Binary]:
        """Every named executable whose file is here with its recorded size, newest version first."""
        present = set(self.named().values())
        return sorted(present, key=lambda binary: (version_key(binary.version), binary.provider), reverse=True)

    def named(self) -> dict[str, Binary]:
        """Every name whose file is here with its recorded size."""
        found = {file.stem: self._read(file) for file in sorted((self.root / "names").glob("*.json"))}
        return {name: binary for name, binary in found.items() if binary is not None and self._has_size(binary)}

    def publish(self, name: str, binary: Binary) -> Binary:
        """Moves the executable of `binary` (in a staging directory of this cache) to its place, then names it.

        The caller holds the lock of `name` and has verified the binary. Returns it with its final path.
        """
        place = self.root / "content" / binary.sha256
        placed = replace(binary, path=place / "etcd")
        if not (self._has_size(placed) and file_sha256(placed.path) == placed.sha256):
            ready = binary.path.parent / "publish"
            ready.mkdir()
            os.replace(binary.path, ready / "etcd")
            (ready / "etcd").chmod(0o555)
            _fsync(ready / "etcd")  # the rename must not reach the disk before the bytes
            place.parent.mkdir(parents=True, exist_ok=True)
            _move_directory(ready, place)
        self.write_json(self._name_file(name), placed.to_json())
        return placed

    def read_json(self, file: Path) -> dict[str, object] | None:
        """The JSON object in a file of this cache; None when it is missing, too large or damaged."""
        try:
            with file.open("rb") as stream:
                document = json.loads(stream.read(JSON_BYTES_MAX))
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def write_json(self, file: Path, document: dict[str, object]) -> None:
        """Replaces a file of this cache by a JSON object, atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=2, sort_keys=True)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    @contextlib.contextmanager
    def lock(self, name: str, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the lock of `name`; calls `waiting` once if somebody else has it.

        Raises `EnvironmentFailure` when the other does not finish within `LOCK_TIMEOUT_S`.
        """
        import fcntl  # absent on Windows, where this module must still be importable (`pekan check` works there)

        path = self.root / "locks" / f"{_checked(name)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        # Lock files stay: unlinking one would let a third process lock a new file beside a waiter's old one.
        with path.open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if waiting is not None:
                        waiting()
                        waiting = None
                    if time.monotonic() > deadline:
                        raise EnvironmentFailure(
                            f"another process has been making etcd {name} for {LOCK_TIMEOUT_S / 60:.0f} minutes: it holds {path}"
                        ) from None
                    time.sleep(LOCK_POLL_S)
                else:
                    break
            yield

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A fresh directory on the cache's file system, gone afterwards; the caller holds the lock of `name`."""
        area = self.root / "staging"
        area.mkdir(parents=True, exist_ok=True)
        for leftover in area.glob(f"{_checked(name)}.*"):
            # The random part has no dot in it, so what stands before the last dot is the whole name.
            if leftover.name.rpartition(".")[0] == name:
                _remove(leftover)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=area))
        try:
            yield directory
        finally:
            _remove(directory)

    def index_file(self, name: str) -> Path:
        """Where a provider keeps what it read in a package index."""
        return self.root / "indexes" / f"{_checked(name)}.json"

    def _name_file(self, name: str) -> Path:
        return self.root / "names" / f"{_checked(name)}.json"

    def _read(self, file: Path) -> Binary | None:
        document = self.read_json(file)
        if document is None:
            return None
        try:
            binary = Binary.from_json(document)
            version_key(binary.version)
        except (EvidenceError, UsageError):
            return None  # written by another Pekan or by hand: as good as absent
        # The place follows from the content, not from the record: a cache directory may be moved or copied.
        return replace(binary, path=self.root / "content" / binary.sha256 / "etcd")

    @staticmethod
    def _has_size(binary: Binary) -> bool:
        try:
            return binary.path.stat().st_size == binary.size_bytes
        except FileNotFoundError:
            return False


def _checked(name: str) -> str:
    """A name is a file name: nothing in it may lead elsewhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a cache name: {name!r}")
    return name


def _move_directory(ready: Path, place: Path) -> None:
    """Renames a complete directory to its place. Another install may have put the same bytes there meanwhile."""
    try:
        os.rename(ready, place)
    except OSError:
        # The target is not empty. Its name promises these very bytes; make the file anew in case they were damaged.
        if not place.is_dir():
            raise
        os.replace(ready / "etcd", place / "etcd")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    """Removes a tree, also one with read-only directories in it (unpacked packages)."""
    for folder, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(directory, ignore_errors=True)
