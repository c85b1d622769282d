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
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pekan.etcd.breakpoints
from pekan.errors import ClusterFailure, UsageError
from pekan.faults.ability import Ability, able, once, unable
from pekan.faults.equipment import Site
from pekan.faults.hooks import points, stub
from pekan.faults.hooks.asked import for_long_holds, points_by
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.mechanism import Firing, Placed
from pekan.faults.hooks.planting import REMEDY, not_here

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.process import Process
    from pekan.etcd.spec import MemberSpec

FIRST_HIT: Final = 2
ANSWER_S: Final = 10.0
"""From asking the launcher to every thread having been stopped once: 0.1 s on a busy machine, more where a thread waits for the disk."""
PROBE_SECONDS_MAX: Final = 30.0
"""For a Python that starts, and its own patience of twenty seconds with a child."""


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


class Breakpoints(Placed):
    """Breakpoints of the processor, for points where no hook can be."""

    name: ClassVar[str] = "breakpoint"
    loss: ClassVar[str] = "failpoints where no hook can be"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._armed: dict[str, _Armed] = {}
        self._firings: dict[tuple[str, str], int] = {}

    @classmethod
    def probe(cls) -> Ability:
        if reason := points.why_not() or why_not():
            return unable(cls.name, reason, REMEDY)
        return able(cls.name, "the launcher traces for the time of one shot")

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

    async def arm(self, member: str, name: str, nth: int, action: int, hold_ms: int = 0) -> None:
        """As everywhere, and not at the first hit. Raises `UsageError` where another breakpoint is in that member."""
        victim = self._members[member]
        process = victim.process
        if process is None:
            raise ClusterFailure(f"member {member} has ended")
        before = self._armed.get(member)
        if before is not None and not before.over:
            raise UsageError(f"another fault has its breakpoint in {member}")
        addresses = self._places_in(victim, name)
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
        return await asyncio.shield(self._of(member, name).firing)

    def firings(self, member: str, name: str) -> int:
        return self._firings.get((member, name), 0)

    def hits(self, member: str, name: str) -> int:
        return self._of(member, name).hits

    def held(self, member: str, name: str) -> bool:
        return not self._of(member, name).over

    def ended_ns(self, member: str, name: str) -> int:
        return self._of(member, name).ended_ns

    def release(self, member: str, name: str) -> None:
        self._of(member, name).process.command(command="release")

    def disarm(self, member: str, name: str) -> None:
        armed = self._of(member, name)
        if not armed.over and not armed.process.command(command="disarm"):
            armed.take({"event": "ended"})
        armed.firing.cancel()

    def settle(self, member: str, name: str) -> None:
        self._of(member, name).take({"event": "ended"})

    def _of(self, member: str, name: str) -> _Armed:
        armed = self._armed.get(member)
        if armed is None or armed.name != name:
            raise UsageError(f"no breakpoint has been at {name} of {member}")
        return armed

    def _count(self, member: str, name: str, firing: asyncio.Future[Firing]) -> None:
        if not firing.cancelled():
            self._firings[member, name] = self.firings(member, name) + 1

    def _placed(self, executable: GoBinary, name: str, addresses: tuple[int, ...], version: str) -> tuple[int, ...]:
        most = pekan.etcd.breakpoints.REGISTERS_MAX
        if len(addresses) <= most:
            return addresses
        if name in points_by(self.site.plan).get(self.name, ()):
            raise UsageError(f"{name!r} is at {len(addresses)} places of etcd {version}; breakpoints can be at {most} at once")
        return ()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@once
def why_not() -> str:
    """Why there can be no breakpoints on this machine; "" where a child of a program of its own was stopped by one."""
    if reason := not_here("breakpoints"):
        return reason
    command = [sys.executable, "-I", "-S", pekan.etcd.breakpoints.__file__]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS_MAX, check=False)
        return done.stdout if done.returncode == 0 else (done.stderr.splitlines() or ["it ended without a word"])[-1]
    return f"it did not end within {PROBE_SECONDS_MAX:g} s"
