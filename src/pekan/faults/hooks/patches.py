"""From an executable and names of points to the bytes that have to be in a process of it before it runs its first instruction.

::

    plan_patches(path, ["raftBeforeSave", "wal.(*WAL).Save", "server.go:1880"])
       │
       ├── points       name -> addresses in the text
       ├── relocation   what stands there, made to run elsewhere
       └── stub         the code that counts and fires
       v
    Patches             0x30000000  code of all stubs            mapped read and execute, private
                        0x38000000  one cell of 128 bytes each   mapped read and write, shared
                        in the text: a jump at each point        written while the process stands at its exec

Both addresses are fixed, so everything depends on the bytes of the executable and on the names only, and is kept in Pekan's cache by their
sha256: a start then costs the reading of one file. The addresses are above what etcd is linked at (from 4 MiB, 40 MiB long) and below what
the kernel gives to anything of its own accord in a process that is not position independent.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pekan.errors import EnvironmentFailure
from pekan.etcd.binaries.binary import file_sha256
from pekan.etcd.binaries.cache import cache_root
from pekan.faults.hooks import stub
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.points import REMEDY, Point, Points, why_not
from pekan.faults.hooks.stub import Refused

CODE_ADDRESS: Final = 0x30000000
CELLS_ADDRESS: Final = 0x38000000
CODE_BYTES_MAX: Final = CELLS_ADDRESS - CODE_ADDRESS  # a million stubs of 80 bytes and more
PAGE_BYTES: Final = 4096

# Two patches with less than this between them are written in one piece, with etcd's own bytes between them.
_GAP_BYTES_MAX: Final = PAGE_BYTES

_FORMAT: Final = b"pekan patches\n"
_FILES_MAX: Final = 64  # in the cache; a plan for all functions is two megabytes


@dataclass(frozen=True, slots=True)
class Patches:
    """What to put into a process at its exec stop.

    `code` goes to `code_address` (pages to be mapped read and execute there), `cells_bytes` of shared memory to `cells_address`; `writes`
    are (address, bytes) over etcd's own text. Both sizes are whole pages. `cells` gives the number of each point's cell, `refused` says of
    the others why no hook can be there.
    """

    code_address: int
    code: bytes
    cells_address: int
    cells_bytes: int
    writes: tuple[tuple[int, bytes], ...]
    cells: Mapping[str, int]
    refused: Mapping[str, str]

    @property
    def cell_count(self) -> int:
        """How many cells are in use, from number 0."""
        return max(self.cells.values(), default=-1) + 1

    def initial_cells(self, fd: int = -1) -> bytes:
        """The contents of the shared memory before the start, with records to the pipe `fd`."""
        return stub.cells(self.cell_count, fd).ljust(self.cells_bytes, b"\0")


def plan_patches(
    path: Path, names: Iterable[str], *, release: str | None = None, sha256: str | None = None, keep: Path | None = None
) -> Patches:
    """The patches for hooks at the points `names` in the executable at `path`.

    `release` is the version of etcd that it is, which gofail names need; `sha256` is that of the file, where the caller knows it; `keep` is
    the directory of kept plans (`hooks` in Pekan's cache). Raises `UsageError` for a name that means nothing or several things in this
    executable, `EnvironmentFailure` when it cannot be hooked at all.
    """
    wanted = tuple(dict.fromkeys(names))
    key = _key(sha256 or file_sha256(path), release, wanted)
    file = (keep or cache_root() / "hooks") / f"{key}.patches"
    kept = _load(file)
    if kept is not None:
        return kept
    binary = GoBinary(path)
    points = Points(binary, release)
    planned = patches_for(binary, [points.find(name) for name in wanted])
    _store(file, planned)
    return planned


def patches_for(binary: GoBinary, points: Sequence[Point]) -> Patches:
    """The patches for these points, computed."""
    return _Planner(binary).plan(points)


class _Planner:
    """One planning: what has been placed so far."""

    def __init__(self, binary: GoBinary) -> None:
        self.binary = binary
        self.code = bytearray(stub.FIRE)
        if reason := why_not():
            raise EnvironmentFailure(f"{reason}; {REMEDY}")
        from pekan.faults.hooks.relocation import FunctionCode  # iced-x86 is not there for those who only check

        self.code_of = functools.cache(lambda function: FunctionCode(binary, function))
        self.cell_of: dict[int, int] = {}  # place in the text -> cell
        self.patches: dict[int, bytes] = {}
        self.owners: dict[int, int] = {}  # overwritten byte -> place of the patch

    def plan(self, points: Sequence[Point]) -> Patches:
        cells: dict[str, int] = {}
        refused: dict[str, str] = {}
        count = 0
        for point in points:
            # Two names of the same places share a cell.
            known = {self.cell_of.get(address) for address in point.addresses}
            if len(known) == 1 and None not in known:
                cells[point.name] = next(cell for cell in known if cell is not None)
                continue
            try:
                self._place(point, count)
            except Refused as reason:
                refused[point.name] = str(reason)
                continue
            cells[point.name] = count
            count += 1
        size = max(1, count) * stub.CELL_BYTES
        return Patches(CODE_ADDRESS, _whole_pages(bytes(self.code)), CELLS_ADDRESS, _page_size(size), self._writes(), cells, refused)

    def _place(self, point: Point, cell: int) -> None:
        """Hooks at every address of the point, all counting into one cell; raises `Refused`, and leaves nothing behind, when one of them
        cannot be."""
        placed: list[tuple[int, bytes, bytes]] = []
        size = len(self.code)
        for address in point.addresses:
            function = self.binary.function_at(address)
            if function is None:
                raise Refused(f"{address:#x} is in no function")
            code = self.code_of(function)
            size += -size % stub.ALIGNMENT
            at = CODE_ADDRESS + size
            moved = code.move(address, at + stub.STUB_HEAD_BYTES)
            taken = [self.owners[byte] for byte in range(address, address + moved.length) if byte in self.owners]
            taken += [other for other, replaced, _ in placed if other < address + moved.length and address < other + len(replaced)]
            if taken:
                raise Refused(f"another point's hook at {taken[0]:#x} covers a part of it")
            body = stub.stub(at, CELLS_ADDRESS + cell * stub.CELL_BYTES, CODE_ADDRESS, moved)
            size += len(body)
            placed.append((address, stub.patch(address, at, moved), body))
        if size > CODE_BYTES_MAX:
            raise Refused(f"the hooks before it fill the {CODE_BYTES_MAX} bytes that there are for code")
        for address, replaced, body in placed:
            self.code += b"\xcc" * (-len(self.code) % stub.ALIGNMENT)
            self.code += body
            self.patches[address] = replaced
            self.cell_of[address] = cell
            for byte in range(address, address + len(replaced)):
                self.owners[byte] = address

    def _writes(self) -> tuple[tuple[int, bytes], ...]:
        """The patches, near ones joined, so that thousands of points are some dozens of writes."""
        runs: list[list[int]] = []
        for address in sorted(self.patches):
            if runs and address - _end(self.patches, runs[-1][-1]) < _GAP_BYTES_MAX:
                runs[-1].append(address)
            else:
                runs.append([address])
        return tuple((run[0], self._joined(run)) for run in runs)

    def _joined(self, addresses: Sequence[int]) -> bytes:
        """The text from the first patch to the end of the last, with the patches in it."""
        start, end = addresses[0], _end(self.patches, addresses[-1])
        text = bytearray(self.binary.read(start, end - start))
        for address in addresses:
            text[address - start : _end(self.patches, address) - start] = self.patches[address]
        return bytes(text)


def _end(patches: Mapping[int, bytes], address: int) -> int:
    return address + len(patches[address])


def _page_size(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def _whole_pages(code: bytes) -> bytes:
    return code.ljust(_page_size(len(code)), b"\xcc")


# -- the cache ---------------------------------------------------------------------------------------------------------------------------


def _key(sha256: str, release: str | None, names: Sequence[str]) -> str:
    """Everything that a plan depends on: the file, the names, and how this Pekan makes plans."""
    digest = hashlib.sha256(_FORMAT)
    # Plans of another Pekan are not read: what makes them, and the table of gofail sites, are part of the key.
    for name in ("flow.py", "gobinary.py", "gofail.json", "patches.py", "points.py", "relocation.py", "sites.py", "stub.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    digest.update(json.dumps([sha256, release, *names]).encode())
    return digest.hexdigest()


def _load(file: Path) -> Patches | None:
    """A kept plan; None when there is none or its bytes are not what was written."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if not data.startswith(_FORMAT) or hashlib.sha256(data[:-32]).digest() != data[-32:]:
        return None
    (size,) = struct.unpack_from("<I", data, len(_FORMAT))
    at = len(_FORMAT) + 4
    head: dict[str, Any] = json.loads(data[at : at + size])
    at += size
    blobs: list[bytes] = []
    for length in head["lengths"]:
        blobs.append(data[at : at + length])
        at += length
    writes = tuple(zip(head["addresses"], blobs[1:], strict=True))
    return Patches(head["code_address"], blobs[0], head["cells_address"], head["cells_bytes"], writes, head["cells"], head["refused"])


def _store(file: Path, patches: Patches) -> None:
    """Keeps a plan, by one rename. A cache that cannot be written costs the next start half a second, and nothing else."""
    blobs = [patches.code, *(text for _, text in patches.writes)]
    head = json.dumps(
        {
            "code_address": patches.code_address,
            "cells_address": patches.cells_address,
            "cells_bytes": patches.cells_bytes,
            "addresses": [address for address, _ in patches.writes],
            "lengths": [len(blob) for blob in blobs],
            "cells": dict(patches.cells),
            "refused": dict(patches.refused),
        }
    ).encode()
    data = _FORMAT + struct.pack("<I", len(head)) + head + b"".join(blobs)
    data += hashlib.sha256(data).digest()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, data)
        kept = sorted(file.parent.glob("*.patches"), key=lambda path: path.stat().st_mtime_ns)
        for old in kept[:-_FILES_MAX]:
            old.unlink(missing_ok=True)


def write_atomically(file: Path, data: bytes) -> None:
    """Replaces a file by one rename, so that no reader sees a part of it."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
