"""One byte of a database page or of a log record is another than was written: what a disk, a controller or a cable may do in silence.

bbolt has checksums on its two meta pages only: a byte of a leaf becomes a key or value that nobody wrote. A log has a running CRC over its
records. `outside`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.corruption.altered import Alteration, Altered, Edit
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.stored.bbolt import BRANCH, LEAF, PAGE_HEADER, Database, metas
from pekan.faults.stored.files import Read, database, reader, segments
from pekan.faults.stored.wal import frames

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

PLACES = {"db": ("leaf", "branch", "meta", "any"), "wal": ("record", "length", "any")}
"""Of a database: a page in use with elements, one that leads to others, the meta page that counts, any byte below the high-water mark. Of
a log: a byte of a record, of the word before it, any byte that was written."""
PLACE_NAMES = ("any", "leaf", "branch", "meta", "record", "length")
META_BYTES = 64
"""From the magic number to the checksum."""


class FlipByte(Altered):
    """A byte of a stopped member's file, some of its bits turned over."""

    kind: ClassVar[str] = "flip-byte"
    summary: ClassVar[str] = "the member is stopped, bits of one byte of its database or log are turned over, and it is started again"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "file": Parameter("db", "text", "the database or the write-ahead log", ("db", "wal")),
        "place": Parameter("any", "text", "where: of the database leaf, branch or meta, of the log record or length", PLACE_NAMES),
        "hold_ms": Altered.hold,
    }

    def draw(self, rng: random.Random) -> Drawn:
        file = rng.choice(list(PLACES))
        return Drawn("any", {"file": file, "place": rng.choice(PLACES[file])})

    def alteration(self, spec: MemberSpec, armed: Armed) -> tuple[Alteration, dict[str, Any]] | None:
        """A byte drawn from those of the place that was asked for, any where there is no such place in that file."""
        of_database = armed.text("file") == "db"
        path = database(spec) if of_database else segments(spec)[-1]
        with path.open("rb", buffering=0) as file:
            read = reader(file.fileno())
            place, offset = (_in_database if of_database else _in_log)(read, armed.text("place"), armed.rng)
            before = read(offset, 1)
        after = bytes([before[0] ^ armed.rng.randint(1, 255)])
        return Edit(Path(path), offset, before, after), {"place": place}


def _in_database(read: Read, place: str, rng: random.Random) -> tuple[str, int]:
    held = Database(read)
    size = held.meta.page_size
    wanted = {"leaf": LEAF, "branch": BRANCH}.get(place, 0)
    pages = [number for number, flags in held.pages() if flags & wanted]
    if pages:
        number = rng.choice(pages)
        return f"{place} page {number}", number * size + rng.randrange(PAGE_HEADER.size, held.used(number))
    if place == "meta":
        number = metas(read)[0].page
        return f"meta page {number}", number * size + PAGE_HEADER.size + rng.randrange(META_BYTES)
    return "any", rng.randrange(held.meta.high_water * size)


def _in_log(read: Read, place: str, rng: random.Random) -> tuple[str, int]:
    written = list(frames(read))
    if not written:
        raise ValueError("a log without a record")
    frame = rng.choice(written)
    if place == "record":
        return "record", rng.randrange(frame.record, frame.record + frame.size)
    if place == "length":
        return "length", rng.randrange(frame.start, frame.record)
    return "any", rng.randrange(written[-1].next)
