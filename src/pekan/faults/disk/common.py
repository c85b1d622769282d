"""What disk faults have in common: they arm a rule, wait for it to act, and start a process that it ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pekan.faults.disk.supervision import Rule, Supervision
from pekan.faults.injector import down, up_again

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.spec import MemberExit
    from pekan.faults.injector import Armed

CLAIM = "disk"
FATAL = 1 << 8
"""The wait status after zap's Fatal: what etcd does where its WAL or database cannot be written."""
PANIC = 2 << 8
"""After a Go panic: where a snapshot cannot be saved (etcdserver/server.go)."""
KILLED = int(signal.SIGKILL)
EXIT_S = 10.0
"""How long etcd may take from the refused call to its end: milliseconds, and what a busy disk takes to write its last words. A refusal that
it survives (a defragmentation that fails) costs this long."""
PATIENCE_MS = 4_000
"""How long a drawn fault waits for its call before it gives its claims back. One asked for by name waits until the faults' phase ends."""
RECOVERY_MS = 1_200
"""Replay and catching up, after the start."""
DOWN = down(500)
TARGETS = {"leader": 40, "follower": 30, "any": 30}
"""Weights: leaders are where writes are acknowledged."""


def rule_for(victim: Member, armed: Armed) -> Rule:
    """The rule of this fault at the victim's supervisor, not armed yet."""
    return armed.equipment(Supervision).of(victim.name).rule(armed.id)


def patience_ms(armed: Armed) -> int:
    """How long to wait for the first call that the fault is about."""
    left = armed.context.left_ms()
    return left if armed.fault.required else min(PATIENCE_MS, left)


async def acted(rule: Rule, wait_ms: int, victim: Member | None = None) -> bool:
    """Wait until `rule` has acted, the process of `victim` has ended, or `wait_ms` are over; whether it has acted."""
    waits = {asyncio.ensure_future(rule.until_fired())}
    if victim is not None:
        waits.add(asyncio.ensure_future(_ended(victim)))
    try:
        done, _ = await asyncio.wait(waits, timeout=wait_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    for each in done:
        each.result()  # a supervisor that has ended is no fault of etcd's
    return rule.has_fired


async def _ended(victim: Member) -> None:
    await victim.wait_exit()


async def end_of(victim: Member, timeout_s: float = EXIT_S) -> MemberExit | None:
    """The end of the victim's process; None where it goes on for `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        return await victim.wait_exit(timeout_s)
    return None


async def heal(victim: Member, rule: Rule, *, survived: bool = False) -> dict[str, Any]:
    """Disarm, let a process that is dying of a refused call die (unless it is known to have survived it), and start it again. Returns
    evidence of all that."""
    done = await rule.disarm()
    # Asked only now: the call may have come while the rule was being disarmed.
    if rule.has_fired and victim.alive and not survived:
        await end_of(victim)
    return {**done, "wait_status": None if victim.alive else victim.exits[-1].wait_status, **await recover(victim)}


async def recover(victim: Member) -> dict[str, Any]:
    """Take the prediction of an end back, and start a process that has ended so; what became of it, as evidence."""
    victim.expect_exit(None)
    return await up_again(victim)


def down_ms(parameters: Mapping[str, int | str]) -> int:
    """How long a process that the disk has ended is away."""
    return int(parameters.get("down_ms", DOWN.default)) + RECOVERY_MS
