"""A snapshot streamed from a member while clients write, and checked: what every backup of etcd is.

::

    Snapshot stream (recorded) ──> run/snapshots/N/db        the database as of one moment, then 32 bytes: SHA-256 of what came before
                                          └ restored ──> run/images/N: a cluster of one started on it after the traffic, and judged

The member reads its database in one transaction for as long as the stream takes: what it frees meanwhile cannot be used again, and the file
grows. `within`: nothing changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.errors import PekanError
from pekan.etcd.process import now_ns
from pekan.faults.images.album import Album, Image
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.faults.maintenance.asking import ASK_S, repeat
from pekan.faults.maintenance.restoring import Source, Unfit, restore, source
from pekan.faults.stored.files import in_memory
from pekan.wire.messages import SNAPSHOT, RangeRequest, pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

DIGEST_BYTES = 32
"""At the end of the stream (etcd server/etcdserver/api/v3rpc/maintenance.go)."""
BYTES_MAX = 64 << 20
"""Every message is in the record too: a database larger than this is not streamed to its end."""
NAME = "restored"
"""Of the member that is started on a restored snapshot."""
MESSAGE_S = 5.0
"""For the next piece; a member that stands still for longer has lost its stream."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of one stream. `whole` where all of it came and its digest is right; `reason` else.

    before     a revision that the member had told before the stream began, in the answer to `operation`: the snapshot holds it
    began      when that had been told; `ended` when the stream had (ns)
    """

    path: Path
    bytes: int
    sha256: str
    whole: bool
    reason: str
    before: int
    operation: int
    began: int
    ended: int


class SnapshotSave(Injector):
    """Snapshot."""

    kind: ClassVar[str] = "snapshot-save"
    summary: ClassVar[str] = "a snapshot is streamed from the member under load, and its digest checked"
    frequency: ClassVar[Frequency] = "day"
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


class SnapshotRestore(Injector):
    """Snapshot, and a start on what it holds."""

    kind: ClassVar[str] = "snapshot-restore"
    summary: ClassVar[str] = "a snapshot is streamed under load and restored; a cluster of one is started on it afterwards, and judged"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """As `SnapshotSave`; where all of it came, it becomes an image of the run, on which a member is started after the traffic."""

        async def once() -> bool:
            before = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
            saved = await save(victim, armed)
            if armed.has_fired:
                evidence = told(saved)
                if saved.whole and saved.before and before.outcome == "ok":
                    evidence |= await shielded(_restored(victim, armed, saved, before.output))
                armed.healed(evidence)
            return armed.has_fired

        await repeat(armed, once)


async def _restored(victim: Member, armed: Armed, saved: Saved, status: pb.StatusResponse) -> dict[str, Any]:
    """Make an image of what was saved; what of it is evidence."""
    context = armed.context
    album = context.collection(Album)
    album.digests.add((f"snapshot {armed.id}", saved.sha256))
    number = len(album.digests)
    directory = context.directory / "images" / str(number)

    def make() -> Source:
        data = saved.path.read_bytes()
        found = source(in_memory(data), status.raftTerm)
        restore(found, status.header.member_id, status.header.cluster_id, data, directory / "data" / NAME)
        saved.path.unlink()
        return found

    try:
        found = await asyncio.to_thread(make)
    except (Unfit, OSError) as error:
        return {"not_restored": str(error)}
    # Loopback ports of its own: what was put around the members of the run has gone by then.
    spec = context.cluster.newcomer()
    options = {**spec.options, "force-new-cluster": "true"}
    alone = replace(spec, name=NAME, options=options, attachments=(), initial_cluster_state="new")
    album.bytes += saved.bytes
    album.images.append(Image(number, directory, (alone,), saved.before))
    context.recorder.mark(
        "image",
        number=number,
        snapshot=victim.name,
        before_ns=saved.began,
        done_ns=saved.ended,
        told={"revision": saved.before, "operation": saved.operation, "member": victim.name},
        raft_index=found.raft_index,
        raft_term=found.raft_term,
    )
    return {"image": number, "raft_index": found.raft_index}


async def save(victim: Member, armed: Armed) -> Saved:
    """Stream a snapshot of `victim` into the run's directory; `armed.fired` with the first piece of it."""
    directory = armed.context.directory / "snapshots" / str(armed.id)
    path = directory / "db"
    looked = await armed.context.ask(victim.name, RangeRequest(b"pekan/probe", serializable=True), ASK_S)
    before = looked.output.header.revision if looked.outcome == "ok" else 0
    began = now_ns()
    digest, tail, count, left = hashlib.sha256(), b"", 0, 1
    try:
        directory.mkdir(parents=True, exist_ok=True)
        client = armed.context.open(f"fault-snapshot-{armed.id}", victim.name)
        await armed.context.login(client)
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
    whole = ended and right
    return Saved(path, count, digest.hexdigest(), whole, "" if whole else reason, before, looked.operation, began, now_ns())


def told(saved: Saved) -> dict[str, Any]:
    """A snapshot as evidence."""
    return {"bytes": saved.bytes, "sha256": saved.sha256, "whole": saved.whole, "reason": saved.reason, "holds_revision": saved.before}
