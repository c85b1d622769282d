"""EIO and ENOSPC: a write or a sync that the disk refuses.

etcd answers for nothing that it could not make durable: refused a write or a sync of its WAL or its database it logs a `fatal` and ends
by itself, with status 1 (2 where a snapshot cannot be saved). That exit is predicted, and the member is started again on what it has.
`within`: what was acknowledged had been synced before.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.disk.common import (
    CLAIM,
    DOWN,
    FATAL,
    PANIC,
    RECOVERY_MS,
    TARGETS,
    acted,
    down_ms,
    end_of,
    heal,
    patience_ms,
    rule_for,
)
from pekan.faults.disk.supervision import FILES, Supervision, file_calls
from pekan.faults.disk.supervisor import SYNCS
from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.wire.messages import PutRequest

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.faults.disk.supervision import Rule

ERRNOS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
NTH_MAX = 20
"""Of errors drawn: a busy member syncs its WAL some hundred times a second and commits its database ten times."""
FULL_MS = (500, 2_500)
KEY = b"fault/disk-full/"
VALUE_BYTES = 500_000
"""Longer than a run of free pages that a small database is likely to have; under the request limit of 1.5 MiB (--max-request-bytes)."""
WRITES_MAX = 6
WRITE_S = 2.0


class DiskError(Injector):
    """The nth write or sync fails."""

    kind: ClassVar[str] = "disk-error"
    summary: ClassVar[str] = "the nth sync or write of a class of file fails with EIO or ENOSPC; etcd ends by itself and is started again"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "file": Parameter("wal", "text", "which files", FILES),
        "call": Parameter("sync", "text", "what of them fails", ("sync", "write")),
        "error": Parameter("EIO", "text", "with what", tuple(ERRNOS)),
        "nth": Parameter(1, "count", "which such call after arming fails"),
        "times": Parameter(1, "count", "how many calls fail from that one on"),
        "down_ms": DOWN,
    }
    duration: ClassVar[str] = "down_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS, CLAIM})
    needs: ClassVar[tuple[str, ...]] = (Supervision.name,)

    def draw(self, rng: random.Random) -> Drawn:
        # Not writes of the WAL: watching write(2) costs a fifth of the throughput for the whole run.
        file, call = rng.choice((("wal", "sync"), ("db", "sync"), ("db", "write")))
        return Drawn(
            weighted(rng, TARGETS),
            {"file": file, "call": call, "error": rng.choice(sorted(ERRNOS)), "nth": rng.randint(1, NTH_MAX if file == "wal" else 5)},
        )

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return down_ms(parameters)

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Arm, wait for the refusal and the exit that follows, start again. Evidence is the refused call and the wait status."""
        file = armed.text("file")
        rule = rule_for(victim, armed)
        evidence: dict[str, Any] = {}
        survived = False
        try:
            victim.expect_exit(rule.predicts(FATAL, PANIC))
            await rule.arm(
                "errors",
                file_calls(file, armed.text("call")),
                file,
                nth=armed.number("nth"),
                times=armed.number("times"),
                errno=ERRNOS[armed.text("error")],
            )
            if await acted(rule, patience_ms(armed), victim):
                end = await end_of(victim)
                # A refusal may be survived: then there is no wait status, and nothing to start.
                survived = end is None
                armed.fired({**rule.evidence, "error": armed.text("error"), "wait_status": end.wait_status if end else None})
                if end is not None:
                    await armed.hold(armed.number("down_ms"))
        finally:
            evidence = await shielded(heal(victim, rule, survived=survived))
            if rule.has_fired:
                armed.fired(rule.evidence)
                armed.healed(evidence)


class DiskFull(Injector):
    """No space left, for a time."""

    kind: ClassVar[str] = "disk-full"
    summary: ClassVar[str] = "for a time every write that needs a new block fails with ENOSPC, as on a file system without space"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(
            2_000, "ms", "from the first write refused until there is space again; a member that ends meanwhile is started then"
        ),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS, CLAIM})
    needs: ClassVar[tuple[str, ...]] = (Supervision.name,)

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"hold_ms": rng.randint(*FULL_MS)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Arm, hold, disarm, start what has ended. Evidence is the first call refused; how the process ended is told at the end."""
        rule = rule_for(victim, armed)
        evidence: dict[str, Any] = {}
        try:
            victim.expect_exit(rule.predicts(FATAL, PANIC))
            await rule.arm("full", SYNCS | {"pwrite64", "fallocate"}, "any")
            if await self._refused(victim, armed, rule):
                armed.fired(rule.evidence)
                await armed.hold(armed.number("hold_ms"))
        finally:
            evidence = await shielded(self._space_again(victim, rule))
            if rule.has_fired:
                armed.fired(rule.evidence)
                armed.healed(evidence)

    @staticmethod
    async def _refused(victim: Member, armed: Armed, rule: Rule) -> bool:
        """Wait for the first refusal, and write what needs room: small values may live for minutes on blocks that there are."""

        async def write() -> None:
            for number in range(WRITES_MAX):
                value = b"%d/%d/" % (armed.id, number) + bytes(VALUE_BYTES)
                await armed.context.ask(victim.name, PutRequest(KEY + b"%d" % armed.id, value), WRITE_S)

        writing = asyncio.ensure_future(write())
        try:
            return await acted(rule, patience_ms(armed), victim)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    @staticmethod
    async def _space_again(victim: Member, rule: Rule) -> dict[str, Any]:
        evidence = await heal(victim, rule)
        if any(key.startswith("fallocate") for key in evidence["did"]) and evidence["state"] == "running":
            # etcd keeps the error of a WAL segment that could not be made until it needs it, and ends then (wal/file_pipeline.go).
            await victim.kill()
            await victim.start()
            evidence |= {"pid": victim.pid, "incarnation": victim.incarnation, "restarted": "for a new WAL segment"}
        return evidence
