"""No more memory for one member: it is killed by the kernel, or its runtime gives up; then it is started again.

::

    how     what limits                                             how it ends
    group   a control group: so much more than it has, page cache   SIGKILL by the kernel's out-of-memory killer
            of what it writes included
    limit   RLIMIT_DATA of the running process (setrlimit(2)):      Go's runtime: "cannot allocate memory", exit status 2
            its own pages, so much more than it has

A member that has just collected its garbage may live on what it has for a minute: a limit refuses more, and takes nothing away. So a client
begins a request that does not end, of which the member keeps what has come (`crowd.endless`). `within`: to the data it is a crash of the
process, like a kill.
"""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.ability import Ability, able
from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.resources.crowd import endless
from pekan.faults.resources.groups import Group, Hierarchy, hierarchy, killed_for_memory, limit_memory
from pekan.faults.resources.predicted import Exhaustion

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

TARGETS = {"leader": 40, "follower": 25, "any": 35}
MORE_KIB = {"group": 2_048, "limit": 0}
"""What ends a member soon (by a limit 14 of 14 within 0.1 s, 3.7.3 under small puts). A group needs some room: what it charges begins at
nothing, and the kernel takes page cache back first."""
HOLD_MS = (4_000, 10_000)
REQUEST_BYTES_MAX = 128 << 20
"""Of the request that does not end. It costs a member three to four times as much (from 3.4.3 to 3.7.3), and the second that it takes; some
ten to thirty MB are what a member has to spare. A limit that leaves more than that ends nobody."""
DOWN_MS = (100, 1_500)
RECOVERY_MS = 1_200
LAST_WORDS = r"^(fatal error: |runtime: |runtime/cgo: ).*(cannot allocate memory|out of memory|create new OS thread|pthread_create failed)"
GO_FATAL = 2
"""The exit status of Go's runtime after a fatal error."""


class MemoryLimit(Injector):
    """Memory taken away until it ends, a time down, a start."""

    kind: ClassVar[str] = "memory-limit"
    summary: ClassVar[str] = "no more memory: the kernel kills it or its runtime gives up, and after a while it is started on the same data"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(8_000, "ms", "for how long the limit is in force, if it does not end before"),
        "more_kib": Parameter(-1, "count", "KiB that it may take beyond what it has; -1: so little that a steady load uses it up soon"),
        "how": Parameter("any", "text", "killed in a control group, or refused by a limit of its process", ("any", "group", "limit")),
        "down_ms": Parameter(500, "ms", "from its end to its next start"),
    }
    duration: ClassVar[str] = "hold_ms"
    patience: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def probe(self) -> Ability:
        found = hierarchy("memory")
        if isinstance(found, Hierarchy):
            return able(self.kind, f"by a control group (version {found.version}, {found.root}), or by a limit of the process")
        return able(self.kind, f"by a limit of the process only; no control group: {found}")

    def draw(self, rng: random.Random) -> Drawn:
        target = weighted(rng, TARGETS)
        how = rng.choice(("any", "limit"))
        return Drawn(target, {"hold_ms": rng.randint(*HOLD_MS), "how": how, "down_ms": rng.randint(*DOWN_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + int(parameters["down_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Limit, wait for the end, hold, start again. Evidence of firing is the wait status, and the kernel's count or Go's last words."""
        pid = victim.pid
        found = hierarchy("memory")
        if pid is None:
            return
        if armed.text("how") != "limit" and isinstance(found, Hierarchy):
            await self._in_group(victim, pid, armed, found)
        elif armed.text("how") != "group":
            await self._by_limit(victim, pid, armed)

    async def _in_group(self, victim: Member, pid: int, armed: Armed, found: Hierarchy) -> None:
        end = Exhaustion(victim, "", (), (signal.SIGKILL,))
        group = await shielded(Group.make(found, armed.context.journal, pid))
        try:
            victim.expect_exit(end.predicts)
            limit_memory(group, _more_kib(armed, "group") << 10)
            if group.keep(pid):
                await _used_up(victim, armed, end)
        finally:

            async def lift() -> None:
                killed = killed_for_memory(group)
                await group.remove()
                await end.settle(begun=killed > 0)
                await end.heal(armed, {"how": "group", "oom_kill": killed, "pid": pid}, armed.number("down_ms"))

            await shielded(lift())

    async def _by_limit(self, victim: Member, pid: int, armed: Armed) -> None:
        end = Exhaustion(victim, LAST_WORDS, (GO_FATAL,), ())
        soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        try:
            has = _data_bytes(pid)
        except ProcessLookupError:
            return  # by itself, and Pekan has not been told yet
        try:
            victim.expect_exit(end.predicts)
            resource.prlimit(pid, resource.RLIMIT_DATA, (has + (_more_kib(armed, "limit") << 10), hard))
            await _used_up(victim, armed, end)
        finally:

            async def lift() -> None:
                # Not after its end: its number may be another's then. Until Pekan knows of the end it stays unreaped.
                if not end.ended:
                    resource.prlimit(pid, resource.RLIMIT_DATA, (soft, hard))
                await end.settle()
                evidence = {"how": "limit", "limit_bytes": has, "said": end.said()[:200], "pid": pid}
                await end.heal(armed, evidence, armed.number("down_ms"))

            await shielded(lift())


async def _used_up(victim: Member, armed: Armed, end: Exhaustion) -> None:
    """Hold, while a client uses up what is left."""
    using = asyncio.ensure_future(endless(victim.spec, REQUEST_BYTES_MAX))
    try:
        await end.hold(armed, armed.number("hold_ms"))
    finally:
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)


def _more_kib(armed: Armed, how: str) -> int:
    asked = armed.number("more_kib")
    return MORE_KIB[how] if asked < 0 else asked


def _data_bytes(pid: int) -> int:
    """What RLIMIT_DATA counts of a process: VmData (proc(5)), given in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(f"process {pid} has ended")
