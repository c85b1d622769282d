"""A process between members, and between clients and members, that forwards bytes and can be told not to.

::

    m1 ──dials──> [ advertised peer address of m2 ] proxy ──dials──> [ where m2 listens ]
                        request bytes     m1 ──> m2
                        response bytes    m2 ──> m1          a stream of raft messages *to* m1 is the response to m1's GET

A fault belongs to a directed link, "bytes that flow from A to B", not to a connection. Who dialled is in the first request's
`X-PeerURLs` (rafthttp's own requests carry the dialler's advertised addresses), or else found by looking which process holds the other
end of the connection. Connections that clients opened belong to the links ("@client", M) and (M, "@client"); their bytes are not looked at.

::

    source ──> Pipe: cut? ─> its message's rule? ─> delay ─> hold? ─> rate ──> sink
                      │               │  └ held or late, overtaken by the others, delivered in order
                      └ swallowed     └ dropped

Of several rules for one message the one that was armed first decides. A slow link is one line for all connections that use it: what came
first goes first.

While nothing is armed on a link its bytes are written to the other socket as they are read, below the event loop (`Lanes`). Everything is
bounded: what a pipe holds (`QUEUE_BYTES_MAX`, then its source is no longer read), connections, heads, messages.

Run as ``python -I -S proxy.py SETTINGS`` with `SETTINGS` a JSON object:

    framed   whether rafthttp's messages are taken apart (rules by kind of message, messages a second)
    seed     of what is drawn here: jitter, which messages of a share

Standard input carries one JSON object a line, and is the lifeline: its end ends the process. Each command has an "id" and is answered
on standard output by {"id": ..., "ok": true, ...} or {"id": ..., "ok": false, "why": ...}:

    {"do": "listen", "member", "role": "peer" | "client", "address": [host, port], "target": [host, port], "tls": {...} | null}
    {"do": "add", "key", "kind": KINDS_OF_FAULT, "links": [[A, B], ...], ...what the kind takes}     A and B may be "*": every member
    {"do": "remove", "key"}         -> what the fault did; undone when this is answered
    {"do": "reset", "key"}          -> the same, after every connection of the fault's links has been reset
    {"do": "counts"}                -> bytes and messages by link

When a fault first does something to somebody, {"event": "effect", "key": ..., ...what it did so far} is written without being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import os
import random
import select
import selectors
import signal
import socket
import ssl
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pekan.faults.network import rafthttp
else:
    # Run by itself, without packages; at the end of the path, so that nothing here can stand in for a module of the library.
    sys.path.append(str(Path(__file__).resolve().parent))
    import rafthttp

READ_BYTES = 64 * 1024
"""Read at once at most: the size of Linux's pipes and about what loopback delivers in one piece."""
QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""What a pipe holds before its source is no longer read; then the sender's own buffers fill, as with a slow network. Four full appends."""
CONNECTIONS_MAX = 4096
"""At once, in all. Members keep about six a pair and dial again every few seconds; hunts have some hundred clients."""
COMMAND_BYTES_MAX = 1024 * 1024
SLICES_A_SECOND = 50
"""A piece of bytes for a slow link is cut so that it takes a fiftieth of a second: a trickle, not bursts."""
SLICE_BYTES_MIN = 64
LINE_LOOK_S = 0.01
"""A connection whose turn on a slow link has not come looks again when the link is free, and not sooner than this."""
EARLY_S = 0.0005
"""Timers of the event loop are no finer."""
SHARED_HOST = "127.0.0.1"
"""Where connections on loopback come from; those of members in network namespaces (pekan.faults.packets.relay) have an address each."""
CLIENT = "@client"
UNKNOWN = "?"
PROBE = "/raft/probing"
"""rafthttp asks this of each peer every 4 s on connections of its own, not saying who asks; nothing comes of the answer but a metric."""
KINDS_OF_FAULT = ("cut", "hold", "delay", "rate", "reset", "messages", "corrupt")

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h. An answer is a netlink header (16 bytes), four bytes, the identity (48), four
# numbers, and the inode.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
ANY_COOKIE = ANY_STATE = 0xFFFFFFFF
INODE_AT = 16 + 4 + 48 + 16

BUFFER = memoryview(bytearray(READ_BYTES))
"""Where every socket's bytes are read to: one thread, and each read is taken out at once."""


CARRIED, LOOP_RUNS, LOOP_READS = 0, 1, 2


class Lanes(selectors.BaseSelector):
    """The event loop's selector, which carries bytes from socket to socket itself where nothing has to be decided about them.

    What the loop's own way through callbacks, protocol and transport costs is most of a short message's cost (14 us of CPU time a message
    without lanes). A lane exists while its pipe is `fast` and both ends are plain sockets. `Pipe.straight` answers

        CARRIED     that was all
        LOOP_RUNS   the transport has taken the rest, and may have left something for the loop to do
        LOOP_READS  an end, an error, or a sink that is behind: the loop reads this one itself
    """

    ROUNDS_MAX = 64
    """Without a look at what the loop has to do by itself."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._pipes: dict[int, Pipe] = {}

    def set(self, pipe: Pipe) -> None:
        """Note whether this pipe has a lane."""
        source, sink = pipe.source, pipe.sink
        if pipe.fast and source.plain and sink.plain:
            self._pipes[source.fd] = pipe
        elif self._pipes.get(source.fd) is pipe:
            del self._pipes[source.fd]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = None if timeout is None else time.monotonic() + timeout
        pipes, keys = self._pipes, self._keys
        for _ in range(self.ROUNDS_MAX):
            ready: list[tuple[selectors.SelectorKey, int]] = []
            back = False
            try:
                events = self._epoll.poll(timeout)
            except InterruptedError:
                return ready
            for fd, event in events:
                if event == select.EPOLLIN and (pipe := pipes.get(fd)) is not None:
                    outcome = pipe.straight()
                    if outcome == CARRIED:
                        continue
                    back = True
                    if outcome == LOOP_RUNS:
                        continue
                key = keys.get(fd)
                if key is not None:
                    # Errors and hang-ups are found by reading and by writing.
                    writes = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
                    reads = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
                    ready.append((key, (reads | writes) & key.events))
            if ready or back or not events:
                return ready
            if end is not None:
                timeout = end - time.monotonic()
                if timeout <= 0:
                    return ready
        return []

    # ---- what every selector has ----

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        self._epoll.register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())
        with contextlib.suppress(OSError):  # closed before it was taken out
            self._epoll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd]
        if events != key.events:
            self._epoll.modify(fd, _mask(events))
        key = self._keys[fd] = key._replace(events=events, data=data)
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()


def _mask(events: int) -> int:
    return (select.EPOLLIN if events & selectors.EVENT_READ else 0) | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


class Fault:
    """One armed fault, and what it has done so far."""

    def __init__(self, proxy: Proxy, key: int, command: dict[str, Any]) -> None:
        self.proxy = proxy
        self.key = key
        self.kind: str = command["kind"]
        self.links = [(str(a), str(b)) for a, b in command["links"]]
        self.active = True
        self.delay_s: float = command.get("delay_ms", 0) / 1000
        self.jitter_s: float = command.get("jitter_ms", 0) / 1000
        self.bytes_a_second: int = command.get("bytes_a_second", 0)
        self.messages_a_second: float = command.get("messages_a_second", 0)
        self.action: str = command.get("action", "")
        self.kinds = frozenset(command.get("kinds", ()))
        self.share: float = command.get("percent", 100) / 100
        self.did = {"bytes": 0, "messages": 0, "connections": 0}
        self.kinds_met: dict[str, int] = {}
        self.byte_mode = 0
        """Connections on which it could not work because their framing was not understood."""

    def matches(self, sender: str, receiver: str) -> bool:
        return any(_stands_for(a, sender) and _stands_for(b, receiver) for a, b in self.links)

    def concerns(self, kind: str) -> bool:
        """Whether a message of `kind` falls under it, by its share too."""
        return (kind in self.kinds or not self.kinds) and (self.share >= 1 or self.proxy.random.random() < self.share)

    def hit(self, size: int = 0, messages: int = 0, connections: int = 0, kind: str = "") -> None:
        """Note what it did; the first time it is told at once."""
        did = self.did
        first = not any(did.values())
        did["bytes"] += size
        did["messages"] += messages
        did["connections"] += connections
        if kind:
            self.kinds_met[kind] = self.kinds_met.get(kind, 0) + 1
        if first:
            report({"event": "effect", "key": self.key, **self.evidence()})

    def evidence(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: count for name, count in self.did.items() if count}
        if self.kinds_met:
            found["kinds"] = self.kinds_met
        if self.byte_mode:
            found["not_understood"] = self.byte_mode
        return found


def _stands_for(pattern: str, name: str) -> bool:
    return pattern == name or (pattern == "*" and name != CLIENT)


class Link:
    """What flows from one member (or the clients) to another: what is armed on it, and what passed."""

    def __init__(self, sender: str, receiver: str) -> None:
        self.sender = sender
        self.receiver = receiver
        self.pipes: set[Pipe] = set()
        self.bytes = 0
        self.messages = 0
        self.free_at = 0.0
        """When a slow link has put the last piece through."""
        self.arrivals = itertools.count()
        self.set(())

    def set(self, faults: tuple[Fault, ...]) -> None:
        """What is armed on it from now on."""
        self.quiet = not faults
        self.cut = next((fault for fault in faults if fault.kind == "cut"), None)
        self.hold = next((fault for fault in faults if fault.kind == "hold"), None)
        self.delays = tuple(fault for fault in faults if fault.kind == "delay")
        self.rates = tuple(fault for fault in faults if fault.kind == "rate")
        self.rules = tuple(fault for fault in faults if fault.kind in ("messages", "corrupt"))
        bytes_a_second = min((fault.bytes_a_second for fault in self.rates if fault.bytes_a_second), default=0)
        self.slice_bytes = max(SLICE_BYTES_MIN, bytes_a_second // SLICES_A_SECOND) if bytes_a_second else 0

    def is_next(self, piece: Piece, now: float) -> bool:
        """Whether no connection of this link has an earlier piece that could go now."""
        return all(pipe.queue[0].arrival >= piece.arrival for pipe in self.pipes if pipe.queue and pipe.can_go(pipe.queue[0], now))

    def cost_s(self, size: int, messages: int) -> float:
        """How long the link is busy with a piece."""
        slowest = 0.0
        for fault in self.rates:
            if fault.bytes_a_second:
                slowest = max(slowest, size / fault.bytes_a_second)
            if fault.messages_a_second and messages:
                slowest = max(slowest, messages / fault.messages_a_second)
        return slowest


class Piece:
    """Bytes on their way through a pipe: a read's, or one message's."""

    __slots__ = ("arrival", "data", "due", "frame", "held_by", "held_until", "messages", "ready_at")

    def __init__(self, data: bytes, messages: int = 0, frame: rafthttp.Frame | None = None) -> None:
        self.data = data
        self.messages = messages
        self.frame = frame
        self.arrival = 0
        """Its place among all pieces of the link."""
        self.ready_at = 0.0
        """When the link's delays let it go."""
        self.due: float | None = None
        """When a slow link has put it through; None while it has not come to that."""
        self.held_by: Fault | None = None
        self.held_until = 0.0
        """0: as long as that fault is armed."""

    def held(self, now: float) -> bool:
        """Whether a rule for messages holds it still."""
        return self.held_by is not None and self.held_by.active and not 0 < self.held_until <= now


class Pipe:
    """One direction of one connection."""

    def __init__(self, proxy: Proxy, link: Link, source: Side, sink: Side) -> None:
        self.proxy = proxy
        self.link = link
        self.source = source
        self.sink = sink
        self.queue: deque[Piece] = deque()
        self.queued = 0
        self.choked = False
        """The sink takes no more for now."""
        self.lossy = False
        """Bytes in the middle of it were swallowed: what follows makes no sense to the sink."""
        self.ended = False
        """The source has closed; what is queued still goes out."""
        self.abrupt = False
        self.sink_gone = False
        self.timer: asyncio.TimerHandle | None = None
        self.fast = False
        """Nothing is armed, nothing queued, both ends there: `Side` writes straight through."""
        link.pipes.add(self)
        source.outgoing = self
        sink.incoming = self

    # ---- from the source ----

    def take(self, data: bytes) -> None:
        """Bytes from the source, in order."""
        if self.link.sender == UNKNOWN:
            self.source.connection.look_again(data)
        self.link.bytes += len(data)
        if self.sink_gone:
            return
        if self.link.cut is not None:
            self.swallow(len(data))
            return
        self.enter(data)
        self.pump()

    def enter(self, data: bytes) -> None:
        """Put `data` in line."""
        size = self.link.slice_bytes
        if size and len(data) > size:
            for at in range(0, len(data), size):
                self.append(Piece(data[at : at + size]))
        else:
            self.append(Piece(data))

    def swallow(self, size: int, messages: int = 0) -> None:
        cut = self.link.cut
        assert cut is not None
        cut.hit(size, messages)
        self.lossy = True

    def append(self, piece: Piece) -> None:
        """Put it in line, as late as the link's delays make it, and stop reading where too much is in line."""
        link = self.link
        if link.delays:
            now = self.proxy.loop.time()
            for fault in link.delays:
                fault.hit(len(piece.data), piece.messages)
                now += fault.delay_s + fault.jitter_s * self.proxy.random.random()
            piece.ready_at = now
        if link.hold is not None:
            link.hold.hit(len(piece.data), piece.messages)
        piece.arrival = next(link.arrivals)
        self.queue.append(piece)
        self.queued += len(piece.data)
        if self.queued > QUEUE_BYTES_MAX:
            self.source.stop_reading()

    def end(self, abrupt: bool) -> None:
        """The source has closed."""
        self.ended = True
        self.abrupt = abrupt
        self.pump()

    # ---- to the sink ----

    def pump(self) -> None:
        """Write what may go now; set a timer for what may go later."""
        link = self.link
        queue = self.queue
        now = self.proxy.loop.time()
        while queue:
            piece = queue[0]
            if link.cut is not None:
                self.swallow(len(piece.data), piece.messages)
                self.drop_first()
                continue
            if link.hold is not None:
                break
            if piece.held_by is not None and piece.held(now + EARLY_S):
                if piece.held_until:
                    self.wake_at(piece.held_until)
                break
            if link.delays and piece.ready_at > now + EARLY_S:
                self.wake_at(piece.ready_at)
                break
            if link.rates and not self.served(piece, now):
                break
            if self.choked or not self.sink.ready():
                break
            self.drop_first()
            self.deliver(piece)
        if self.queued <= QUEUE_BYTES_MAX // 2 and not self.choked:
            self.source.go_on_reading()
        if self.ended and not self.waiting:
            if link.cut is not None:
                self.lossy = True  # a closed connection is news that does not travel either
            elif link.hold is None:
                self.sink.close(self.abrupt)
        self.refresh()

    @property
    def waiting(self) -> bool:
        """Whether anything is still to be delivered."""
        return bool(self.queue)

    def can_go(self, piece: Piece, now: float) -> bool:
        """Whether nothing but a slow link keeps this piece, the first in line, back."""
        return not (self.choked or not self.sink.open or piece.ready_at > now + EARLY_S or piece.held(now + EARLY_S))

    def served(self, piece: Piece, now: float) -> bool:
        """Whether the slow link has put this piece through."""
        link = self.link
        if piece.due is None:
            if not link.is_next(piece, now):
                self.wake_at(max(link.free_at, now + LINE_LOOK_S))
                return False
            link.free_at = piece.due = max(now, link.free_at) + link.cost_s(len(piece.data), piece.messages)
            if piece.due > now:
                for fault in link.rates:
                    fault.hit(len(piece.data), piece.messages)
        if piece.due > now + EARLY_S:
            self.wake_at(piece.due)
            return False
        return True

    def drop_first(self) -> None:
        self.queued -= len(self.queue.popleft().data)

    def deliver(self, piece: Piece) -> None:
        self.sink.write(piece.data)

    def wake_at(self, when: float) -> None:
        if self.timer is not None:
            if self.timer.when() <= when:
                return
            self.timer.cancel()
        self.timer = self.proxy.loop.call_at(when, self.woken)

    def woken(self) -> None:
        self.timer = None
        self.pump()

    def refresh(self) -> None:
        """Whether bytes may go straight through from now on."""
        link = self.link
        self.fast = link.quiet and not self.queue and not self.ended and not self.sink_gone and self.sink.open and link.sender != UNKNOWN
        self.proxy.lanes.set(self)

    def straight(self) -> int:
        """Carry what the source has to the sink, sockets only. See `Lanes` for what the answer means."""
        sink = self.sink.transport
        assert sink is not None
        if sink.get_write_buffer_size() or sink.is_closing():
            return LOOP_READS
        try:
            count = os.readv(self.source.fd, (BUFFER,))
        except BlockingIOError:
            return CARRIED
        except OSError:
            # The error is told only once; the loop will find an end instead.
            self.source.broken = True
            return LOOP_READS
        if not count:
            return LOOP_READS
        self.link.bytes += count
        try:
            written = os.write(self.sink.fd, BUFFER[:count])
        except OSError:
            written = 0  # full, or gone: the transport finds out which
        if written == count:
            return CARRIED
        sink.write(bytes(BUFFER[written:count]))
        return LOOP_RUNS

    def move(self, link: Link) -> None:
        """It turned out to belong to `link`."""
        self.link.pipes.discard(self)
        self.link = link
        link.pipes.add(self)

    def changed(self) -> None:
        """What is armed on the link has changed."""
        if self.lossy and self.link.cut is None:
            self.source.connection.reset()
        else:
            self.pump()

    def close(self) -> None:
        """Its sink is gone: nothing gets there any more."""
        self.sink_gone = True
        self.fast = False
        self.proxy.lanes.set(self)
        self.queue.clear()
        self.queued = 0
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class FramedPipe(Pipe, ABC):
    """A direction in which raft messages travel: rules by kind of message see each of them."""

    def __init__(self, proxy: Proxy, link: Link, source: Side, sink: Side) -> None:
        super().__init__(proxy, link, source, sink)
        self.aside: list[tuple[float, int, Fault, Piece]] = []
        """Messages that others overtake: when each is due (0: held until its fault ends), in order of arrival."""
        self.aside_bytes = 0
        self.arrivals = itertools.count()
        self.opaque = False
        """From here on these are just bytes."""

    def refresh(self) -> None:
        if self.opaque:
            super().refresh()

    @property
    def waiting(self) -> bool:
        return bool(self.queue or self.aside)

    def enter(self, data: bytes) -> None:
        if not self.opaque:
            try:
                self.parse(data)
            except rafthttp.FramingError:
                # What was parsed is in line; the rest of the connection has no messages for us.
                self.not_understood()
        else:
            super().enter(data)

    @abstractmethod
    def parse(self, data: bytes) -> None:
        """Take the messages of `data`, and of what came before it, apart. Raises `rafthttp.FramingError`."""

    @abstractmethod
    def not_understood(self) -> None:
        """From here on bytes are only handed on."""

    def message(self, piece: Piece, kind: str, body: int) -> None:
        """One raft message has arrived: what the rules make of it. `body` is where its own bytes begin in the piece."""
        self.link.messages += 1
        for fault in self.link.rules:
            if not fault.concerns(kind):
                continue
            if fault.kind == "corrupt":
                self.corrupt(fault, piece, kind, body)
                continue
            fault.hit(len(piece.data), 1, kind=kind)
            if fault.action == "drop":
                self.drop(piece)
            elif fault.action == "hold":
                self.put_aside(0.0, fault, piece)
            else:
                late = fault.delay_s + fault.jitter_s * self.proxy.random.random()
                self.put_aside(self.proxy.loop.time() + late, fault, piece)
            return
        self.append(piece)

    def corrupt(self, fault: Fault, piece: Piece, kind: str, body: int) -> None:
        """Alter one byte of the message, its length and its kind left as they are."""
        first = body + 2
        if len(piece.data) > first:
            at = self.proxy.random.randrange(first, len(piece.data))
            altered = bytearray(piece.data)
            altered[at] ^= self.proxy.random.randint(1, 255)
            piece.data = bytes(altered)
            fault.hit(1, 1, kind=kind)

    def drop(self, piece: Piece) -> None:
        """A message is left out."""

    def put_aside(self, when: float, fault: Fault, piece: Piece) -> None:
        heapq.heappush(self.aside, (when, next(self.arrivals), fault, piece))
        self.aside_bytes += len(piece.data)
        if self.aside_bytes > QUEUE_BYTES_MAX:
            self.source.stop_reading()

    def pump(self) -> None:
        if self.aside:
            self.bring_back()
        super().pump()
        if self.aside and self.aside_bytes > QUEUE_BYTES_MAX:
            self.source.stop_reading()

    def bring_back(self) -> None:
        """Put in line what was put aside and is due now, in order of arrival."""
        now = self.proxy.loop.time() + EARLY_S
        due = [each for each in self.aside if not each[2].active or 0 < each[0] <= now]
        if due:
            self.aside = [each for each in self.aside if each[2].active and not 0 < each[0] <= now]
            heapq.heapify(self.aside)
            for _, _, _, piece in sorted(due, key=lambda each: each[1]):
                self.aside_bytes -= len(piece.data)
                self.append(piece)
        later = min((each[0] for each in self.aside if each[0]), default=0.0)
        if later:
            self.wake_at(later)

    def close(self) -> None:
        super().close()
        self.aside.clear()
        self.aside_bytes = 0


class StreamPipe(FramedPipe):
    """The response to a GET of a stream: a head, and then one message after the other for as long as the connection lives."""

    def __init__(self, proxy: Proxy, link: Link, source: Side, sink: Side) -> None:
        super().__init__(proxy, link, source, sink)
        self.head = b""
        self.chunks = rafthttp.Chunks()
        self.frames: rafthttp.MessageStream | rafthttp.AppendStream | None = None
        self.seen: rafthttp.State | None = (0, 0)
        """What the reader of a msgapp stream has seen."""
        self.whole = False
        """Whether a whole frame ended with the last byte parsed: only there the framing can be given up without loss."""

    def begin(self, frames: rafthttp.MessageStream | rafthttp.AppendStream | None, writer: int, reader: int) -> None:
        """The request has been seen: which messages the response will carry, None where it is no stream, and between whose ids."""
        self.frames = frames
        self.writer = writer
        self.reader = reader
        self.opaque = frames is None

    def parse(self, data: bytes) -> None:
        assert self.frames is not None
        if not self.head.endswith(b"\r\n\r\n"):
            joined = self.head + data
            end = joined.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(joined) > rafthttp.HEAD_BYTES_MAX:
                    raise rafthttp.FramingError("a response's head without end")
                self.head = joined
                return
            self.head = joined[:end]
            self.append(Piece(self.head))
            head = rafthttp.head_of(self.head)
            data = joined[end:]
            if " 200 " not in f"{head.line} " or not head.chunked:
                self.opaque = True  # refused; the body says why
                if data:
                    super(FramedPipe, self).enter(data)
                return
        payload, after = self.chunks.feed(data)
        for frame in self.frames.feed(payload):
            piece = Piece(frame.raw, 1 if frame.kind else 0, frame)
            if frame.kind:
                self.message(piece, frame.kind, frame.body)
            else:
                self.append(piece)
        if self.chunks.ended:
            self.opaque = True
            self.append(Piece(b"0\r\n\r\n" + after))

    def not_understood(self) -> None:
        """Messages are lost from here on, so the connection is of no use to its reader: it dials again, and every rule says so."""
        for fault in self.link.rules:
            fault.byte_mode += 1
        self.proxy.not_understood += 1
        self.opaque = True
        self.lossy = True
        self.proxy.loop.call_soon(self.source.connection.reset)

    def deliver(self, piece: Piece) -> None:
        frame = piece.frame
        if frame is None:
            self.sink.write(piece.data)
            return
        data = piece.data
        if frame.after is not None:
            if frame.before is not None and frame.before != self.seen:
                # Something before it was left out or is late: it has to name its place itself.
                data = rafthttp.Frame(frame.kind, data, frame.body, frame.before, frame.after).whole(self.writer, self.reader)
            if frame.kind:
                self.seen = frame.after
        self.sink.write(rafthttp.chunk(data))


class RequestPipe(FramedPipe):
    """Requests of one member to another: a POST to /raft is a message, one to /raft/snapshot is a MsgSnap and a database."""

    def __init__(self, proxy: Proxy, link: Link, source: Side, sink: Side) -> None:
        super().__init__(proxy, link, source, sink)
        self.data = b""
        self.left = 0
        """Bytes of a body that passes as it is."""
        self.chunks: rafthttp.Chunks | None = None

    def parse(self, data: bytes) -> None:
        if self.left:
            part = data[: self.left]
            self.left -= len(part)
            self.append(Piece(part))
            data = data[len(part) :]
        if self.chunks is not None and data:
            _, after = self.chunks.feed(data)
            if not self.chunks.ended:
                self.append(Piece(data))
                return
            self.append(Piece(data[: len(data) - len(after)]))
            self.chunks = None
            data = after
        self.data += data
        while self.data and not self.left and self.chunks is None and self.request():
            pass

    def request(self) -> bool:
        """Take one request, or as much of it as is needed, from `data`; False where more has to come."""
        data = self.data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > rafthttp.HEAD_BYTES_MAX:
                raise rafthttp.FramingError("a request's head without end")
            return False
        head = rafthttp.head_of(data[:end])
        length = int(head.fields.get("content-length", "0") or 0)
        if head.path == "/raft" and 0 < length <= rafthttp.FRAME_BYTES_MAX:
            if len(data) < end + length:
                return False
            self.data = data[end + length :]
            self.message(Piece(data[: end + length], 1), rafthttp.kind_of(data, end, end + length), end)
            return True
        self.data = b""
        first = Piece(data[:end])
        if head.path == "/raft/snapshot":
            first.messages = 1
            self.message(first, "MsgSnap", end)
        else:
            self.append(first)
        if head.chunked:
            self.chunks = rafthttp.Chunks()
        else:
            self.left = length
        if data[end:]:
            self.parse(data[end:])
        return False

    def message(self, piece: Piece, kind: str, body: int) -> None:
        super().message(piece, kind or "MsgHeartbeat", body)

    def put_aside(self, when: float, fault: Fault, piece: Piece) -> None:
        """Nothing overtakes it here: requests of one connection go one after the other, each after the answer to the last."""
        piece.held_by, piece.held_until = fault, when
        self.append(piece)

    def drop(self, piece: Piece) -> None:
        """Nothing would ever answer it: to its sender the connection is lost, and the message with it."""
        self.opaque = True
        self.lossy = True
        self.proxy.loop.call_soon(self.source.connection.reset)

    def not_understood(self) -> None:
        for fault in self.link.rules:
            fault.byte_mode += 1
        self.proxy.not_understood += 1
        self.opaque = True
        if self.data:
            data, self.data = self.data, b""
            super(FramedPipe, self).enter(data)


class Side(asyncio.BufferedProtocol):
    """One end of a connection: `outgoing` takes what is read from it, `incoming` writes to it."""

    outgoing: Pipe
    incoming: Pipe

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.open = False
        self.closed = False
        self.fd = -1
        self.plain = False
        """Whether what the socket carries are the bytes themselves, not TLS."""
        self.broken = False
        """Its socket has told of an error already."""
        self.piped = False
        """Whether its pipes are known."""

    # ---- what the event loop calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.open = True
        self.fd = self.transport.get_extra_info("socket").fileno()
        self.plain = self.transport.get_extra_info("sslcontext") is None
        if self.closed:
            self.transport.abort()
            return
        self.connection.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, count: int) -> None:
        if self.piped:
            pipe = self.outgoing
            if pipe.fast:
                pipe.link.bytes += count
                pipe.sink.transport.write(bytes(BUFFER[:count]))  # type: ignore[union-attr]
            else:
                pipe.take(bytes(BUFFER[:count]))
        else:
            self.connection.first_bytes(bytes(BUFFER[:count]))

    def eof_received(self) -> bool:
        return False  # closes the transport: neither etcd nor gRPC uses half a connection

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self.closed = True
        if self.piped:
            self.incoming.close()
            self.outgoing.end(abrupt=error is not None or self.broken)
        self.connection.lost()

    def pause_writing(self) -> None:
        self.incoming.choked = True
        self.incoming.source.stop_reading()

    def resume_writing(self) -> None:
        self.incoming.choked = False
        self.incoming.pump()

    # ---- what pipes call ----

    def ready(self) -> bool:
        """Whether it can be written to; if it is not connected yet, it will be."""
        if not self.open and not self.closed:
            self.connection.connect()
        return self.open

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def stop_reading(self) -> None:
        if self.transport is not None and self.open:
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        if self.transport is not None and self.open:
            self.transport.resume_reading()

    def close(self, abrupt: bool) -> None:
        """Nothing more will be written to it: close it, with a reset where the other end was."""
        if abrupt:
            self.abort()
        elif self.transport is not None:
            self.transport.close()
        else:
            self.closed = True
            self.connection.lost()

    def abort(self) -> None:
        """Close it at once; the peer sees a reset."""
        if self.transport is None:
            self.closed = True
            self.connection.lost()
            return
        plain: socket.socket | None = self.transport.get_extra_info("socket")
        if plain is not None and self.open:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Connection:
    """A connection that somebody opened to the proxy, and the one the proxy opens for it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.proxy = door.proxy
        self.near = Side(self)
        self.far = Side(self)
        self.head = b""
        self.connecting = False
        self.reset_done = False

    def opened(self, side: Side) -> None:
        if side is self.near:
            if len(self.proxy.connections) >= CONNECTIONS_MAX:
                side.abort()
                return
            self.proxy.connections.add(self)
            if self.door.role == "client":
                self.join(Pipe, Pipe, CLIENT)
            return
        self.near.outgoing.pump()
        self.far.outgoing.refresh()

    def join(self, forth: type[Pipe], back: type[Pipe], dialler: str) -> None:
        """Make both directions; requests come from `dialler`."""
        proxy, member = self.proxy, self.door.member
        forth(proxy, proxy.link(dialler, member), self.near, self.far)
        back(proxy, proxy.link(member, dialler), self.far, self.near)
        self.near.piped = self.far.piped = True

    def first_bytes(self, data: bytes) -> None:
        """Of a peer's connection: its first request says who dialled."""
        self.head += data
        end = self.head.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self.head) > rafthttp.HEAD_BYTES_MAX:
                self.reset()
            return
        head = rafthttp.head_of(self.head[:end])
        proxy = self.proxy
        dialler = proxy.dialler_of(self.near, head)
        if proxy.framed:
            self.join(RequestPipe, StreamPipe, dialler)
            cast(StreamPipe, self.far.outgoing).begin(*_stream(head))
        else:
            self.join(Pipe, Pipe, dialler)
        first, self.head = self.head, b""
        self.near.outgoing.take(first)

    def look_again(self, data: bytes) -> None:
        """Further bytes of a connection whose dialler has not said who it is: a probe's, which etcd uses for messages later on."""
        at = data.lower().find(b"x-peerurls:")
        if at >= 0 and (dialler := self.proxy.member_at(data[at + 11 :].partition(b"\r\n")[0].decode("latin-1").strip())):
            self.near.outgoing.move(self.proxy.link(dialler, self.door.member))
            self.far.outgoing.move(self.proxy.link(self.door.member, dialler))

    def connect(self) -> None:
        if not self.connecting:
            self.connecting = True
            self.proxy.start(self.dial())

    async def dial(self) -> None:
        host, port = self.door.target
        tls = self.door.dial_tls
        try:
            await self.proxy.loop.create_connection(lambda: self.far, host, port, ssl=tls, server_hostname=host if tls else None)
        except OSError:
            # The member is down, or took no more: what dialled it finds its connection reset.
            self.far.closed = True
            self.reset()

    def reset(self) -> None:
        """End both connections; each peer sees a reset."""
        if not self.reset_done:
            self.reset_done = True
            self.near.abort()
            self.far.abort()

    def lost(self) -> None:
        if self.near.closed and (self.far.closed or self.far.transport is None):
            if self.far.transport is None:
                self.far.closed = True
            self.proxy.connections.discard(self)
            for side in (self.near, self.far):
                if side.piped:
                    side.outgoing.close()
                    side.outgoing.link.pipes.discard(side.outgoing)


def _stream(head: rafthttp.Head) -> tuple[rafthttp.MessageStream | rafthttp.AppendStream | None, int, int]:
    """Which messages the response to this request carries, and the ids of their writer and reader."""
    if not head.line.startswith("GET /raft/stream/"):
        return None, 0, 0
    try:
        writer, reader = (int(head.fields.get(name, "0"), 16) for name in ("x-raft-to", "x-server-from"))
    except ValueError:
        return None, 0, 0
    if head.path.startswith("/raft/stream/msgapp/"):
        return rafthttp.AppendStream(), writer, reader
    if head.path.startswith("/raft/stream/message/"):
        return rafthttp.MessageStream(), writer, reader
    return None, 0, 0


class Door:
    """Where the proxy listens for one member, and where that member listens."""

    def __init__(self, proxy: Proxy, command: dict[str, Any]) -> None:
        self.proxy = proxy
        self.member: str = command["member"]
        self.role: str = command["role"]
        self.address: tuple[str, int] = tuple(command["address"])
        self.target: tuple[str, int] = tuple(command["target"])
        self.accept_tls: ssl.SSLContext | None = None
        self.dial_tls: ssl.SSLContext | None = None
        if command.get("tls"):
            self.accept_tls, self.dial_tls = _contexts(command["tls"])

    async def open(self) -> None:
        await self.proxy.loop.create_server(lambda: Connection(self).near, *self.address, ssl=self.accept_tls, backlog=512)


def _contexts(files: dict[str, str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """How members are received and dialled over TLS: each side shows the run's peer certificate and demands one of the run's CA."""
    accept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    dial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (accept, dial):
        context.load_cert_chain(files["certificate"], files["key"])
        context.load_verify_locations(files["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
    return accept, dial


class Proxy:
    """The process: its doors, its connections, what is armed."""

    def __init__(self, lanes: Lanes, loop: asyncio.AbstractEventLoop, settings: dict[str, Any]) -> None:
        self.lanes = lanes
        self.loop = loop
        self.framed: bool = settings["framed"]
        self.random = random.Random(settings["seed"])
        self.links: dict[tuple[str, str], Link] = {}
        self.faults: dict[int, Fault] = {}
        self.connections: set[Connection] = set()
        self.members: dict[int, str] = {}
        """Members by advertised peer port: no two have one, and a member in a network namespace knows the proxy by another address."""
        self.hosts: dict[str, str] = {}
        """Members by the loopback address that their connections come from, where each has one of its own."""
        self.processes: dict[int, str] = {}
        """Members by process id, as found when somebody had to be looked for."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.not_understood = 0
        self.commands = b""

    def start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ---- who is who ----

    def member_at(self, urls: str) -> str:
        """The member that advertises `urls` (comma-separated); "" where it is none of ours."""
        port = urls.partition(",")[0].rstrip("/").rpartition(":")[2]
        return self.members.get(int(port), "") if port.isdecimal() else ""

    def dialler_of(self, side: Side, head: rafthttp.Head) -> str:
        """Who opened a connection whose first request has this head."""
        assert side.transport is not None
        host = side.transport.get_extra_info("peername")[0]
        name = self.member_at(head.fields.get("x-peerurls", ""))
        if name and host != SHARED_HOST:
            self.hosts[host] = name
        return name or self.hosts.get(host) or (head.path != PROBE and self.holder_of(side)) or UNKNOWN

    def holder_of(self, side: Side) -> str:
        """The member whose process holds the other end of this connection, for requests that do not say (leases, versions, probes)."""
        assert side.transport is not None
        try:
            inode = _inode(side.transport.get_extra_info("peername"), side.transport.get_extra_info("sockname"))
            for again in (False, True):
                for process in self._processes() if again else list(self.processes):
                    if _holds(process, inode):
                        return self.processes[process]
        except OSError:
            pass
        return ""

    def _processes(self) -> list[int]:
        """Look for the members' processes by what they were told to advertise."""
        self.processes.clear()
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    arguments = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                for argument in arguments:
                    if argument.startswith(b"--initial-advertise-peer-urls=") and (
                        name := self.member_at(argument.partition(b"=")[2].decode())
                    ):
                        self.processes[int(entry)] = name
        return list(self.processes)

    def link(self, sender: str, receiver: str) -> Link:
        link = self.links.get((sender, receiver))
        if link is None:
            link = self.links[sender, receiver] = Link(sender, receiver)
            self.arm(link)
        return link

    # ---- what is armed ----

    def arm(self, link: Link) -> None:
        link.set(tuple(fault for fault in self.faults.values() if fault.kind != "reset" and fault.matches(link.sender, link.receiver)))

    def changed(self, fault: Fault) -> None:
        """Carry a change of what is armed to the links that it concerns."""
        for link in self.links.values():
            if fault.matches(link.sender, link.receiver):
                self.arm(link)
                for pipe in tuple(link.pipes):
                    pipe.changed()

    def add(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["kind"] not in KINDS_OF_FAULT:
            raise ValueError(f"no fault is called {command['kind']!r}")
        fault = Fault(self, command["key"], command)
        if not self.framed and (fault.kind in ("messages", "corrupt") or fault.messages_a_second):
            raise ValueError("messages are not taken apart in this run")
        self.faults[fault.key] = fault
        self.changed(fault)
        return {}

    def remove(self, command: dict[str, Any]) -> dict[str, Any]:
        fault = self.faults.pop(command["key"], None)
        if fault is None:
            return {}
        fault.active = False
        self.changed(fault)
        return fault.evidence()

    def reset(self, command: dict[str, Any]) -> dict[str, Any]:
        fault = self.faults[command["key"]]
        hit = {pipe.source.connection for link in self.links.values() if fault.matches(link.sender, link.receiver) for pipe in link.pipes}
        for connection in hit:
            connection.reset()
        if hit:
            fault.hit(connections=len(hit))
        return fault.evidence()

    def counts(self, command: dict[str, Any]) -> dict[str, Any]:
        links = [{"from": link.sender, "to": link.receiver, "bytes": link.bytes, "messages": link.messages} for link in self.links.values()]
        return {"links": links, "connections": len(self.connections), "not_understood": self.not_understood}

    # ---- Pekan ----

    def readable(self) -> None:
        """Commands, or the end of the lifeline."""
        data = os.read(0, READ_BYTES)
        if not data:
            self.loop.stop()
            return
        self.commands += data
        *lines, self.commands = self.commands.split(b"\n")
        if len(self.commands) > COMMAND_BYTES_MAX:
            self.loop.stop()
        for line in lines:
            self.start(self.obey(json.loads(line)))

    async def obey(self, command: dict[str, Any]) -> None:
        answers = {"add": self.add, "remove": self.remove, "reset": self.reset, "counts": self.counts}
        try:
            if command["do"] == "listen":
                door = Door(self, command)
                if door.role == "peer":
                    self.members[door.address[1]] = door.member
                await door.open()
                answer: dict[str, Any] = {}
            else:
                answer = answers[command["do"]](command)
        except (OSError, ValueError, KeyError) as error:
            report({"id": command.get("id"), "ok": False, "why": f"{type(error).__name__}: {error}"})
            return
        report({"id": command["id"], "ok": True, **answer})


def _inode(local: tuple[str, int], remote: tuple[str, int]) -> int:
    """The inode of the TCP socket of this network namespace that connects `local` to `remote`, by sock_diag(7). Raises `OSError`."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    addresses = b"".join(socket.inet_pton(family, address[0]).ljust(16, b"\0") for address in (local, remote))
    identity = struct.pack("!HH", local[1], remote[1]) + addresses + struct.pack("=III", 0, ANY_COOKIE, ANY_COOKIE)
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, ANY_STATE) + identity
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
        link.settimeout(1.0)
        link.sendto(header + request, (0, 0))
        answer = link.recv(READ_BYTES)
    if struct.unpack_from("=H", answer, 4)[0] != SOCK_DIAG_BY_FAMILY:
        raise ConnectionError("no such socket any more")
    return int(struct.unpack_from("=I", answer, INODE_AT)[0])


def _holds(process: int, inode: int) -> bool:
    directory = f"/proc/{process}/fd"
    wanted = f"socket:[{inode}]"
    try:
        return any(os.readlink(f"{directory}/{fd}") == wanted for fd in os.listdir(directory))
    except OSError:
        return False


def report(message: dict[str, Any]) -> None:
    """One line to Pekan. A Pekan that is gone reads nothing; the lifeline tells of that."""
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return


def main(arguments: list[str]) -> int:
    """`arguments` are the settings as JSON."""
    # Ctrl-C is Pekan's to answer: members shall not lose their links before they are ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lanes = Lanes()
    loop = asyncio.SelectorEventLoop(lanes)
    proxy = Proxy(lanes, loop, json.loads(arguments[0]))
    loop.add_reader(0, proxy.readable)
    report({"event": "started", "pid": os.getpid()})
    loop.run_forever()
    return 0


if __name__ == "__main__":
    # Sockets close with the process; the loop has nothing to finish for anybody.
    code = main(sys.argv[1:])
    os._exit(code)
