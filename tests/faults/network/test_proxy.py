"""The proxy's process by itself, between plain sockets: what each fault does to bytes, in order and to the last one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pekan.etcd.ports import PortLease
from pekan.faults.network.equipment import PROGRAM

DEADLINE_S = 30.0
AS_SOMEBODY = """
import encodings.idna, importlib.util, os, sys
spec = importlib.util.spec_from_file_location("proxy", {program!r})
proxy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(proxy)
os.setgroups([])
os.setresgid({user}, {user}, {user})
os.setresuid({user}, {user}, {user})
os._exit(proxy.main(sys.argv[1:]))
"""
"""The program, loaded first (the interpreter may lie where others cannot read it) and then run without root's capabilities."""


class Proxied:
    """A proxy with one door, of member m1, in front of a server of our own. For clients; where it is to take messages apart, for peers, one
    of which is m2."""

    def __init__(self, user: int | None = None, framed: bool = False) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(DEADLINE_S)
        # Ports that no connection of somebody else's is given before the proxy listens there.
        self.ports = PortLease()
        self.address, self.peer = (("127.0.0.1", self.ports.take()) for _ in range(2))
        program = [str(PROGRAM)] if user is None else ["-c", AS_SOMEBODY.format(program=str(PROGRAM), user=user)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", *program, json.dumps({"framed": framed, "seed": 1})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.number = 0
        self.events: list[dict[str, Any]] = []
        assert self.line()["event"] == "started"
        roles = {"m1": ("peer", self.address), "m2": ("peer", self.peer)} if framed else {"m1": ("client", self.address)}
        for member, (role, address) in roles.items():
            self.ask("listen", member=member, role=role, address=list(address), target=list(self.server.getsockname()), tls=None)

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, what: str, **details: object) -> dict[str, Any]:
        """A command, answered; what the proxy tells of itself meanwhile goes to `events`."""
        assert self.process.stdin is not None
        self.number += 1
        self.process.stdin.write(json.dumps({"id": self.number, "do": what, **details}).encode() + b"\n")
        self.process.stdin.flush()
        while "event" in (found := self.line()):
            self.events.append(found)
        assert found.pop("id") == self.number
        return found

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """The client's end and the server's end of a new connection."""
        near = socket.create_connection(self.address, DEADLINE_S)
        near.sendall(b"?")
        far, _ = self.server.accept()
        far.settimeout(DEADLINE_S)
        assert far.recv(1) == b"?"
        return near, far


@contextmanager
def _proxied(user: int | None = None, framed: bool = False) -> Iterator[Proxied]:
    it = Proxied(user, framed)
    try:
        yield it
    finally:
        assert it.process.stdin is not None
        assert it.process.stdout is not None
        it.process.stdin.close()
        assert it.process.wait(DEADLINE_S) == 0
        it.process.stdout.close()
        it.server.close()
        it.ports.close()


def _read(source: socket.socket, size: int) -> bytes:
    parts = []
    while size and (part := source.recv(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _silent(source: socket.socket) -> bool:
    """Whether nothing has come for longer than the loopback takes."""
    source.settimeout(0.2)
    try:
        return source.recv(1) is None
    except TimeoutError:
        return True
    finally:
        source.settimeout(DEADLINE_S)


TO, FROM = ["@client", "m1"], ["m1", "@client"]


@pytest.mark.parametrize("user", [None, 65534], ids=["self", "nobody"])
def test_held_bytes_arrive_in_order(user: int | None) -> None:
    """What is held waits, does not hold up the other direction, and arrives complete and in order; as a plain user too."""
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with _proxied(user) as it:
        near, far = it.connect()
        assert it.ask("add", key=1, kind="hold", links=[TO])["ok"]
        sent = bytes(range(256)) * 64
        for at in range(0, len(sent), 1000):
            near.sendall(sent[at : at + 1000])
        far.sendall(b"other direction")
        assert _read(near, 15) == b"other direction"
        assert _silent(far)
        did = it.ask("remove", key=1)
        assert did["bytes"] == len(sent)
        assert _read(far, len(sent)) == sent
        near.close()
        far.close()


def test_a_cut_swallows_and_ends_with_a_reset() -> None:
    """Bytes on a cut link are gone, in that direction only; at the end the connection is reset, and a new one works."""
    with _proxied() as it:
        near, far = it.connect()
        assert it.ask("add", key=1, kind="cut", links=[TO])["ok"]
        near.sendall(b"lost")
        far.sendall(b"answer")
        assert _read(near, 6) == b"answer"
        assert _silent(far)
        assert it.ask("remove", key=1)["bytes"] == 4
        with pytest.raises(ConnectionResetError):
            far.recv(1)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        assert [event["key"] for event in it.events] == [1]  # the first effect was told without being asked
        near.close()
        far.close()
        again, other = it.connect()
        other.sendall(b"whole")
        assert _read(again, 5) == b"whole"
        again.close()
        other.close()


def test_a_closed_connection_is_no_news_on_a_cut_link() -> None:
    """Where nothing travels, neither does the end of a connection: the other side learns of it when the link is whole again."""
    with _proxied() as it:
        near, far = it.connect()
        it.ask("add", key=1, kind="cut", links=[TO, FROM])
        near.close()
        assert _silent(far)
        it.ask("remove", key=1)
        with pytest.raises(ConnectionResetError):
            far.recv(1)
        far.close()


def test_faults_stack() -> None:
    """Two cuts of one link end with the second; a delayed link that is held waits for both; a fault that met nothing did nothing."""
    with _proxied() as it:
        near, far = it.connect()
        it.ask("add", key=1, kind="delay", links=[TO], delay_ms=50, jitter_ms=10)
        it.ask("add", key=2, kind="hold", links=[TO])
        it.ask("add", key=3, kind="cut", links=[FROM])
        near.sendall(b"late and held")
        assert _silent(far)
        assert it.ask("remove", key=2)["bytes"] == 13
        assert _read(far, 13) == b"late and held"
        assert it.ask("remove", key=1)["bytes"] == 13
        assert "bytes" not in it.ask("remove", key=3)
        it.ask("add", key=4, kind="cut", links=[TO])
        it.ask("add", key=5, kind="cut", links=[TO])
        near.sendall(b"x")
        it.ask("remove", key=4)
        far.sendall(b"still there")
        assert _read(near, 11) == b"still there"
        it.ask("remove", key=5)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        near.close()
        far.close()


def test_what_is_held_is_bounded() -> None:
    """A sender on a held link is stopped by its own full buffers after some megabytes; released, it goes on, and nothing is lost."""
    with _proxied() as it:
        near, far = it.connect()
        it.ask("add", key=1, kind="hold", links=[TO])
        total = 40 * 1024 * 1024
        sent = threading.Event()

        def send() -> None:
            near.sendall(bytes(total))
            sent.set()

        near.settimeout(None)
        sender = threading.Thread(target=send)
        sender.start()
        assert not sent.wait(1.0)
        resident_kb = int(Path(f"/proc/{it.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        assert resident_kb < 64 * 1024
        it.ask("remove", key=1)
        assert len(_read(far, total)) == total
        sender.join()
        near.close()
        far.close()


def test_a_slow_link_trickles() -> None:
    """A thin link takes no less than size by rate for what is put into it, and all of it arrives."""
    with _proxied() as it:
        near, far = it.connect()
        it.ask("add", key=1, kind="rate", links=[TO], bytes_a_second=20_000)
        began = time.monotonic()
        near.sendall(b"y" * 10_000)
        assert _read(far, 10_000) == b"y" * 10_000
        assert time.monotonic() - began >= 0.45
        assert it.ask("remove", key=1)["bytes"] > 0
        near.close()
        far.close()


def _posted(it: Proxied, path: str, body: bytes, fields: str = "") -> bytes:
    """A request of m2 to m1."""
    fields = fields or f"Content-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nHost: m1\r\nX-PeerURLs: http://127.0.0.1:{it.peer[1]}\r\n{fields}\r\n\r\n".encode() + body


M2_M1 = ["m2", "m1"]
APPEND = b"\x08\x03\x10\x01\x18\x02\x42\x40" + b"e" * 64
HEARTBEAT = b"\x08\x08\x10\x01\x18\x02"
"""Raft messages from member 2 to member 1 as protobuf: kind, receiver, sender (raft.proto)."""


def test_messages_that_are_posted() -> None:
    """A message that is a request of its own (what members do while they have no stream) is held by its kind, altered in one byte, and lost
    with its connection, while those of another kind pass."""
    with _proxied(framed=True) as it:
        near = socket.create_connection(it.address, DEADLINE_S)
        heartbeat, append = _posted(it, "/raft", HEARTBEAT), _posted(it, "/raft", APPEND)
        rule = {"kind": "messages", "links": [M2_M1], "kinds": ["MsgApp"]}
        assert it.ask("add", key=1, action="hold", **rule)["ok"]
        near.sendall(heartbeat)
        far, _ = it.server.accept()
        far.settimeout(DEADLINE_S)
        assert _read(far, len(heartbeat)) == heartbeat
        near.sendall(append)
        assert _silent(far)
        did = it.ask("remove", key=1)
        assert (did["messages"], did["kinds"]) == (1, {"MsgApp": 1})
        assert _read(far, len(append)) == append

        assert it.ask("add", key=2, kind="corrupt", links=[M2_M1], kinds=["MsgApp"])["ok"]
        near.sendall(heartbeat + append)
        assert _read(far, len(heartbeat)) == heartbeat
        altered = _read(far, len(append))
        assert it.ask("remove", key=2)["kinds"] == {"MsgApp": 1}
        (at,) = (at for at in range(len(append)) if altered[at] != append[at])
        assert at >= len(append) - len(APPEND) + 2  # not its kind, nor the request around it

        assert it.ask("add", key=3, action="drop", **rule)["ok"]
        near.sendall(heartbeat)
        assert _read(far, len(heartbeat)) == heartbeat
        near.sendall(append)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        assert it.ask("remove", key=3)["kinds"] == {"MsgApp": 1}
        near.close()
        far.close()


def test_snapshots_that_are_posted() -> None:
    """A snapshot is one message with a database behind it: held until released, it arrives whole; a rule for appends does not touch it."""
    message = b"\x08\x07\x10\x01\x18\x02"
    database = bytes(range(256)) * 400
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (len(message).to_bytes(8, "big") + message, database, b""))
    with _proxied(framed=True) as it:
        near = socket.create_connection(it.address, DEADLINE_S)
        request = _posted(it, "/raft/snapshot", body, "Transfer-Encoding: chunked")
        assert it.ask("add", key=1, kind="messages", action="drop", kinds=["MsgApp"], links=[M2_M1])["ok"]
        near.sendall(request)
        far, _ = it.server.accept()
        far.settimeout(DEADLINE_S)
        assert _read(far, len(request)) == request
        assert it.ask("add", key=2, kind="messages", action="hold", kinds=["MsgSnap"], links=[M2_M1])["ok"]
        near.sendall(request)
        assert _silent(far)
        did = it.ask("remove", key=2)
        assert did["kinds"] == {"MsgSnap": 1}
        assert _read(far, len(request)) == request
        assert "messages" not in it.ask("remove", key=1)
        near.close()
        far.close()


def test_a_slow_link_is_one_line_for_all_its_connections() -> None:
    """What comes first on one connection goes before what comes later on another."""
    with _proxied() as it:
        first, second = it.connect(), it.connect()
        it.ask("add", key=1, kind="rate", links=[TO], bytes_a_second=2_000)
        first[0].sendall(b"a" * 1_000)
        assert first[1].recv(1) == b"a"  # the proxy has them all by now
        second[0].sendall(b"b")
        assert second[1].recv(1) == b"b"
        first[1].setblocking(False)
        assert len(_read(first[1], 999)) == 999
        for side in (*first, *second):
            side.close()


def test_what_cannot_be_done_is_refused() -> None:
    """Rules for messages are refused where messages are not taken apart, and unknown kinds everywhere; the proxy goes on."""
    with _proxied() as it:
        for wrong in ({"kind": "messages", "kinds": ["MsgApp"]}, {"kind": "rate", "messages_a_second": 3}, {"kind": "melt"}):
            answer = it.ask("add", key=1, links=[TO], **wrong)
            assert not answer["ok"]
            assert answer["why"]
        near, far = it.connect()
        near.close()
        far.close()


def test_the_proxy_ends_with_whoever_started_it() -> None:
    """The end of its standard input ends it at once; an interrupt from the terminal does not."""
    it = Proxied()
    near, far = it.connect()
    it.process.send_signal(signal.SIGINT)
    far.sendall(b"alive")
    assert _read(near, 5) == b"alive"
    assert it.process.stdin is not None
    it.process.stdin.close()
    assert it.process.wait(DEADLINE_S) == 0
    assert it.process.stdout is not None
    it.process.stdout.close()
    for each in (near, far, it.server, it.ports):
        each.close()
