"""One run: plan -> cluster, traffic, faults -> history.

::

    start        cluster up, store proved empty                                        mark start
    quiet        workloads, watchers, maintenance begin                                mark phase
    faults       the schedule's faults, each armed, fired, healed                      mark phase, healthy
    recovery     everything healed; traffic goes on over a whole cluster               mark phase, recovery
    final        traffic ended; members compared at rest                               mark phase
    images       where there are crash images: cluster stopped, members started on     mark phase, images
                 each and asked (`pekan.hunt.images`)
    end          clients closed, cluster stopped, data directories removed or kept     mark end

Whatever happens inside, the record is closed with the reason it ended for and the cluster is stopped. A member that dies unasked is
evidence; it is started again, so that the run goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from pekan import __version__
from pekan.errors import ClusterFailure, EnvironmentFailure, PekanError, RecorderFailure, UsageError
from pekan.etcd.aside import exit_detail
from pekan.etcd.binaries import Binary
from pekan.etcd.client import Client, Reply, decided
from pekan.etcd.cluster import Cluster, Member
from pekan.etcd.ports import PortLease
from pekan.etcd.recorder import Recorder, boot_id
from pekan.etcd.spec import ClusterSpec, MemberExit, MemberPart, MemberSpec
from pekan.faults import Album, Context, Equipment, Journal, Site, equipment_for, inject
from pekan.history.records import RecordWriter
from pekan.history.run import RunDirectory
from pekan.hunt.comparing import compare
from pekan.hunt.images import examine
from pekan.hunt.live import Live
from pekan.hunt.moments import RunMoments
from pekan.hunt.planning import left_out_here
from pekan.hunt.probe import Probe
from pekan.plan import Plan
from pekan.wire.messages import RangeRequest, Request, pb
from pekan.workloads import Traffic, Workload, flags_of, works_of
from pekan.workloads.traffic import Caller, Credentials

UNASKED_RESTARTS_MAX = 3
"""How often a member that died unasked is started again; one that dies at every start would otherwise fill the run."""
UNASKED_RESTART_PAUSE_S = 0.5
START_S = 20.0
"""How long each question about the store may take before there is any traffic; without an answer the run cannot say that it began empty."""
RECOVERY_S = 30.0
"""How long a healed cluster may take until every member answers a linearizable read: ten election timeouts and a slow replay."""
HEALTH_POLL_S = 0.2
LIVE_EVERY_S = 0.25
COMPARE_S = 10.0
"""How long a member at rest may take for an answer: nothing waits for it any more, and without it the members are not compared."""
COMPARE_ROUNDS_BUSY = 3
"""Rounds of comparison tried while traffic goes on: members rarely stand still then, and each round costs the members some work."""
PLAYED_LOOK_S = 0.05
PLAYED_LOOKS = 5
"""A fault that waits for the last step of a script is due, and its log has been looked at, within some looks at it."""
FINISH_S = 10.0
"""How long workloads may take to leave the store as they found it, and watchers to catch up."""


@dataclass(frozen=True, slots=True)
class Conducted:
    """How a run ended. `reason` is what the end mark says: finished | interrupted | recorder | failed."""

    run: RunDirectory
    reason: str
    failure: PekanError | None = None


async def conduct(
    plan: Plan, binary: Binary, run: RunDirectory, live: Live, *, keep: bool = False, enough: asyncio.Event | None = None
) -> Conducted:
    """Do `plan` with `binary` and record it into `run`. Once `enough` is set, traffic and faults end early and in good order.

    A cancellation ends the run cleanly, recorded as interrupted, and is not raised again: whoever cancelled looks at `reason`.
    PekanErrors (cluster, recorder) come back as `failure`; only bugs are raised.
    """
    recorder = Recorder(RecordWriter(run.history_path))
    reason = "failed"
    failure: PekanError | None = None
    try:
        await _Run(plan, binary, run, live, recorder, keep, enough).go()
        reason = "finished"
    except asyncio.CancelledError:
        reason = "interrupted"
    except RecorderFailure as error:
        reason, failure = "recorder", error
    except PekanError as error:
        failure = error
    except BaseExceptionGroup as group:
        # A task group wraps; what broke first inside is what the user has to know.
        errors, rest = group.split(PekanError)
        if rest is not None and rest.subgroup(lambda e: not isinstance(e, asyncio.CancelledError)) is not None:
            raise
        failure = _first(errors)
        reason = "recorder" if isinstance(failure, RecorderFailure) else "failed"
    finally:
        with contextlib.suppress(RecorderFailure):
            recorder.mark("end", reason=reason)
        recorder.close()
    return Conducted(run, reason, failure)


def _first(group: BaseExceptionGroup[PekanError] | None) -> PekanError | None:
    if group is None:
        return None
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class _Enough(Exception):
    """A promise is broken, and that was what the hunt was for."""


class _Played(Exception):
    """The script is done, and so are the faults that it was waited for with."""


class _Run:
    """The state of one run while it goes on."""

    def __init__(
        self, plan: Plan, binary: Binary, run: RunDirectory, live: Live, recorder: Recorder, keep: bool, enough: asyncio.Event | None
    ) -> None:
        self.plan = plan
        self.binary = binary
        self.run = run
        self.live = live
        self.recorder = recorder
        self.keep = keep
        self.enough = enough
        self.clients: list[Client] = []
        self.unasked: dict[str, int] = {}
        self.revive: asyncio.Queue[str] = asyncio.Queue()
        self.context: Context
        self.faults: Context | None = None
        """The same, once the faults' phase has begun."""
        self.administrator: Credentials | None = None
        """The last one that there was."""
        self.equipment: dict[str, Equipment] = {}
        self.journal = Journal()
        self.incarnations: dict[str, int] = {}
        self.greeted: set[str] = set()
        """Members that are known to have served."""
        self.traffic: Traffic | None = None
        self.checkers: dict[str, Caller] = {}
        self.recovered = False
        """Whether every member answered when the run last waited for that."""
        self.comparing = asyncio.Lock()
        """A comparison after a heal may still be under way when the last one begins, and their clients make one call at a time."""

    async def go(self) -> None:
        live, plan = self.live, self.plan
        live.time_ms = plan.time_ms
        spec = ClusterSpec(
            binary=self.binary,
            directory=self.run.path / "members",
            members=plan.members,
            options={**flags_of(plan.workloads), **dict(plan.flags)},
            tls=plan.tls,
        )
        self.probe = probe = Probe(self.open_client, plan.timeout_ms / 1000)
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self.journal.close)
                for kind in equipment_for(plan.schedule):
                    equipment = kind(Site(plan, self.binary, self.run.path, spec.options, self.journal))
                    stack.push_async_callback(equipment.close)
                    self.equipment[kind.name] = equipment
                    await equipment.prepare()
                self.cluster = await stack.enter_async_context(
                    Cluster(spec, probe, on_exit=self.on_exit, on_part=self.on_part, arrange=self.surround)
                )
                stack.push_async_callback(self.close_clients)
                self.mark_left_out()
                self.mark_started()
                for member in self.cluster.members:
                    self.greeted.add(member.name)
                    self.recorder.mark("ready", member.name, incarnation=member.incarnation)
                await self.prove_empty()
                await self.hunt()
                await self.examine_images()
                self.phase("done")
        finally:
            shutil.rmtree(self.run.path / "scratch", ignore_errors=True)
            if not self.keep:
                for data in (self.run.path / "members").glob("*/data"):
                    shutil.rmtree(data, ignore_errors=True)

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        """Put everything that the plan's faults need around `members`."""
        for equipment in self.equipment.values():
            members = await equipment.surround(members, ports)
        return members

    # ---- clients ----

    def open_client(self, name: str, spec: MemberSpec, metadata: tuple[tuple[str, str], ...] = (), *, slow: bool = False) -> Client:
        client = Client(
            name=name,
            member=spec.name,
            address=spec.advertise_client,
            recorder=self.recorder,
            timeout_s=self.plan.timeout_ms / 1000,
            tls=spec.tls,
            metadata=metadata,
            slow=slow,
        )
        self.clients.append(client)
        return client

    def connect(self, name: str, member: str, *, metadata: tuple[tuple[str, str], ...] = (), slow: bool = False) -> Client:
        """What workloads get their clients from (`pekan.workloads.traffic.Connect`)."""
        return self.open_client(name, self.cluster.member(member).spec, metadata, slow=slow)

    async def ask(self, member: str, request: Request, timeout_s: float) -> Reply:
        """What faults ask of members (`pekan.faults.Context`)."""
        return await self.probe.ask(self.cluster.member(member).spec, request, timeout_s)

    def speak_as(self, user: tuple[str, str] | None) -> None:
        """What faults tell the traffic where they have turned auth on or off (`pekan.faults.Context`)."""
        if self.traffic is not None:
            self.traffic.administrator = None if user is None else Credentials(*user)

    async def close_clients(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients), return_exceptions=True)

    # ---- members ----

    def on_exit(self, end: MemberExit) -> None:
        if not end.asked and self.broken_equipment():
            # Nobody can tell what etcd would have done: `tell` ends the run, and this end is not held against etcd.
            end = replace(end, asked=True)
        if not end.asked:
            self.revive.put_nowait(end.member)
        with contextlib.suppress(RecorderFailure):
            self.recorder.mark("member", end.member, **exit_detail(end))

    def on_part(self, member: Member) -> None:
        """A member comes, is promoted or goes: noted, and told to the traffic."""
        if member.part is MemberPart.JOINING:
            self.recorder.mark("joined", member.name, version=member.spec.binary.version, binary=self.binary.to_json())
        elif member.name not in self.greeted:
            self.greeted.add(member.name)
            self.recorder.mark("ready", member.name, incarnation=member.incarnation)
        self.recorder.mark("part", member.name, part=str(member.part))
        if self.traffic is not None:
            # Who is removed is asked until its process has ended: what it answers meanwhile has to be right as well.
            serving = (MemberPart.VOTER, MemberPart.LEAVING)
            self.traffic.present = tuple(each.name for each in self.cluster.members if each.part in serving)

    async def reviver(self) -> None:
        """Start members that died unasked again, a few times."""
        while True:
            name = await self.revive.get()
            self.unasked[name] = self.unasked.get(name, 0) + 1
            if self.unasked[name] > UNASKED_RESTARTS_MAX:
                continue
            await asyncio.sleep(UNASKED_RESTART_PAUSE_S)
            member = self.cluster.member(name)
            if member.pid is None and member.part is not MemberPart.LEAVING:
                with contextlib.suppress(ClusterFailure, UsageError):
                    await member.start()

    def mark_started(self) -> None:
        """Note members that have been started since the last look."""
        for member in self.cluster.members:
            if self.incarnations.get(member.name) != member.incarnation and member.pid is not None:
                self.incarnations[member.name] = member.incarnation
                self.recorder.mark("member", member.name, state="started", incarnation=member.incarnation, pid=member.pid, asked=True)

    def mark_left_out(self) -> None:
        """Note what was asked for by class and cannot be injected here: a run that never met it must not look as if it had."""
        if absent := left_out_here(self.plan):
            self.recorder.mark("left-out", faults={found.name: found.why_not for found in absent})

    # ---- the proof that the store is empty ----

    async def prove_empty(self) -> None:
        """Write the start mark. "empty" needs revision 1, no lease, auth off and no alarm; else the start is unknown."""
        first = self.cluster.members[0]
        client = self.open_client(f"start-{first.name}", first.spec)
        everything = await decided(lambda: client.call(RangeRequest(b"\0", b"\0", limit=1)), START_S)
        leases = await decided(lambda: client.call(pb.LeaseLeasesRequest()), START_S)
        auth = await decided(lambda: client.call(pb.AuthStatusRequest()), START_S)
        alarms = await decided(lambda: client.call(pb.AlarmRequest()), START_S)
        # 3.4 has no AuthStatus. There a fresh data directory, which this cluster has, and no permission error are what shows auth is off.
        auth_off = not auth.output.enabled if auth.outcome == "ok" else everything.outcome == "ok"
        empty = (
            everything.outcome == "ok"
            and everything.output.header.revision == 1
            and leases.outcome == "ok"
            and not leases.output.leases
            and auth_off
            and alarms.outcome == "ok"
            and not alarms.output.alarms
        )
        self.recorder.mark(
            "start",
            boot_id=boot_id(),
            clock="CLOCK_MONOTONIC",
            pekan=__version__,
            python=platform.python_version(),
            platform=f"{sys.platform}-{platform.machine()}",
            start="empty" if empty else "unknown",
            members={member.name: {"version": self.binary.version, "binary": self.binary.to_json()} for member in self.cluster.members},
        )

    # ---- traffic and faults ----

    async def hunt(self) -> None:
        names = tuple(member.name for member in self.cluster.members)
        traffic = self.traffic = Traffic(self.plan, names, self.connect)
        self.context = self.surroundings(traffic)
        traffic.moments = RunMoments(self.context, self.cluster, self.recorder, self.ask)
        self.probe.speak_as_administrator(traffic)
        traffic.counts = self.live.counts
        works = works_of(self.plan)
        for work in works:
            await work.prepare(traffic)
        self.phase("quiet")
        traffic.begin()
        async with self.background(self.reviver()), self.background(self.watch_health(traffic)):
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(work.run(traffic), name=work.name) for work in works]
                group.create_task(self.timetable(traffic, running))
            self.phase("final")
            await self.finish(works, traffic)

    async def timetable(self, traffic: Traffic, running: list[asyncio.Task[None]]) -> None:
        """Faults by the schedule, then recovery, then the end of the traffic; all of it early where `enough` is seen, or where the
        traffic has ended by itself."""
        async with self.background(self.tell(traffic)):
            try:
                async with self.background(self.see_enough()), self.background(self.see_played(running)):
                    await self.course(traffic)
            except* _Played:
                self.phase("recovery")
                await self.recover()
            except* _Enough:
                # What was held when the course was cancelled has been healed by then.
                self.recorder.mark("stopped", after_ms=traffic.elapsed_ms())
                self.phase("recovery")
                await self.recover()
        traffic.finished.set()

    async def see_enough(self) -> None:
        if self.enough is not None:
            await self.enough.wait()
            raise _Enough

    async def see_played(self, running: list[asyncio.Task[None]]) -> None:
        """All traffic has ended by itself, which only a script does, and no fault is under way, or about to be."""
        await asyncio.wait(running)
        still = 0
        while still < PLAYED_LOOKS:
            still = 0 if self.context.active or self.context.due else still + 1
            await asyncio.sleep(PLAYED_LOOK_S)
        raise _Played

    def surroundings(self, traffic: Traffic) -> Context:
        """What faults and scripts are given."""

        async def login(client: Client) -> None:
            await Caller(traffic, client, administrator=True).authorize()

        return Context(
            self.cluster,
            self.recorder,
            traffic.elapsed_ms,
            self.plan.schedule.heal_ms,
            ask=self.ask,
            open=lambda name, member: self.open_client(name, self.cluster.member(member).spec),
            login=login,
            directory=self.run.path,
            seed=self.plan.seed,
            administrator=self.speak_as,
            equipment=self.equipment,
            journal=self.journal,
        )

    async def course(self, traffic: Traffic) -> None:
        schedule = self.plan.schedule
        await self.until(traffic, schedule.quiet_ms)
        if schedule.faults:
            self.phase("faults")
            self.faults = self.context
            await inject(schedule, self.faults)
            await self.until(traffic, schedule.heal_ms)
            self.phase("recovery")
            await self.recover()
        await self.until(traffic, max(schedule.end_ms, self.plan.time_ms))

    @staticmethod
    async def until(traffic: Traffic, at_ms: int) -> None:
        while (left := at_ms - traffic.elapsed_ms()) > 0:
            await asyncio.sleep(left / 1000)

    async def recover(self) -> None:
        """Every member answers a linearizable read again, or the run says which do not. One whose process ends meanwhile is started again
        by whoever revives members, and has the rest of the time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + RECOVERY_S
        ok = False
        while not ok and (left_s := end - loop.time()) > 0:
            with contextlib.suppress(PekanError, OSError):
                await self.cluster.wait_ready(left_s)
                ok = True
            if not ok:
                await asyncio.sleep(HEALTH_POLL_S)
        states = {member.name: str(member.state) for member in self.cluster.members}
        self.recorder.mark("recovery", ok=ok, within_s=RECOVERY_S, states=states)
        self.recovered = ok

    def to_compare(self, traffic: Traffic) -> dict[str, Caller]:
        """A client of each voter, for comparing them; learners take no such questions."""
        voters = [member.name for member in self.cluster.voters]
        for name in voters:
            if name not in self.checkers:
                self.checkers[name] = traffic.caller(f"check-{name}", name, administrator=True, pinned=True)
        return {name: self.checkers[name] for name in voters}

    async def watch_health(self, traffic: Traffic) -> None:
        """After each heal: the first linearizable read through every member ends the fault window; then compare members once."""
        while True:
            await asyncio.sleep(HEALTH_POLL_S)
            self.mark_started()
            faults = self.faults
            if faults is None or faults.active or faults.calm.is_set():
                continue
            armed = faults.armed
            try:
                await self.cluster.wait_ready(self.plan.timeout_ms / 1000)
            except (PekanError, OSError):
                continue
            if faults.armed != armed:
                continue
            self.recorder.mark("healthy")
            if self.live.phase != "final":
                async with self.comparing:
                    await compare(self.to_compare(traffic), rounds=COMPARE_ROUNDS_BUSY)
            if faults.armed == armed:
                faults.calm.set()

    async def finish(self, works: list[Workload], traffic: Traffic) -> None:
        """Watchers catch up, workloads tidy up, members are compared at rest."""
        if not self.plan.schedule.faults:
            await self.recover()
        for work in works:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINISH_S):
                    await work.finish(traffic)
        async with self.comparing:
            await compare(self.to_compare(traffic), timeout_s=COMPARE_S if self.recovered else None)

    async def examine_images(self) -> None:
        """Members started on crash images, on the addresses of the run's, which have ended by then."""
        images = self.faults.collection(Album).images if self.faults is not None else []
        if not images:
            return
        self.phase("images")
        await self.close_clients()
        for member in self.cluster.members:
            with contextlib.suppress(ClusterFailure, UsageError):
                await member.kill()
        examined = await examine(images, seed=self.plan.seed, administrator=self.administrator, tell=self.tell_phase)
        self.recorder.mark("images", **examined._asdict())

    # ---- small things ----

    def tell_phase(self, name: str) -> None:
        self.live.phase = name

    def phase(self, name: str) -> None:
        self.live.phase = name
        self.recorder.mark("phase", phase=name)

    def broken_equipment(self) -> str:
        """Why what has been put around the members cannot be relied on any more; empty while it can."""
        return next((why for each in self.equipment.values() if (why := each.failure())), "")

    async def tell(self, traffic: Traffic) -> None:
        while True:
            self.live.elapsed_ms = traffic.elapsed_ms()
            self.administrator = traffic.administrator or self.administrator
            if self.faults is not None:
                self.live.faults = tuple(self.faults.holding.values())
                self.live.fired = self.faults.fired
            if self.recorder.failure is not None:
                raise self.recorder.failure
            if why := self.broken_equipment():
                raise EnvironmentFailure(why)
            await asyncio.sleep(LIVE_EVERY_S)

    @staticmethod
    @asynccontextmanager
    async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run `work` (a coroutine) while inside; an error in it ends the inside, leaving ends it."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            yield
            task.cancel()
