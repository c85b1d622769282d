"""The switch and the relay without etcd: bytes arrive as they were sent, whatever happens to packets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pekan.etcd.ports import PortLease
from pekan.etcd.spec import Address, MemberSpec
from pekan.faults import Site
from pekan.faults.packets import Packets
from pekan.faults.packets.equipment import CLIENTS
from pekan.plan import Plan

DEADLINE_S = 60.0
SENT = random.Random(1).randbytes(2_000_000)
"""More than every buffer on the way holds."""

# Enters a namespace as the launcher does, and answers each connection with what it gets, after its end.
ECHO = """
import ctypes, socket, sys
assert ctypes.CDLL(None).setns(int(sys.argv[1]), 0) == 0
with socket.create_server((sys.argv[2], int(sys.argv[3]))) as server:
    print("ready", flush=True)
    while True:
        with server.accept()[0] as connection:
            received = b""
            while piece := connection.recv(65536):
                received += piece
            connection.sendall(received)
"""


class Executable:
    path = "/bin/false"
    version = "3.5.1"


@contextlib.asynccontextmanager
async def switched(directory: Path, ports: PortLease) -> AsyncIterator[tuple[Packets, MemberSpec, MemberSpec]]:
    """The equipment around one member: as it was, and as it is."""
    if os.geteuid() != 0 or not (ability := Packets.probe()).possible:
        pytest.skip("entering namespaces needs root" if os.geteuid() else ability.why_not)
    client, peer = (Address("127.0.0.1", ports.take()) for _ in range(2))
    member = MemberSpec("m1", Executable(), directory / "data", directory / "log", client, client, peer, peer)
    packets = Packets(Site(Plan(etcd="3.5.1", seed=1), member.binary, directory, {}))
    try:
        await packets.prepare()
        (around,) = await packets.surround((member,), ports)
        yield packets, member, around
    finally:
        await packets.close()


async def echoed(address: Address) -> bytes:
    """Send everything, say so, and take what comes back."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(SENT)
    writer.write_eof()
    received = await reader.read(-1)
    writer.close()
    return received


def test_bytes_arrive_as_sent(tmp_path: Path) -> None:
    """Through relay and switch with packets lost, doubled and overtaken, a connection carries the bytes and both its ends exactly; each
    effect is counted, and the rule's end leaves none."""

    async def go() -> None:
        with PortLease() as ports:
            async with asyncio.timeout(DEADLINE_S), switched(tmp_path, ports) as (packets, member, around):
                assert around.listen_client == Address("198.18.0.2", member.listen_client.port)
                assert around.advertise_client == member.advertise_client
                (attachment,) = around.attachments
                (namespace,) = attachment.fds
                command = [sys.executable, "-c", ECHO, str(namespace), *map(str, around.listen_client)]
                with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(namespace,)) as server:
                    try:
                        assert server.stdout is not None
                        assert server.stdout.readline() == b"ready\n"
                        both = [(CLIENTS, "m1"), ("m1", CLIENTS)]
                        rule = packets.number()
                        await packets.add(rule, both, {"lose": 4, "double": 20, "hold": 10, "by_ms": 2}, "seed")
                        assert await echoed(member.listen_client) == SENT
                        counts = await packets.remove(rule)
                        assert min(counts[name] for name in ("lost", "doubled", "overtaken")) > 0
                        rule = packets.number()
                        await packets.add(rule, both, {"lose": 0}, "seed")
                        assert await echoed(member.listen_client) == SENT
                        counts = await packets.remove(rule)
                        assert counts.pop("seen") > 0
                        assert not any(counts.values())
                    finally:
                        server.kill()

    asyncio.run(go())


def test_nobody_listens(tmp_path: Path) -> None:
    """A connection to a member that does not listen is reset, not left open."""

    async def go() -> None:
        with PortLease() as ports:
            async with asyncio.timeout(DEADLINE_S), switched(tmp_path, ports) as (_, member, _around):
                with socket.create_connection(member.listen_peer) as connection:
                    connection.setblocking(False)
                    with pytest.raises(ConnectionResetError):
                        await asyncio.get_running_loop().sock_recv(connection, 1)

    asyncio.run(go())


def test_the_programs_end_with_the_equipment(tmp_path: Path) -> None:
    """Closing ends switch and relay, and closing again does nothing; so do the ends of their lifelines when one of them was killed."""

    async def go() -> None:
        with PortLease() as ports:
            async with asyncio.timeout(DEADLINE_S), switched(tmp_path, ports) as (packets, _, _around):
                pids = packets.pids
                assert len(pids) == 2
                os.kill(pids[1], 9)
                await packets.close()
                await packets.close()
                assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    asyncio.run(go())
