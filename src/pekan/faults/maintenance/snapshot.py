"""A snapshot streamed from a member while clients write, and checked: what every backup of etcd is.

::

    Snapshot stream (recorded) ──> run/snapshots/N/db        the database as of one moment, then 32 bytes: SHA-256 of what came before

The member reads its database in one transaction for as long as the stream takes: what it frees meanwhile cannot be used again, and the file
grows. `within`: nothing changes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pekan.errors import PekanError
from pekan.faults.injector import Armed, Drawn, Injector, Parameter
from pekan.faults.maintenance.asking import ASK_S, repeat
from pekan.wire.messages import SNAPSHOT, RangeRequest, pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

DIGEST_BYTES = 32
"""At the end of the stream (etcd server/etcdserver/api/v3rpc/maintenance.go)."""
BYTES_MAX = 64 << 20
"""Every message is in the record too: a database larger than this is not streamed to its end."""
MESSAGE_S = 5.0
"""For the next piece; a member that stands still for longer has lost its stream."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of one stream. `whole` where all of it came and its digest is right; `reason` else.

    before  a revision that the member had told before the stream began: the snapshot holds it
    """

    path: Path
    bytes: int
    sha256: str
    whole: bool
    reason: str
    before: int


class SnapshotSave(Injector):
    """Snapshot."""

    kind: ClassVar[str] = "snapshot-save"
    summary: ClassVar[str] = "a snapshot is streamed from the member under load, and its digest checked"
    frequency: ClassVar[Literal["day"]] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is the first piece of the database; how it ended is told at the end."""

        async def once() -> bool:
            saved = await save(victim, armed)
            if armed.has_fired:
                armed.healed(told(saved))
            return armed.has_fired

        await repeat(armed, once)


async def save(victim: Member, armed: Armed) -> Saved:
    """Stream a snapshot of `victim` into the run's directory; `armed.fired` with the first piece of it."""
    directory = armed.context.directory / "snapshots" / str(armed.id)
    path = directory / "db"
    looked = await armed.context.ask(victim.name, RangeRequest(b"pekan/probe", serializable=True), ASK_S)
    before = looked.output.header.revision if looked.outcome == "ok" else 0
    digest, tail, count, left = hashlib.sha256(), b"", 0, 1
    try:
        directory.mkdir(parents=True, exist_ok=True)
        client = armed.context.open(f"fault-snapshot-{armed.id}", victim.name)
        with path.open("wb") as file:
            async with client.stream(SNAPSHOT) as stream:
                await stream.send(pb.SnapshotRequest())
                while count <= BYTES_MAX and (message := await stream.receive(MESSAGE_S)) is not None:
                    armed.fired({"stream": stream.id, "bytes_of_the_first_message": len(message.blob)})
                    # What may be the digest at the end is held back until more has come.
                    piece = tail + message.blob
                    piece, tail = piece[:-DIGEST_BYTES], piece[-DIGEST_BYTES:]
                    digest.update(piece)
                    file.write(piece)
                    count += len(piece)
                    left = message.remaining_bytes
        reason = stream.reason if stream.ended and not stream.by_client else f"more than {BYTES_MAX} bytes"
        ended = stream.code == 0 and left == 0 and not stream.by_client
    except (PekanError, TimeoutError, OSError) as error:
        reason, ended = str(error) or type(error).__name__, False
    right = digest.digest() == tail
    if ended and not right:
        reason = "the digest differs"
    return Saved(path, count, digest.hexdigest(), ended and right, "" if ended and right else reason, before)


def told(saved: Saved) -> dict[str, Any]:
    """A snapshot as evidence."""
    return {"bytes": saved.bytes, "sha256": saved.sha256, "whole": saved.whole, "reason": saved.reason, "holds_revision": saved.before}
