"""What a crash at that moment would have come to: members started on crash images, asked, and stopped again. The last phase of a run.

::

    images of the run, in an order that the seed draws, until the time is up
      copy ──> members of the run, on their own addresses (the run's own have ended) ──> each: everything at the told revision
        │                                                                                each: watches from where it may go wrong
        └─ died while starting ──> once more, on a fresh copy, up to ATTEMPTS times      each: a write after which watches are complete
                                                                                  record: images/N/A/history.pb

Nothing is judged here: `pekan.checkers.images` compares the records with the run's.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pekan.errors import ClusterFailure
from pekan.etcd.aside import Aside, aside
from pekan.etcd.client import Client, Reply, decided
from pekan.etcd.spec import MemberExit, MemberSpec
from pekan.faults import Image
from pekan.faults.stored.copies import copy_tree
from pekan.wire.errors import PERMISSION_DENIED, WireError
from pekan.wire.messages import DELETE, PutRequest, RangeRequest, Request, WatchCreateRequest, WatchResponse, pb
from pekan.workloads.traffic import Credentials, token_refused

SECONDS_MAX = 45.0
"""For all images of a run: some 60 of one member, some 40 of three."""
ATTEMPTS = 3
"""A restart that fails three times in the same way is no accident (design of judgement: broken only then)."""
QUICK = {"heartbeat-interval": "20", "election-timeout": "200"}
"""Nobody disturbs these members: an election takes 0.2 s instead of 1 to 2 s."""
ALL = (b"\0", b"\0")
SENTINEL = b"pekan/image"
"""Written after the image has been read: a watch that has delivered it has delivered everything before."""
WATCHED_MAX = 1_000
"""Revisions that a watch from the past is listened to; what goes wrong does so near the compaction, or near the end."""
NEAR = 50
"""So many revisions before the last told one the nearest watch begins."""
ANSWER_S = 15.0
"""For one answer: elections are quick here, and so are called too often where members do not get the processor in time."""
LISTEN_S = 4.0
"""For one watch. Watchers of the past are served every 100 ms."""


class Examined(NamedTuple):
    """How many images were kept, on how many members were started, and how many of these came up."""

    kept: int
    started: int
    up: int


async def examine(
    images: list[Image],
    *,
    seed: int,
    administrator: Credentials | None = None,
    tell: Callable[[str], None] = lambda _: None,
    seconds: float = SECONDS_MAX,
) -> Examined:
    """Start members on `images`, one after the other, and have all they answer recorded. Their addresses must be free.

    `administrator` is who may read everything where the image has auth enabled; `tell` is told of the progress.
    """
    deadline = time.monotonic() + seconds
    order = list(images)
    random.Random(f"pekan/images/{seed}").shuffle(order)
    started = up = 0
    for image in order:
        if time.monotonic() >= deadline:
            break
        started += 1
        tell(f"images {started}/{len(order)}")
        for attempt in range(1, ATTEMPTS + 1):
            answered, died = await _start(image, attempt, administrator)
            up += answered
            if answered or not died:
                break
    return Examined(len(order), started, up)


async def _start(image: Image, attempt: int, administrator: Credentials | None) -> tuple[bool, bool]:
    """Whether the members came up and were asked, and whether one of them died by itself."""
    directory = image.directory / str(attempt)
    specs = []
    died: list[MemberExit] = []

    def notice(end: MemberExit) -> None:
        if not end.asked:
            died.append(end)

    try:
        for spec in image.specs:
            await asyncio.to_thread(copy_tree, image.directory / "data" / spec.name, directory / spec.name)
            specs.append(_of_copy(spec, directory))
        detail = {"image": image.number, "attempt": attempt, "revision": image.revision}
        async with aside(directory, specs, detail=detail, notice=notice) as side:
            await _ask(side, image, administrator)
        return True, bool(died)
    except ClusterFailure:
        return False, bool(died)
    finally:
        for spec in image.specs:
            shutil.rmtree(directory / spec.name, ignore_errors=True)


def _of_copy(spec: MemberSpec, directory: Path) -> MemberSpec:
    data, log = directory / spec.name, directory / f"{spec.name}.log"
    return replace(spec, data_dir=data, wal_dir=None, log=log, options={**spec.options, **QUICK})


async def _ask(side: Aside, image: Image, administrator: Credentials | None) -> None:
    names = [member.name for member in side.cluster.members]
    everything = RangeRequest(*ALL, revision=image.revision)
    await asyncio.gather(*(_insist(side, name, everything, administrator) for name in names))
    written = await _insist(side, names[0], PutRequest(SENTINEL), administrator)
    if written.outcome == "ok":
        revision = written.output.header.revision
        await asyncio.gather(*(_watch(side.client(name), image.revision, revision) for name in names))


async def _insist(side: Aside, member: str, request: Request, administrator: Credentials | None) -> Reply:
    """Ask until etcd has decided the answer, a member has ended, or `ANSWER_S` are over."""
    client = side.client(member)
    return await decided(lambda: _call(client, request, administrator), ANSWER_S, lambda: all(each.alive for each in side.cluster.members))


async def _call(client: Client, request: Request, administrator: Credentials | None) -> Reply:
    """One request; where it is refused for want of a user, another one as administrator."""
    reply = await client.call(request)
    if administrator is not None and isinstance(reply.output, WireError) and _wants_a_user(reply.output):
        login = await client.call(pb.AuthenticateRequest(name=administrator.name, password=administrator.password))
        if login.outcome == "ok":
            client.set_token(login.output.token)
            reply = await client.call(request)
    return reply


def _wants_a_user(error: WireError) -> bool:
    return error.code == PERMISSION_DENIED or token_refused(error)


async def _watch(client: Client, told: int, written: int) -> None:
    """Watch from the compact revision (or the beginning), from a deletion, from shortly before the last told revision."""
    compacted, deleted = await _listen(client, 1, min(written, WATCHED_MAX))
    if compacted:
        _, deleted = await _listen(client, compacted, min(written, compacted + WATCHED_MAX))
    near = max(compacted + 1, told - NEAR)
    if near <= written:
        _, later = await _listen(client, near, written)
        deleted = later or deleted
    if deleted:
        await _listen(client, deleted, deleted + 1)


async def _listen(client: Client, start: int, until: int) -> tuple[int, int]:
    """(compact revision where the watch is refused for it, the last revision with a deletion), 0 for none."""
    deleted = 0
    async with client.watch() as stream:
        await stream.send(WatchCreateRequest(*ALL, start_revision=start))
        end = time.monotonic() + LISTEN_S
        while (left := end - time.monotonic()) > 0:
            try:
                message: WatchResponse | None = await stream.receive(left)
            except TimeoutError:
                break
            if message is None or message.canceled:
                return (message.compact_revision if message is not None else 0), deleted
            deleted = max((event.kv.mod_revision for event in message.events if event.type == DELETE), default=deleted)
            if message.events and message.events[-1].kv.mod_revision >= until:
                break
    return 0, deleted
