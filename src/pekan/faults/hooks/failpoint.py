"""One thread of one member held, or the member killed, at a chosen point of etcd's own program, in the stock binary.

::

    armed ── the point is passed for the nth time ──> fired: kill       SIGKILL by that thread itself, between two instructions
                                                             hold       that thread waits, all others run on
                                                             hold-kill  first the one, then the other
                                                             count      nothing but the evidence

Holds matter as much as kills: what a crash at a point leaves behind is often what a crash anywhere leaves behind, until others have had
the time to run ahead of the one thread that waits (#13766: the batch that is committed while an apply is held). `within`: a majority can
return.

Mechanisms, in the order in which `any` takes the first that can be at the point:

==============  ======================================================================  ================================================
`hook`          code in the member from its start on; counts always, costs nothing      not at every instruction
`breakpoint`    debug registers, and a tracer for the time of one shot                  one at a time in a member, at most four places,
                                                                                        never the first hit, nothing that is `reached`
`uprobe`        the kernel's probe with a program of BPF, for root                      no hold, nothing that is `reached`
==============  ======================================================================  ================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pekan.errors import UsageError
from pekan.etcd.process import END_SECONDS_MAX
from pekan.etcd.spec import MemberState
from pekan.faults.drawing import weighted
from pekan.faults.equipment import probed
from pekan.faults.hooks import stub
from pekan.faults.hooks.asked import ANY, HOOK, KIND, REACHED, is_reached
from pekan.faults.hooks.breakpoints import Breakpoints
from pekan.faults.hooks.equipment import Hooks
from pekan.faults.hooks.mechanism import Firing, Mechanism
from pekan.faults.hooks.uprobes import Uprobes
from pekan.faults.injector import DRAWN_WAIT_MS, LOOK_PAUSE_S, PROCESS, Armed, Drawn, Frequency, Injector, Parameter, shielded

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

MECHANISMS: Final[dict[str, type[Mechanism]]] = {HOOK: Hooks, Breakpoints.name: Breakpoints, Uprobes.name: Uprobes}
ACTIONS: Final = {"kill": stub.KILL, "hold": stub.HOLD, "hold-kill": stub.HOLD | stub.KILL, "count": 0}
DRAWN_ACTIONS: Final = {"hold": 50, "kill": 25, "hold-kill": 25}
"""Weights. Half of what is drawn holds and nothing else, as often as something is killed."""
HOLD_MS: Final = (20, 250)
"""From less than a batch of the backend takes (100 ms) to two of them; longer ones would need another environment (`LONG_HOLD_MS`)."""
NTH: Final = (1, 10)
DOWN_MS: Final = (100, 1_800)
RECOVERY_MS: Final = 1_200
"""Replay and catching up, after the start."""
TARGETS: Final = {"leader": 35, "follower": 35, "any": 30}

ENDS_PROCESS: Final = frozenset({PROCESS})

LOOK_MS: Final = 300
"""How long functions are watched before one is drawn: what only a start or a rare request reaches would not be passed again."""
END_MS: Final = 500
"""From the release of a held thread to its going on, on a busy machine."""
LATE_RECORD_S: Final = 0.05
"""How long it may take to learn of a firing that was told before the end of the process."""
TOLD_S: Final = 10.0
"""The same where the member's memory says already that it has fired: as long as this process may have to wait for a processor."""
POLL_S: Final = 0.002


class Failpoint(Injector):
    """Kill, hold or count at a point of the program."""

    kind: ClassVar[str] = KIND
    summary: ClassVar[str] = "one thread is held, or the process killed, at a point of etcd's program"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "point": Parameter(REACHED, "text", "gofail name, function or file:line; reached, reached:KIND: drawn from what the run reaches"),
        "action": Parameter("hold", "text", "what happens there", tuple(ACTIONS)),
        "hold_ms": Parameter(200, "ms", "how long the thread is held"),
        "nth": Parameter(1, "count", "at which hit from the arming on"),
        "down_ms": Parameter(500, "ms", "after a kill, from the end of the process to its next start"),
        "mechanism": Parameter(
            ANY, "text", "by which means; any: a hook, where none can be a breakpoint, then a uprobe (kill, count)", (ANY, *MECHANISMS)
        ),
    }
    duration: ClassVar[str] = "hold_ms"
    needs: ClassVar[tuple[str, ...]] = (Hooks.name,)

    def needs_for(self, parameters: Mapping[str, int | str]) -> tuple[str, ...]:
        """The equipment of the mechanism asked for; of `any`, all of those that work here, can be at such a point and do what is asked."""
        asked = str(parameters.get("mechanism", ANY))
        if asked != ANY:
            return (MECHANISMS[asked].name,)
        if is_reached(str(parameters.get("point", REACHED))):
            return self.needs
        holds = "hold" in str(parameters.get("action", self.parameters["action"].default))
        fit = (means for means in MECHANISMS.values() if (means.holds or not holds) and probed(means).possible)
        return tuple(means.name for means in fit) or self.needs

    def without_equipment(self) -> str:
        others = [name for name, means in MECHANISMS.items() if means is not Hooks and probed(means).possible]
        return f"only at a point asked for by name, with mechanism {' or '.join(others)}" if others else ""

    def draw(self, rng: random.Random) -> Drawn:
        action = weighted(rng, DRAWN_ACTIONS)
        target = weighted(rng, TARGETS)
        parameters: dict[str, int | str] = {"point": REACHED, "action": action, "nth": rng.randint(*NTH)}
        # Only what the action makes use of: a schedule budgets with these.
        if "hold" in action:
            parameters["hold_ms"] = rng.randint(*HOLD_MS)
        if "kill" in action:
            parameters["down_ms"] = rng.randint(*DOWN_MS)
        return Drawn(target, parameters)

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        action = str(parameters.get("action", self.parameters["action"].default))
        # A held thread may be the one that everything waits for.
        held = int(parameters.get("hold_ms", self.parameters["hold_ms"].default)) if "hold" in action else 0
        down = int(parameters.get("down_ms", self.parameters["down_ms"].default)) + RECOVERY_MS if "kill" in action else 0
        return held + down

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Arm, wait for the hit, see the action through, start the member again where it was killed."""
        if "kill" not in armed.text("action"):
            await self._at_point(victim, armed)
        # A hold goes with everything, another's kill included; who ends the process must be alone with that.
        elif await _claimed(victim, armed):
            try:
                await self._at_point(victim, armed)
            finally:
                armed.context.release(victim.name, ENDS_PROCESS)

    @staticmethod
    async def _at_point(victim: Member, armed: Armed) -> None:
        point = armed.text("point")
        if is_reached(point):
            hooks = armed.equipment(Hooks)
            found = await _reached(hooks, victim.name, point, armed)
            if found is not None:
                await _Shot(victim, armed, hooks, HOOK, found).go()
            return
        mechanism, means = _means(victim, armed, point)
        await _Shot(victim, armed, means, mechanism, point).go()


class _Shot:
    """One arming of one point."""

    def __init__(self, victim: Member, armed: Armed, means: Mechanism, mechanism: str, point: str) -> None:
        self.victim, self.armed, self.means, self.mechanism, self.point = victim, armed, means, mechanism, point
        self.action = armed.text("action")
        self.kills = "kill" in self.action
        self.hold_ms = armed.number("hold_ms") if "hold" in self.action else 0
        self.incarnation = victim.incarnation

    @property
    def lives(self) -> bool:
        """Whether the process that was armed is still there."""
        return self.victim.alive and self.victim.incarnation == self.incarnation

    @property
    def _has_fired(self) -> bool:
        """Whether the point has fired since this was armed."""
        return self.means.firings(self.victim.name, self.point) != self.firings

    @property
    def _dies(self) -> bool:
        """Whether the process that was armed has been killed, and has not ended yet."""
        process = self.victim.process
        return self.lives and process is not None and process.dies()

    async def go(self) -> None:
        victim, means = self.victim, self.means
        self.firings = means.firings(victim.name, self.point)
        if self.kills:
            victim.expect_exit(lambda status: status == signal.SIGKILL)
        try:
            await means.arm(victim.name, self.point, self.armed.number("nth"), ACTIONS[self.action], self.hold_ms)
        except BaseException:
            if self.kills and self.lives:
                victim.expect_exit(None)
            raise
        try:
            firing = await self._fired()
            if firing is None:
                return
            if not self.kills:
                self.armed.fired(self._evidence(firing))
            await self._until_released(min(self.hold_ms + END_MS, self.armed.context.left_ms()))
            if self.kills:
                self.means.release(self.victim.name, self.point)  # where the faults' phase ended during the hold
                # In one piece even under cancellation: its end is waited for and recorded as this fault's doing.
                await shielded(self._death(firing))
                await self.armed.hold(self.armed.number("down_ms") if self.armed.has_fired else 0)
        finally:
            await shielded(self._undo())

    async def _fired(self) -> Firing | None:
        """The firing; None where the faults' phase or the process ended before."""
        firing = asyncio.ensure_future(self.means.fired(self.victim.name, self.point))
        ended = asyncio.ensure_future(self.victim.wait_exit())
        try:
            await asyncio.wait({firing, ended}, timeout=self.armed.context.left_ms() / 1000, return_when=asyncio.FIRST_COMPLETED)
            # The record of a process that killed itself was written before its end, and may be read after the report of that.
            if not firing.done():
                await asyncio.wait({firing}, timeout=LATE_RECORD_S)
            if not firing.done() and self._has_fired:
                await asyncio.wait({firing}, timeout=TOLD_S)
            return firing.result() if firing.done() else None
        finally:
            for task in (firing, ended):
                task.cancel()
            await asyncio.gather(firing, ended, return_exceptions=True)

    def _evidence(self, firing: Firing) -> dict[str, Any]:
        evidence: dict[str, Any] = {
            "point": self.point,
            "mechanism": self.mechanism,
            "action": self.action,
            "hits": firing.hits,
            "tid": firing.tid,
            "time_ns": firing.time_ns,
            "pid": self.victim.pid,
            "incarnation": self.victim.incarnation,
        }
        if self.hold_ms and self.means.environment:
            evidence["environment"] = dict(self.means.environment)
        return evidence

    async def _death(self, firing: Firing) -> None:
        """The end of the process, as the kernel reports it, is the evidence of a kill."""
        evidence = self._evidence(firing)
        with contextlib.suppress(TimeoutError):
            end = await self.victim.wait_exit(END_SECONDS_MAX)
            held_ns = self.means.ended_ns(self.victim.name, self.point) - firing.time_ns if self.hold_ms else 0
            self.armed.fired({**evidence, "pid": end.pid, "wait_status": end.wait_status, "held_ns": held_ns})

    async def _until_released(self, ms: int) -> None:
        """Until the held thread goes on, its process ends, or `ms` are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ms / 1000):
                while self.lives and self.means.held(self.victim.name, self.point):
                    await asyncio.sleep(POLL_S)

    async def _undo(self) -> None:
        victim, armed, means = self.victim, self.armed, self.means
        means.disarm(victim.name, self.point)
        await self._until_released(END_MS)
        if self.kills and self.lives:
            if self._has_fired:
                # Its thread may have looked at the action for the last time before it was disarmed: then the process ends just now, and has
                # done so once its threads are through with the disk.
                with contextlib.suppress(TimeoutError):
                    await victim.wait_exit(END_MS / 1000)
                with contextlib.suppress(TimeoutError):
                    await victim.wait_exit(END_SECONDS_MAX if self._dies else 0)
            if self.lives and not self._dies:
                victim.expect_exit(None)
        if not self.lives:
            means.settle(victim.name, self.point)
        # Not after an exit that nobody asked for, which is the hunt's to judge, nor after another fault's kill, which starts it again.
        if self.kills and victim.state is MemberState.STOPPED:
            await victim.start()
        if armed.has_fired:
            after = {"hits": means.hits(victim.name, self.point), "held": means.held(victim.name, self.point)}
            armed.healed({"pid": victim.pid, "incarnation": victim.incarnation, "state": str(victim.state), **after})


def _means(victim: Member, armed: Armed, point: str) -> tuple[str, Mechanism]:
    """The one choice of a mechanism: the one that the fault asks for, else the first that can be at that point of that member."""
    asked = armed.text("mechanism")
    for name, kind in MECHANISMS.items():
        means = armed.context.equipment.get(kind.name)
        if asked not in (ANY, name) or not isinstance(means, Mechanism) or not means.can(victim, point):
            continue
        if means.holds or "hold" not in armed.text("action"):
            means.use(victim)
            return name, means
    raise UsageError(f"no {'mechanism' if asked == ANY else asked} can be at {point} of {victim.name}")


async def _claimed(victim: Member, armed: Armed) -> bool:
    """Take the process for this fault; False where others have it for too long."""
    context = armed.context
    deadline = context.elapsed_ms() + (context.left_ms() if armed.fault.required else DRAWN_WAIT_MS)
    while not context.claim(victim.name, ENDS_PROCESS):
        if context.elapsed_ms() >= deadline or context.left_ms() <= 0:
            return False
        await asyncio.sleep(LOOK_PAUSE_S)
    if victim.state is MemberState.RUNNING:
        return True
    context.release(victim.name, ENDS_PROCESS)
    return False


async def _reached(hooks: Hooks, member: str, wanted: str, armed: Armed) -> str | None:
    """A function that the member is passing these days, drawn; None where it passes none while the fault may begin."""
    while True:
        before = hooks.functions(member)
        await armed.hold(LOOK_MS)
        now = hooks.functions(member)
        live = {name for name, hits in now.items() if hits > before.get(name, 0)}
        found = hooks.draw(member, armed.rng, wanted.removeprefix(REACHED).removeprefix(":"), live)
        if found is not None or armed.context.left_ms() <= 0:
            return found
