"""A real etcd cluster of 1, 3 or 5 members on loopback, owned from first to last process.

::

    async with Cluster(ClusterSpec(binary, directory, members=3), probe) as cluster:    # started and ready
        leader = await cluster.leader()
        exit = await leader.kill()              # SIGKILL; MemberExit with the wait status
        await leader.start()                    # same data, next incarnation
        await cluster.wait_ready()              # a linearizable read through every member
                                                # leaving: everything has been stopped, whatever happened inside

"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pekan.etcd.ports import PortLease
from pekan.etcd.spec import ClusterSpec, MemberExit, MemberSpec, MemberState, MemberStatus, Probe

Arrange = Callable[[tuple[MemberSpec, ...], PortLease], tuple[MemberSpec, ...]]
"""Changes the members before their first start: other advertised addresses for a proxy, another data directory, ..."""


class Member:
    """One member of a running cluster. Its operations are serialized: two never overlap on the same member."""

    name: str
    spec: MemberSpec
    state: MemberState
    incarnation: int
    """How many times it has been started."""
    pid: int | None
    """Process id of etcd itself (not of its launcher) while it is running or paused, else None."""
    exits: tuple[MemberExit, ...]
    """Every end so far, asked or not, oldest first."""

    async def start(self, spec: MemberSpec | None = None) -> None:
        """Start etcd on the member's data; with `spec`, from that spec from now on (upgrade, other flags, attachments).

        Returns when exec has succeeded; `wait_ready` says when it serves. Raises `ClusterFailure` when the process
        could not be started (binary, directory, attachment) and `UsageError` when it is running already.
        """
        raise NotImplementedError

    async def kill(self) -> MemberExit:
        """SIGKILL, and wait until the kernel has reported the end. Works on a paused member."""
        raise NotImplementedError

    async def pause(self) -> None:
        """SIGSTOP, and wait until the kernel has reported that every thread stands still."""
        raise NotImplementedError

    async def resume(self) -> None:
        """SIGCONT, and wait until the kernel has reported it."""
        raise NotImplementedError

    async def stop(self, grace_s: float = 10.0) -> MemberExit:
        """SIGTERM, and SIGKILL when it has not ended after `grace_s` seconds. A paused member is resumed first."""
        raise NotImplementedError

    async def wait_exit(self, timeout_s: float | None = None) -> MemberExit:
        """The end of the current incarnation, asked or not; `TimeoutError` after `timeout_s`."""
        raise NotImplementedError

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """After one linearizable read through this member; `ClusterFailure` with the log's last lines otherwise."""
        raise NotImplementedError

    async def status(self, timeout_s: float = 2.0) -> MemberStatus:
        """What the member says of itself. Raises as the probe does, or `TimeoutError`."""
        raise NotImplementedError

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the current incarnation's log (bounded)."""
        raise NotImplementedError


class Cluster:
    """An async context manager: entering starts the members and waits until all are ready, leaving ends them all.

    `on_exit` is called in the event loop, once for each end of a member's process, asked or not, before any awaiting
    operation returns. `arrange` may change the member specs before the first start.
    """

    spec: ClusterSpec
    members: tuple[Member, ...]
    ports: PortLease
    """Lease further ports here (for a proxy, a metrics listener): they live as long as the cluster."""

    def __init__(
        self,
        spec: ClusterSpec,
        probe: Probe,
        *,
        on_exit: Callable[[MemberExit], None] | None = None,
        arrange: Arrange | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def member(self, name: str) -> Member:
        """The member called `name`; `UsageError` naming the ones that exist."""
        raise NotImplementedError

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return after one linearizable read through every member; all must be running."""
        raise NotImplementedError

    async def leader(self, timeout_s: float = 10.0) -> Member:
        """The member that a majority names as leader and that agrees itself; waits for an election to end.

        `ClusterFailure` when there is none after `timeout_s` seconds.
        """
        raise NotImplementedError

    async def followers(self, timeout_s: float = 10.0) -> tuple[Member, ...]:
        """Every running member but the leader."""
        raise NotImplementedError

    async def statuses(self, timeout_s: float = 2.0) -> dict[str, MemberStatus]:
        """Status of every member that answers in time, by name."""
        raise NotImplementedError

    async def join(self, spec: MemberSpec) -> Member:
        """Start a further member, already added by MemberAdd, from a spec with `initial_cluster_state="existing"`."""
        raise NotImplementedError
