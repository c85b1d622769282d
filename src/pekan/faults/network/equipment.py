"""The proxy around the members: one process a run, between the members, and between clients and members, as far as the plan's faults
need it.

::

    member  advertise_peer ──> proxy ──> listen_peer          every other member dials the proxy
            advertise_client ──> proxy ──> listen_client      Pekan's own clients dial the proxy, where a client's fault is planned

The process is `pekan.faults.network.proxy`; it ends with Pekan, whatever Pekan dies of, because its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.errors import ClusterFailure, EnvironmentFailure
from pekan.etcd.spec import Address
from pekan.faults.ability import Ability, able
from pekan.faults.equipment import Equipment, Site

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec
    from pekan.plan import Fault

PROGRAM = Path(__file__).with_name("proxy.py")
START_SECONDS_MAX = 20.0
"""It starts in some 80 ms."""
ANSWER_SECONDS_MAX = 30.0
"""A command is answered between two reads of sockets, on a machine that may be busy."""
END_SECONDS_MAX = 5.0
LINE_BYTES_MAX = 1024 * 1024
"""Of an answer: counters of some hundred links."""
LOG_BYTES_SHOWN = 2_000

CLIENT = "@client"
"""What links call all clients together (`pekan.faults.network.proxy.CLIENT`)."""
EVERY = "*"
Link = tuple[str, str]
"""From whom to whom bytes flow: members' names, `CLIENT` or `EVERY` (any member, also one that joins later)."""


def for_messages(fault: Fault) -> bool:
    """Whether `fault` needs raft messages one by one. All others work on bytes, which costs less."""
    return fault.kind in ("messages", "corrupt") or (fault.kind == "rate" and int(fault.parameters.get("messages", 0)) > 0)


class Proxy(Equipment):
    """The proxy's process and what can be asked of it."""

    name: ClassVar[str] = "proxy"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        faults = site.plan.schedule.faults
        self.clients = any(fault.kind in CLIENT_KINDS for fault in faults)
        self.peers = any(fault.kind in PEER_KINDS for fault in faults)
        self.framed = any(for_messages(fault) for fault in faults)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._effects: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._started = asyncio.Event()
        self._log = site.directory / "scratch" / "proxy.log"

    @classmethod
    def probe(cls) -> Ability:
        return able(cls.name, "forwards on loopback; needs no privilege")

    @property
    def pid(self) -> int:
        """The process id of the proxy."""
        assert self._process is not None
        return self._process.pid

    async def prepare(self) -> None:
        """Start the process."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"framed": self.framed, "seed": self.site.plan.seed}
        with self._log.open("ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(PROGRAM), json.dumps(settings)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    limit=LINE_BYTES_MAX,
                )
            except OSError as error:
                raise EnvironmentFailure(
                    f"the proxy between members cannot be started: {error}; is the machine out of processes?"
                ) from error
        self._reading = asyncio.create_task(self._read(), name="proxy")
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await self._started.wait()
        except TimeoutError as error:
            raise EnvironmentFailure(f"the proxy between members did not start within {START_SECONDS_MAX:g} s{self._shown()}") from error
        self._alive()

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        """The same members behind the proxy, which listens for them already when this returns."""
        return tuple([await self._around(member, ports) for member in members])

    async def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                async with asyncio.timeout(END_SECONDS_MAX):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
            self._process = None
        if self._reading is not None:
            # The end of its output ends it; a failure there has been told to whoever waited.
            await asyncio.wait({self._reading}, timeout=END_SECONDS_MAX)
            self._reading = None

    # ---- faults ----

    def number(self) -> int:
        """A key for a fault, known before it is armed: what is cancelled half-way can be undone by it."""
        return next(self._numbers)

    async def add(self, key: int, kind: str, links: Collection[Link], **settings: object) -> asyncio.Future[dict[str, Any]]:
        """Arm a fault on `links`. The future has what it did as soon as it has done something.

        `kind` and `settings` are those of `pekan.faults.network.proxy`. Raises `ClusterFailure` where the proxy has ended or refuses.
        """
        effect = self._effects[key] = asyncio.get_running_loop().create_future()
        await self._ask("add", key=key, kind=kind, links=[list(link) for link in links], **settings)
        return effect

    async def remove(self, key: int) -> dict[str, Any]:
        """Undo it; nothing happens where it was not armed. Returns what it did: bytes, messages, connections, kinds of message."""
        effect = self._effects.pop(key, None)
        if effect is not None:
            effect.cancel()
        return await self._ask("remove", key=key)

    async def reset(self, key: int) -> dict[str, Any]:
        """Reset every connection of the links of that fault; returns what it did so far."""
        return await self._ask("reset", key=key)

    async def counts(self) -> dict[Link, dict[str, int]]:
        """Bytes and messages that members sent so far, by link."""
        answer = await self._ask("counts")
        return {(each["from"], each["to"]): {"bytes": each["bytes"], "messages": each["messages"]} for each in answer["links"]}

    # ---- the process ----

    async def _around(self, member: MemberSpec, ports: PortLease) -> MemberSpec:
        if self.peers:
            peer = Address(member.listen_peer.host, ports.take())
            tls = None
            if member.tls is not None:
                files = member.tls
                tls = {"ca": str(files.ca), "certificate": str(files.peer_certificate), "key": str(files.peer_key)}
            await self._listen(member, "peer", peer, member.advertise_peer, tls)
            member = replace(member, advertise_peer=peer)
        if self.clients:
            client = Address(member.listen_client.host, ports.take())
            await self._listen(member, "client", client, member.advertise_client, None)
            member = replace(member, advertise_client=client)
        return member

    async def _listen(self, member: MemberSpec, role: str, address: Address, target: Address, tls: dict[str, str] | None) -> None:
        await self._ask("listen", member=member.name, role=role, address=list(address), target=list(target), tls=tls)

    async def _ask(self, what: str, **details: object) -> dict[str, Any]:
        """One command, answered. Raises `ClusterFailure`."""
        self._alive()
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._process.stdin.write(json.dumps({"id": number, "do": what, **details}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                found: dict[str, Any] = await answer
        except TimeoutError as error:
            raise ClusterFailure(f"the proxy did not answer {what!r} within {ANSWER_SECONDS_MAX:g} s{self._shown()}") from error
        except OSError as error:
            raise ClusterFailure(f"the proxy has ended: {error}{self._shown()}") from error
        finally:
            self._answers.pop(number, None)
        if not found.pop("ok"):
            raise ClusterFailure(f"the proxy refuses {what!r}: {found['why']}")
        return found

    async def _read(self) -> None:
        """Answers and events, until the proxy ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            found = json.loads(line)
            event = found.pop("event", "")
            if event == "started":
                self._started.set()
            elif event == "effect":
                _tell(self._effects.get(found.pop("key")), found)
            else:
                _tell(self._answers.get(found.pop("id")), found)
        self._started.set()
        for waiting in (*self._answers.values(), *self._effects.values()):
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("it closed its output"))
                waiting.exception()  # marks it as seen: not everybody who was promised an effect waits for it

    def _alive(self) -> None:
        if self._process is None or self._reading is None or self._reading.done() or self._process.returncode is not None:
            raise ClusterFailure(f"the proxy between members has ended{self._shown()}")

    def _shown(self) -> str:
        try:
            text = self._log.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace").strip()
        except OSError:
            return ""
        return f"; it wrote: {text}" if text else ""


def _tell(waiting: asyncio.Future[dict[str, Any]] | None, found: dict[str, Any]) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(found)


def between(some: Iterable[str], others: Iterable[str]) -> tuple[Link, ...]:
    """Both directions of each pair."""
    others = tuple(others)
    return tuple(link for a in some for b in others if a != b for link in ((a, b), (b, a)))


PEER_KINDS = frozenset(("cut", "isolate", "partition", "hold", "delay", "rate", "reset", "messages", "corrupt"))
CLIENT_KINDS = frozenset(("client-cut", "client-delay", "client-reset"))
"""The faults of this family; what is around the members follows from which of them a plan has."""
