"""The power fails: what was written and not synced is gone.

::

    WAL        ████████████░░░░······     █ synced      kept, always
    database   █ █ ░ █ ░ ░ █ ·····        ░ written     lost; with `kept`, each page of 4 KiB by chance
                                          · zeros

While the fault is armed the supervisor keeps account of what is unsynced (`supervisor.Unsynced`): the position at each sync of a WAL
segment, which is only appended to, and the old content of each page that bbolt overwrites. It kills the process at the chosen moment and
makes the files what a disk would hold after it. What it is not sure of counts as synced, and names (create, rename, unlink) count as
durable at once: a power loss by this account never takes more than a real one could.

`power-loss` and `torn-write` are `within`: etcd acknowledges what it has synced. `sync-lies` is `outside`: the syncs were not done.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.disk.common import CLAIM, DOWN, KILLED, TARGETS, acted, down_ms, end_of, patience_ms, recover, rule_for
from pekan.faults.disk.supervision import ACCOUNT, Supervision
from pekan.faults.disk.supervisor import SYNCS
from pekan.faults.drawing import weighted
from pekan.faults.injector import PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.faults.disk.supervision import Rule

FILES_SHOWN_MAX = 8
"""Files named in the evidence. A member has two at work, and a few segments after a cut."""
END_S = 30.0
"""For a killed process to be gone; only uninterruptible sleep takes longer than a moment."""
ANY_MS = (50, 600)
"""How long account is kept before a power loss at any time: some commits of the database, which come each 100 ms."""
NTH_MAX = 20
TORN_BYTES = (512, 1024, 4096)


class _Loss(Injector):
    """What ends by SIGKILL and goes on with files that are not those of the last moment."""

    frequency: ClassVar[Frequency] = "year"
    duration: ClassVar[str] = "down_ms"
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS, CLAIM})
    needs: ClassVar[tuple[str, ...]] = (Supervision.name,)

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return down_ms(parameters)

    @abstractmethod
    def settings(self, armed: Armed) -> dict[str, Any]:
        """Of the supervisor's rule."""

    async def until_dead(self, victim: Member, rule: Rule, armed: Armed) -> bool:
        """Wait for the moment; whether the process is dead or dying of it."""
        return await acted(rule, patience_ms(armed), victim)

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Keep account, wait for the moment, roll back, start again. Evidence is the call at which it happened, the wait status and what
        was lost of which file."""
        rule = rule_for(victim, armed)
        try:
            victim.expect_exit(lambda status: status == KILLED and _has_killed(rule))
            settings: dict[str, Any] = {"file": "any", "moment": "later", "nth": 1, "lies": False, "torn_bytes": 0, "kept_percent": 0}
            settings |= {"seed": armed.rng.getrandbits(32), **self.settings(armed)}
            await rule.arm("loss", SYNCS | ACCOUNT, settings.pop("file"), **settings)
            if await self.until_dead(victim, rule, armed):
                await shielded(_settled(victim, rule, armed))
                await armed.hold(armed.number("down_ms"))
        finally:
            await shielded(_restored(victim, rule, armed))


async def _settled(victim: Member, rule: Rule, armed: Armed) -> None:
    """Its process is dead or dying: let it die, make its files what is left, and say so; nothing where that has been done."""
    if armed.has_fired:
        return
    end = await end_of(victim, END_S)
    if end is None or end.wait_status != KILLED:
        return
    files = await rule.settle()
    armed.fired(
        {
            **rule.evidence,
            "pid": end.pid,
            "incarnation": end.incarnation,
            "wait_status": end.wait_status,
            "lost_bytes": sum(each["lost_bytes"] for each in files),
            "files": files[:FILES_SHOWN_MAX],
        }
    )


async def _restored(victim: Member, rule: Rule, armed: Armed) -> None:
    done = await rule.disarm()
    # Asked only now: it may have killed while it was being disarmed.
    if _has_killed(rule):
        await _settled(victim, rule, armed)
    evidence = await recover(victim)
    if armed.has_fired:
        armed.healed({**done, **evidence})


def _has_killed(rule: Rule) -> bool:
    """Whether the supervisor has killed; a lie is told as well, and kills nobody."""
    return rule.has_fired and "pid" in rule.evidence


class PowerLoss(_Loss):
    """An honest one."""

    kind: ClassVar[str] = "power-loss"
    summary: ClassVar[str] = "SIGKILL, and all that was written and not synced is gone, or a part of its pages; then a start"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "moment": Parameter(
            "before-sync",
            "text",
            "at the nth sync, before it is begun, or when it is done and etcd does not know; at the nth write of the database; at any",
            ("before-sync", "after-sync", "write", "any"),
        ),
        "file": Parameter("wal", "text", "whose syncs are counted", ("wal", "db", "any")),
        "nth": Parameter(10, "count", "which such call after arming"),
        "kept": Parameter(0, "percent", "chance of each unsynced page to have been written back"),
        "down_ms": DOWN,
    }

    def draw(self, rng: random.Random) -> Drawn:
        moment = rng.choice(("before-sync", "before-sync", "after-sync", "write", "any"))
        file = "db" if moment == "write" else rng.choice(("wal", "wal", "db"))
        return Drawn(
            weighted(rng, TARGETS),
            {"moment": moment, "file": file, "nth": rng.randint(1, NTH_MAX if file == "wal" else 6), "kept": rng.choice((0, 0, 30, 70))},
        )

    def settings(self, armed: Armed) -> dict[str, Any]:
        moment = armed.text("moment")
        return {
            "moment": "later" if moment == "any" else moment,
            # Only the database is written by pages.
            "file": "db" if moment == "write" else armed.text("file"),
            "nth": armed.number("nth"),
            "kept_percent": armed.number("kept"),
        }

    async def until_dead(self, victim: Member, rule: Rule, armed: Armed) -> bool:
        if armed.text("moment") != "any":
            return await super().until_dead(victim, rule, armed)
        await armed.hold(armed.rng.randint(*ANY_MS))
        if armed.context.left_ms() <= 0 or not victim.alive:
            return False
        await shielded(_killed(victim, rule, armed))
        return armed.has_fired


async def _killed(victim: Member, rule: Rule, armed: Armed) -> None:
    await victim.kill()
    await _settled(victim, rule, armed)


class TornWrite(_Loss):
    """Half a write."""

    kind: ClassVar[str] = "torn-write"
    summary: ClassVar[str] = (
        "of the nth write of the WAL only the first sectors reach the disk, then SIGKILL; etcd repairs its WAL at the start"
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "nth": Parameter(1, "count", "which write after arming, of those that reach over a border of sectors"),
        "kept_bytes": Parameter(512, "bytes", "how much of it is kept, down to whole sectors of 512 bytes"),
        "down_ms": DOWN,
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"nth": rng.randint(1, NTH_MAX), "kept_bytes": rng.choice(TORN_BYTES)})

    def settings(self, armed: Armed) -> dict[str, Any]:
        return {"moment": "torn", "file": "wal", "nth": armed.number("nth"), "torn_bytes": armed.number("kept_bytes")}


class SyncLies(_Loss):
    """Syncs that return and do nothing, and then the power fails."""

    kind: ClassVar[str] = "sync-lies"
    summary: ClassVar[str] = "for a time every sync returns without having been done, then the power fails and all of that is gone"
    promise: ClassVar[str] = "outside"
    frequency: ClassVar[Frequency] = "century"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": Parameter(1_000, "ms", "how long syncs lie before the power fails"),
        "kept": Parameter(0, "percent", "chance of each unsynced page to have been written back"),
        "down_ms": DOWN,
    }
    duration: ClassVar[str] = "hold_ms"

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(weighted(rng, TARGETS), {"hold_ms": rng.randint(200, 2_000), "kept": rng.choice((0, 0, 50))})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + super().down_ms(parameters)

    def settings(self, armed: Armed) -> dict[str, Any]:
        return {"lies": True, "kept_percent": armed.number("kept")}

    async def until_dead(self, victim: Member, rule: Rule, armed: Armed) -> bool:
        if not await acted(rule, patience_ms(armed), victim) or not victim.alive:
            return False
        await armed.hold(armed.number("hold_ms"))
        # Where the phase ends first there is no power loss, and no harm: all that was written is still there.
        await shielded(_killed(victim, rule, armed))
        return armed.has_fired
