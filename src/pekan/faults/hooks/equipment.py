"""Hooks in every member: what they have counted, and the one place that arms, waits for and releases them.

::

    plan ── the points that its faults and triggers name ──> plan_patches ──> a file that the launcher plants at each exec stop
                                                                                │
    Pekan   store a trigger ─────────────> cell of 128 bytes, shared <── count ─┤ etcd
            store "released", wake it ───>          │                           │
            reader of the pipe <─────────── a record of 128 bytes <── fires ────┘

The memory and the pipe belong to the member and not to a process of it: after a restart the counts go on, a trigger is always so many hits
from now, and what a killed process counted can still be read. Nobody is traced, nothing runs in Pekan while nothing fires.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import random
import struct
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pekan.errors import EnvironmentFailure, UsageError
from pekan.etcd.binaries.binary import Binary
from pekan.faults.ability import Ability, able, unable
from pekan.faults.equipment import Site
from pekan.faults.hooks import points, stub
from pekan.faults.hooks.asked import ANY, HOOK, REACHED, for_long_holds, is_reached, names_of, points_by, points_of_faults, wants_reached
from pekan.faults.hooks.gobinary import GoBinary
from pekan.faults.hooks.mechanism import POLL_S, Firing, Mechanism
from pekan.faults.hooks.patches import Patches, plan_patches
from pekan.faults.hooks.planting import REMEDY, Code, Replacement, Shared, SharedMemory, attachment, why_not, write_patches
from pekan.faults.hooks.points import Points
from pekan.faults.hooks.profile import KINDS, Profile, draw_point, profile_of
from pekan.faults.triggers import points_of

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import EtcdBinary, MemberSpec

ARM_ATTEMPTS_MAX: Final = 12
"""A point that is passed while its trigger is stored is tried again, eight times further ahead: the last one is 10^9 hits away."""

_WORD_BYTES: Final = 8
_HITS, _TRIGGER, _ACTION, _HOLD_NS, _RELEASE, _FIRED, _TID, _TIME_NS, _DONE, _END_NS, _INDEX = (
    offset // _WORD_BYTES
    for offset in (
        stub.HITS,
        stub.TRIGGER,
        stub.ACTION,
        stub.HOLD_NS,
        stub.RELEASE,
        stub.FIRED,
        stub.TID,
        stub.TIME_NS,
        stub.DONE,
        stub.END_NS,
        stub.INDEX,
    )
)
_CELL_WORDS: Final = stub.CELL_BYTES // _WORD_BYTES
_RECORD: Final = struct.Struct(f"<{_CELL_WORDS}Q")
_RECORDS_AT_ONCE: Final = 64

_SYS_FUTEX: Final = 202
_FUTEX_WAKE: Final = 1  # without FUTEX_PRIVATE_FLAG: the waiter is another process
_EVERYBODY: Final = (1 << 31) - 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Hooked:
    """One member's cells and its pipe."""

    binary: Path
    patches: Patches
    memory: SharedMemory
    reader: int
    writer: int
    base: int
    waiting: dict[int, asyncio.Future[Firing]] = field(default_factory=dict)
    """By cell: who armed it."""

    def word(self, cell: int, which: int) -> int:
        return cell * _CELL_WORDS + which


class Hooks(Mechanism):
    """The members' hooks, for whoever counts, holds or kills at a point of etcd's program."""

    name: ClassVar[str] = "hooks"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._named = names_of(site.plan)
        self._hooks_only = {*points_by(site.plan).get(HOOK, ()), *points_of(site.plan.schedule)}
        """Points that nothing but a hook will do for."""
        self._wants_reached = wants_reached(site.plan)
        self._files: dict[Path, tuple[Path, Patches]] = {}
        self._members: dict[str, _Hooked] = {}
        self._functions: frozenset[str] = frozenset()
        self._profiles: dict[Path, Profile] = {}

    @classmethod
    def probe(cls) -> Ability:
        if reason := points.why_not():
            return unable(cls.name, reason, points.REMEDY)
        if reason := why_not():
            return unable(cls.name, reason, REMEDY)
        return able(cls.name, "planted at the member's exec stop")

    async def prepare(self) -> None:
        """Raises `UsageError` for a point that this etcd does not have or that cannot be hooked, with what comes near."""
        for point in filter(is_reached, points_of_faults(self.site.plan, (ANY, HOOK))):
            if (kind := point.removeprefix(REACHED).removeprefix(":")) and kind not in KINDS:
                raise UsageError(f"{point!r}: there is no kind of operation {kind!r}; there are {', '.join(KINDS)}")
        await self._planned(self.site.binary)

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        """Also for a member that is surrounded already and changes its binary: what it has of this equipment is replaced."""
        return tuple([await self._surrounded(member) for member in members])

    async def close(self) -> None:
        for name in tuple(self._members):
            self._forget(name)

    # ---- what has been counted ----

    def hits(self, member: str, name: str) -> int:
        """How often `member` has come by the point `name` since its first start."""
        hooked, cell = self._cell(member, name)
        return hooked.memory.words[hooked.word(cell, _HITS)]

    def counters(self, member: str) -> dict[str, int]:
        """Of every point, how often `member` has come by it since its first start."""
        hooked = self._hooked(member)
        return {name: hooked.memory.words[hooked.word(cell, _HITS)] for name, cell in hooked.patches.cells.items()}

    def functions(self, member: str) -> dict[str, int]:
        """Of etcd's functions, by full name, where the plan draws points from what is reached: how often `member` has entered them."""
        return {name: hits for name, hits in self.counters(member).items() if name in self._functions}

    def draw(self, member: str, rng: random.Random, kind: str, live: Collection[str]) -> str | None:
        """One of the functions `live`: one that operations of `kind` reach ("": of any kind, drawn evenly). None where there is none."""
        profile = self._profiles.get(self._hooked(member).binary, Profile({}))
        found = draw_point(profile, rng, kind or None, live)
        if found is None and live and not kind:
            return rng.choice(sorted(live))
        return found

    async def until_hits(self, member: str, name: str, number: int) -> None:
        """Return once `member` has come by the point `name` `number` times from now on; the caller bounds the wait."""
        wanted = self.hits(member, name) + number
        while self.hits(member, name) < wanted:
            await asyncio.sleep(POLL_S)

    # ---- arming ----

    async def arm(self, member: str, name: str, nth: int, action: int, hold_ms: int = 0) -> None:
        hooked, cell = self._cell(member, name)
        if cell in hooked.waiting:
            raise UsageError(f"another fault waits at {name} of {member}")
        hooked.waiting[cell] = asyncio.get_running_loop().create_future()
        try:
            await self._store_trigger(hooked, cell, nth, action, hold_ms)
        except BaseException:
            self.disarm(member, name)
            raise

    async def _store_trigger(self, hooked: _Hooked, cell: int, nth: int, action: int, hold_ms: int) -> None:
        words = hooked.memory.words
        fired = words[hooked.word(cell, _FIRED)]
        words[hooked.word(cell, _ACTION)] = action
        words[hooked.word(cell, _HOLD_NS)] = hold_ms * 1_000_000
        words[hooked.word(cell, _RELEASE)] = 0
        ahead = nth
        for _ in range(ARM_ATTEMPTS_MAX):
            trigger = words[hooked.word(cell, _HITS)] + ahead
            words[hooked.word(cell, _TRIGGER)] = trigger
            if words[hooked.word(cell, _HITS)] < trigger:
                return
            # Passed meanwhile: after the store it fires, before it it was missed.
            await asyncio.sleep(POLL_S)
            if words[hooked.word(cell, _FIRED)] != fired:
                return
            ahead *= 8
        raise UsageError("a point that is passed too often to be armed")

    async def fired(self, member: str, name: str) -> Firing:
        hooked, cell = self._cell(member, name)
        return await asyncio.shield(hooked.waiting[cell])

    def firings(self, member: str, name: str) -> int:
        hooked, cell = self._cell(member, name)
        return hooked.memory.words[hooked.word(cell, _FIRED)]

    def held(self, member: str, name: str) -> bool:
        """Whether a thread is inside a firing of that point; stays true for one that was killed there."""
        hooked, cell = self._cell(member, name)
        words = hooked.memory.words
        return words[hooked.word(cell, _DONE)] != words[hooked.word(cell, _FIRED)]

    def ended_ns(self, member: str, name: str) -> int:
        hooked, cell = self._cell(member, name)
        return hooked.memory.words[hooked.word(cell, _END_NS)]

    def release(self, member: str, name: str) -> None:
        hooked, cell = self._cell(member, name)
        at = hooked.word(cell, _RELEASE)
        hooked.memory.words[at] = 1
        address = ctypes.c_void_p(hooked.base + at * _WORD_BYTES)
        _libc.syscall(_SYS_FUTEX, address, _FUTEX_WAKE, _EVERYBODY, None, None, 0)

    def disarm(self, member: str, name: str) -> None:
        hooked, cell = self._cell(member, name)
        words = hooked.memory.words
        words[hooked.word(cell, _TRIGGER)] = 0
        words[hooked.word(cell, _ACTION)] = 0
        self.release(member, name)
        # The process that died inside a firing will not come to its end; who is alive still comes to it by itself.
        waiting = hooked.waiting.pop(cell, None)
        if waiting is not None:
            waiting.cancel()

    def can(self, member: Member, name: str) -> bool:
        hooked = self._members.get(member.name)
        return hooked is not None and name in hooked.patches.cells

    def use(self, member: Member) -> None:
        """Hooks are in every process of it."""

    def settle(self, member: str, name: str) -> None:
        hooked, cell = self._cell(member, name)
        words = hooked.memory.words
        words[hooked.word(cell, _DONE)] = words[hooked.word(cell, _FIRED)]

    # ---- members ----

    async def _surrounded(self, member: MemberSpec) -> MemberSpec:
        file, patches = await self._planned(member.binary)
        known = self._members.get(member.name)
        attachments = tuple(each for each in member.attachments if known is None or known.memory.fd not in each.fds)
        if known is not None and known.binary != Path(member.binary.path):
            self._forget(member.name)
            known = None
        if known is None:
            known = self._members[member.name] = _hook(member, patches, self._read)
        environment = self.environment = for_long_holds(self.site.plan, member.binary)
        return replace(
            member,
            environment={**member.environment, **environment},
            attachments=(*attachments, attachment(file, known.memory, (known.writer,))),
        )

    async def _planned(self, binary: EtcdBinary) -> tuple[Path, Patches]:
        path = Path(binary.path)
        if path not in self._files:
            file = self.site.directory / "scratch" / f"hooks-{len(self._files)}"
            patches = await asyncio.to_thread(self._plan, binary, file)
            self._files[path] = file, patches
            if self._wants_reached:
                # Points are drawn without regard to the kind of operation where none could be done to this etcd.
                with contextlib.suppress(EnvironmentFailure, TimeoutError):
                    self._profiles[path] = await profile_of(binary)
        return self._files[path]

    def _plan(self, binary: EtcdBinary, file: Path) -> Patches:
        path = Path(binary.path)
        go = GoBinary(path)
        names = list(self._named)
        if self._wants_reached:
            self._functions = frozenset(Points(go, binary.version).functions())
            names += sorted(self._functions)
        sha256 = binary.sha256 if isinstance(binary, Binary) else None
        patches = plan_patches(path, names, release=binary.version, sha256=sha256)
        for name in self._named:
            if name in patches.refused and name in self._hooks_only:
                raise UsageError(f"no hook can be at {name!r} of etcd {binary.version}: {patches.refused[name]}")
        write_patches(
            file,
            [Code(patches.code_address, patches.code)],
            [Shared(patches.cells_address, patches.cells_bytes)],
            [Replacement(address, go.read(address, len(new)), new) for address, new in patches.writes],
        )
        return patches

    def _read(self, name: str) -> None:
        """Records of one member have come."""
        hooked = self._members[name]
        try:
            data = os.read(hooked.reader, stub.CELL_BYTES * _RECORDS_AT_ONCE)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            raise
        for record in _RECORD.iter_unpack(data):
            waiting = hooked.waiting.get(record[_INDEX])
            if waiting is not None and not waiting.done():
                # Once: a point that was passed while its trigger was stored may have got a second one.
                hooked.memory.words[hooked.word(record[_INDEX], _TRIGGER)] = 0
                waiting.set_result(Firing(record[_HITS], record[_TID], record[_TIME_NS]))

    def _forget(self, name: str) -> None:
        hooked = self._members.pop(name)
        for waiting in hooked.waiting.values():
            waiting.cancel()
        asyncio.get_running_loop().remove_reader(hooked.reader)
        os.close(hooked.reader)
        os.close(hooked.writer)
        hooked.memory.close()

    def _hooked(self, member: str) -> _Hooked:
        if member not in self._members:
            raise UsageError(f"no hooks are in a member called {member!r}; there are {', '.join(self._members)}")
        return self._members[member]

    def _cell(self, member: str, name: str) -> tuple[_Hooked, int]:
        hooked = self._hooked(member)
        cell = hooked.patches.cells.get(name)
        if cell is None:
            raise UsageError(f"no hook was planted at {name!r}; plans name their points before the start")
        return hooked, cell


def _hook(member: MemberSpec, patches: Patches, read: object) -> _Hooked:
    memory = SharedMemory(f"hooks-{member.name}", patches.cells_bytes)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # a full pipe must never hold a member up
    memory.memory[:] = patches.initial_cells(writer).ljust(memory.length, b"\0")
    assert callable(read)
    asyncio.get_running_loop().add_reader(reader, read, member.name)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory.memory))
    return _Hooked(Path(member.binary.path), patches, memory, reader, writer, base)
