"""A disk that takes its time: what operators meet most, and what makes leaders change for no reason that they see.

etcd syncs its WAL before it answers, in the loop that also sends heartbeats: a sync of a second costs a leader its leadership.
`within`: nothing is lost, only late.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.disk.common import CLAIM, TARGETS, acted, patience_ms, rule_for
from pekan.faults.disk.supervision import FILES, Supervision, file_calls
from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

HOLD_MS = (1_000, 6_000)
DELAYS_MS = (2, 10, 30, 100, 300, 1_000)
"""From a busy cloud disk to one that is about to fail; the last is etcd's default election timeout."""
USELESS_MS = 500
"""A sync that takes longer than half the election timeout: the member is no use to a majority."""


class DiskSlow(Injector):
    """Each sync, or each write, takes longer."""

    kind: ClassVar[str] = "disk-slow"
    summary: ClassVar[str] = "each sync (or write) of a class of file takes longer, for a time"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(2_000, "ms", "how long the disk is slow, from the first such call on"),
        "delay_ms": Parameter(50, "ms", "what each call takes longer"),
        "jitter_ms": Parameter(0, "ms", "by how much at most that is more or less, each time"),
        "file": Parameter("any", "text", "which files", FILES),
        "call": Parameter("sync", "text", "what of them is slow", ("sync", "write")),
    }
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({CLAIM})
    needs: ClassVar[tuple[str, ...]] = (Supervision.name,)

    def draw(self, rng: random.Random) -> Drawn:
        delay = rng.choice(DELAYS_MS)
        return Drawn(
            weighted(rng, TARGETS),
            {
                "hold_ms": rng.randint(*HOLD_MS),
                "delay_ms": delay,
                "jitter_ms": rng.choice((0, delay // 2, delay)),
                "file": rng.choice(("any", "wal", "db")),
            },
        )

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        slow = int(parameters["delay_ms"]) + int(parameters.get("jitter_ms", 0)) > USELESS_MS
        return int(parameters["hold_ms"]) if slow else 0

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Arm, hold, disarm. Evidence is the first call that was made to wait; how many there were is told when it is healed."""
        file = armed.text("file")
        rule = rule_for(victim, armed)
        try:
            await rule.arm(
                "slow",
                file_calls(file, armed.text("call")),
                file,
                delay_ms=armed.number("delay_ms"),
                jitter_ms=armed.number("jitter_ms"),
                seed=armed.rng.getrandbits(32),
            )
            # A process that ends meanwhile (somebody else's doing) comes back to a disk that is as slow.
            if await acted(rule, patience_ms(armed)):
                armed.fired(rule.evidence)
                await armed.hold(armed.number("hold_ms"))
        finally:
            done = await shielded(rule.disarm())
            if rule.has_fired:
                armed.fired(rule.evidence)
                armed.healed(done)
