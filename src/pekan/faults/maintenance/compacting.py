"""A compaction at a chosen place: at the head, at a tombstone, some revisions back.

::

    head        everything up to the newest revision goes but what is live
    tombstone   put, put, delete (revision r), put of one key; compacted at exactly r, and watched from r: the DELETE is owed (#18089)
    back        `revisions` behind the head

`within`: reads below are refused from then on, and nothing else changes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter
from pekan.faults.maintenance.asking import ASK_S, message_of, repeat
from pekan.wire.errors import COMPACTED
from pekan.wire.messages import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, WatchCreateRequest

if TYPE_CHECKING:
    from pekan.etcd.client import Reply
    from pekan.etcd.cluster import Member

KEY = b"fault/compact/"
COMPACT_S = 10.0
"""With `physical`, the answer comes when the database has been gone through."""
WATCH_S = 15.0
"""How long the watch from the tombstone is listened to for its first event. There always is one, of the deletion or of what was written
after it: a round of etcd's synchronization of watchers with the past (100 ms) brings it, and the rest is for a busy machine."""
LISTEN_S = 0.2
PLACES = ("head", "tombstone", "back")
BACK = (1, 300)


class Compact(Injector):
    """Compaction."""

    kind: ClassVar[str] = "compact"
    summary: ClassVar[str] = "the history is compacted: at the head, at exactly a tombstone, or some revisions back"
    frequency: ClassVar[Frequency] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "place": Parameter("head", "text", "where", PLACES),
        "revisions": Parameter(100, "count", "how far behind the head, for back"),
        "physical": Parameter("no", "text", "whether the answer waits until the database has been gone through", ("no", "yes")),
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(
            "any", {"place": rng.choice(PLACES), "revisions": rng.randint(*BACK), "physical": "yes" if rng.random() < 0.5 else "no"}
        )

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is the acknowledged compaction, and a read just below it that is refused as compacted."""
        await repeat(armed, lambda: _once(victim, armed))


async def _once(victim: Member, armed: Armed) -> bool:
    async def ask(request: Any, timeout_s: float = ASK_S) -> Reply:
        return await armed.context.ask(victim.name, request, timeout_s)

    place, physical = armed.text("place"), armed.text("physical") == "yes"
    key = KEY + b"%d" % armed.id
    if place == "tombstone":
        revision = await _bury(ask, key)
    else:
        looked = await ask(RangeRequest(key))
        revision = looked.output.header.revision if looked.outcome == "ok" else 0
        if place == "back":
            revision -= armed.number("revisions")
    if revision < 2:
        return False  # nobody answered, or there is no history yet
    reply = await ask(CompactionRequest(revision, physical), COMPACT_S)
    if reply.outcome != "ok":
        return False
    below = await ask(RangeRequest(key, revision=revision - 1))
    if message_of(below) != COMPACTED:
        return False
    evidence = {"place": place, "revision": revision, "physical": physical, "operation": reply.operation, "refused": below.operation}
    armed.fired(evidence)
    healed: dict[str, Any] = {"nothing": "to undo"}
    if place == "tombstone":
        healed = {"delete_seen": await _watched(victim, armed, key, revision)}
        await ask(DeleteRangeRequest(key))
    armed.healed(healed)
    return True


async def _bury(ask: Any, key: bytes) -> int:
    """Write and delete `key`; the revision of its deletion, 0 where it did not work."""
    for number in range(2):
        await ask(PutRequest(key, b"%d" % number))
    deleted = await ask(DeleteRangeRequest(key))
    await ask(PutRequest(key, b"after"))  # what a watch is sent after the deletion shows that it has passed it
    return int(deleted.output.header.revision) if deleted.outcome == "ok" and deleted.output.deleted else 0


async def _watched(victim: Member, armed: Armed, key: bytes, revision: int) -> bool:
    """Whether a watch from `revision` delivers an event of that revision. The checkers judge it from the record."""
    client = armed.context.open(f"fault-watch-{armed.id}", victim.name)
    await armed.context.login(client)
    loop = asyncio.get_running_loop()
    until = loop.time() + WATCH_S
    async with client.watch() as stream:
        await stream.send(WatchCreateRequest(key, start_revision=revision, prev_kv=True))
        while loop.time() < until and not stream.ended:
            try:
                message = await stream.receive(LISTEN_S)
            except TimeoutError:
                continue
            if message is not None and message.events:
                return message.events[0].kv.mod_revision == revision
    return False
