"""No more file descriptors for one member: it opens no file, dials nobody and accepts no connection; those that it has go on.

The limit of the running process (RLIMIT_NOFILE, by prlimit(2)) is lowered to what it has open; a few connections that wait to be
accepted show that it has none left. etcd ends itself where it needs a file just then (a snapshot, the next part of the WAL); that is
foreseen, and it is started again. `within`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.resources.crowd import Crowd
from pekan.faults.resources.predicted import Exhaustion

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

HOLD_MS = (1_000, 4_000)
SPARE = (0, 0, 2)
RECOVERY_MS = 1_500
"""After the limit is lifted peers dial again, after pauses of up to a second."""
KNOCKS_MAX = 40
KNOCK_S = 0.1
"""Together longer than a member goes on closing what it has opened for a moment."""
LOOKS = 2
"""Looks, 20 ms apart, at which a connection waits: a busy member may leave one waiting for a moment."""
LAST_WORDS = r'("level":"(fatal|panic)"|^panic: ).*too many open files'
"""Its peers' prober and its listeners complain as well, and go on."""
EXIT_CODES = (1, 2)
"""etcd's fatal and Go's panic."""
LISTEN = "0A"
"""A socket's state in /proc/net/tcp (net/tcp_states.h)."""


class DescriptorLimit(Injector):
    """Descriptors taken away, for a time."""

    kind: ClassVar[str] = "descriptor-limit"
    summary: ClassVar[str] = "no more file descriptors: no file opened, nobody dialled, no connection accepted"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(2_000, "ms", "for how long"),
        "spare": Parameter(0, "count", "descriptors that are left to it"),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"hold_ms": rng.randint(*HOLD_MS), "spare": rng.choice(SPARE)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Lower, knock, hold, raise. Evidence of firing is a connection that stays in the queue of the listening socket."""
        pid = victim.pid
        if pid is None:
            return
        end = Exhaustion(victim, LAST_WORDS, EXIT_CODES, ())
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        limit = _open_files(pid) + armed.number("spare")
        waiting: list[int] = [0]

        def look() -> None:
            # As many in a row as there were looks; one without a waiting connection begins anew.
            nonlocal limit
            used = _open_files(pid)
            if used and used + armed.number("spare") < limit:
                # It has closed some since: what it has now is all that it shall have.
                limit = used + armed.number("spare")
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
            queue = _waiting(pid, victim.spec.listen_client.port)
            waiting[0] = waiting[0] + 1 if queue and used >= limit else 0
            if waiting[0] >= LOOKS:
                armed.fired({"limit": limit, "open": used, "waiting_connections": queue, "pid": pid})

        async def knock(crowd: Crowd) -> None:
            # Again and again: it closes connections of its own, and takes a new one for each.
            await crowd.grow(armed.number("spare"))
            for _ in range(KNOCKS_MAX):
                if armed.has_fired:
                    return
                await crowd.grow(1)
                await asyncio.sleep(KNOCK_S)

        async with Crowd(victim.spec) as crowd:
            try:
                victim.expect_exit(end.predicts)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
                knocks = asyncio.ensure_future(knock(crowd))
                try:
                    await end.hold(armed, armed.number("hold_ms"), look)
                finally:
                    knocks.cancel()
                    await asyncio.gather(knocks, return_exceptions=True)
            finally:

                async def lift() -> None:
                    with contextlib.suppress(ProcessLookupError):
                        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
                    await end.settle()
                    await end.heal(armed, {"limit": limit, "said": end.said()[:200], "pid": pid})

                await shielded(lift())


def _open_files(pid: int) -> int:
    """How many descriptors a process has; 0 where it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _waiting(pid: int, port: int) -> int:
    """Connections that wait to be accepted at a port, in the network namespace of a process: a listening socket's receive queue."""
    waiting = 0
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, queues = line.split()[:5]
                if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                    waiting += int(queues.partition(":")[2], 16)
    return waiting
