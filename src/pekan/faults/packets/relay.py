"""Carries connections between the host's namespace and the hub's, where members are reached.

This file is a program, run as `python -I -S relay.py`; it imports the standard library only. It stays in the host's namespace and gets
sockets of the hub's namespace from the switch: a socket belongs to the namespace it was made in, whoever uses it.

::

    clients, proxies ── 127.0.0.1:C ──> relay ── socket of the hub ── TUN, switch, TUN ──> 198.18.0.2:C   a member listens
    a member ── TUN, switch, TUN ── 198.18.0.1:P ──> relay ──> 127.0.0.1:P                                a proxy listens

What a proxy gets from the member 198.18.0.N comes from 127.0.1.N, so that it can tell members apart.

Commands come on fd 0, a SOCK_SEQPACKET socket whose end is the lifeline; fd 1 is one to the switch::

    {"do": "inward", "port": C, "to": "198.18.0.2"}     listen on the host's loopback, dial the hub's side      -> {}
    {"do": "outward", "port": P, "at": "198.18.0.1"}    listen on the hub's side, dial the host's loopback      -> {}
    {"do": "counts"}                                    -> {"connections": N, "bytes": N}

An end of file is passed on as one, a reset as a reset; a connection that cannot be made resets the one that wanted it. What one side does
not take is not read from the other: nothing is kept here but one buffer a direction.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

CONTROL_FD = 0
SWITCH_FD = 1
LOOPBACK = "127.0.0.1"
LOOPBACK_OF_MEMBERS = "127.0.1"
PR_SET_PDEATHSIG = 1  # linux/prctl.h

BUFFER_BYTES = 64 * 1024
COMMAND_BYTES_MAX = 65536
BACKLOG = 128
"""Connections waiting to be taken: more than a hunt opens at once."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close(2) sends a reset (socket(7))."""


class End:
    """One side of a carried connection."""

    def __init__(self, connection: socket.socket, connected: bool) -> None:
        self.socket = connection
        self.connected = connected
        self.peer: End = self
        self.pending = b""
        """What the other side sent and this one has not taken yet."""
        self.source_ended = False
        """The other side sends no more; told on once `pending` is empty."""
        self.told_end = False
        self.read_end = False
        self.mask = 0


class Relay:
    """The listeners and the connections."""

    def __init__(self, switch: socket.socket) -> None:
        self.switch = switch
        self.poll = select.epoll()
        self.listeners: dict[int, tuple[socket.socket, Callable[[], socket.socket], tuple[str, int]]] = {}
        self.ends: dict[int, End] = {}
        self.connections = 0
        self.bytes = 0

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "inward":
                self.listen(host_socket(), LOOPBACK, command["port"], self.hub_socket, (command["to"], command["port"]))
                return {}
            case "outward":
                self.listen(self.hub_socket(), command["at"], command["port"], host_socket, (LOOPBACK, command["port"]))
                return {}
            case "counts":
                return {"connections": self.connections, "bytes": self.bytes}
        raise ValueError(f"no such command: {command['do']}")

    def hub_socket(self) -> socket.socket:
        """A socket in the hub's namespace."""
        self.switch.send(json.dumps({"do": "socket"}).encode())
        answer, descriptors, _, _ = socket.recv_fds(self.switch, COMMAND_BYTES_MAX, 1)
        if not descriptors:
            raise OSError(errno.EPIPE, f"the switch gives no socket: {answer.decode()}")
        return socket.socket(fileno=descriptors[0])

    def listen(self, listener: socket.socket, host: str, port: int, make: Callable[[], socket.socket], to: tuple[str, int]) -> None:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run in TIME_WAIT, as Go's listener
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self.listeners[listener.fileno()] = (listener, make, to)
        self.poll.register(listener, select.EPOLLIN)

    def accept(self, fd: int) -> None:
        listener, make, to = self.listeners[fd]
        try:
            accepted, came_from = listener.accept()
        except OSError:
            return  # it was reset before it was taken
        try:
            dialled = make()
            if to[0] == LOOPBACK:
                dialled.bind((f"{LOOPBACK_OF_MEMBERS}.{came_from[0].rpartition('.')[2]}", 0))
        except OSError:
            reset(accepted)
            return
        for each in (accepted, dialled):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near, far = End(accepted, True), End(dialled, False)
        near.peer, far.peer = far, near
        try:
            dialled.connect(to)
            far.connected = True
        except BlockingIOError:
            pass
        except OSError:
            reset(accepted)
            dialled.close()
            return
        self.connections += 1
        for end in (near, far):
            self.ends[end.socket.fileno()] = end
            self.watch(end)

    def watch(self, end: End) -> None:
        """Ask for what it waits for: to read only what the other side has room for."""
        mask = 0
        if end.connected and not end.read_end and not end.peer.pending and end.peer.connected:
            mask |= select.EPOLLIN
        if end.pending or not end.connected:
            mask |= select.EPOLLOUT
        # With nothing to wait for it is taken off: a hang-up would be reported again and again.
        if mask and not end.mask:
            self.poll.register(end.socket, mask)
        elif mask and mask != end.mask:
            self.poll.modify(end.socket, mask)
        elif end.mask and not mask:
            self.poll.unregister(end.socket)
        end.mask = mask

    def serve(self, end: End, event: int) -> None:
        """Move bytes for one side of a connection; whatever fails there resets both."""
        failed = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if not end.connected or event & select.EPOLLERR else 0
        if failed or event & select.EPOLLERR:
            self.drop(end, in_order=False)
            return
        try:
            if event & select.EPOLLOUT:
                end.connected = True
                self.flush(end)
            if event & (select.EPOLLIN | select.EPOLLHUP) and end.mask & select.EPOLLIN:
                self.read(end)
        except BlockingIOError:
            pass
        except OSError:
            self.drop(end, in_order=False)
            return
        if end.read_end and end.told_end and end.peer.read_end and end.peer.told_end:
            self.drop(end, in_order=True)
            return
        self.watch(end)
        self.watch(end.peer)

    def read(self, end: End) -> None:
        data = end.socket.recv(BUFFER_BYTES)
        if not data:
            end.read_end = True
            end.peer.source_ended = True
        self.bytes += len(data)
        end.peer.pending += data
        self.flush(end.peer)

    def flush(self, end: End) -> None:
        """Send what is pending; then the end of file, if the other side has sent it."""
        if not end.connected:
            return
        if end.pending:
            try:
                end.pending = end.pending[end.socket.send(end.pending) :]
            except BlockingIOError:
                return
        if not end.pending and end.source_ended and not end.told_end:
            end.told_end = True
            end.socket.shutdown(socket.SHUT_WR)

    def drop(self, end: End, *, in_order: bool) -> None:
        for each in (end, end.peer):
            del self.ends[each.socket.fileno()]
            if each.mask:
                self.poll.unregister(each.socket)
            if in_order:
                each.socket.close()
            else:
                reset(each.socket)

    def run(self, control: socket.socket) -> None:
        """Until the lifeline ends."""
        self.poll.register(control, select.EPOLLIN)
        while True:
            events = self.poll.poll()
            # New connections last: they take the numbers of descriptors that earlier events of this turn are about.
            for fd, event in sorted(events, key=lambda each: each[0] in self.listeners):
                if fd in self.listeners:
                    self.accept(fd)
                elif fd in self.ends:  # not where an earlier event of this turn has dropped it
                    self.serve(self.ends[fd], event)
                elif fd == control.fileno():
                    text = control.recv(COMMAND_BYTES_MAX)
                    if not text:
                        return
                    try:
                        reply = self.obey(json.loads(text))
                    except (OSError, KeyError, ValueError) as error:
                        reply = {"error": str(error)}
                    control.send(json.dumps(reply).encode())


def host_socket() -> socket.socket:
    """A socket in this process's own namespace, the host's."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def reset(connection: socket.socket) -> None:
    """Close with a reset, so that the other end does not take it for an end of file."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def main() -> int:
    parent = os.getppid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the lifeline ends it, not a terminal
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    control, switch = (socket.socket(fileno=os.dup(fd)) for fd in (CONTROL_FD, SWITCH_FD))
    control.send(b"{}")
    Relay(switch).run(control)
    return 0


if __name__ == "__main__":
    sys.exit(main())
