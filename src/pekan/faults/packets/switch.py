"""A network of its own for each member, and the switch between them: every packet passes through here, or does not.

This file is a program, run as `python -I -S switch.py [--probe]`; it imports the standard library only and has one thread, because
namespaces belong to threads and a user namespace wants its process to have one.

::

    namespace of m1             this process, in the hub's namespace            namespace of m2
    198.18.0.2 tun0 ══ TUN ══>  rules: lose, double, hold, delay  ══ TUN ══>  tun0 198.18.0.3
                                            ║ TUN
                                 198.18.0.1 tun0 (hub) <── sockets for the relay, which is in the host's namespace

The namespaces have no names and the devices are not persistent: they vanish with the processes in them and the descriptors of them.
Nothing in the host's own namespace is touched. The network is the one for tests of devices (RFC 2544, RFC 6890).

Commands come on fd 0, a SOCK_SEQPACKET socket whose end is the lifeline; fd 1, where there is one, is another for the relay. A command is
one JSON object in one packet, and so is its answer, {"error": ...} where it failed::

    {"do": "member", "name": "m1", "address": "198.18.0.2"}     -> {} and descriptors: network namespace [, the user namespace around it]
    {"do": "publish", "port": 12345, "name": "m2"}              -> {}; the hub's port 12345 stands for m2 (a proxy in front of it)
    {"do": "socket"}                                            -> {} and a TCP socket in the hub's namespace
    {"do": "add", "rule": 7, "pairs": [["m1", "m2"], ...], "seed": "...", "effects": {"lose": 5, ...}}     -> {}
    {"do": "count", "rule": 7} / {"do": "remove", "rule": 7}    -> {"counts": {...}}

A pair is directed. "clients" stands for whatever is on the host's side, published ports aside. Effects, of the packets of the pairs:

    lose           percent that vanish
    double         percent that arrive twice
    hold, by_ms    percent that arrive so much later, and are overtaken by those behind them
    delay_ms, jitter_ms    all of them later, by delay and up to jitter, in the order they came in

Several rules work one after the other. What is delayed when its rule is removed arrives at its time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

CONTROL_FD = 0
RELAY_FD = 1

CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
SIOCSIFADDR = 0x8916
SIOCSIFNETMASK = 0x891C
SIOCSIFMTU = 0x8922
IFF_UP = 0x1
TUN_DEVICE = "/dev/net/tun"

HUB = "198.18.0.1"
NETMASK = "255.255.252.0"
CLIENTS = "clients"
COUNTS = ("seen", "lost", "doubled", "overtaken", "delayed")
"""What is counted of a rule: packets of its pairs, and what it did to them."""

# A jumbo frame: raft messages of this traffic fit one packet, a snapshot needs thousands.
MTU = 9000
PACKET_BYTES_MAX = MTU
COMMAND_BYTES_MAX = 65536

# Packets of one device in one turn, so that none starves the others.
TURN_PACKETS = 64

# Packets under way late: a second of the most that this switch carries. Beyond, they are lost, as in any switch.
QUEUE_PACKETS_MAX = 50_000

# How far a member's ports and addresses lie in an IPv4 packet without options, the only one that Linux sends for TCP (RFC 791).
SOURCE = slice(12, 16)
DESTINATION = slice(16, 20)

libc = ctypes.CDLL(None, use_errno=True)


class Rule:
    """One fault's effects on its pairs, and what came of them."""

    def __init__(self, command: dict[str, Any]) -> None:
        effects = command["effects"]
        self.pairs = {(sender, receiver) for sender, receiver in command["pairs"]}
        self.random = random.Random(command["seed"])
        self.lose = effects.get("lose", 0) / 100
        self.double = effects.get("double", 0) / 100
        self.hold = effects.get("hold", 0) / 100
        self.by_s = effects.get("by_ms", 0) / 1000
        self.delay_s = effects.get("delay_ms", 0) / 1000
        self.jitter_s = effects.get("jitter_ms", 0) / 1000
        self.counts = dict.fromkeys(COUNTS, 0)


class Line:
    """One directed pair: the order in which its packets came and went."""

    def __init__(self) -> None:
        self.came = 0
        self.went = 0
        self.free_at = 0.0


class Switch:
    """The devices, the rules and the packets that are late."""

    def __init__(self) -> None:
        self.devices: dict[bytes, int] = {}
        self.names: dict[bytes, str] = {}
        self.published: dict[int, str] = {}
        self.rules: dict[int, Rule] = {}
        self.lines: dict[tuple[str, str], Line] = {}
        self.late: list[tuple[float, int, int, bytes, Line, int, tuple[Rule, ...]]] = []
        self.number = 0
        self.poll = select.epoll()
        self.home = -1
        self.user = -1

    def open(self) -> None:
        """Enter the hub's namespace, with a user namespace around it where the host's does not allow one."""
        uid, gid = os.geteuid(), os.getegid()
        try:
            unshare(CLONE_NEWNET)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            # Everybody stays who they are: members go on to own their files.
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                try:
                    with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                        file.write(text)
                except OSError as error:  # a write does not say where to
                    raise OSError(error.errno, f"{name} of a user namespace: {error.strerror}") from error
            self.user = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.device(HUB, CLIENTS)

    def member(self, name: str, address: str) -> list[int]:
        """A further namespace with a device of that address; the descriptors by which to enter it. This process is back in the hub's."""
        unshare(CLONE_NEWNET)
        try:
            network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.device(address, name)
        finally:
            if libc.setns(self.home, CLONE_NEWNET) != 0:
                raise failure("setns")
        return [network] if self.user < 0 else [network, os.dup(self.user)]

    def device(self, address: str, name: str) -> None:
        """A TUN device in the present namespace, which also gets its loopback."""
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, text in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, NETMASK)):
                fcntl.ioctl(control, request, struct.pack("16sHH4s8x", b"tun0", socket.AF_INET, 0, socket.inet_aton(text)))
            fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si12x", b"tun0", MTU))
            for device in (b"tun0", b"lo"):
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", device, IFF_UP))
        key = socket.inet_aton(address)
        self.devices[key] = fd
        self.names[key] = name
        self.poll.register(fd, select.EPOLLIN)

    def carry(self, fd: int) -> None:
        """Take what a device has, and hand it on by the rules."""
        devices, rules = self.devices, self.rules
        for _ in range(TURN_PACKETS):
            try:
                packet = os.read(fd, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            out = devices.get(packet[DESTINATION])
            if out is None:
                continue  # IPv6's own chatter, broadcasts
            if rules:
                self.judge(packet, out)
            else:
                put(out, packet)

    def pair(self, packet: bytes) -> tuple[str, str]:
        """Who sends a packet to whom. On a published port the hub is the member that the port stands for."""
        sender = self.names.get(packet[SOURCE], "")
        receiver = self.names[packet[DESTINATION]]
        if self.published:
            header = (packet[0] & 0x0F) * 4
            source_port, destination_port = struct.unpack_from("!HH", packet, header)
            if receiver == CLIENTS:
                receiver = self.published.get(destination_port, CLIENTS)
            elif sender == CLIENTS:
                sender = self.published.get(source_port, CLIENTS)
        return sender, receiver

    def judge(self, packet: bytes, out: int) -> None:
        """Hand one packet on, late, twice or not at all."""
        pair = self.pair(packet)
        concerned = [rule for rule in self.rules.values() if pair in rule.pairs]
        if not concerned:
            put(out, packet)
            return
        line = self.lines.setdefault(pair, Line())
        line.came += 1
        now = time.monotonic()
        copies, delay, held = 1, 0.0, []
        for rule in concerned:
            counts = rule.counts
            counts["seen"] += 1
            if rule.lose and rule.random.random() < rule.lose:
                counts["lost"] += 1
                return
            if rule.double and rule.random.random() < rule.double:
                counts["doubled"] += 1
                copies += 1
            if rule.hold and rule.random.random() < rule.hold:
                held.append(rule)
            if rule.delay_s or rule.jitter_s:
                counts["delayed"] += 1
                delay += rule.delay_s + rule.random.random() * rule.jitter_s
        at = max(now + delay, line.free_at)
        if held:
            at += sum(rule.by_s for rule in held)
        else:
            line.free_at = at
        for _ in range(copies):
            if at <= now:
                line.went = max(line.went, line.came)
                put(out, packet)
            elif len(self.late) < QUEUE_PACKETS_MAX:
                self.number += 1
                heapq.heappush(self.late, (at, self.number, out, packet, line, line.came, tuple(held)))

    def deliver(self) -> None:
        """Hand on what is late enough."""
        now = time.monotonic()
        while self.late and self.late[0][0] <= now:
            _, _, out, packet, line, place, held = heapq.heappop(self.late)
            if place < line.went:
                for rule in held:
                    rule.counts["overtaken"] += 1
            line.went = max(line.went, place)
            put(out, packet)

    def obey(self, command: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Do what a command says: its answer, and descriptors that go with it and are closed here."""
        match command["do"]:
            case "member":
                return {}, self.member(command["name"], command["address"])
            case "publish":
                self.published[command["port"]] = command["name"]
                return {}, []
            case "socket":
                return {}, [socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach()]
            case "add":
                self.rules[command["rule"]] = Rule(command)
                return {}, []
            case "count":
                return {"counts": self.rules[command["rule"]].counts}, []
            case "remove":
                rule = self.rules.pop(command["rule"], None)
                if not self.rules:
                    self.lines.clear()
                return {"counts": dict.fromkeys(COUNTS, 0) if rule is None else rule.counts}, []
        raise ValueError(f"no such command: {command['do']}")

    def run(self) -> None:
        """Until the lifeline ends."""
        channels = {CONTROL_FD: socket.socket(fileno=os.dup(CONTROL_FD)), RELAY_FD: socket.socket(fileno=os.dup(RELAY_FD))}
        for fd in channels:
            self.poll.register(fd, select.EPOLLIN)
        while True:
            timeout = max(0.0, self.late[0][0] - time.monotonic()) if self.late else None
            for fd, _ in self.poll.poll(timeout):
                if fd not in channels:
                    self.carry(fd)
                elif not self.answer(channels[fd]):
                    if fd == CONTROL_FD:
                        return
                    self.poll.unregister(fd)  # the relay is gone; members still reach each other
            if self.late:
                self.deliver()

    def answer(self, channel: socket.socket) -> bool:
        """Take one command and answer it; False at the channel's end."""
        text = channel.recv(COMMAND_BYTES_MAX)
        if not text:
            return False
        descriptors: list[int] = []
        try:
            reply, descriptors = self.obey(json.loads(text))
        except OSError as error:
            reply = {"error": str(error), "errno": error.errno}
        except (KeyError, ValueError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(channel, [json.dumps(reply).encode()], descriptors)
        for fd in descriptors:
            os.close(fd)
        return True


def put(out: int, packet: bytes) -> None:
    """Into the namespace behind `out`; what its kernel does not take (a full queue) is lost."""
    with contextlib.suppress(OSError):
        os.write(out, packet)


def unshare(flags: int) -> None:
    if libc.unshare(flags) != 0:
        raise failure("unshare")


def failure(call: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{call}: {os.strerror(code)}")


def main(arguments: list[str]) -> int:
    """Answers {} on fd 0 once the hub is there, or {"error": ...} and ends. With --probe it makes one member's namespace and ends."""
    parent = os.getppid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the lifeline ends it, not a terminal
    control = socket.socket(fileno=os.dup(CONTROL_FD))
    switch = Switch()
    reply: dict[str, Any] = {}
    try:
        switch.open()
        if arguments:
            switch.member("m1", "198.18.0.2")
    except OSError as error:
        reply = {"error": f"{error.filename or ''} {error.strerror}".strip(), "errno": error.errno, "file": error.filename or ""}
    # After the namespaces: a change of credentials takes the request back (prctl(2)).
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    control.send(json.dumps(reply).encode())
    control.close()
    if reply or arguments:
        return 1 if reply else 0
    switch.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
