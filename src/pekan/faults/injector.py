"""One fault from armed to healed: what an injector is, and how the faults of a schedule are carried out.

::

    trigger came     victim reserved      injector does it        hold            injector undoes it
    ──────────> resolve ──────────> ARMED ──────────> FIRED ──────────────> HEALED
                   │                  └─ could not, or its moment did not come: never fired (expired)
        │          └─ no victim in time: armed with the role for a target, never fired (expired)
        └─ did not come: a mark says which trigger it was, nothing is armed (expired)

Faults overlap, on different members and on one. What an injector cannot share it *claims* of its victim, from arming to healing: two that
end its process never fight over it, while a slow disk, a cut link and a kill meet on one member as they do in life. Roles are
resolved when a fault is armed; where the claim on the member with that role is taken, "any" and "follower" take another one, and "leader"
waits a little for the next election. A drawn fault that finds nobody with its role in time takes any member that is free.

Whatever ends a fault - its time, the end of the faults' phase, a cancellation - it is healed: `Armed.hold` ends early, and
`shielded` finishes a heal under cancellation.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from pekan.errors import ClusterFailure, UsageError
from pekan.etcd.spec import MemberState
from pekan.faults.ability import Ability, able
from pekan.faults.journal import Journal
from pekan.faults.storms import Storms
from pekan.faults.triggers import until, until_due
from pekan.plan import ROLES, Fault, Schedule

if TYPE_CHECKING:
    from pekan.etcd.client import Client, Reply
    from pekan.etcd.cluster import Cluster, Member
    from pekan.etcd.recorder import Recorder
    from pekan.faults.equipment import Equipment
    from pekan.wire.messages import Request

T = TypeVar("T")
E = TypeVar("E", bound="Equipment")

DRAWN_WAIT_MS = 2_500
"""How long a drawn fault waits for a victim of its role: an election with default timeouts takes 1 to 2 s. One asked for by name waits
until the faults' phase ends, because a run in which it does not fire is undecided."""
CLUSTER_WAIT_MS = 8_000
"""The same for what claims an affair of the whole cluster: there is no other victim for it, and a change of members takes some seconds."""
DRAWN_LATE_MS = 8_000
"""How much longer than its parameters say a drawn fault may take, waiting for its moment and for its end: two elections, a replay, a change
of members. Without a bound one that waits for what never comes would hold its claims, and keep calm away, to the end of an hour."""
LEADER_TIMEOUT_S = 1.0
"""One look for the leader, a login included where auth is on; looks are repeated, and one that hangs on a dead member must not eat a short
phase."""
LOOK_PAUSE_S = 0.05
"""Between two looks for a victim: a twentieth of the default election timeout."""

PROCESS = "process"
"""The claim of whatever ends, stops or starts the victim's process."""
CLUSTER = "cluster:"
"""A claim that begins so is one for the whole cluster: `cluster:membership` belongs to one fault at a time, whoever its victim is."""


_own_end_ms: ContextVar[int | None] = ContextVar("own_end_ms", default=None)
"""In the tasks of a drawn fault: when its own time is over, ms since the traffic began."""


Frequency = Literal["day", "week", "year", "century"]
"""How often clusters meet a fault."""


class Parameter(NamedTuple):
    """One setting of a fault.

    default   int or text; its type is the parameter's type
    unit      ms | bytes | percent | count | text
    meaning   a phrase for a person
    choices   for text: what it may be; empty: anything
    """

    default: int | str
    unit: Literal["ms", "bytes", "percent", "count", "text"]
    meaning: str
    choices: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """What a random schedule asks of an injector: its target and the parameters that differ from the defaults."""

    target: str
    parameters: Mapping[str, int | str]


class Injector(ABC):
    """One kind of fault.

    kind       the name that plans and `--fault` use
    summary    one sentence for a person: what it does to its victim
    promise    what it leaves of etcd's promises: within | liveness | lease-time | outside (judgement, "What etcd promises under a fault")
    frequency  how often clusters meet it: day | week | year | century
    parameters what it takes, by name
    duration   the parameter that a bare length of time in `--fault` sets; "" where it takes none
    patience   the parameter that says how long it waits for an end to come while its victim serves; "" where it does not
    open_end   whether it may last until a moment instead (`Fault.until`)
    claims     what of the victim it shares with no other fault while it is armed
    members_min  in smaller clusters there is nobody that it could befall
    needs      names of the equipment that has to be around the members (`pekan.faults.EQUIPMENT`)
    """

    kind: ClassVar[str]
    summary: ClassVar[str]
    promise: ClassVar[str] = "within"
    frequency: ClassVar[Frequency]
    parameters: ClassVar[Mapping[str, Parameter]]
    duration: ClassVar[str] = ""
    patience: ClassVar[str] = ""
    open_end: ClassVar[bool] = False
    claims: ClassVar[frozenset[str]] = frozenset()
    members_min: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()

    def probe(self) -> Ability:
        """Whether it can be injected here, its equipment aside (that is probed by itself)."""
        return able(self.kind)

    def needs_for(self, parameters: Mapping[str, int | str]) -> tuple[str, ...]:
        """Of equipment, what one with these parameters needs."""
        return self.needs

    def without_equipment(self) -> str:
        """What can be had of it by name though its equipment cannot be put around members here, as a phrase; "" where nothing can."""
        return ""

    @abstractmethod
    def draw(self, rng: random.Random) -> Drawn:
        """One of these for a random schedule; a pure function of `rng`."""

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        """For how long its victim does not do its part in a majority, recovery included; 0 where it goes on serving. The failure budget
        of a schedule is drawn on for that time."""
        return 0

    def lasts_ms(self, parameters: Mapping[str, int | str]) -> int:
        """How long one holds its victim, as far as its parameters tell; recovery included."""
        held = int(parameters[self.duration]) if self.duration else 0
        return max(held, self.down_ms(parameters))

    @abstractmethod
    async def inject(self, victim: Member, armed: Armed) -> None:
        """Do it, `armed.fired(...)` with evidence as soon as the effect is proven, hold it, undo it on every path out,
        `armed.healed(...)`. Returns without `fired` where its moment did not come."""


@dataclass
class Armed:
    """A fault that has a victim and is on its way; writes its own life to the record."""

    fault: Fault
    victim: str
    id: int
    context: Context
    injector: Injector
    rng: random.Random
    """For what has to be chosen only now; a function of the run's seed and the fault's place in the schedule."""
    has_fired: bool = False

    def number(self, name: str) -> int:
        """A parameter that is a number, its default where the plan does not give it."""
        return int(self.fault.parameters.get(name, self.injector.parameters[name].default))

    def text(self, name: str) -> str:
        """A parameter that is text, its default where the plan does not give it."""
        return str(self.fault.parameters.get(name, self.injector.parameters[name].default))

    def equipment(self, kind: type[E]) -> E:
        """The equipment of that class, which the injector has named in `needs`."""
        equipment = self.context.equipment[kind.name]
        assert isinstance(equipment, kind)
        return equipment

    def fired(self, evidence: dict[str, Any]) -> None:
        """It happened; `evidence` is a JSON object (pid, signal, wait status, hits, bytes...). Only the first call is recorded."""
        if not self.has_fired:
            self.has_fired = True
            self.context.recorder.fault_fired(self.id, evidence)
            self.context.has_fired(self.fault.kind)

    def healed(self, evidence: dict[str, Any]) -> None:
        """It is undone."""
        self.context.recorder.fault_healed(self.id, evidence)
        self.context.has_healed(self.fault.kind)

    async def hold(self, ms: int) -> None:
        """Wait `ms`, and not beyond the end of the faults' phase."""
        await asyncio.sleep(max(0, min(ms, self.context.left_ms())) / 1000)

    async def stay(self) -> None:
        """Wait for as long as the fault lasts: its length of time, or until the moment that ends it; not beyond the faults' phase."""
        if self.fault.until is None:
            await self.hold(self.number(self.injector.duration))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.context.left_ms() / 1000):
                await until(self.fault.until, self.fault.target, self.context)


async def _without_auth(client: Client) -> None:
    """Where no user is known there is nobody to log in as."""


@dataclass
class Context:
    """What faults are given by the hunt, and what they have in common: what is claimed, how many fired.

    elapsed_ms  counts from the beginning of the traffic; `heal_ms` is when every fault has to be undone
    ask         one recorded request to the member of that name, with the administrator's token where auth is on
    open        a recorded client of its own, for streams; the hunt closes it at the end of the run
    login       gives such a client the administrator's token, where auth is on
    directory   the run's
    administrator  tells the traffic whom its clients are to speak as from now on (name, password); None: as nobody
    journal     the run's: notes what the kernel does not undo by itself, before it is made
    """

    cluster: Cluster
    recorder: Recorder
    elapsed_ms: Callable[[], int]
    heal_ms: int
    ask: Callable[[str, Request, float], Awaitable[Reply]]
    open: Callable[[str, str], Client]
    directory: Path
    seed: int = 0
    login: Callable[[Client], Awaitable[None]] = _without_auth
    administrator: Callable[[tuple[str, str] | None], None] = lambda user: None
    equipment: Mapping[str, Equipment] = field(default_factory=dict)
    journal: Journal = field(default_factory=Journal)
    claimed: set[tuple[str, str]] = field(default_factory=set)
    fired: int = 0
    expired: int = 0
    armed: int = 0
    """How many faults have had a victim so far."""
    due: int = 0
    """How many faults' moment has come, and they look for a victim."""
    holding: dict[int, str] = field(default_factory=dict)
    """What is armed now, in order of arming: "pause m2"."""
    calm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the hunt when nothing is armed, every member has answered a linearizable read, and the members have been compared."""
    fired_by_kind: Counter[str] = field(default_factory=Counter)
    healed_by_kind: Counter[str] = field(default_factory=Counter)
    steps: set[str] = field(default_factory=set)
    """Names of the steps of the script that have been done."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _collections: dict[type, Any] = field(default_factory=dict)

    def collection(self, kind: type[T]) -> T:
        """What the faults of this run have collected in a `kind`, which is the families' own affair: made, as `kind()`, when it is first
        asked for."""
        if kind not in self._collections:
            self._collections[kind] = kind()
        found: T = self._collections[kind]
        return found

    @property
    def active(self) -> int:
        """How many faults are armed and not yet healed or expired."""
        return len(self.holding)

    def left_ms(self) -> int:
        """What is left of the faults' phase, and to a drawn fault that asks, of its own time; never negative."""
        own_end_ms = _own_end_ms.get()
        end_ms = self.heal_ms if own_end_ms is None else min(own_end_ms, self.heal_ms)
        return max(0, end_ms - self.elapsed_ms())

    def has_fired(self, kind: str) -> None:
        """One of `kind` has fired; whoever waits for that goes on."""
        self.fired_by_kind[kind] += 1
        self._tell()

    def has_healed(self, kind: str) -> None:
        """One of `kind` has been healed."""
        self.healed_by_kind[kind] += 1
        self._tell()

    def has_done(self, step: str) -> None:
        """The step of the script that bears this name has been done."""
        self.steps.add(step)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def until_fired(self, kind: str, number: int) -> None:
        """Return once `number` faults of `kind` have fired; the caller bounds the wait."""
        while self.fired_by_kind[kind] < number:
            await self._news.wait()

    async def until_healed(self, kind: str, number: int) -> None:
        """Return once `number` faults of `kind` have been healed; the caller bounds the wait."""
        while self.healed_by_kind[kind] < number:
            await self._news.wait()

    async def until_done(self, step: str) -> None:
        """Return once the step of that name has been done; the caller bounds the wait."""
        while step not in self.steps:
            await self._news.wait()

    def claim(self, member: str, claims: frozenset[str]) -> bool:
        """Take all of `claims` on `member`, or none."""
        wanted = {_owned(member, claim) for claim in claims}
        if wanted & self.claimed:
            return False
        self.claimed |= wanted
        return True

    def release(self, member: str, claims: frozenset[str]) -> None:
        """Give `claims` back."""
        self.claimed -= {_owned(member, claim) for claim in claims}


def _owned(member: str, claim: str) -> tuple[str, str]:
    return ("", claim) if claim.startswith(CLUSTER) else (member, claim)


async def carry_out(schedule: Schedule, context: Context, injectors: Mapping[str, Injector]) -> None:
    """Every fault of `schedule` at its time, in one task group. Returns when all are healed or expired, or have left a mark of why not."""
    storms = Storms(schedule, context)
    async with asyncio.TaskGroup() as group:
        group.create_task(storms.open(), name="storms")
        for index, fault in enumerate(schedule.faults):
            group.create_task(_one(fault, index, context, injectors[fault.kind], storms), name=f"fault {index} {fault.kind}")


async def _one(fault: Fault, index: int, context: Context, injector: Injector, storms: Storms) -> None:
    cause = await until_due(fault, context, await storms.late_ms(fault))
    if cause is None:
        waited_for = asdict(fault.trigger)
        context.recorder.mark(
            "untriggered",
            fault=fault.kind,
            fault_class=fault.fault_class,
            required=fault.required,
            trigger=waited_for,
            promise=injector.promise,
        )
        context.expired += 1
        return
    # The member that "any" takes is a function of the plan as far as the members' states allow it.
    rng = random.Random(f"pekan/fault/{context.seed}/{index}")
    context.due += 1
    try:
        victim = await _victim(fault, context, injector.claims, rng, cause)
    finally:
        context.due -= 1
    name = fault.target if victim is None else victim.name
    number = context.recorder.fault_armed(
        kind=fault.kind,
        target=name,
        parameters=dict(fault.parameters),
        promise=injector.promise,
        required=fault.required,
        fault_class=fault.fault_class,
    )
    armed = Armed(fault, name, number, context, injector, rng)
    if victim is None:
        context.expired += 1
        return
    if not fault.required:
        _own_end_ms.set(context.elapsed_ms() + injector.lasts_ms(fault.parameters) + DRAWN_LATE_MS)
    context.holding[number] = f"{fault.kind} {name}"
    context.calm.clear()
    context.armed += 1
    try:
        await injector.inject(victim, armed)
    except (ClusterFailure, UsageError) as error:
        # The member ended between being chosen and being hit, by its own doing or another fault's: then this one did not happen. After it
        # has fired, something was not undone as it should have been: the run goes on, and whether the cluster recovers decides.
        context.recorder.mark("unhealed" if armed.has_fired else "unfired", name, fault=fault.kind, number=number, why=str(error))
    finally:
        del context.holding[number]
        context.release(name, injector.claims)
        if armed.has_fired:
            context.fired += 1
        else:
            context.expired += 1


async def _victim(fault: Fault, context: Context, claims: frozenset[str], rng: random.Random, cause: str) -> Member | None:
    """The member, claimed; None where there was none in time. Of those that "any" may take, `cause` is tried first."""
    drawn_wait_ms = CLUSTER_WAIT_MS if any(claim.startswith(CLUSTER) for claim in claims) else DRAWN_WAIT_MS
    wait_ms = context.left_ms() if fault.required else min(drawn_wait_ms, context.left_ms())
    deadline = context.elapsed_ms() + wait_ms
    while True:
        last = context.elapsed_ms() >= deadline
        # A drawn fault rather hits somebody else than nobody: a leader that is going down answers nobody who asks for it.
        candidates = await _candidates("any" if last and not fault.required else fault.target, context)
        running = [member for member in candidates if member.state is MemberState.RUNNING]
        if context.left_ms() <= 0:
            return None  # the faults' phase is over: nothing begins now
        shuffled = rng.sample(running, len(running))
        for victim in sorted(shuffled, key=lambda member: fault.target != "any" or member.name != cause):
            if context.claim(victim.name, claims):
                return victim
        if last:
            return None
        await asyncio.sleep(LOOK_PAUSE_S)


async def _candidates(target: str, context: Context) -> tuple[Member, ...]:
    cluster = context.cluster
    if target == "any":
        return cluster.members
    if target not in ROLES:
        # Nobody where it has left the cluster.
        return tuple(member for member in cluster.members if member.name == target)
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


def down(default_ms: int) -> Parameter:
    """For how long a fault leaves its victim without a process."""
    return Parameter(default_ms, "ms", "from the reported end of the process to its next start")


async def up_again(victim: Member) -> dict[str, Any]:
    """Start the victim's process where it was ended on purpose; what it is then, as evidence.

    Not after an exit that nobody asked for: that is the hunt's to judge, and to start again.
    """
    if victim.state is MemberState.STOPPED:
        await victim.start()
    return {"pid": victim.pid, "incarnation": victim.incarnation, "state": str(victim.state)}


async def down_and_up(victim: Member, armed: Armed, end: Coroutine[Any, Any, None]) -> None:
    """`end` the victim's process, hold, start it again on every path out."""

    async def heal() -> None:
        state = await up_again(victim)
        if armed.has_fired:
            armed.healed(state)

    try:
        await shielded(end)
        await armed.stay()
    finally:
        # In one piece: a cancellation while it starts must not keep the heal out of the record.
        await shielded(heal())
