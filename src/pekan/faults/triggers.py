"""When a fault is armed: the moment that its trigger waits for.

::

    at T ──> revision   a reply to any client (or a watch's message) names it in its header        Recorder.until_revision
             log        a line with the text is appended to a member's log                          the files, followed
             failpoint  a member comes by a point of its program                                    Points.until_hits
             after      a fault of a kind has fired                                                 Context.until_fired
             healed     a fault of a kind has been healed                                           Context.until_healed
             step       a step of the script has been done                                          Context.until_done

Revision, `after`, `healed` and `step` are states: once they are there, they are there. A line or a hit counts from `at T` on. Where a
member brought it about and the fault's target is "any", that member is the first choice for a victim: `kill any on log "elected leader"`
kills who was elected.

A trigger that does not come before the faults' phase ends lets its fault expire, with a mark that says which trigger it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pekan.plan import ROLES, Fault, Schedule, Trigger

if TYPE_CHECKING:
    from pekan.faults.injector import Context

FOLLOW_PAUSE_S = 0.02
"""Between two looks at logs that are followed: a fifth of etcd's heartbeat."""
READ_BYTES_MAX = 1 << 20
"""Of a log at one look; a member that writes more than 50 MB/s of log is followed late, and nothing is lost."""


@runtime_checkable
class Points(Protocol):
    """What equipment offers that counts hits of points in members' programs."""

    async def until_hits(self, member: str, name: str, number: int) -> None:
        """Return once `member` has come by the point `name` `number` times from now on; the caller bounds the wait."""


def points_of(schedule: Schedule) -> tuple[str, ...]:
    """The points that triggers of `schedule` wait for, each once: whoever counts them has to be planted there."""
    return tuple(dict.fromkeys(fault.trigger.failpoint for fault in schedule.faults if fault.trigger.failpoint))


async def until_due(fault: Fault, context: Context, late_ms: int = 0) -> str | None:
    """Return at the moment that `fault` waits for: the member that brought it about, or "". None where it did not come in time.

    `late_ms`: by how much its storm began later than planned.
    """
    trigger = fault.trigger
    try:
        async with asyncio.timeout(context.left_ms() / 1000):
            return await until(trigger, fault.target, context, late_ms)
    except TimeoutError:
        return None


async def until(trigger: Trigger, target: str, context: Context, late_ms: int = 0) -> str:
    """Return at the moment of `trigger`, `late_ms` later than planned: the member that brought it about, or "". The caller bounds the wait.

    `target`: the member whose log and whose hits count, or a role, for everybody's.
    """
    await asyncio.sleep(max(0, trigger.at_ms + late_ms - context.elapsed_ms()) / 1000)
    if trigger.revision:
        await context.recorder.until_revision(trigger.revision)
    if trigger.after:
        await context.until_fired(*_numbered(trigger.after))
    if trigger.healed:
        await context.until_healed(*_numbered(trigger.healed))
    if trigger.step:
        await context.until_done(trigger.step)
    if trigger.log:
        return await _line(target, trigger.log.encode(), context)
    if trigger.failpoint:
        return await _hit(target, trigger.failpoint, trigger.hit, context)
    return ""


def _numbered(text: str) -> tuple[str, int]:
    """KIND or KIND#N."""
    kind, _, number = text.partition("#")
    return kind, int(number or 1)


def _watched(target: str, context: Context) -> tuple[str, ...]:
    """Whose logs and hits count: those of the target where it is one member, else everybody's."""
    return tuple(member.name for member in context.cluster.members if target in ROLES or member.name == target)


class _Log:
    """The end of one file that grows."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path, self.offset, self.rest = path, offset, b""

    def has(self, text: bytes) -> bool:
        """Whether a line that was completed since the last look has `text`."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                read = file.read(READ_BYTES_MAX)
        except OSError:  # a member that is not there any more
            return False
        self.offset += len(read)
        *lines, self.rest = (self.rest + read).split(b"\n")
        return any(text in line for line in lines)


async def _line(target: str, text: bytes, context: Context) -> str:
    logs = {member.name: _Log(member.spec.log, _size(member.spec.log)) for member in context.cluster.members}
    while True:
        for name in _watched(target, context):
            # Of one that has joined since, everything counts.
            if logs.setdefault(name, _Log(context.cluster.member(name).spec.log, 0)).has(text):
                return name
        await asyncio.sleep(FOLLOW_PAUSE_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


async def _hit(target: str, name: str, number: int, context: Context) -> str:
    points = next(each for each in context.equipment.values() if isinstance(each, Points))
    waits = {
        asyncio.create_task(points.until_hits(member, name, number), name=f"hits of {name} in {member}"): member
        for member in _watched(target, context)
    }
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return min(waits[task] for task in done)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
