"""What is planted at the exec stop, in real programs of a few instructions: it is there from the first one on, and no tracer stays."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import pekan.etcd.exec_stop
from pekan.errors import ClusterFailure
from pekan.etcd.process import END_SECONDS_MAX, Process
from pekan.etcd.spec import Attachment

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the planted instructions are for x86-64")

DEADLINE_SECONDS = 60.0
LOADED = 0x400000
HEADERS = 64 + 56
ENTRY = LOADED + HEADERS
CODE, CELLS = 0x300000, 0x310000

EXIT_42 = bytes.fromhex("bf2a000000 b83c000000 0f05")  # mov edi, 42; mov eax, exit; syscall
PAUSE = bytes.fromhex("b822000000 0f05 ebf7")  # mov eax, pause; syscall; again
# mov rbx, CELLS; mov edi, [rbx]; inc dword [rbx]; mov eax, exit; syscall
EXIT_WITH_CELL = b"\x48\xbb" + struct.pack("<Q", CELLS) + bytes.fromhex("8b3b ff03 b83c000000 0f05")


def program(path: Path, code: bytes) -> Path:
    """A static x86-64 executable of these instructions and nothing else."""
    size = HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, ENTRY, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOADED, LOADED, size, size, 0x1000)
    path.write_bytes(header + segment + code)
    path.chmod(0o755)
    return path


def jump(origin: int, target: int) -> bytes:
    return b"\xe9" + struct.pack("<i", target - (origin + 5))


def patches(path: Path, code: bytes, old: bytes, new: bytes, *, code_at: int = CODE) -> Path:
    """The file of an attachment: one page of `code`, one of cells, and the program's first instruction replaced."""
    maps = [
        {"address": code_at, "length": 4096, "at": 0, "bytes": len(code)},
        {"address": CELLS, "length": 4096, "shared": True},
    ]
    header = {"maps": maps, "writes": [[ENTRY, len(code), len(old)]]}
    path.write_bytes(json.dumps(header).encode() + b"\n" + code + old + new)
    return path


@contextmanager
def shared_page() -> Iterator[tuple[int, mmap.mmap]]:
    fd = os.memfd_create("cells", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    try:
        with mmap.mmap(fd, 4096) as memory:
            yield fd, memory
    finally:
        os.close(fd)


@asynccontextmanager
async def launched(log: Path, file: Path, shared: int, *arguments: str) -> AsyncIterator[Process]:
    """A process with the patches of `file`; it is gone after the block."""
    attachment = Attachment("patches", {"file": str(file), "shared": shared}, (shared,))
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        process = await Process.launch(arguments, {}, (attachment,), log)
        group.create_task(process.follow(lambda: None))
        try:
            yield process
        finally:
            process.release()
            await process.gone(END_SECONDS_MAX)


def test_the_first_instruction_is_the_planted_one(tmp_path: Path) -> None:
    """A jump written over a program's first instruction leads to planted code, which reads and writes memory that outlives it."""
    file = patches(tmp_path / "patches", EXIT_WITH_CELL, EXIT_42[:5], jump(ENTRY, CODE))
    executable = program(tmp_path / "program", EXIT_42)
    before = executable.read_bytes()

    async def run(shared: int) -> int | None:
        async with launched(tmp_path / "log", file, shared, str(executable)) as process:
            await process.started()
            await process.wait_ended(DEADLINE_SECONDS)
            return process.wait_status

    with shared_page() as (fd, memory):
        memory[0] = 7
        assert asyncio.run(run(fd)) == 7 << 8
        assert asyncio.run(run(fd)) == 8 << 8
        assert memory[0] == 9
    assert executable.read_bytes() == before


def test_no_tracer_and_no_descriptor_stays(tmp_path: Path) -> None:
    """The running program has no tracer and not the descriptor of the shared memory; both pages are mapped, the code not writable."""
    file = patches(tmp_path / "patches", EXIT_WITH_CELL, PAUSE[:5], PAUSE[:5])

    async def run(shared: int) -> tuple[str, list[int], str]:
        async with launched(tmp_path / "log", file, shared, str(program(tmp_path / "program", PAUSE))) as process:
            await process.started()
            assert await process.pause()
            proc = Path(f"/proc/{process.pid}")
            status, descriptors, maps = (proc / "status").read_text(), os.listdir(proc / "fd"), (proc / "maps").read_text()
            assert await process.resume()
            return status, sorted(map(int, descriptors)), maps

    with shared_page() as (fd, _):
        status, descriptors, maps = asyncio.run(run(fd))
    assert "TracerPid:\t0\n" in status
    assert descriptors == [0, 1, 2]
    pages = {line.split()[0]: line.split()[1] for line in maps.splitlines()}
    assert pages["00300000-00301000"] == "r-xp"
    assert pages["00310000-00311000"] == "rw-s"


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    """Where a page cannot be mapped the program does not start, and the message has the place and the kernel's reason."""
    file = patches(tmp_path / "patches", EXIT_WITH_CELL, EXIT_42[:5], jump(ENTRY, CODE), code_at=LOADED)

    async def run(shared: int) -> Process:
        async with launched(tmp_path / "log", file, shared, str(program(tmp_path / "program", EXIT_42))) as process:
            with pytest.raises(ClusterFailure, match=r"cannot attach patches: mmap of 4096 bytes at 0x400000 .*File exists"):
                await process.started()
            return process

    with shared_page() as (fd, _):
        assert asyncio.run(run(fd)).wait_status is None


def test_another_program_is_refused(tmp_path: Path) -> None:
    """Patches of one program never go into another: what is replaced is compared first."""
    file = patches(tmp_path / "patches", EXIT_WITH_CELL, EXIT_42[:5], jump(ENTRY, CODE))

    async def run(shared: int) -> None:
        async with launched(tmp_path / "log", file, shared, str(program(tmp_path / "program", PAUSE))) as process:
            with pytest.raises(ClusterFailure, match="at 0x400078 the program has b822000000, not bf2a000000: another program"):
                await process.started()

    with shared_page() as (fd, _):
        asyncio.run(run(fd))


def test_a_program_that_cannot_be_executed(tmp_path: Path) -> None:
    """A failed exec is reported as one, although the child was to be traced."""

    async def run(shared: int) -> None:
        async with launched(tmp_path / "log", tmp_path / "none", shared, "/nonexistent/etcd") as process:
            with pytest.raises(ClusterFailure, match="cannot execute it: No such file or directory"):
                await process.started()

    with shared_page() as (fd, _):
        asyncio.run(run(fd))


WORDS = """
import os, runpy, sys
stop = runpy.run_path(sys.argv[1])
pid = os.fork()
if pid == 0:
    stop["trace_me"]()
    os.execv(sys.argv[2], sys.argv[2:])
os.waitpid(pid, stop["WALL"])
old = stop["_read"](pid, -1, 0x400079, 1)
stop["_write"](pid, -1, 0x400079, bytes([9]))
with stop["_memory"](pid) as memory:
    print(old[0], stop["_read"](pid, memory, 0x400079, 1)[0])
stop["_ptrace"](stop["PTRACE_DETACH"], pid)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_words_instead_of_the_memory_file(tmp_path: Path) -> None:
    """Where the kernel keeps /proc/PID/mem from writing text, the same bytes go by ptrace(2), and the program runs them."""
    executable = program(tmp_path / "program", EXIT_42)
    command = [sys.executable, "-I", "-c", WORDS, pekan.etcd.exec_stop.__file__, str(executable)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True)
    assert done.stdout.split() == ["42", "9", "9"]
