"""The end of the write-ahead log is gone: a file system that lost a size, a copy that ended early.

A log that ends within a record looks like a torn write, which etcd repairs by leaving the rest out: what it had acknowledged with it is
gone from this member. `outside`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.corruption.altered import Alteration, Altered, Edit
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.stored.files import reader, segments
from pekan.faults.stored.wal import end_of_log

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

BYTES = (1, 64 << 10)
KEPT_BYTES_MIN = 512
"""The first records (checksum, metadata, a snapshot) take less; a log without them is another fault."""


class TruncateWal(Altered):
    """A stopped member's log, cut."""

    kind: ClassVar[str] = "truncate-wal"
    summary: ClassVar[str] = "the member is stopped, its write-ahead log is cut before its end, and it is started again"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "bytes": Parameter(4096, "bytes", "how much of what was written last is gone"),
        "hold_ms": Altered.hold,
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"bytes": rng.randint(*BYTES)})

    def alteration(self, spec: MemberSpec, armed: Armed) -> tuple[Alteration, dict[str, Any]] | None:
        """Everything from there on, the preallocated zeros included."""
        path = segments(spec)[-1]
        with path.open("rb", buffering=0) as file:
            read = reader(file.fileno())
            end = end_of_log(read)
            offset = max(KEPT_BYTES_MIN, end - armed.number("bytes"))
            if offset >= end:
                return None
            before = read(offset, end - offset)
        size = path.stat().st_size
        return Edit(path, offset, before, b""), {"written": end, "size_before": size, "size_after": offset}
