"""How each etcd release spells its flags: one table of data, and the command line made from it.

An option is named as the newest release names its flag. The table says from which patch of each minor release it
exists, and how it is written there::

    option                            3.4              3.5                   3.6, 3.7
    watch-progress-notify-interval    3.4.11+          experimental-...      watch-progress-notify-interval
    snapshot-catchup-entries          -                3.5.14+ experimental- snapshot-catchup-entries
    initial-corrupt-check             experimental-... experimental-...      feature-gates=InitialCorruptCheck=

Source: the flag definitions in etcd's server/etcdmain/config.go and server/embed/config.go (3.4: etcdmain/config.go) at
every tag from v3.4.0 to v3.7.1, and `etcd --help` of 3.4.23, 3.5.1, 3.5.35, 3.6.16 and 3.7.3. etcd 3.6 still takes most
`experimental-` names and warns; they are not used there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pekan.errors import UsageError
from pekan.etcd.spec import MemberSpec


class Release(NamedTuple):
    """An etcd release; ordered as the project orders them."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Spelling(NamedTuple):
    """One way to write an option: the first release with it in each minor series, and the flag.

    A flag `feature:Name` is a feature gate, written `--feature-gates=Name=VALUE`; all of them share that one flag.
    """

    first: tuple[Release, ...]
    flag: str


# The minor series that Pekan knows. A newer one is taken to spell its flags as the last of these.
SERIES_FIRST = (3, 4)
SERIES_LAST = (3, 7)

EVERYWHERE = "3.4.0 3.5.0 3.6.0 3.7.0"

_FEATURE = "feature:"


def _words(text: str) -> list[str]:
    return text.split()


def _spellings(*rows: str) -> tuple[Spelling, ...]:
    """Parse `FIRST [FIRST ...] FLAG` rows of the table."""
    spellings = []
    for row in rows:
        *first, flag = row.split()
        spellings.append(Spelling(tuple(release(text) for text in first), flag))
    return tuple(spellings)


def release(version: str) -> Release:
    """`3.5.1`, `v3.6.0-rc.1`, `3.4.23+git` as a release. `UsageError` for what is no etcd version, or older than 3.4."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise UsageError(f"{version!r} is no etcd version; expected three numbers such as 3.5.1")
    found = Release(*(int(text) for text in match.groups()))
    if found[:2] < SERIES_FIRST:
        raise UsageError(f"etcd {found} is too old: Pekan drives etcd 3.4 and newer")
    return found


# Flags that every release from 3.4.0 on spells alike.
_UNCHANGED = _words("""
    auth-token auto-compaction-mode auto-compaction-retention backend-batch-interval backend-batch-limit bcrypt-cost
    cipher-suites cors election-timeout enable-grpc-gateway enable-pprof force-new-cluster grpc-keepalive-interval
    grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist initial-election-tick-advance
    listen-metrics-urls log-level log-outputs logger max-request-bytes max-snapshots max-txn-ops max-wals metrics
    pre-vote quota-backend-bytes snapshot-count strict-reconfig-check
""")

OPTIONS: Mapping[str, tuple[Spelling, ...]] = {
    **{name: _spellings(f"{EVERYWHERE} {name}") for name in _UNCHANGED},
    "auth-token-ttl": _spellings("3.4.10 3.5.0 3.6.0 3.7.0 auth-token-ttl"),
    "backend-bbolt-freelist-type": _spellings(
        "3.4.0 experimental-backend-bbolt-freelist-type", "3.5.0 3.6.0 3.7.0 backend-bbolt-freelist-type"
    ),
    "bootstrap-defrag-threshold-megabytes": _spellings(
        "3.5.0 experimental-bootstrap-defrag-threshold-megabytes", "3.6.0 3.7.0 bootstrap-defrag-threshold-megabytes"
    ),
    "compact-hash-check-enabled": _spellings("3.5.5 experimental-compact-hash-check-enabled", "3.6.0 3.7.0 feature:CompactHashCheck"),
    "compact-hash-check-time": _spellings("3.5.5 experimental-compact-hash-check-time", "3.6.0 3.7.0 compact-hash-check-time"),
    "compaction-batch-limit": _spellings("3.4.0 3.5.0 experimental-compaction-batch-limit", "3.6.0 3.7.0 compaction-batch-limit"),
    "compaction-sleep-interval": _spellings("3.5.16 experimental-compaction-sleep-interval", "3.6.0 3.7.0 compaction-sleep-interval"),
    "corrupt-check-time": _spellings("3.4.0 3.5.0 experimental-corrupt-check-time", "3.6.0 3.7.0 corrupt-check-time"),
    "downgrade-check-time": _spellings("3.5.0 experimental-downgrade-check-time", "3.6.0 3.7.0 downgrade-check-time"),
    "enable-v2": _spellings("3.4.0 3.5.0 enable-v2"),
    "fast-lease-keep-alive": _spellings("3.7.0 feature:FastLeaseKeepAlive"),
    "initial-corrupt-check": _spellings("3.4.0 3.5.0 experimental-initial-corrupt-check", "3.6.0 3.7.0 feature:InitialCorruptCheck"),
    "lease-checkpoint": _spellings("3.4.0 3.5.0 experimental-enable-lease-checkpoint", "3.6.0 3.7.0 feature:LeaseCheckpoint"),
    "lease-checkpoint-persist": _spellings(
        "3.4.20 3.5.2 experimental-enable-lease-checkpoint-persist", "3.6.0 3.7.0 feature:LeaseCheckpointPersist"
    ),
    "log-format": _spellings("3.6.0 3.7.0 log-format"),
    "max-concurrent-streams": _spellings("3.4.20 3.5.5 3.6.0 3.7.0 max-concurrent-streams"),
    "max-learners": _spellings("3.6.0 3.7.0 max-learners"),
    "memory-mlock": _spellings("3.5.0 experimental-memory-mlock", "3.6.0 3.7.0 memory-mlock"),
    "next-cluster-version-compatible": _spellings("3.4.31 next-cluster-version-compatible"),
    "raft-read-timeout": _spellings("3.5.0 3.6.0 3.7.0 raft-read-timeout"),
    "raft-write-timeout": _spellings("3.5.0 3.6.0 3.7.0 raft-write-timeout"),
    "snapshot-catchup-entries": _spellings("3.5.14 experimental-snapshot-catchup-entries", "3.6.0 3.7.0 snapshot-catchup-entries"),
    "socket-reuse-address": _spellings("3.5.0 3.6.0 3.7.0 socket-reuse-address"),
    "socket-reuse-port": _spellings("3.5.0 3.6.0 3.7.0 socket-reuse-port"),
    "stop-grpc-service-on-defrag": _spellings(
        "3.5.14 experimental-stop-grpc-service-on-defrag", "3.6.0 3.7.0 feature:StopGRPCServiceOnDefrag"
    ),
    "tls-max-version": _spellings("3.4.25 3.5.8 3.6.0 3.7.0 tls-max-version"),
    "tls-min-version": _spellings("3.4.25 3.5.8 3.6.0 3.7.0 tls-min-version"),
    "txn-mode-write-with-shared-buffer": _spellings(
        "3.5.0 experimental-txn-mode-write-with-shared-buffer", "3.6.0 3.7.0 feature:TxnModeWriteWithSharedBuffer"
    ),
    "unsafe-no-fsync": _spellings("3.4.10 3.5.0 3.6.0 3.7.0 unsafe-no-fsync"),
    "v2-deprecation": _spellings("3.5.0 3.6.0 3.7.0 v2-deprecation"),
    "warning-apply-duration": _spellings("3.4.16 3.5.0 experimental-warning-apply-duration", "3.6.0 3.7.0 warning-apply-duration"),
    "warning-unary-request-duration": _spellings("3.6.0 3.7.0 warning-unary-request-duration"),
    "watch-progress-notify-interval": _spellings(
        "3.4.11 3.5.0 experimental-watch-progress-notify-interval", "3.6.0 3.7.0 watch-progress-notify-interval"
    ),
}

DEFAULTS: Mapping[str, str] = {
    # 3.4 logs free text by default; JSON lines can be read by a program, and by us.
    "logger": "zap",
    "log-outputs": "stderr",
}
"""What every member gets unless its options say otherwise."""

OWNED = frozenset(
    _words("""
    name data-dir wal-dir config-file listen-client-urls advertise-client-urls listen-peer-urls
    initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token cert-file key-file
    trusted-ca-file client-cert-auth peer-cert-file peer-key-file peer-trusted-ca-file peer-client-cert-auth
    """)
)
"""Flags that follow from the `MemberSpec`; given as extra flags they would take the member out of its cluster's hands."""


def spelling(version: str, option: str) -> str:
    """The flag (or `feature:Name`) by which this release knows `option`.

    `UsageError` for a name that is in no table, or for a release that lacks it, with the releases that have it.
    """
    spellings = OPTIONS.get(option)
    if spellings is None:
        raise UsageError(
            f"unknown etcd option {option!r}; known are {', '.join(sorted(OPTIONS))}. "
            "Any other flag can be passed as it is, as an extra flag NAME=VALUE"
        )
    asked = release(version)
    series = min(asked[:2], SERIES_LAST)
    for flag in spellings:
        for first in flag.first:
            if first[:2] == series and first <= asked:
                return flag.flag
    existing = sorted(first for flag in spellings for first in flag.first)
    if existing[-1][:2] < series:
        raise UsageError(f"etcd {asked} has no option {option!r} any more; its last series with it is {_series(existing)}")
    raise UsageError(f"etcd {asked} has no option {option!r}; it exists from {_listed(existing)} on")


def arguments(member: MemberSpec, cluster: Sequence[MemberSpec], token: str) -> list[str]:
    """The command line of one member, the executable first.

    `cluster` are the members that it shall know at its first start (itself included), `token` keeps clusters apart that
    share ports one after the other. Raises `UsageError` as `spelling` does, and for an extra flag that Pekan sets
    itself.
    """
    line = [
        str(Path(member.binary.path).absolute()),
        f"--name={member.name}",
        f"--data-dir={member.data_dir}",
        *([f"--wal-dir={member.wal_dir}"] if member.wal_dir else []),
        f"--listen-client-urls={_url(member, str(member.listen_client))}",
        f"--advertise-client-urls={member.client_url}",
        f"--listen-peer-urls={_url(member, str(member.listen_peer))}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster={','.join(f'{each.name}={each.peer_url}' for each in cluster)}",
        f"--initial-cluster-state={member.initial_cluster_state}",
        f"--initial-cluster-token={token}",
        *_tls(member),
    ]
    features: list[str] = []
    for option, value in {**DEFAULTS, **member.options}.items():
        flag = spelling(member.binary.version, option)
        if flag.startswith(_FEATURE):
            features.append(f"{flag.removeprefix(_FEATURE)}={value}")
        else:
            line.append(f"--{flag}={value}")
    for extra in member.extra_flags:
        name, _, value = extra.lstrip("-").partition("=")
        if name in OWNED:
            raise UsageError(f"the etcd flag --{name} is set by Pekan itself and cannot be passed as an extra flag")
        if name == "feature-gates":
            features.append(value)
        else:
            line.append(f"--{extra.lstrip('-')}")
    if features:
        line.append(f"--feature-gates={','.join(features)}")
    return line


def _url(member: MemberSpec, address: str) -> str:
    return f"{'https' if member.tls else 'http'}://{address}"


def _tls(member: MemberSpec) -> list[str]:
    """Peers always prove themselves. A client CA makes etcd demand client certificates, whatever client-cert-auth says."""
    files = member.tls
    if files is None:
        return []
    client = [f"--trusted-ca-file={files.ca}", "--client-cert-auth=true"] if files.client_certificate_required else []
    return [
        f"--cert-file={files.server_certificate}",
        f"--key-file={files.server_key}",
        *client,
        f"--peer-cert-file={files.peer_certificate}",
        f"--peer-key-file={files.peer_key}",
        f"--peer-trusted-ca-file={files.ca}",
        "--peer-client-cert-auth=true",
    ]


def _series(releases: Sequence[Release]) -> str:
    return f"{releases[-1].major}.{releases[-1].minor}"


def _listed(releases: Sequence[Release]) -> str:
    *most, last = [str(each) for each in releases]
    return f"{', '.join(most)} and {last}" if most else last
