"""One fault from armed to healed: what an injector is, and how the faults of a schedule are carried out.

::

    at trigger       victim reserved      injector does it        hold            injector undoes it
    ──────────> resolve ──────────> ARMED ──────────> FIRED ──────────────> HEALED
                   │                  └─ could not: never fired (expired)
                   └─ no victim in time: armed with the role for a target, never fired (expired)

A victim is reserved from its arming to its healing, so that faults overlap on different members and never fight over one. Roles are
resolved when a fault is armed; where the member with that role is reserved already, "any" and "follower" take another one, and "leader"
waits a little for the next election. A drawn fault that finds nobody with its role in time takes any member that is free.

Whatever ends a fault - its time, the end of the faults' phase, a cancellation - it is healed: `Armed.hold` ends early, and
`shielded` finishes a heal under cancellation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from pekan.errors import ClusterFailure, UsageError
from pekan.etcd.spec import MemberState
from pekan.plan import Fault, Schedule

if TYPE_CHECKING:
    from pekan.etcd.cluster import Cluster, Member
    from pekan.etcd.recorder import Recorder

T = TypeVar("T")

ROLES = ("leader", "follower", "any")
DRAWN_WAIT_MS = 2_500
"""How long a drawn fault waits for a victim of its role: an election with default timeouts takes 1 to 2 s. One asked for by name waits
until the faults' phase ends, because a run in which it does not fire is undecided."""
LEADER_TIMEOUT_S = 1.0
"""One look for the leader, a login included where auth is on; looks are repeated, and one that hangs on a dead member must not eat a short
phase."""
LOOK_PAUSE_S = 0.05
"""Between two looks for a victim: a twentieth of the default election timeout."""


class Injector(Protocol):
    """One mechanism.

    kind     the name that plans and `--fault` use
    promise  what it leaves of etcd's promises: within | liveness | lease-time | outside (judgement, "What etcd promises under a fault")
    defaults its parameters and their default values; all are ints
    duration the parameter that a bare length of time in `--fault` sets, in ms
    """

    kind: ClassVar[str]
    promise: ClassVar[str]
    defaults: ClassVar[dict[str, int]]
    duration: ClassVar[str]

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Do it, `armed.fired(...)`, hold it, undo it on every path out, `armed.healed(...)`."""


@dataclass
class Armed:
    """A fault that has a victim and is on its way; writes its own life to the record."""

    fault: Fault
    victim: str
    id: int
    context: Context
    has_fired: bool = False

    def parameter(self, name: str, default: int) -> int:
        """A parameter of the fault, `default` where the plan does not give it."""
        return int(self.fault.parameters.get(name, default))

    def fired(self, evidence: dict[str, Any]) -> None:
        """It happened; `evidence` is a JSON object (pid, signal, wait status...)."""
        self.has_fired = True
        self.context.recorder.fault_fired(self.id, evidence)

    def healed(self, evidence: dict[str, Any]) -> None:
        """It is undone."""
        self.context.recorder.fault_healed(self.id, evidence)

    async def hold(self, ms: int) -> None:
        """Wait `ms`, and not beyond the end of the faults' phase."""
        await asyncio.sleep(max(0, min(ms, self.context.left_ms())) / 1000)


@dataclass
class Context:
    """What faults are given by the hunt, and what they have in common: who is reserved, how many fired.

    `elapsed_ms` counts from the beginning of the traffic; `heal_ms` is when every fault has to be undone.
    """

    cluster: Cluster
    recorder: Recorder
    elapsed_ms: Callable[[], int]
    heal_ms: int
    seed: int = 0
    busy: set[str] = field(default_factory=set)
    fired: int = 0
    expired: int = 0
    active: int = 0

    def left_ms(self) -> int:
        """What is left of the faults' phase; never negative."""
        return max(0, self.heal_ms - self.elapsed_ms())


async def carry_out(schedule: Schedule, context: Context, injectors: dict[str, Injector]) -> None:
    """Every fault of `schedule` at its time, in one task group. Returns when all are healed or expired.

    Raises what a heal raises: a member that cannot be started again (`ClusterFailure`) is for the hunt to judge.
    """
    async with asyncio.TaskGroup() as group:
        for index, fault in enumerate(schedule.faults):
            group.create_task(_one(fault, index, context, injectors[fault.kind]), name=f"fault {index} {fault.kind}")


async def _one(fault: Fault, index: int, context: Context, injector: Injector) -> None:
    await asyncio.sleep(max(0, fault.trigger.at_ms - context.elapsed_ms()) / 1000)
    # The member that "any" takes is a function of the plan as far as the members' states allow it.
    rng = random.Random(f"pekan/fault/{context.seed}/{index}")
    victim = await _victim(fault, context, rng)
    name = fault.target if victim is None else victim.name
    number = context.recorder.fault_armed(
        kind=fault.kind,
        target=name,
        parameters=dict(fault.parameters),
        promise=injector.promise,
        required=fault.required,
        fault_class=fault.fault_class,
    )
    armed = Armed(fault, name, number, context)
    if victim is None:
        context.expired += 1
        return
    context.active += 1
    try:
        await injector.inject(victim, armed)
    except (ClusterFailure, UsageError):
        # The member ended between being chosen and being hit: the fault did not happen. After it has fired, failing is the hunt's matter.
        if armed.has_fired:
            raise
    finally:
        context.active -= 1
        context.busy.discard(name)
        if armed.has_fired:
            context.fired += 1
        else:
            context.expired += 1


async def _victim(fault: Fault, context: Context, rng: random.Random) -> Member | None:
    """The reserved member, None where there was none in time."""
    wait_ms = context.left_ms() if fault.required else min(DRAWN_WAIT_MS, context.left_ms())
    deadline = context.elapsed_ms() + wait_ms
    while True:
        last = context.elapsed_ms() >= deadline
        # A drawn fault rather hits somebody else than nobody: a leader that is going down answers nobody who asks for it.
        candidates = await _candidates("any" if last and not fault.required and fault.target in ROLES else fault.target, context)
        free = [member for member in candidates if member.name not in context.busy and member.state is MemberState.RUNNING]
        if context.left_ms() <= 0:
            return None  # the faults' phase is over: nothing begins now
        if free:
            victim = rng.choice(free)
            context.busy.add(victim.name)
            return victim
        if last:
            return None
        await asyncio.sleep(LOOK_PAUSE_S)


async def _candidates(target: str, context: Context) -> tuple[Member, ...]:
    cluster = context.cluster
    if target == "any":
        return cluster.members
    if target not in ROLES:
        return (cluster.member(target),)
    try:
        leader = await cluster.leader(LEADER_TIMEOUT_S)
    except ClusterFailure:
        return ()
    if target == "leader":
        return (leader,)
    return tuple(member for member in cluster.members if member.name != leader.name)


async def shielded(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end even while this task is being cancelled; the cancellation goes on after it."""
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # marks it as seen: the cancellation outranks it
        raise cancelled
    return task.result()


async def down_and_up(victim: Member, armed: Armed, end: Coroutine[Any, Any, None], down_ms: int) -> None:
    """`end` the victim's process, hold, start it again on every path out."""
    try:
        await shielded(end)
        await armed.hold(down_ms)
    finally:
        # Not after an exit that nobody asked for: that is the hunt's to judge, and to start again.
        if victim.state is MemberState.STOPPED:
            await shielded(victim.start())
        if armed.has_fired:
            armed.healed({"pid": victim.pid, "incarnation": victim.incarnation, "state": str(victim.state)})
