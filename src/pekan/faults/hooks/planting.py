"""What equipment wants planted in a member at its exec stop, written down for the launcher; and whether that works on this machine.

::

    equipment ── write_patches(file, ...) ──> Attachment("patches", file, shared memory) ──> launcher ──> exec_stop.py

Addresses are fixed, and nobody's pages meet. A program that is not position independent is linked to 0x400000 and up; by itself Linux
maps nothing below that, and lets nobody map below `vm.mmap_min_addr` (64 KiB)::

    0x00010000    the clock: its code, its shared page
    0x30000000    the hooks: `pekan.faults.hooks.patches`
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pekan.etcd.exec_stop
import pekan.etcd.launcher
from pekan.etcd.spec import Attachment
from pekan.faults.ability import once

PAGE_BYTES = mmap.PAGESIZE
PROBE_SECONDS_MAX = 30.0
"""A launcher and a program of four instructions take a tenth of a second; the rest is for a machine that is busy just now."""


class Code(NamedTuple):
    """Bytes to be mapped privately, to be read and run, not written."""

    address: int
    content: bytes


class Shared(NamedTuple):
    """Memory shared with Pekan: whole pages."""

    address: int
    length: int


class Replacement(NamedTuple):
    """`new` in the place of `old`, both of one length; refused where something else is found."""

    address: int
    old: bytes
    new: bytes


def pages(length: int) -> int:
    """`length` in bytes, rounded up to whole pages."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


def write_patches(
    path: Path, code: Sequence[Code], shared: Sequence[Shared], writes: Sequence[Replacement] = (), vdso: Sequence[Replacement] = ()
) -> None:
    """The file of an attachment of kind "patches" (its form: `pekan.etcd.exec_stop`). Addresses in `vdso` count from its start."""
    blob = bytearray()

    def put(content: bytes) -> int:
        blob.extend(content)
        return len(blob) - len(content)

    def placed(replacements: Sequence[Replacement]) -> list[tuple[int, int, int]]:
        assert all(len(each.old) == len(each.new) for each in replacements)
        return [(each.address, put(each.old + each.new), len(each.old)) for each in replacements]

    maps: list[dict[str, int | bool]] = [
        {"address": each.address, "length": pages(len(each.content)), "at": put(each.content), "bytes": len(each.content)} for each in code
    ]
    maps += [{"address": each.address, "length": each.length, "shared": True} for each in shared]
    header = {"maps": maps, "writes": placed(writes), "vdso": placed(vdso)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(header).encode() + b"\n" + blob)


class SharedMemory:
    """Memory that members share with Pekan; it outlives each of their processes. Words of eight bytes, each written in one piece."""

    def __init__(self, name: str, length: int) -> None:
        self.length = pages(length)
        self.fd = os.memfd_create(f"pekan-{name}", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self.length)
        self.memory = mmap.mmap(self.fd, self.length)
        self.words = memoryview(self.memory).cast("Q")
        """A store of one item of an aligned native type is one instruction, which on x86-64 nobody sees half of."""

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            self.words.release()
            self.memory.close()
            os.close(self.fd)
            self.fd = -1


def attachment(file: Path, memory: SharedMemory, further: tuple[int, ...] = ()) -> Attachment:
    """What a member needs for the patches in `file`; it keeps the descriptors in `further` over exec."""
    return Attachment("patches", {"file": str(file.absolute()), "shared": memory.fd}, (memory.fd, *further))


# A static x86-64 program: exit(42). Planted: exit with the shared word instead, and count it.
_LOADED = 0x400000
_HEADER_BYTES = 64 + 56
_EXIT = bytes.fromhex("bf2a000000 b83c000000 0f05")  # mov edi, 42; mov eax, 60; syscall
_CODE_AT, _CELLS_AT = 0x100000, 0x101000
_EXIT_WITH_WORD = b"\x48\xbb" + struct.pack("<Q", _CELLS_AT) + bytes.fromhex("8b3b ff03 b83c000000 0f05")  # mov edi, [rbx]; inc dword [rbx]
_WORD = 7


def not_here(what: str) -> str:
    """Why there can be none of `what`, which is made for one kind of machine; "" on such a one."""
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        return ""
    return f"{what} are made for Linux on x86-64, and this is {sys.platform} {os.uname().machine}"


@once
def why_not() -> str:
    """Why nothing can be planted at an exec stop on this machine; "" where it was done to a program of three instructions."""
    if reason := not_here("hooks"):
        return reason
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    size = _HEADER_BYTES + len(_EXIT)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _LOADED + _HEADER_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED, _LOADED, size, size, PAGE_BYTES)
    jump = b"\xe9" + struct.pack("<i", _CODE_AT - (_LOADED + _HEADER_BYTES + 5))
    try:
        program = os.memfd_create("pekan-probe", 0)
        patches = os.memfd_create("pekan-patches", 0)
        memory = SharedMemory("probe", PAGE_BYTES)
    except OSError as error:
        return f"memfd_create: {error.strerror} (errno {error.errno})"
    try:
        os.write(program, header + segment + _EXIT)
        path = Path(f"/proc/{os.getpid()}/fd/{patches}")
        replacement = Replacement(_LOADED + _HEADER_BYTES, _EXIT[:5], jump)
        write_patches(path, [Code(_CODE_AT, _EXIT_WITH_WORD)], [Shared(_CELLS_AT, PAGE_BYTES)], [replacement])
        memory.words[0] = _WORD
        return _run_probe(f"/proc/self/fd/{program}", f"/proc/self/fd/{patches}", (program, patches), memory)
    except OSError as error:
        return f"{error.strerror} (errno {error.errno})"
    finally:
        os.close(program)
        os.close(patches)
        memory.close()


def _run_probe(program: str, patches: str, fds: tuple[int, ...], memory: SharedMemory) -> str:
    spec = {
        "arguments": [program],
        "environment": {},
        "attachments": [{"kind": "patches", "parameters": {"file": patches, "shared": memory.fd}}],
    }
    done = subprocess.Popen(
        [sys.executable, "-I", "-S", pekan.etcd.launcher.__file__, json.dumps(spec), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(*fds, memory.fd),
    )
    with done:
        assert done.stdin is not None
        assert done.stdout is not None
        # The launcher reports the end of the program by itself; the end of the lifeline would have it killed before.
        reports = [json.loads(done.stdout.readline() or b"{}")]
        if reports[0].get("event") == "started":
            reports.append(json.loads(done.stdout.readline() or b"{}"))
        done.stdin.close()
        try:
            done.wait(PROBE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            done.kill()
            return f"the launcher did not end within {PROBE_SECONDS_MAX:g} s"
    if reports[0].get("event") != "started":
        return str(reports[0].get("message", "the launcher ended before it had started anything")).removesuffix(f"; {REMEDY}")
    if reports[1].get("status") != _WORD << 8 or memory.words[0] != _WORD + 1:
        return f"the planted instructions did not run: wait status {reports[1].get('status')}, counter {memory.words[0]}"
    return ""


REMEDY = pekan.etcd.exec_stop.REMEDY
