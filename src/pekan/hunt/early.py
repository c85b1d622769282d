"""Findings so far: the record of a run that still goes on, judged by a process of its own at the lowest priority.

A record that ends in the middle proves what it proves: requests without an answer are indefinite, and a broken promise stays broken. So
the count that is shown can only grow, and the verdict of the whole record, made at the end, is not this one.

Run as ``python -m pekan.hunt.early RUN``: prints how many kinds of promise are broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from pekan.errors import PekanError
from pekan.hunt.live import Live

EVERY_S = 8.0
"""Pause between two looks; a look takes a few seconds of the lowest priority."""
CPU_S_MAX = 60
MEMORY_BYTES_MAX = 4 << 30
PR_SET_PDEATHSIG = 1


async def watch_findings(run: Path, live: Live) -> None:
    """Keep `live.findings` up to date until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pekan.hunt.early",
            str(run),
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if said.strip().isdigit():
            live.findings = int(said)


def main(run: str, parent: int) -> int:
    """Judge `run` as far as it is recorded; the exit code is always 0, an unreadable record says nothing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        return 0
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    from pekan.checking import check

    with contextlib.suppress(PekanError, MemoryError):
        print(len(check(run).codes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
