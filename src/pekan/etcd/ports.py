"""Free TCP ports that two hunts never both take, and that no client's own connection sits on.

::

    1024 ........ 10000 ================ 32768 ------------------- 60999 ...... 65535
                  Pekan takes from here  the kernel's ephemeral range (net.ipv4.ip_local_port_range)

An outgoing connection gets its local port from the ephemeral range. A member killed and restarted on a port of that
range can find it taken by somebody's outgoing connection, so that the range is left alone altogether.

A port is taken in two steps. First its name is reserved: a Unix socket is bound to the abstract address
`\\0pekan-port-N`. The kernel lets one process have a name, forgets it when that process dies in whatever way, and keeps
the names apart by network namespace, exactly as it keeps ports. Then the port is bound and listened on once, to see
that nobody else's server sits there. The reservation is kept while the lease lives, so that a member's port stays its
own while the member is down.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from pekan.errors import ClusterFailure

EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")

# Linux's own default, for a machine where the file above is not readable.
EPHEMERAL_FIRST_DEFAULT = 32768

# Servers that people run by hand (etcd's 2379, databases, web servers) mostly listen below this.
PORT_FIRST_PREFERRED = 10000

# Ports below need a privilege to listen on.
PORT_FIRST_UNPRIVILEGED = 1024


def ephemeral_first() -> int:
    """The lowest port that the kernel gives to outgoing connections."""
    try:
        return int(EPHEMERAL_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_FIRST_DEFAULT


def port_range(ephemeral: int) -> range:
    """The ports to choose from where the ephemeral range starts at `ephemeral`; empty when that leaves none."""
    first = PORT_FIRST_PREFERRED if ephemeral > PORT_FIRST_PREFERRED else PORT_FIRST_UNPRIVILEGED
    return range(first, max(first, ephemeral))


class PortLease:
    """Ports taken for as long as this object is open. Not shared between threads.

    The candidates are tried in a circle from a random place, so that parallel hunts seldom meet.
    """

    def __init__(self, host: str = "127.0.0.1", candidates: range | None = None) -> None:
        """`candidates` defaults to the unprivileged ports below the kernel's ephemeral range."""
        self.host = host
        self._candidates = port_range(ephemeral_first()) if candidates is None else candidates
        self._names: dict[int, socket.socket] = {}
        # Which port is tried next has no bearing on the run, so that this randomness is not the plan's.
        self._next = random.randrange(len(self._candidates)) if self._candidates else 0

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports held now, in the order taken."""
        return tuple(self._names)

    def take(self) -> int:
        """One more port. Raises `ClusterFailure` when every candidate is in use."""
        for _ in range(len(self._candidates)):
            port = self._candidates[self._next]
            self._next = (self._next + 1) % len(self._candidates)
            if port in self._names:
                continue
            name = _reserve(port)
            if name is None:
                continue
            if not _listenable(self.host, port):
                name.close()
                continue
            self._names[port] = name
            return port
        raise ClusterFailure(_none_left(self.host, self._candidates))

    def release(self, port: int) -> None:
        """Give one port back before the lease ends."""
        self._names.pop(port).close()

    def close(self) -> None:
        """Give every port back. Further calls do nothing."""
        while self._names:
            _, name = self._names.popitem()
            name.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _reserve(port: int) -> socket.socket | None:
    """The abstract Unix socket that stands for `port`, or None when another process has it."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0pekan-port-{port}".encode())
    except OSError as error:
        name.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise ClusterFailure(f"cannot reserve port {port} (an abstract Unix socket): {error.strerror}") from error
    return name


def _listenable(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    SO_REUSEADDR as Go's listener sets it, else connections of an earlier run in TIME_WAIT would make the port look
    taken; with it, only listen(2) tells whether somebody else listens.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise ClusterFailure(f"cannot listen on {host}: {error.strerror}") from error
    return True


def _none_left(host: str, candidates: range) -> str:
    if not candidates:
        return (
            f"no port can be used: the kernel's ephemeral range starts at {ephemeral_first()} and members listen below "
            f"({EPHEMERAL_RANGE_FILE}). Raise it, for example: sysctl -w net.ipv4.ip_local_port_range='32768 60999'"
        )
    return (
        f"no free port on {host}: all {len(candidates)} from {candidates[0]} to {candidates[-1]} are listened on or "
        "reserved by other hunts (`ss -ltn` and `ss -xa | grep pekan-port` list them)"
    )
