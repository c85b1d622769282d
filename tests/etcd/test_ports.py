"""Ports of parallel hunts: never shared, never the kernel's, given back by death."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.errors import ClusterFailure
from pekan.etcd.ports import PORT_FIRST_PREFERRED, PORT_FIRST_UNPRIVILEGED, PortLease, ephemeral_first, port_range

LEFT_ALONE = range(PORT_FIRST_UNPRIVILEGED, PORT_FIRST_PREFERRED)
"""Ports that no cluster of another test takes: what a test gives back or has not reserved is still free at its next line."""

# Leases as many ports as asked from a range, once told to, and holds them until its input ends.
HOLDER = """
import json, sys
from pekan.etcd.ports import PortLease
first, last, count = (int(text) for text in sys.argv[1:])
with PortLease(candidates=range(first, last)) as lease:
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([lease.take() for _ in range(count)]), flush=True)
    sys.stdin.read()
"""


def holder(candidates: range, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(candidates.start), str(candidates.stop), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def told_to_take(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def taken(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return list(json.loads(process.stdout.readline()))


def test_two_processes_share_no_port() -> None:
    """Two processes that take 200 ports each at the same time, from hardly more than they need, never get the same one."""
    candidates = range(20000, 20700)
    with holder(candidates, 200) as one, holder(candidates, 200) as other:
        told_to_take(one)
        told_to_take(other)
        ports = taken(one) + taken(other)
        assert len(set(ports)) == 400
        assert set(ports) <= set(candidates)
        one.communicate()
        other.communicate()


def test_death_gives_ports_back() -> None:
    """A process killed by SIGKILL leaves no reservation behind, and while it lives its ports are not to be had."""
    with PortLease(candidates=LEFT_ALONE) as lease:
        port = lease.take()
    only = range(port, port + 1)
    with holder(only, 1) as process:
        told_to_take(process)
        assert taken(process) == [port]
        with PortLease(candidates=only) as lease, pytest.raises(ClusterFailure, match="no free port"):
            lease.take()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with PortLease(candidates=only) as lease:
        assert lease.take() == port


def test_a_listened_port_is_passed_over() -> None:
    """A port on which somebody listens who reserved nothing is not given out; the message says how to find out who."""
    with PortLease(candidates=LEFT_ALONE) as lease:
        port = lease.take()
    with socket.create_server(("127.0.0.1", port)), PortLease(candidates=range(port, port + 1)) as lease:
        with pytest.raises(ClusterFailure, match="ss -ltn"):
            lease.take()
        assert lease.ports == ()


def test_a_leased_port_can_be_listened_on() -> None:
    """The lease keeps a name, not the port: a server starts on it, and again after the first one has ended."""
    with PortLease() as lease:
        port = lease.take()
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass
        assert lease.ports == (port,)


def test_release_gives_one_port_back() -> None:
    """A port given back early can be taken by another lease while the first one goes on."""
    with PortLease(candidates=LEFT_ALONE) as lease:
        kept, freed = lease.take(), lease.take()
        lease.release(freed)
        assert lease.ports == (kept,)
        with PortLease(candidates=range(freed, freed + 1)) as other:
            assert other.take() == freed


@given(st.integers(min_value=0, max_value=65536))
def test_no_port_of_the_ephemeral_range(ephemeral: int) -> None:
    """Wherever the ephemeral range starts, every candidate is unprivileged and below it."""
    candidates = port_range(ephemeral)
    assert all(PORT_FIRST_UNPRIVILEGED <= port < ephemeral for port in (candidates[:1] or []))
    assert all(PORT_FIRST_UNPRIVILEGED <= port < ephemeral for port in (candidates[-1:] or []))
    assert bool(candidates) == (ephemeral > PORT_FIRST_UNPRIVILEGED)


def test_this_kernel_leaves_ports_to_use() -> None:
    """What a lease takes here lies below this kernel's own ephemeral range."""
    with PortLease() as lease:
        assert lease.take() < ephemeral_first()


def test_an_ephemeral_range_from_the_bottom_is_explained() -> None:
    """Where the ephemeral range leaves nothing below it, the failure names the sysctl that would."""
    with PortLease(candidates=port_range(1024)) as lease, pytest.raises(ClusterFailure, match="ip_local_port_range"):
        lease.take()
