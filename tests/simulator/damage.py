"""Record files that are damaged, or that say something else than was recorded."""

from __future__ import annotations

import zlib
from random import Random


def damaged(whole: bytes, rng: Random) -> bytes:
    """`whole` with up to four changes of its bytes."""
    changed = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        _change(changed, rng)
    return bytes(changed)


def records_of(whole: bytes) -> list[bytes]:
    """The records of a file without length and checksum."""
    records, at = [], 0
    while at < len(whole):
        size, shift = 0, 0
        while True:
            byte = whole[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        records.append(whole[at : at + size - 5])
        at += size
    return records


def framed(record: bytes) -> bytes:
    size, length = len(record) + 5, bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + record + b"\x7d" + zlib.crc32(record).to_bytes(4, "little")


def _change(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 2:
            del data[at : at + rng.randint(1, 3)]
        case _:
            data[at:at] = rng.randbytes(rng.randint(1, 3))


def changed(whole: bytes, rng: Random) -> bytes:
    """`whole` with one record changed inside, or two exchanged, one twice or one left out; its checksums are right."""
    changed = records_of(whole)
    at = rng.randrange(len(changed))
    match rng.randrange(6):
        case 0:
            other = rng.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        case 1:
            changed.insert(at, changed[at])
        case 2:
            del changed[at]
        case _:
            inside = bytearray(changed[at])
            _change(inside, rng)
            changed[at] = bytes(inside)
    return b"".join(map(framed, changed))
