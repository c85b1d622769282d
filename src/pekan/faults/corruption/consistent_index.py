"""The database says that it holds more, or less, of the log than it does.

`consistent_index` in bucket meta is the raft index up to which the database has the log's entries. Ahead: entries are skipped at the next
start (the shape of #13766). Behind: entries are applied again (#14685, #11651). Eight bytes on a page without a checksum, so that nothing
in the file tells of it. `outside`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.corruption.altered import Alteration, Altered, Edit
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.stored.bbolt import Database
from pekan.faults.stored.files import database, reader

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

BUCKET, KEY = b"meta", b"consistent_index"
_INDEX = struct.Struct(">Q")
ENTRIES = (1, 4)


class ConsistentIndex(Altered):
    """A stopped member's database with another consistent index."""

    kind: ClassVar[str] = "consistent-index"
    summary: ClassVar[str] = "the member is stopped, the index up to which its database has the log is altered, and it is started again"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "direction": Parameter("ahead", "text", "ahead: entries will be skipped; behind: applied again", ("ahead", "behind")),
        "entries": Parameter(1, "count", "by how many entries"),
        "hold_ms": Altered.hold,
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"direction": rng.choice(("ahead", "behind")), "entries": rng.randint(*ENTRIES)})

    def alteration(self, spec: MemberSpec, armed: Armed) -> tuple[Alteration, dict[str, Any]] | None:
        """The value in place: its size is fixed."""
        path = database(spec)
        with path.open("rb", buffering=0) as file:
            read = reader(file.fileno())
            place = Database(read).value(BUCKET, KEY)
            if place is None or place.size != _INDEX.size:
                return None
            before = read(place.offset, place.size)
        (index,) = _INDEX.unpack(before)
        by = armed.number("entries") if armed.text("direction") == "ahead" else -armed.number("entries")
        wanted = max(1, index + by)
        return Edit(path, place.offset, before, _INDEX.pack(wanted)), {"index_before": index, "index_after": wanted}
