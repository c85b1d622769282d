"""Each member in a network namespace of its own, on a switch that can lose, double, hold and delay packets.

::

    what others arranged               what members get here                             who reaches it
    listen_client     127.0.0.1:C      listen_client     198.18.0.2:C                     host's 127.0.0.1:C, by the relay
    advertise_client  as it is         as it is: on the host, a proxy's or the relay's    clients
    listen_peer       127.0.0.1:Q      listen_peer       198.18.0.2:Q                     members; host's 127.0.0.1:Q, by the relay
    advertise_peer    127.0.0.1:Q      advertise_peer    198.18.0.2:Q                     members, through the switch
       or a proxy's   127.0.0.1:P                        198.18.0.1:P (the hub)           members, through the switch and the relay

This equipment surrounds last: what other mechanisms put before a member stays on the host's loopback and goes on working, for members reach
it as a port of the hub. Packets between a member and that port count as between the member and the one behind the proxy; between the
proxy and the member behind it packets are those of clients. Ports are the same on both sides, as the lease gave them.

The programs are `switch` (namespaces, packets) and `relay` (connections between the host and the hub); both end with Pekan.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pekan.errors import EnvironmentFailure
from pekan.etcd.ports import PortLease
from pekan.etcd.spec import Address, Attachment, MemberSpec
from pekan.etcd.tls import MEMBER_NETWORK
from pekan.faults.ability import Ability, able, unable
from pekan.faults.equipment import Equipment, Site
from pekan.faults.packets import relay, switch

ANSWER_SECONDS_MAX = 30.0
"""For a command to one of the programs: they answer between two packets, on a machine that may be busy."""
END_SECONDS_MAX = 5.0
"""For a program to end once its lifeline has."""
ANSWER_BYTES_MAX = 65536
DESCRIPTORS_MAX = 2
HOSTS = tuple(str(host) for host in MEMBER_NETWORK.hosts())
assert HOSTS[0] == switch.HUB

CLIENTS = switch.CLIENTS


class Program:
    """One of the two programs, and the socket on which it is told what to do, which is its lifeline too."""

    def __init__(self, file: str, *arguments: str, second: socket.socket | None = None) -> None:
        """Starts it. `second` becomes its fd 1; without one that is /dev/null."""
        self.name = os.path.basename(file)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(ANSWER_SECONDS_MAX)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", file, *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL if second is None else second.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._turn = threading.Lock()

    async def ask(self, command: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[int]]:
        """One command's answer, with the descriptors that came along; without a command the answer to being started.

        Raises `EnvironmentFailure` where it says why not, or is gone.
        """
        return await asyncio.to_thread(self.exchange, command)

    def exchange(self, command: dict[str, Any] | None) -> tuple[dict[str, Any], list[int]]:
        """`ask`, without an event loop. One at a time, also where whoever asked has been cancelled and nobody waits for the answer."""
        try:
            with self._turn:
                if command is not None:
                    self.control.send(json.dumps(command).encode())
                text, descriptors, _, _ = socket.recv_fds(self.control, ANSWER_BYTES_MAX, DESCRIPTORS_MAX)
        except OSError as error:
            raise EnvironmentFailure(f"{self.name} (pid {self.process.pid}) of the members' network does not answer: {error}") from error
        if not text:
            raise EnvironmentFailure(f"{self.name} (pid {self.process.pid}) of the members' network has ended")
        answer = json.loads(text)
        if "error" in answer:
            raise Refused(answer["error"], answer.get("errno", 0), answer.get("file", ""))
        return answer, descriptors

    def close(self) -> None:
        """End the lifeline, and wait for the end."""
        self.control.close()
        try:
            self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Refused(EnvironmentFailure):
    """A program says why it could not do as told: text, errno and the file concerned, where it knows them."""

    def __init__(self, text: str, number: int, file: str) -> None:
        super().__init__(f"the members' network: {text}; {_remedy(number, file)}" if number else f"the members' network: {text}")
        self.text = text
        self.number = number
        self.file = file


def _remedy(number: int, file: str) -> str:
    if file == switch.TUN_DEVICE:
        if number == errno.EACCES:
            return f"let this user open it (chmod 0666 {file}, as most distributions have it), or run as root"
        return f"load the kernel's module for it (modprobe tun); in a container: --device {file}"
    return (
        "run as root, or allow namespaces to users (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0); "
        f"in a container: --cap-add SYS_ADMIN --cap-add NET_ADMIN --device {switch.TUN_DEVICE}"
    )


class Packets(Equipment):
    """The switch, the relay and the members' namespaces."""

    name: ClassVar[str] = "packets"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._switch: Program | None = None
        self._relay: Program | None = None
        self._namespaces: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, str] = {}
        self._rules = itertools.count(1)

    @classmethod
    def probe(cls) -> Ability:
        """Makes a hub, a member's namespace and their devices, in a process that then ends."""
        program = Program(switch.__file__, "--probe")
        try:
            program.exchange(None)
        except Refused as refusal:
            return unable(cls.name, f"{refusal.text} (errno {refusal.number})", _remedy(refusal.number, refusal.file))
        except EnvironmentFailure as failure:
            return unable(cls.name, str(failure), _remedy(0, ""))
        finally:
            program.close()
        return able(cls.name, "members in network namespaces on a switch of TUN devices")

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of switch and relay, while they run."""
        return tuple(program.process.pid for program in (self._switch, self._relay) if program is not None)

    async def prepare(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self._switch = Program(switch.__file__, second=theirs)
            self._relay = Program(relay.__file__, second=ours)
        await self._switch.ask()
        await self._relay.ask()

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        return tuple([await self._surround(member) for member in members])

    async def _surround(self, member: MemberSpec) -> MemberSpec:
        place = len(self._addresses) + 1
        if place >= len(HOSTS):
            raise EnvironmentFailure(f"a run has room for {len(HOSTS) - 1} members in namespaces, and {member.name} is one more")
        address = self._addresses[member.name] = HOSTS[place]
        _, descriptors = await self._tell("member", name=member.name, address=address)
        self._namespaces[member.name] = tuple(reversed(descriptors))  # the namespace of users, where there is one, is entered first
        for listened in (member.listen_client, member.listen_peer):
            await self._relayed("inward", port=listened.port, to=address)
        listen_peer = advertise_peer = Address(address, member.listen_peer.port)
        if member.advertise_peer != member.listen_peer:
            advertise_peer = Address(switch.HUB, member.advertise_peer.port)
            await self._tell("publish", port=advertise_peer.port, name=member.name)
            await self._relayed("outward", port=advertise_peer.port, at=switch.HUB)
        namespaces = self._namespaces[member.name]
        return replace(
            member,
            listen_client=Address(address, member.listen_client.port),
            listen_peer=listen_peer,
            advertise_peer=advertise_peer,
            attachments=(*member.attachments, Attachment("namespaces", {"namespaces": list(namespaces)}, namespaces)),
        )

    def number(self) -> int:
        """A number for a rule, known before it is added: what is cancelled half-way can be removed by it."""
        return next(self._rules)

    async def add(self, rule: int, pairs: Sequence[tuple[str, str]], effects: dict[str, float], seed: str) -> None:
        """The rule of that number for the packets of directed pairs of members' names and `CLIENTS` (`switch` has the effects)."""
        await self._tell("add", rule=rule, pairs=list(pairs), effects=effects, seed=seed)

    async def counts(self, rule: int) -> dict[str, int]:
        """What the rule has done so far."""
        answer, _ = await self._tell("count", rule=rule)
        return dict(answer["counts"])

    async def remove(self, rule: int) -> dict[str, int]:
        """End the rule; what it has done. Nothing happens where it was not added."""
        answer, _ = await self._tell("remove", rule=rule)
        return dict(answer["counts"])

    async def close(self) -> None:
        for program in (self._relay, self._switch):
            if program is not None:
                await asyncio.to_thread(program.close)
        for fd in {fd for namespaces in self._namespaces.values() for fd in namespaces}:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._relay = self._switch = None
        self._namespaces = {}

    async def _tell(self, do: str, **details: object) -> tuple[dict[str, Any], list[int]]:
        assert self._switch is not None
        return await self._switch.ask({"do": do, **details})

    async def _relayed(self, do: str, **details: object) -> None:
        assert self._relay is not None
        await self._relay.ask({"do": do, **details})
