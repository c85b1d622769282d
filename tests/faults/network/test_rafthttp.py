"""rafthttp's framing, however its bytes are cut: every message once, whole, and named by its kind."""

from __future__ import annotations

import random

import pytest

from pekan.faults.network import rafthttp
from pekan.faults.network.rafthttp import AppendStream, Chunks, Frame, FramingError, MessageStream, chunk, fields, varint

LEADER, FOLLOWER = 0x8E9E05C52164694D, 0xFD422379FDA50E48


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def _entry(term: int, index: int, data: bytes) -> bytes:
    return _number(1, 0) + _number(2, term) + _number(3, index) + _text(4, data)


def _message(kind: str, term: int = 0, index: int = 0, entries: tuple[bytes, ...] = (), commit: int = 0, peers: bool = True) -> bytes:
    to, sender = (FOLLOWER, LEADER) if peers else (0, 0)
    head = (
        _number(1, rafthttp.KINDS.index(kind))
        + _number(2, to)
        + _number(3, sender)
        + _number(4, term)
        + _number(5, term)
        + _number(6, index)
    )
    return head + b"".join(_text(7, entry) for entry in entries) + _number(8, commit)


def _whole(message: bytes) -> bytes:
    return b"\x02" + len(message).to_bytes(8, "big") + message


def _following(entries: tuple[bytes, ...], commit: int) -> bytes:
    parts = [len(entry).to_bytes(8, "big") + entry for entry in entries]
    return b"\x01" + len(entries).to_bytes(8, "big") + b"".join(parts) + commit.to_bytes(8, "big")


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    """`data` in pieces of random length."""
    pieces = []
    while data:
        size = rng.randint(1, rng.choice((1, 7, 300)))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def _seen_by(data: bytes) -> list[tuple[int, int, int, tuple[bytes, ...], int]]:
    """What a reader of these msgapp frames makes of them: (kind of frame, term, index, entries, commit), as etcd's decoder does."""
    term = index = at = 0
    messages = []
    while at < len(data):
        kind = data[at]
        count = int.from_bytes(data[at + 1 : at + 9], "big")
        at += 9
        entries = []
        if kind == 1:
            before = (term, index)
            for _ in range(count):
                size = int.from_bytes(data[at : at + 8], "big")
                entries.append(data[at + 8 : at + 8 + size])
                at += 8 + size
            commit = int.from_bytes(data[at : at + 8], "big")
            at += 8
            index += count
        else:
            found: dict[int, int] = {}
            for field, value, end in fields(data, at, at + count):
                if field == 7:
                    entries.append(data[value:end])
                else:
                    found[field] = value
            assert (found[2], found[3]) == (FOLLOWER, LEADER)
            before, commit = (found[4], found[6]), found[8]
            term = found[4]
            index = next(v for f, v, _ in fields(entries[-1], 0, len(entries[-1])) if f == 3) if entries else found[6]
            at += count
        messages.append((3, *before, tuple(entries), commit))
    return messages


def _log(count: int) -> tuple[bytes, ...]:
    """Frames of a leader that appends one to three entries at a time."""
    rng = random.Random(5)
    index = 10
    frames = [_whole(_message("MsgApp", 4, index))]
    for _ in range(count):
        entries = tuple(_entry(4, index + 1 + n, rng.randbytes(rng.randint(0, 400))) for n in range(rng.randint(1, 3)))
        frames.append(_following(entries, index))
        index += len(entries)
    return tuple(frames)


def test_messages_however_they_are_cut() -> None:
    """A stream of messages in chunks of any size, read in pieces of any size, gives each message once, with its kind and its bytes."""
    rng = random.Random(1)
    kinds = [rng.choice(rafthttp.KINDS) for _ in range(200)]
    raw = []
    for number, kind in enumerate(kinds):
        message = _message(kind, number, number * 3, (_entry(1, 2, rng.randbytes(rng.randint(0, 500))),))
        raw.append(len(message).to_bytes(8, "big") + message)
    for _ in range(20):
        body = b"".join(chunk(piece) for piece in _cut(b"".join(raw), rng)) + b"0\r\n\r\nnext"
        chunks, stream = Chunks(), MessageStream()
        frames: list[Frame] = []
        rest = b""
        for piece in _cut(body, rng):
            payload, after = chunks.feed(piece)
            frames += stream.feed(payload)
            rest += after
        assert [frame.kind for frame in frames] == kinds
        assert [frame.raw for frame in frames] == raw
        assert chunks.ended
        assert rest == b"next"


def test_a_heartbeat_of_the_link_is_no_message() -> None:
    """What keeps a stream alive names neither sender nor receiver, and has no kind; raft's own heartbeat has one."""
    idle = _message("MsgHeartbeat", peers=False)
    real = _message("MsgHeartbeat", 3)
    short = b"\x08\x08"  # as releases write it that leave out what is unset
    frames = MessageStream().feed(b"".join(len(each).to_bytes(8, "big") + each for each in (idle, real, short)))
    assert [frame.kind for frame in frames] == ["", "MsgHeartbeat", ""]
    assert [frame.kind for frame in AppendStream().feed(b"\0\0" + _whole(_message("MsgApp", 1, 1)))] == ["", "", "MsgApp"]


def test_an_append_can_name_its_own_place() -> None:
    """Of an append stream with any frames left out, the others written as whole messages mean the same as before: term, index, entries."""
    raw = _log(60)
    meant = _seen_by(b"".join(raw))
    rng = random.Random(2)
    stream = AppendStream()
    frames = [frame for piece in _cut(b"".join(raw), rng) for frame in stream.feed(piece)]
    assert [frame.raw for frame in frames] == list(raw)
    for _ in range(50):
        kept = [number for number in range(len(raw)) if rng.random() < 0.7]
        written, seen = b"", (0, 0)
        for number in kept:
            frame = frames[number]
            written += frame.raw if frame.before in (None, seen) else frame.whole(LEADER, FOLLOWER)
            assert frame.after is not None
            seen = frame.after
        assert _seen_by(written) == [meant[number] for number in kept]
    # Written as they came, with one left out, all that follow would mean another place: that is why.
    assert _seen_by(b"".join(raw[:5] + raw[6:])) != meant[:5] + meant[6:]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (MessageStream, b"\xff" * 16),
        (MessageStream, (3).to_bytes(8, "big") + b"\x09ab"),
        (MessageStream, (2).to_bytes(8, "big") + b"\x08\x80"),
        (AppendStream, b"\x07"),
        (AppendStream, b"\x02" + b"\xff" * 8),
        (Chunks, b"zz\r\nabc"),
        (Chunks, b"1" * 100),
    ],
)
def test_what_is_no_framing_is_refused(stream: type[MessageStream | AppendStream | Chunks], data: bytes) -> None:
    """Bytes that rafthttp does not write raise an error of their own instead of being taken for messages."""
    with pytest.raises(FramingError):
        stream().feed(data)
