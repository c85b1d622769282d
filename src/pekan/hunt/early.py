"""Findings so far: the record of a run that still goes on, judged by a process of its own at the lowest priority.

::

    history.pb ──appended bytes──> native core, in memory bounded by rate x timeout ──suspicion──> check of the record so far ──> findings
               ──without the core: every EVERY_S────────────────────────────────────────────────> check of the record so far ──> findings

A record that ends in the middle proves what it proves: requests without an answer are indefinite, and a broken promise stays broken. So
the count that is shown can only grow, and the verdict of the whole record, made at the end, is not this one. A suspicion is no finding: it
says when to look, and what the whole check does not confirm is not reported.

Run as ``python -m pekan.hunt.early RUN PARENT``: prints a line of JSON, the codes of what is broken so far, whenever there are more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from pekan import native
from pekan.checking import check
from pekan.errors import PekanError
from pekan.history.run import RunDirectory
from pekan.hunt.live import Live
from pekan.wire.errors import WireError, is_definite

EVERY_S = 8.0
"""Without the core: pause between two looks; a look takes a few seconds of the lowest priority."""
POLL_S = 0.1
"""With the core: pause between two looks for appended bytes; far below any client's timeout."""
LOOK_SHARE = 0.1
"""Of the time, at most, for whole checks: a record of hours takes seconds to check, and members need the processors."""
CHUNK_BYTES = 1 << 20
MEMORY_BYTES_MAX = 4 << 30
PR_SET_PDEATHSIG = 1


async def watch_findings(run: Path, live: Live, broken: asyncio.Event, sought: Collection[str] = ()) -> None:
    """Keep `live.findings` up to date until cancelled; sets `broken` at the first finding that counts, of the codes `sought` where there
    are some."""
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
    assert process.stdout is not None, "asked for above"
    try:
        async for line in process.stdout:
            codes = json.loads(line)["codes"]
            live.findings = len(codes)
            if not sought or not set(sought).isdisjoint(codes):
                broken.set()
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def looks(run: RunDirectory, known: set[str]) -> Iterator[None]:
    """Yields whenever the record so far is worth a whole check: where codes that are not `known` are suspected. Never ends by itself."""
    if native.core is None:
        while True:
            time.sleep(EVERY_S)
            yield
    live = native.core.Live(lambda code, message: is_definite(WireError(code, message)))
    known |= set(run.plan().allow)
    suspected: set[str] = set()
    not_before = 0.0
    with open(run.history_path, "rb", buffering=0) as file:
        while True:
            appended = file.read(CHUNK_BYTES)
            if appended:
                suspected |= {code for code, _, _ in live.feed(appended)}
            if suspected - known and time.monotonic() >= not_before:
                suspected.clear()
                began = time.monotonic()
                yield
                not_before = time.monotonic() + (time.monotonic() - began) / LOOK_SHARE
            if not appended:
                time.sleep(POLL_S)


def main(path: str, parent: int) -> int:
    """Judge the run at `path` as far as it is recorded, again and again; an unreadable record says nothing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        return 0
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    run = RunDirectory(Path(path))
    while not run.history_path.exists():  # the recorder opens it at once, and this process ends with the hunt
        time.sleep(POLL_S)
    known: set[str] = set()
    told: set[str] = set()
    with contextlib.suppress(PekanError, MemoryError, ValueError, OSError):
        for _ in looks(run, known):
            known.update(check(path).codes)
            broken = known - set(run.plan().allow)
            if broken - told:
                told |= broken
                print(json.dumps({"codes": sorted(told)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
