"""What members say to each other, taken apart: raft messages on rafthttp's streams, one by one and as the bytes they came in.

::

    GET /raft/stream/message/ID ──> 200, chunked body:  [length 8][raftpb.Message] [length 8][raftpb.Message] ...
    GET /raft/stream/msgapp/ID  ──> 200, chunked body:  [0]                                              link heartbeat
                                                        [1][count 8]([length 8][raftpb.Entry])*[commit 8]   what follows
                                                        [2][length 8][raftpb.Message]                    a whole MsgApp
    POST /raft                      one raftpb.Message as the body
    POST /raft/snapshot             [length 8][raftpb.Message] and then the database

Integers are big-endian. Source: etcd's server/etcdserver/api/rafthttp (message_codec.go, msgappv2_codec.go, stream.go, pipeline.go,
snapshot_sender.go) and raft.proto; alike from 3.4.0 to 3.7.3.

A frame of kind 1 names neither term nor index: it means "after the one before". To leave one out would shift all that follow and so
alter them; therefore each carries what its reader has to have seen before it, and can be written out as a whole MsgApp (`Frame.whole`).

Part of the proxy's process: standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

KINDS = (
    "MsgHup",
    "MsgBeat",
    "MsgProp",
    "MsgApp",
    "MsgAppResp",
    "MsgVote",
    "MsgVoteResp",
    "MsgSnap",
    "MsgHeartbeat",
    "MsgHeartbeatResp",
    "MsgUnreachable",
    "MsgSnapStatus",
    "MsgCheckQuorum",
    "MsgTransferLeader",
    "MsgTimeoutNow",
    "MsgReadIndex",
    "MsgReadIndexResp",
    "MsgPreVote",
    "MsgPreVoteResp",
)
"""Kinds of raft message by number (raft.proto, MessageType)."""

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""What is taken for a message at most. raft puts about 1 MiB of entries into one, and an entry is a request of 1.5 MiB at most by default
(`--max-request-bytes`); a longer one is more likely lost framing."""
CHUNK_LINE_BYTES_MAX = 64
"""A chunk's length in hexadecimal; Go writes no extensions."""
HEAD_BYTES_MAX = 64 * 1024
"""Of the head of a request or response; etcd's are below 1 KiB."""

State = tuple[int, int]
"""Term and index after which a frame of kind 1 belongs."""


class FramingError(ValueError):
    """These bytes are not what rafthttp writes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a stream.

    kind     its name; "" for a heartbeat of the link itself, which raft never sees
    raw      its bytes in the stream
    body     where in `raw` the message's own bytes begin
    before   kind 1 only: what the reader has to have seen just before
    after    msgapp only: what the reader has seen then
    """

    kind: str
    raw: bytes
    body: int
    before: State | None = None
    after: State | None = None

    def whole(self, writer: int, reader: int) -> bytes:
        """A frame of kind 1 as one of kind 2, from member `writer` to member `reader` (ids)."""
        assert self.before is not None
        raw = self.raw
        term, index = self.before
        parts = [
            b"\x08\x03",
            _number(2, reader),
            _number(3, writer),
            _number(4, term),
            _number(5, term),
            _number(6, index),
        ]
        at = 9
        for _ in range(int.from_bytes(raw[1:9], "big")):
            length = int.from_bytes(raw[at : at + 8], "big")
            parts.append(b"\x3a" + varint(length) + raw[at + 8 : at + 8 + length])
            at += 8 + length
        parts.append(_number(8, int.from_bytes(raw[at : at + 8], "big")))
        message = b"".join(parts)
        return b"\x02" + len(message).to_bytes(8, "big") + message


def varint(value: int) -> bytes:
    """`value` as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise FramingError("a cut or overlong varint")


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, value, 0) of each number and (field number, begin, end) of each length-delimited field in data[at:end]."""
    while at < end:
        tag, at = _read_varint(data, at, end)
        if tag & 7 == 0:
            value, at = _read_varint(data, at, end)
            yield tag >> 3, value, 0
        elif tag & 7 == 2:
            length, at = _read_varint(data, at, end)
            if at + length > end:
                raise FramingError("a field longer than its message")
            yield tag >> 3, at, at + length
            at += length
        else:
            raise FramingError(f"wire type {tag & 7} in a raft message")


def kind_of(data: bytes, at: int, end: int) -> str:
    """The kind of the raft message data[at:end]; "" for a link heartbeat, which names neither sender nor receiver (stream.go)."""
    number = sender = receiver = 0
    for field, value, _ in fields(data, at, end):
        if field == 1:
            number = value
        elif field == 2:
            receiver = value
        elif field == 3:
            sender = value
        elif field > 3:
            break  # fields come in order: both of Go's protobuf libraries write them so
    if not sender and not receiver:
        return ""
    return KINDS[number] if number < len(KINDS) else f"Msg{number}"


class _Stream:
    """Bytes that come in any pieces."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def between(self) -> bool:
        """Whether the last byte seen was the last of a message."""
        return not self._rest


class MessageStream(_Stream):
    """Frames of a `message` stream."""

    def feed(self, payload: bytes) -> list[Frame]:
        """The frames that `payload` completes. Raises `FramingError`."""
        data = self._rest + payload if self._rest else payload
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= 8:
            stop = at + 8 + _bounded(int.from_bytes(data[at : at + 8], "big"))
            if stop > end:
                break
            frames.append(Frame(kind_of(data, at + 8, stop), data[at:stop], 8))
            at = stop
        self._rest = data[at:]
        return frames


class AppendStream(_Stream):
    """Frames of a `msgapp` stream, with what their reader has seen before and after each."""

    def __init__(self) -> None:
        super().__init__()
        self._state: State = (0, 0)

    def feed(self, payload: bytes) -> list[Frame]:
        """The frames that `payload` completes. Raises `FramingError`."""
        data = self._rest + payload if self._rest else payload
        frames: list[Frame] = []
        at, end = 0, len(data)
        while at < end:
            kind = data[at]
            if kind == 0:
                frames.append(Frame("", data[at : at + 1], 1, None, self._state))
                at += 1
                continue
            if kind not in (1, 2):
                raise FramingError(f"byte {kind} where a msgapp frame begins")
            if end - at < 9:
                break
            count = _bounded(int.from_bytes(data[at + 1 : at + 9], "big"))
            stop = at + 9 + count if kind == 2 else _entries_end(data, at + 9, end, count)
            if stop is None or stop > end:
                break
            before = self._state
            if kind == 1:
                self._state = (before[0], before[1] + count)
                frames.append(Frame("MsgApp", data[at:stop], 9, before, self._state))
            else:
                self._state = _seen(data, at + 9, stop)
                frames.append(Frame(kind_of(data, at + 9, stop), data[at:stop], 9, None, self._state))
            at = stop
        self._rest = data[at:]
        if len(self._rest) > FRAME_BYTES_MAX:
            raise FramingError("a message without end")
        return frames


def _bounded(length: int) -> int:
    if length > FRAME_BYTES_MAX:
        raise FramingError(f"a message of {length} bytes")
    return length


def _entries_end(data: bytes, at: int, end: int, count: int) -> int | None:
    """Where a frame of kind 1 with `count` entries ends; None where that is not known yet."""
    for _ in range(count):
        if end - at < 8:
            return None
        at += 8 + _bounded(int.from_bytes(data[at : at + 8], "big"))
        if at > end:
            return None
    return at + 8


def _seen(data: bytes, at: int, end: int) -> State:
    """Term and last index that the reader of the whole MsgApp data[at:end] knows after it (msgappv2_codec.go, decode)."""
    term = index = 0
    last: tuple[int, int] | None = None
    for field, value, stop in fields(data, at, end):
        if field == 4:
            term = value
        elif field == 6:
            index = value
        elif field == 7:
            last = value, stop
    if last is not None:
        index = next((value for field, value, _ in fields(data, *last) if field == 3), 0)
    return term, index


class Chunks:
    """The payload of a chunked HTTP body (RFC 9112, section 7.1), however it is cut."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        """Bytes of payload that this chunk has still, and the two that end it."""
        self._last = False
        self.ended = False

    @property
    def between(self) -> bool:
        """Whether the last byte seen was the last of a chunk."""
        return not self._left and not self._line

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(payload, what comes after the end of the body). Raises `FramingError`."""
        if self.ended:
            return b"", data
        parts: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left > 2:
                part = data[at : at + self._left - 2]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
            elif self._left:
                taken = min(self._left, end - at)
                at += taken
                self._left -= taken
                if self._last and not self._left:
                    # Go sends no trailers here: an empty line ends the body.
                    self.ended = True
                    return b"".join(parts), data[at:]
            else:
                stop = data.find(b"\n", at)
                self._line += data[at : end if stop < 0 else stop + 1]
                at = end if stop < 0 else stop + 1
                if len(self._line) > CHUNK_LINE_BYTES_MAX:
                    raise FramingError("no chunk's length where one is due")
                if stop < 0:
                    break
                try:
                    length = int(self._line.strip(), 16)
                except ValueError:
                    raise FramingError(f"no chunk's length: {self._line!r}") from None
                self._line = b""
                self._left = length + 2
                self._last = length == 0
        return b"".join(parts), b""


def chunk(payload: bytes) -> bytes:
    """`payload` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


@dataclass(frozen=True, slots=True)
class Head:
    """First line and header fields of a request or response; names in lower case."""

    line: str
    fields: dict[str, str]

    @property
    def path(self) -> str:
        """Of a request."""
        return self.line.split(" ")[1] if self.line.count(" ") >= 2 else ""

    @property
    def chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower() == "chunked"


def head_of(data: bytes) -> Head:
    """`data` ends with the empty line that ends a head."""
    first, *rest = data.decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in rest if line)
    return Head(first, {name.strip().lower(): value.strip() for name, _, value in named})
