"""A real etcd cluster of 1, 3 or 5 members on loopback, owned from first to last process.

::

    async with Cluster(ClusterSpec(binary, directory, members=3)) as cluster:    # started, and ready
        leader = await cluster.leader()
        end = await leader.kill()               # SIGKILL; a MemberExit with the wait status
        await leader.start()                    # same data, next incarnation
        await cluster.wait_ready()              # a linearizable read through every member
                                                # leaving: everything has been stopped, whatever happened inside

Who knows what::

    Cluster ──> Member ──> Process ──pipes──> launcher ──> etcd
     leader     operations,  one incarnation:  pekan.etcd.launcher
     ready      exits        reports, signals

State is what the kernel reported: a member is `paused` once every thread of it stands still, `running` again once it
continues, and its end comes with the wait status. Nothing is inferred from having sent a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from pekan.errors import ClusterFailure, PekanError, UsageError
from pekan.etcd.flags import arguments
from pekan.etcd.gateway import GatewayProbe
from pekan.etcd.log import crash, explained, log_tail
from pekan.etcd.ports import PortLease
from pekan.etcd.process import END_SECONDS_MAX, PAUSE_SECONDS_MAX, Process, now_ns
from pekan.etcd.spec import (
    MEMBER_COUNTS,
    Address,
    ClusterSpec,
    MemberExit,
    MemberPart,
    MemberSpec,
    MemberState,
    MemberStatus,
    Probe,
    TlsFiles,
)
from pekan.etcd.tls import make_certificates

Arrange = Callable[[tuple[MemberSpec, ...], PortLease], Awaitable[tuple[MemberSpec, ...]]]
"""Changes members before their first start: other advertised addresses for a proxy, attachments, another data directory, ... Whatever they
need to be there when they start (a proxy that listens) is there when it returns. Called again for each member that joins."""

# One try of a probe. A member that elects or catches up answers late; a fresh try costs nothing.
PROBE_SECONDS_MAX = 2.0

# Between two tries. etcd's heartbeat is 100 ms, so that nothing changes much sooner.
PROBE_PAUSE_SECONDS = 0.05

# How long the end of everything may take on leaving; what is left then is ended without waiting politely.
CLOSE_SECONDS_MAX = 20.0

EXIT_SUCCESS = 0  # the wait status

# How long members may take until all of them stand still together. Pekan itself waits meanwhile, and so do the members that stand already:
# an fsync under way has to end first, and on a disk that needs longer for it another moment is chosen.
STANDSTILL_SECONDS_MAX = 0.04

# Between two looks whether they do: a look at some twenty threads takes about as long.
STILL_LOOK_SECONDS = 0.0002

T = TypeVar("T")


class Standstill(NamedTuple, Generic[T]):
    """What was done while every member stood still. Times are ns of the record's clock.

    before   no member had been stopped yet
    still    all of them stood still, and did until `done`
    done     they were about to be continued
    result   of the work
    """

    before: int
    still: int
    done: int
    result: T


class Member:
    """One member of a cluster. Made by `Cluster`; its operations are serialized: two never overlap on one member.

    `state`, `pid`, `incarnation` and `exits` may be read at any time.
    """

    def __init__(
        self,
        spec: MemberSpec,
        peers: Sequence[MemberSpec],
        token: str,
        probe: Probe,
        tasks: asyncio.TaskGroup,
        on_exit: Callable[[MemberExit], None] | None,
    ) -> None:
        self.spec = spec
        self.incarnation = 0
        """How many times it has been started."""
        self.part = MemberPart.VOTER
        """Its part in the cluster; `Cluster` keeps it."""
        self._peers = peers
        self._token = token
        self._probe = probe
        self._tasks = tasks
        self._on_exit = on_exit
        self._process: Process | None = None
        self._exits: list[MemberExit] = []
        # The wait statuses that what was asked of it leads to. A signal's number is the wait status of a death by it.
        self._asked: frozenset[int | None] = frozenset()
        self._expected: Callable[[int | None], bool] | None = None
        self._operation = asyncio.Lock()
        self._released = False

    @property
    def name(self) -> str:
        """Its `--name`, and the name of its directory."""
        return self.spec.name

    @property
    def state(self) -> MemberState:
        """As the kernel reported it."""
        if self.pid is not None and self._process is not None:
            return MemberState.PAUSED if self._process.paused else MemberState.RUNNING
        if not self._exits:
            return MemberState.NEW
        return MemberState.STOPPED if self._exits[-1].asked else MemberState.EXITED

    @property
    def pid(self) -> int | None:
        """Process id of etcd itself (not of its launcher) while it is running or paused, else None."""
        process = self._process
        return process.pid if process is not None and not process.ended else None

    @property
    def launcher_pid(self) -> int | None:
        """Process id of the launcher of the current incarnation, else None."""
        process = self._process
        return process.launcher_pid if process is not None and not process.ended else None

    @property
    def process(self) -> Process | None:
        """The current incarnation, None where there is none or it has ended."""
        process = self._process
        return process if process is not None and not process.ended and process.pid is not None else None

    @property
    def operation(self) -> asyncio.Lock:
        """Held while a start, a stop, a kill, a pause is under way."""
        return self._operation

    @property
    def exits(self) -> tuple[MemberExit, ...]:
        """Every end so far, asked or not, oldest first."""
        return tuple(self._exits)

    @property
    def alive(self) -> bool:
        """Whether there is a process: running or paused."""
        return self.pid is not None

    def __repr__(self) -> str:
        return f"<member {self.name}: {self.state}, incarnation {self.incarnation}, pid {self.pid}>"

    async def start(self, spec: MemberSpec | None = None, *, predicted: Callable[[int | None], bool] | None = None) -> None:
        """Start etcd on the member's data; with `spec`, from that spec from now on (upgrade, other flags, attachments), with `predicted`
        as by `expect_exit`, from its first moment on.

        Returns when exec(2) has succeeded; `wait_ready` says when it serves. `ClusterFailure` when the process could not be
        started (binary, directory, attachment), `UsageError` when it is alive already or an option is unknown to its release.
        """
        async with self._operation:
            if self.alive:
                raise UsageError(f"member {self.name} is {self.state} already (pid {self.pid}); stop or kill it before a start")
            spec = self.spec if spec is None else spec
            line = arguments(spec, [spec if each.name == spec.name else each for each in self._peers], self._token)
            if self.incarnation == 0:
                _prepare(spec)
            if self._process is not None:
                await self._reaped(self._process)
            if self._released or self.part is MemberPart.DEPARTED:
                whose = "it has left its cluster" if self.part is MemberPart.DEPARTED else "its cluster has been left"
                raise UsageError(f"member {self.name} cannot be started: {whose}")
            try:
                process = await Process.launch(line, spec.environment, spec.attachments, spec.log)
            except OSError as error:
                raise ClusterFailure(f"cannot start member {self.name} (log {spec.log}): {error.strerror or error}") from error
            self.spec = spec
            self.incarnation += 1
            self._asked = frozenset()
            self._expected = predicted
            self._process = process
            following = process.follow(lambda: self._ended(process))
            try:
                self._tasks.create_task(following, name=f"member {self.name}")
            except RuntimeError:
                # The cluster ended while this was launched.
                following.close()
                process.destroy()
                raise
            try:
                await process.started()
            except ClusterFailure as error:
                self._end(process)
                raise ClusterFailure(f"member {self.name} (etcd {spec.binary.version}, {spec.binary.path}): {error}") from error
            except asyncio.CancelledError:
                # Nobody knows of it yet: a start happens or it does not.
                self._end(process)
                raise

    def expect_exit(self, predicted: Callable[[int | None], bool] | None) -> None:
        """From now on an end whose wait status is `predicted` counts as asked for: a fault that ends the process from within (a full
        disk, a kill at a failpoint) says so before it is armed, and takes it back with None. A start forgets it.
        """
        self._expected = predicted

    async def kill(self) -> MemberExit:
        """SIGKILL, and wait until the kernel has reported the end. Works on a paused member. `UsageError` when not alive.

        A member that was dying by itself just then gives an exit that is not `asked`.
        """
        async with self._operation:
            process = self._living("kill")
            self._asked = frozenset((signal.SIGKILL,))
            process.signal(signal.SIGKILL)
            return await self._end_of(process, END_SECONDS_MAX)

    async def pause(self) -> None:
        """SIGSTOP, and wait until the kernel has reported that every thread stands still.

        `UsageError` when it is not running, `ClusterFailure` when it ended instead.
        """
        async with self._operation:
            process = self._living("pause")
            if not process.paused and not await process.pause():
                raise ClusterFailure(f"{self._exits[-1]} instead of being paused")

    async def resume(self) -> None:
        """SIGCONT, and wait until the kernel has reported it. Nothing happens to a member that runs already.

        `UsageError` when it is not alive, `ClusterFailure` when it ended instead.
        """
        async with self._operation:
            process = self._living("resume")
            if process.paused and not await process.resume():
                raise ClusterFailure(f"{self._exits[-1]} instead of being resumed")

    async def stop(self, grace_s: float = 10.0) -> MemberExit:
        """SIGTERM, and SIGKILL when it has not ended after `grace_s` seconds. A paused member is resumed first.

        etcd hands leadership over, closes its database and ends by the same signal. Any other end (a panic while closing) is
        an exit that nobody asked for. `UsageError` when it is not alive.
        """
        async with self._operation:
            process = self._living("stop")
            self._asked = frozenset((signal.SIGTERM, EXIT_SUCCESS))
            process.signal(signal.SIGTERM)
            if process.paused:
                await process.resume()
            try:
                return await self._end_of(process, grace_s)
            except ClusterFailure:
                self._asked |= {signal.SIGKILL}
                process.signal(signal.SIGKILL)
                return await self._end_of(process, END_SECONDS_MAX)

    async def wait_exit(self, timeout_s: float | None = None) -> MemberExit:
        """The end of the current incarnation, asked or not; `TimeoutError` after `timeout_s`, None waits for ever."""
        process = self._process
        if process is None:
            raise UsageError(f"member {self.name} has never been started")
        await process.wait_ended(timeout_s)
        return self._exits[-1]

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return after one linearizable read through this member.

        `ClusterFailure` with the log's last lines when its process ends meanwhile, or when `timeout_s` is over; it tells a
        taken port, an unusable data directory and a refused flag apart.
        """
        process = self._process
        if process is None:
            raise UsageError(f"member {self.name} has never been started")
        last: Exception = TimeoutError("no try was made")
        try:
            async with asyncio.timeout(timeout_s):
                while not process.ended:
                    try:
                        async with asyncio.timeout(PROBE_SECONDS_MAX):
                            await self._probe.linearizable_read(self.spec)
                            return
                    except (OSError, PekanError) as error:
                        last = error
                    await asyncio.sleep(PROBE_PAUSE_SECONDS)
        except TimeoutError:
            raise ClusterFailure(
                f"member {self.name} (etcd {self.spec.binary.version}, {self.spec.advertise_client}, {self.state}) answered no "
                f"linearizable read within {timeout_s:g} s (last try: {str(last) or type(last).__name__}); "
                f"{explained(self.spec, self.log_tail())}"
            ) from last
        raise ClusterFailure(f"{self._exits[-1]} before it was ready: {explained(self.spec, self.log_tail())}")

    async def status(self, timeout_s: float = PROBE_SECONDS_MAX) -> MemberStatus:
        """What the member says of itself. Raises as the probe does, `TimeoutError` after `timeout_s` included."""
        async with asyncio.timeout(timeout_s):
            return await self._probe.status(self.spec)

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the current incarnation's log, bounded as `MemberExit.log_tail` is."""
        return log_tail(self.spec.log, self._process.log_offset if self._process is not None else 0)

    def release(self) -> None:
        """Let the launcher SIGKILL the process, if there is one. Never waits and never fails; `Cluster` calls it on leaving."""
        self._released = True
        if self._process is not None:
            self._end(self._process)

    async def gone(self, timeout_s: float) -> None:
        """Wait until every process of it has been reaped. Raises `TimeoutError`."""
        if self._process is not None:
            await self._process.gone(timeout_s)

    def destroy(self) -> None:
        """End it without an event loop, when all else failed."""
        if self._process is not None:
            self._process.destroy()

    def _end(self, process: Process) -> None:
        """Have the launcher kill it; None is the status that stays unknown if the launcher is killed on the way."""
        if not process.ended:
            self._asked |= {signal.SIGKILL, None}
        process.release()

    async def _reaped(self, process: Process) -> None:
        """Wait for the last incarnation's launcher: two incarnations never share a data directory."""
        try:
            await process.gone(END_SECONDS_MAX)
        except TimeoutError as error:
            raise ClusterFailure(
                f"member {self.name} cannot be started: its last incarnation (pid {process.pid}) is not gone after {END_SECONDS_MAX:g} s"
            ) from error

    def _living(self, what: str) -> Process:
        process = self._process
        if process is None or process.ended:
            raise UsageError(f"cannot {what} member {self.name}: it is {self.state}")
        return process

    async def _end_of(self, process: Process, timeout_s: float) -> MemberExit:
        try:
            await process.wait_ended(timeout_s)
        except TimeoutError as error:
            raise ClusterFailure(f"member {self.name} (pid {process.pid}) did not end within {timeout_s:g} s of the signal") from error
        return self._exits[-1]

    def _ended(self, process: Process) -> None:
        """Note the end of `process`. It was asked for if the request leads to such an end, not merely because it came first."""
        end = MemberExit(
            member=self.name,
            incarnation=self.incarnation,
            pid=process.pid or 0,
            wait_status=process.wait_status,
            asked=process.wait_status in self._asked or (self._expected is not None and self._expected(process.wait_status)),
            time_ns=now_ns(),
            log_tail=log_tail(process.log, process.log_offset),
            crash=crash(process.log, process.log_offset),
        )
        self._exits.append(end)
        if self._on_exit is not None:
            self._on_exit(end)


class Cluster:
    """An async context manager: entering starts the members and waits until all are ready, leaving ends them all.

    Leaving is by SIGKILL: who wants members to close their databases calls `stop` on them before. It holds for an exception or
    a cancellation inside as well, and for paused members. Entered once; used in the event loop's thread, which must live as
    long as the cluster (the kernel ends a launcher with the thread that made it).
    """

    def __init__(
        self,
        spec: ClusterSpec,
        probe: Probe | None = None,
        *,
        on_exit: Callable[[MemberExit], None] | None = None,
        on_part: Callable[[Member], None] | None = None,
        arrange: Arrange | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        """Nothing is started yet. `probe` defaults to etcd's HTTP gateway.

        `on_exit` is called in the event loop, once for each end of a member's process, asked or not, before any operation that
        waits for it returns; an exception from it ends the cluster. `on_part` is called for each member that takes another part
        (`MemberPart`) after the first start. `arrange` may change the members before the first start.
        """
        if spec.members not in MEMBER_COUNTS:
            raise UsageError(f"a cluster has 1, 3 or 5 members, not {spec.members}")
        self.spec = spec
        self.probe: Probe = GatewayProbe() if probe is None else probe
        self.ports = PortLease(spec.host)
        """Lease further ports here (for a proxy, say): they are held as long as the cluster lives."""
        self.members: tuple[Member, ...] = ()
        """Those that belong to the cluster now, or are about to."""
        self.departed: tuple[Member, ...] = ()
        """Those that have been removed. Their names are never given again."""
        self._token = f"pekan-{os.urandom(8).hex()}"
        self._on_exit = on_exit
        self._on_part = on_part
        self._arrange = arrange
        self._ready_timeout_s = ready_timeout_s
        self._names = spec.members
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Raises `ClusterFailure` when a member does not start or does not become ready; then nothing is left running."""
        await self._tasks.__aenter__()
        try:
            specs = plan_members(self.spec, self.ports)
            if self._arrange is not None:
                specs = await self._arrange(specs, self.ports)
            self.members = tuple(self._member(spec, specs) for spec in specs)
            for member in self.members:
                await member.start()
            await self.wait_ready(self._ready_timeout_s)
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(exception)

    def member(self, name: str) -> Member:
        """The member called `name`, departed ones included; `UsageError` naming the ones that exist."""
        for member in (*self.members, *self.departed):
            if member.name == name:
                return member
        raise UsageError(f"no member is called {name!r}; there are {', '.join(each.name for each in self.members)}")

    @property
    def exits(self) -> tuple[MemberExit, ...]:
        """Every end of a process so far, oldest first."""
        everybody = (*self.members, *self.departed)
        return tuple(sorted((end for member in everybody for end in member.exits), key=lambda end: end.time_ns))

    @property
    def voters(self) -> tuple[Member, ...]:
        """The members of which a majority decides, without those that are on their way in or out."""
        return tuple(member for member in self.members if member.part is MemberPart.VOTER)

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return after one linearizable read through every member. `ClusterFailure` as `Member.wait_ready`."""
        await _together(member.wait_ready(timeout_s) for member in self.members)

    async def statuses(self, timeout_s: float = PROBE_SECONDS_MAX) -> dict[str, MemberStatus]:
        """What every running member that answers in time says of itself, by name."""
        answers: dict[str, MemberStatus] = {}

        async def ask(member: Member) -> None:
            with contextlib.suppress(OSError, PekanError):
                answers[member.name] = await member.status(timeout_s)

        await _together(ask(member) for member in self.members if member.state is MemberState.RUNNING)
        return answers

    async def leader(self, timeout_s: float = 10.0) -> Member:
        """The running member that a majority of all members names as leader, itself included; waits for an election to end.

        `ClusterFailure` when there is none after `timeout_s` seconds.
        """
        answers: dict[str, MemberStatus] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    answers = await self.statuses()
                    if (name := elected(answers, max(1, len(self.voters)))) is not None:
                        return self.member(name)
                    await asyncio.sleep(PROBE_PAUSE_SECONDS)
        except TimeoutError as error:
            heard = ", ".join(
                f"{member.name} ({member.state}) "
                + (
                    f"names {answers[member.name].leader:x} in term {answers[member.name].raft_term}"
                    if member.name in answers
                    else "is silent"
                )
                for member in self.members
            )
            raise ClusterFailure(f"no leader that a majority agrees on within {timeout_s:g} s: {heard}") from error

    async def followers(self, timeout_s: float = 10.0) -> tuple[Member, ...]:
        """Every running member but the leader, in the order of `members`. Raises as `leader`."""
        leader = await self.leader(timeout_s)
        return tuple(member for member in self.members if member is not leader and member.state is MemberState.RUNNING)

    async def standing_still(self, work: Callable[[], T], timeout_s: float = STANDSTILL_SECONDS_MAX) -> Standstill[T] | None:
        """Do `work` while no thread of any member runs: what their files hold then is what a SIGKILL of all of them would leave.

        It begins and ends without giving up this thread: no signal of Pekan's, no start and no cancellation can come in between, and the
        members stand still no longer than it takes. None where it was not done: an operation on a member was under way, or
        the members did not all stand still within `timeout_s`. Paused members stay paused, members without a process stay without.
        """
        if any(member.operation.locked() for member in self.members):
            return None
        async with contextlib.AsyncExitStack() as held:
            for member in self.members:
                await held.enter_async_context(member.operation)
            processes = [process for member in self.members if (process := member.process) is not None]
            stopped = [(process, process.continued) for process in processes if not process.paused]
            before = now_ns()
            standstill = None
            try:
                for process, _ in stopped:
                    process.signal(signal.SIGSTOP)
                if _all_still(processes, before + int(timeout_s * 1e9)):
                    still = now_ns()
                    result = work()
                    standstill = Standstill(before, still, now_ns(), result)
            finally:
                for process, _ in stopped:
                    process.signal(signal.SIGCONT)
            if standstill is not None:
                # Before anybody else stops or continues them, the reports of this are in. (There are none of a stop that was not complete.)
                for process, times in stopped:
                    with contextlib.suppress(TimeoutError):
                        await process.until_continued(times, PAUSE_SECONDS_MAX)
            return standstill

    async def arranged(self, spec: MemberSpec) -> MemberSpec:
        """`spec` with what was arranged around the first members put around it too: its advertised addresses are final after that."""
        if self._arrange is None:
            return spec
        (spec,) = await self._arrange((spec,), self.ports)
        return spec

    def newcomer(self) -> MemberSpec:
        """The spec of a further member, to be added: the next free name, an empty data directory, ports of its own. Not arranged yet.

        A name is given once, whether its member ever joins or not: what is put around it is made for that name.
        """
        self._names += 1
        spec = plan_member(self.spec, f"m{self._names}", self.members[0].spec.tls, self.ports)
        return replace(spec, initial_cluster_state="existing")

    async def join(self, spec: MemberSpec, *, predicted: Callable[[int | None], bool] | None = None) -> Member:
        """Start a further member, added by MemberAdd before, from a spec with `initial_cluster_state="existing"`.

        It is told of the present members' peer addresses and its own. `spec` has been arranged (`arranged`) already. `predicted` as in
        `Member.start`. It is *joining* until somebody says otherwise (`take_part`).
        """
        if any(member.name == spec.name for member in (*self.members, *self.departed)):
            raise UsageError(f"there is or was a member {spec.name} already")
        member = self._member(spec, (*(each.spec for each in self.members), spec))
        member.part = MemberPart.JOINING
        self.members = (*self.members, member)
        self._told(member)
        await member.start(predicted=predicted)
        return member

    def take_part(self, member: Member, part: MemberPart) -> None:
        """`member` takes another part in the cluster; the request that made it so has been answered. A departed one, whose process has
        ended before, is no longer among `members` and never starts again."""
        if member.part is part:
            return
        if part is MemberPart.DEPARTED:
            if member.alive:
                raise UsageError(f"member {member.name} is {member.state}: end its process before it departs")
            self.members = tuple(each for each in self.members if each is not member)
            self.departed = (*self.departed, member)
        member.part = part
        self._told(member)

    def _told(self, member: Member) -> None:
        if self._on_part is not None:
            self._on_part(member)

    def _member(self, spec: MemberSpec, peers: Sequence[MemberSpec]) -> Member:
        return Member(spec, peers, self._token, self.probe, self._tasks, self._on_exit)

    async def _leave(self, exception: BaseException | None) -> None:
        """End every process, then the tasks that watched them. Whatever is raised on the way, no process is left."""
        everybody = (*self.members, *self.departed)
        try:
            for member in everybody:
                member.release()
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                for member in everybody:
                    await member.gone(CLOSE_SECONDS_MAX)
        except TimeoutError:
            pass
        finally:
            for member in everybody:
                member.destroy()
            self.ports.close()
            # The group wraps what it is told of, save a cancellation; the caller shall see its own exception.
            told = exception if isinstance(exception, asyncio.CancelledError) else None
            await self._tasks.__aexit__(type(told) if told else None, told, told.__traceback__ if told else None)


def _all_still(processes: Sequence[Process], deadline_ns: int) -> bool:
    """Wait in this thread until no thread of `processes` runs; False where one does at the deadline."""
    for process in processes:
        while not process.stands_still():
            if now_ns() > deadline_ns:
                return False
            time.sleep(STILL_LOOK_SECONDS)
    return True


def plan_members(spec: ClusterSpec, ports: PortLease) -> tuple[MemberSpec, ...]:
    """The members of `spec`, with ports from the lease and, for TLS, certificates made under `directory/tls`."""
    # etcd writes these into its own configuration: they must not depend on where it is started.
    directory = spec.directory.absolute()
    tls = None
    if spec.tls:
        tls = make_certificates(directory / "tls", client_certificate_required=spec.client_certificate_required)
    names = [f"m{number}" for number in range(1, spec.members + 1)]
    if unknown := sorted(set(spec.binaries) - set(names)):
        raise UsageError(f"a binary is given for {', '.join(unknown)}, but the members are {', '.join(names)}")
    return tuple(plan_member(spec, name, tls, ports) for name in names)


def plan_member(spec: ClusterSpec, name: str, tls: TlsFiles | None, ports: PortLease) -> MemberSpec:
    """The member `name` of `spec`, with ports from the lease."""
    directory = spec.directory.absolute()
    client = Address(spec.host, ports.take())
    peer = Address(spec.host, ports.take())
    return MemberSpec(
        name=name,
        binary=spec.binaries.get(name, spec.binary),
        data_dir=directory / name / "data",
        log=directory / name / "etcd.log",
        listen_client=client,
        advertise_client=client,
        listen_peer=peer,
        advertise_peer=peer,
        options=spec.options,
        extra_flags=spec.extra_flags,
        environment=spec.environment,
        attachments=spec.attachments,
        tls=tls,
    )


def elected(answers: dict[str, MemberStatus], members: int) -> str | None:
    """The name of the member that more than half of all `members` take for the leader, in one term, itself included."""
    for name, own in answers.items():
        if own.believes_it_leads:
            agreeing = [each for each in answers.values() if each.leader == own.member_id and each.raft_term == own.raft_term]
            if 2 * len(agreeing) > members:
                return name
    return None


def _prepare(spec: MemberSpec) -> None:
    """Make the directories, and see that they can be written, before etcd says it less clearly. Not before a restart, which
    may be meant to meet a full or failing disk."""
    for what, directory in (("log", spec.log.parent), ("data", spec.data_dir), ("WAL", spec.wal_dir)):
        if directory is None:
            continue
        try:
            # etcd asks for 0700 on its data directory (server/storage/datadir, client/pkg/fileutil).
            directory.mkdir(mode=0o755 if what == "log" else 0o700, parents=True, exist_ok=True)
            if what != "WAL":
                tempfile.TemporaryFile(dir=directory).close()
        except OSError as error:
            raise ClusterFailure(
                f"the {what} directory {directory} of member {spec.name} cannot be written: {error.strerror}. "
                "Choose another place for the run, or make this one writable"
            ) from error


async def _together(waits: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all; the first failure cancels the others and is raised as it is, outside any group."""
    try:
        async with asyncio.TaskGroup() as group:
            for wait in waits:
                group.create_task(wait)
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    else:
        return
    raise first
