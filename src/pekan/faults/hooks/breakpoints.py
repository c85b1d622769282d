"""Breakpoints of the processor in a running member, for points where no hook can be and for machines where none can be planted.

::

    arm ── through the lifeline ──> launcher: traces the member from now on (`pekan.etcd.breakpoints`)
    fired, released, disarmed <──── its reports; the member is untraced again

The same as `Hooks` for one shot at a time: nobody counts before the arming, and each thread is stopped for a moment then. That moment is
not like others (nothing may be pending in the backend, say), so that the first hit after it is no fair sample: it is not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pekan.etcd.breakpoints
from pekan.errors import ClusterFailure, UsageError
from pekan.faults.ability import Ability, able, unable
from pekan.faults.equipment import Equipment, Site
from pekan.faults.hooks import points, stub
from pekan.faults.hooks.equipment import Firing, for_long_holds, is_reached, points_by, points_of_faults
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.planting import REMEDY
from pekan.faults.hooks.points import Points

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.ports import PortLease
    from pekan.etcd.process import Process
    from pekan.etcd.spec import EtcdBinary, MemberSpec

FIRST_HIT: Final = 2
ANSWER_S: Final = 10.0
"""From asking the launcher to every thread having been stopped once: 0.1 s on a busy machine, more where a thread waits for the disk."""
PROBE_SECONDS_MAX: Final = 10.0


@dataclass(slots=True)
class _Armed:
    """One arming, and what the launcher has told of it."""

    process: Process
    name: str
    in_place: asyncio.Future[None]
    firing: asyncio.Future[Firing]
    hits: int = 0
    ended_ns: int = 0
    over: bool = False
    """Nobody is traced any more."""

    def take(self, report: Mapping[str, Any]) -> None:
        match report["event"]:
            case "armed":
                _settle(self.in_place)
            case "refused":
                if not self.in_place.done():
                    self.in_place.set_exception(UsageError(f"no breakpoint can be at {self.name}: {report['message']}"))
            case "fired":
                self.hits = report["hits"]
                _settle(self.in_place)
                if not self.firing.done():
                    self.firing.set_result(Firing(report["hits"], report["tid"], report["time_ns"]))
            case "released":
                self.ended_ns = report["time_ns"]
            case "disarmed":
                self.hits = report["hits"]
                self._end()
            case "ended":
                self._end()

    def _end(self) -> None:
        self.over = True
        self.process.listener = None
        if not self.in_place.done():
            self.in_place.set_exception(ClusterFailure(f"the process ended before a breakpoint was at {self.name}"))


class Breakpoints(Equipment):
    """Breakpoints of the processor, for points where no hook can be."""

    name: ClassVar[str] = "breakpoint"
    loss: ClassVar[str] = "failpoints where no hook can be"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._addresses: dict[tuple[Path, str], tuple[int, ...]] = {}
        self._members: dict[str, Member] = {}
        self._armed: dict[str, _Armed] = {}
        self._firings: dict[tuple[str, str], int] = {}
        self.environment: Mapping[str, str] = {}

    @classmethod
    def probe(cls) -> Ability:
        if reason := points.why_not() or why_not():
            return unable(cls.name, reason, REMEDY)
        return able(cls.name, "the launcher traces for the time of one shot")

    async def prepare(self) -> None:
        """Raises `UsageError` for a point that this etcd does not have, or that is at more places than the processor has registers, and for
        what only hooks can tell: which points are reached."""
        if any(map(is_reached, points_of_faults(self.site.plan, (self.name,)))):
            raise UsageError("only hooks can tell what is reached: name a point, or ask for no mechanism")
        await asyncio.to_thread(self._find, self.site.binary)

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        changed = []
        for member in members:
            await asyncio.to_thread(self._find, member.binary)
            self.environment = for_long_holds(self.site.plan, member.binary)
            changed.append(replace(member, environment={**member.environment, **self.environment}))
        return tuple(changed)

    async def close(self) -> None:
        for armed in self._armed.values():
            armed.process.listener = None

    # ---- arming: as `Hooks` does it ----

    def use(self, member: Member) -> None:
        """The process that `member` has now is the one to be armed by its name."""
        self._members[member.name] = member

    async def arm(self, member: str, name: str, nth: int, action: int, hold_ms: int = 0) -> None:
        """Fire at the `nth` hit from now on, and not at the first one. `action` is as with `Hooks.arm`.

        Raises `UsageError` where another breakpoint is in that member or the kernel refuses this one, `ClusterFailure` where it ends.
        """
        victim = self._members[member]
        process = victim.process
        if process is None:
            raise ClusterFailure(f"member {member} has ended")
        before = self._armed.get(member)
        if before is not None and not before.over:
            raise UsageError(f"another fault has its breakpoint in {member}")
        addresses = self._addresses[Path(victim.spec.binary.path), name]
        loop = asyncio.get_running_loop()
        armed = self._armed[member] = _Armed(process, name, loop.create_future(), loop.create_future())
        armed.firing.add_done_callback(lambda firing: self._count(member, name, firing))
        process.listener = armed.take
        kill = bool(action & stub.KILL)
        if not process.command(
            command="arm",
            addresses=addresses,
            nth=max(FIRST_HIT, nth),
            hold_ms=hold_ms if action & stub.HOLD else 0,
            kill=kill,
        ):
            armed.take({"event": "ended"})
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.shield(armed.in_place)
        except BaseException as error:
            self.disarm(member, name)
            armed.in_place.cancel()
            if isinstance(error, TimeoutError):
                raise UsageError(f"a thread of {member} could not be stopped within {ANSWER_S:g} s") from error
            raise

    async def fired(self, member: str, name: str) -> Firing:
        """Wait until what was armed there has fired; the caller bounds the wait."""
        return await asyncio.shield(self._of(member, name).firing)

    def firings(self, member: str, name: str) -> int:
        """How often that point has fired in `member`."""
        return self._firings.get((member, name), 0)

    def hits(self, member: str, name: str) -> int:
        """How often `member` has come by the point since the last arming, as far as that was counted."""
        return self._of(member, name).hits

    def held(self, member: str, name: str) -> bool:
        """Whether a thread is held there, or others are not let go yet."""
        return not self._of(member, name).over

    def ended_ns(self, member: str, name: str) -> int:
        """When the last hold there came to its end, CLOCK_MONOTONIC."""
        return self._of(member, name).ended_ns

    def release(self, member: str, name: str) -> None:
        """Let the thread that is held there go on at once; the rest of its action follows."""
        self._of(member, name).process.command(command="release")

    def disarm(self, member: str, name: str) -> None:
        """No firing any more; a thread that is held there goes on, and lives. Idempotent."""
        armed = self._of(member, name)
        if not armed.over and not armed.process.command(command="disarm"):
            armed.take({"event": "ended"})
        armed.firing.cancel()

    def settle(self, member: str, name: str) -> None:
        """The process that fired there has ended: nobody is held any more."""
        self._of(member, name).take({"event": "ended"})

    def can(self, member: Member, name: str) -> bool:
        """Whether a breakpoint can be at that point."""
        return (Path(member.spec.binary.path), name) in self._addresses

    def _of(self, member: str, name: str) -> _Armed:
        armed = self._armed.get(member)
        if armed is None or armed.name != name:
            raise UsageError(f"no breakpoint has been at {name} of {member}")
        return armed

    def _count(self, member: str, name: str, firing: asyncio.Future[Firing]) -> None:
        if not firing.cancelled():
            self._firings[member, name] = self.firings(member, name) + 1

    def _find(self, binary: EtcdBinary) -> None:
        path = Path(binary.path)
        wanted = {name for names in points_by(self.site.plan).values() for name in names}
        wanted -= {name for known, name in self._addresses if known == path}
        if not wanted:
            return
        table = Points(GoBinary(path), binary.version)
        alone = points_by(self.site.plan).get(self.name, ())
        for name in wanted:
            addresses = table.find(name).addresses
            if len(addresses) <= pekan.etcd.breakpoints.REGISTERS_MAX:
                self._addresses[path, name] = addresses
            elif name in alone:
                most = pekan.etcd.breakpoints.REGISTERS_MAX
                raise UsageError(f"{name!r} is at {len(addresses)} places of etcd {binary.version}; breakpoints can be at {most} at once")


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@functools.cache
def why_not() -> str:
    """Why there can be no breakpoints on this machine; "" where a child of a program of its own was stopped by one."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return f"breakpoints are made for Linux on x86-64, and this is {sys.platform} {os.uname().machine}"
    command = [sys.executable, "-I", "-S", pekan.etcd.breakpoints.__file__]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS_MAX, check=False)
        return done.stdout if done.returncode == 0 else (done.stderr.splitlines() or ["it ended without a word"])[-1]
    return f"it did not end within {PROBE_SECONDS_MAX:g} s"
