"""Crash states without a crash: all members stand still for a moment, what their files hold is copied, and they go on.

::

    ask every member for its revision ──> all stand still ── read logs and databases ──> all go on ──> write run/images/N/data
        told before the image                2 to 10 ms                                                mark "image"
    ... again and again ...                           after the traffic (hunt/images.py): members started on each, and judged

A SIGKILL leaves exactly what read(2) shows, so an image is what a SIGKILL of all members at that moment would have left, at a hundredth of
the price. All members, because that is what etcd promises something about: one member alone may not have stored yet what it tells (a
leader answers what two followers have stored). What was told before by any member has to be there when all of them start again.

Together with a hold at a failpoint an image shows states that last microseconds otherwise. `within`: nothing is ended, nothing is lost.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pekan.etcd.client import Reply
from pekan.etcd.cluster import Standstill
from pekan.etcd.spec import MemberPart, MemberSpec, MemberState
from pekan.faults.images.album import Album, Image
from pekan.faults.images.image import Reader, Taken, TooMuch, told, write
from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter, shielded
from pekan.wire.messages import RangeRequest

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

COUNT = (10, 30)
EVERY_MS = (20, 150)
JITTER = (0.3, 1.7)
"""Of `every_ms`: etcd commits its database every 100 ms, and images at a fixed pace would always meet it in the same phase."""
ASK_S = 0.1
"""For members to tell their revisions. One that does not in that time is not waited for: what others have told, or what was told for the
image before, is a promise as well."""
ANSWER_S = 2.0
"""For a member to answer at all: with auth on a login goes before, which costs it some 100 ms of processor."""
BUSY_MS = (20, 40, 80, 160, 320)
"""When to try again where members did not all stand still (one was being started or stopped, a slow fsync was under way). Each try costs
them up to 40 ms, so the pauses grow, and after the last one this image is left out."""
KEPT_BYTES_MAX = 512 << 20
"""Of all images of a run. Kept are stretches that were written, so it is 30 to 100 images of a run of a minute; in a longer one earlier
images are given up for later ones."""
DOWN, MEMBERSHIP, UNTOLD, BUSY = "down", "membership", "untold", "busy"
KEY = b"pekan/probe"
"""Read and never written."""


class _Told(NamedTuple):
    """A revision that a member told, and the number of the request that it answered."""

    revision: int
    operation: int
    member: str


class CrashImage(Injector):
    """Freeze, copy, continue; many times."""

    kind: ClassVar[str] = "crash-image"
    summary: ClassVar[str] = "all members stand still for some ms while their files are copied; copies are started and judged afterwards"
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "count": Parameter(20, "count", "how many images are taken"),
        "every_ms": Parameter(60, "ms", "from one to the next, on average"),
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"count": rng.randint(*COUNT), "every_ms": rng.randint(*EVERY_MS)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is the first image: its digest, and for how long the members stood still."""
        taking = _Taking(armed)
        left = armed.number("count")
        try:
            while left:
                await armed.hold(int(armed.number("every_ms") * armed.rng.uniform(*JITTER)))
                missed = taking.missed
                if not armed.context.left_ms() or not await taking.one():
                    break
                # Until the first one is there, a moment at which there is nothing to be taken counts for nothing.
                left -= armed.has_fired or taking.missed == missed
        finally:
            await taking.close()
            if armed.has_fired:
                armed.healed(taking.summary())


class _Taking:
    """The images of one fault so far."""

    def __init__(self, armed: Armed) -> None:
        self.armed = armed
        self.context = armed.context
        self.readers: dict[str, Reader] = {}
        self.last: _Told | None = None
        self.asking: dict[str, asyncio.Task[None]] = {}
        self.taken = self.duplicates = self.bytes = 0
        self.skipped: dict[str, int] = {}
        self.freeze_ms: list[float] = []

    @property
    def missed(self) -> int:
        """How often there was nothing to be taken: somebody down, joining or leaving, nobody who told anything, not all still in time."""
        return sum(self.skipped.get(why, 0) for why in (DOWN, MEMBERSHIP, UNTOLD, BUSY))

    def summary(self) -> dict[str, object]:
        longest = max(self.freeze_ms, default=0.0)
        return {"images": self.taken, "duplicates": self.duplicates, "bytes": self.bytes, "freeze_ms_max": longest, "skipped": self.skipped}

    async def one(self) -> bool:
        """Take one image; False where no further one is to be taken."""
        await self._ask()
        if self.last is None:
            return self._skip(UNTOLD)
        for pause_ms in BUSY_MS:
            members = self.context.cluster.members
            if any(member.part is not MemberPart.VOTER for member in members):
                # Who is on the way in or out may be needed for a majority, and may have no data yet.
                return self._skip(MEMBERSHIP)
            if any(member.process is None for member in members):
                # Whoever ended it may be at its files.
                return self._skip(DOWN)
            # In a thread: the first look at a long log takes some time, and clients go on meanwhile.
            await shielded(asyncio.to_thread(self._prepare, [(member.name, member.spec, member.incarnation) for member in members]))
            try:
                standstill = await self.context.cluster.standing_still(self._read)
            except (TooMuch, OSError) as error:
                return self._skip(type(error).__name__)
            if standstill is not None:
                return await self._keep(standstill, self.last)
            if not self.context.left_ms():
                return False
            await self.armed.hold(pause_ms)
        return self._skip(BUSY)

    def _prepare(self, members: list[tuple[str, MemberSpec, int]]) -> None:
        for name, spec, incarnation in members:
            self.readers.setdefault(name, Reader()).prepare(spec, incarnation)

    async def _ask(self) -> None:
        """What members tell before they are stopped. Serializable: a member that has lost its leader tells it too."""
        for member in self.context.cluster.members:
            under_way = self.asking.get(member.name)
            if member.state is MemberState.RUNNING and (under_way is None or under_way.done()):
                if under_way is not None:
                    under_way.result()
                self.asking[member.name] = asyncio.create_task(self._told_by(member.name), name=f"told by {member.name}")
        if self.asking:
            await asyncio.wait(self.asking.values(), timeout=ASK_S)

    async def _told_by(self, member: str) -> None:
        reply: Reply = await self.context.ask(member, RangeRequest(KEY, serializable=True, count_only=True), ANSWER_S)
        if reply.outcome == "ok":
            revision = reply.output.header.revision
            if self.last is None or revision > self.last.revision:
                self.last = _Told(revision, reply.operation, member)

    async def close(self) -> None:
        """End what is still being asked."""
        for task in self.asking.values():
            task.cancel()
        await asyncio.gather(*self.asking.values(), return_exceptions=True)

    def _read(self) -> dict[str, Taken]:
        """While nothing runs: what every member's files hold."""
        return {member.name: self.readers.setdefault(member.name, Reader()).take(member) for member in self.context.cluster.members}

    async def _keep(self, standstill: Standstill[dict[str, Taken]], before: _Told) -> bool:
        freeze_ms = round((standstill.done - standstill.before) / 1e6, 3)
        self.freeze_ms.append(freeze_ms)
        self.taken += 1
        album, taken = self.context.collection(Album), standstill.result
        digests = {name: each.digest for name, each in taken.items()}
        if tuple(digests.values()) in album.digests:
            self.duplicates += 1
            return True
        size = sum(each.bytes for each in taken.values())
        for image in album.make_room(size, KEPT_BYTES_MAX, self.armed.rng):
            await asyncio.to_thread(shutil.rmtree, image.directory, ignore_errors=True)
        if album.bytes + size > KEPT_BYTES_MAX:
            self._skip("full")
            return False
        album.digests.add(tuple(digests.values()))
        number = len(album.digests)
        directory = self.context.directory / "images" / str(number)
        try:
            await shielded(asyncio.to_thread(_write, taken, directory))
        except OSError as error:
            # A log that etcd removed meanwhile, or a full disk: the image is not whole.
            return self._skip(type(error).__name__)
        album.bytes += size
        self.bytes += size
        album.images.append(Image(number, directory, tuple(each.spec for each in taken.values()), before.revision, size))
        self.context.recorder.mark(
            "image",
            number=number,
            before_ns=standstill.before,
            still_ns=standstill.still,
            done_ns=standstill.done,
            told=before._asdict(),
            members={name: told(each) for name, each in taken.items()},
        )
        self.armed.fired({"image": number, "freeze_ms": freeze_ms, "bytes": size, "digests": digests})
        return True

    def _skip(self, why: str) -> bool:
        """Count an image that was not kept. One is no reason to stop; always True."""
        self.skipped[why] = self.skipped.get(why, 0) + 1
        return True


def _write(taken: Mapping[str, Taken], directory: Path) -> None:
    try:
        for name, each in taken.items():
            write(each, directory / "data" / name)
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
