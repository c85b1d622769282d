"""What a cluster and its members are asked to be: values only, nothing is started here.

Four addresses belong to a member, and each is an input of its own, so that a proxy fits between any two of them::

    client ──> advertise_client ──(proxy)──> listen_client ┐
                                                           ├ etcd
    peer   ──> advertise_peer   ──(proxy)──> listen_peer   ┘

Without a proxy the advertised address is the listening one. Everything is on loopback.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

# etcd's own documentation knows larger clusters; Pekan offers the three sizes that its fault schedules are written for.
MEMBER_COUNTS = (1, 3, 5)


class EtcdBinary(Protocol):
    """The two things a cluster has to know of an etcd executable; `pekan.etcd.binaries.Binary` has both."""

    @property
    def path(self) -> str | Path:
        """The executable."""

    @property
    def version(self) -> str:
        """The release it is, for example `3.5.1`."""


class Address(NamedTuple):
    """A TCP address on loopback."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Attachment(NamedTuple):
    """One thing the launcher does for the member's process between fork and exec, or at its exec stop: its kind, and what that kind needs.

    `kind` is a key of `pekan.etcd.launcher.ATTACHMENTS` or `AT_EXEC_STOP`; `parameters` must survive JSON. `fds` are open file descriptors
    of Pekan's that the launcher inherits under the same numbers (the parameters name them); they close at exec, unless the
    attachment says otherwise.
    """

    kind: str
    parameters: Mapping[str, object]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True)
class TlsFiles:
    """Where the certificates of a run lie (PEM, mode 0600). The CA signs server, peer and client alike."""

    ca: Path
    server_certificate: Path
    server_key: Path
    peer_certificate: Path
    peer_key: Path
    client_certificate: Path
    client_key: Path
    client_certificate_required: bool = False


@dataclass(frozen=True)
class MemberSpec:
    """All that one member's process is started from. A restart from another spec is an upgrade, a new flag, ..."""

    name: str
    binary: EtcdBinary
    data_dir: Path
    log: Path
    listen_client: Address
    advertise_client: Address
    listen_peer: Address
    advertise_peer: Address
    wal_dir: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """Options by the newest release's flag name without dashes; `pekan.etcd.flags` spells them for this release."""
    extra_flags: tuple[str, ...] = ()
    """Passed through as they are: `name=value` or `name`, without the leading dashes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the process. Nothing of Pekan's is inherited: an `ETCD_*` would configure etcd."""
    attachments: tuple[Attachment, ...] = ()
    initial_cluster_state: Literal["new", "existing"] = "new"
    tls: TlsFiles | None = None

    @property
    def client_url(self) -> str:
        """The URL that clients are told."""
        return f"{'https' if self.tls else 'http'}://{self.advertise_client}"

    @property
    def peer_url(self) -> str:
        """The URL that the other members are told."""
        return f"{'https' if self.tls else 'http'}://{self.advertise_peer}"


@dataclass(frozen=True)
class ClusterSpec:
    """What a caller asks for; `pekan.etcd.cluster.Cluster` chooses ports and makes the `MemberSpec`s from it.

    Member names are `m1`, `m2`, ...; `m1` keeps its log in `directory/m1/etcd.log`, its data in `directory/m1/data`.
    """

    binary: EtcdBinary
    directory: Path
    members: int = 3
    binaries: Mapping[str, EtcdBinary] = field(default_factory=dict)
    """Members, by name, that run another binary than `binary` (a cluster in the middle of an upgrade)."""
    options: Mapping[str, str] = field(default_factory=dict)
    """As in `MemberSpec.options`, for every member; `{"snapshot-count": "100"}`."""
    extra_flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    tls: bool = False
    client_certificate_required: bool = False
    """With `tls`: etcd asks clients for a certificate of the run's CA (`--client-cert-auth`)."""
    host: str = "127.0.0.1"


class MemberState(enum.StrEnum):
    """Where a member's process stands, as the kernel reported it to its launcher.

    ::

        new ──start──> running <──pause, resume──> paused
                          ├─ kill, stop ──> stopped   (asked for)
                          └─ died       ──> exited    (nobody asked: evidence)
        stopped, exited ──start──> running            (the next incarnation, on the same data)
    """

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    EXITED = "exited"


class MemberPart(enum.StrEnum):
    """A member's part in its cluster, as MemberAdd, MemberPromote and MemberRemove have made it.

    ::

        (first members) ──────────────────────> voter ── about to be removed ──> leaving ── its process has ended ──> departed
        joining ── caught up ──> learner ── promoted ──┘      learner ──────────────┘
           └────── caught up, added as a voter ────────┘
    """

    JOINING = "joining"
    LEARNER = "learner"
    VOTER = "voter"
    LEAVING = "leaving"
    DEPARTED = "departed"


@dataclass(frozen=True)
class MemberExit:
    """The end of one incarnation of a member, as reported by its launcher."""

    member: str
    incarnation: int
    """1 for the first start of this member."""
    pid: int
    wait_status: int | None
    """The raw status of wait(2); None where the launcher died before it could report (its child dies with it)."""
    asked: bool
    """Whether Pekan had asked for it by `kill`, `stop` or close. An exit nobody asked for is evidence."""
    time_ns: int
    """CLOCK_MONOTONIC at which Pekan learned of it."""
    log_tail: tuple[str, ...]
    """The last lines of this incarnation's log, bounded by `pekan.etcd.process.LOG_TAIL_BYTES`."""
    crash: str | None = None
    """What this incarnation panicked with or called fatal, without time and place: equal for two ends of the same cause."""

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None if a signal ended it or the status is unknown."""
        if self.wait_status is None or not os.WIFEXITED(self.wait_status):
            return None
        return os.WEXITSTATUS(self.wait_status)

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended it, or None."""
        if self.wait_status is None or not os.WIFSIGNALED(self.wait_status):
            return None
        return os.WTERMSIG(self.wait_status)

    def __str__(self) -> str:
        if self.wait_status is None:
            how = "ended with an unknown status (its launcher was killed)"
        elif (number := self.signal) is not None:
            how = f"was ended by {signal.Signals(number).name}"
        else:
            how = f"exited with status {self.exit_code}"
        return f"member {self.member} (incarnation {self.incarnation}, pid {self.pid}) {how}"


@dataclass(frozen=True)
class MemberStatus:
    """What a member says of itself (Maintenance/Status). It is local: it proves nothing about the others."""

    member_id: int
    cluster_id: int
    leader: int
    """Member id of the leader this member believes in; 0 = none."""
    raft_term: int
    raft_index: int
    raft_applied_index: int
    revision: int
    version: str

    @property
    def believes_it_leads(self) -> bool:
        """Whether this member takes itself for the leader. A paused or cut-off one may still do so."""
        return self.leader != 0 and self.leader == self.member_id


class Probe(Protocol):
    """How a cluster asks its members something; the cluster itself speaks no protocol.

    Both methods raise an `OSError` (a `TimeoutError` is one) or a `PekanError` when the member gives no such answer;
    anything else is taken for a bug and ends the cluster. The cluster puts a deadline around every call. The address is
    `member.advertise_client`, the certificates are in `member.tls`.
    """

    async def linearizable_read(self, member: MemberSpec) -> None:
        """Return once this member has answered a linearizable read (any key, found or not)."""

    async def status(self, member: MemberSpec) -> MemberStatus:
        """The member's own Status answer."""
