"""A member stopped, its files altered, started again: what the four kinds of silent corruption have in common, and the way back.

::

    stopped ── altered: FIRED ── started ──┬── serves ────────────────── hold ──┬─> replaced: removed, and a fresh member joins
                                           └── ends by itself, or hangs ────────┼─> put back, where it never served and the files allow it
                                                                                └─> left as it is, where no other member can take over

Whatever etcd does about it is *noticed*: an end of the process with a panic or a fatal error, a complaint in its log, a CORRUPT alarm (that
one the checkers see). A member that serves on what was altered is the other answer. `outside`: etcd promises nothing for altered storage.

A damaged member is not mended by putting an old copy back: that loses what it has acknowledged since. It is replaced, as an operator would.
Alone in its cluster it cannot be: there the copy made before is put back if it has never served since, and else it is left as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.errors import ClusterFailure, PekanError, UsageError
from pekan.etcd.log import log_entry
from pekan.etcd.spec import MemberState
from pekan.faults.injector import PROCESS, Armed, Frequency, Injector, Parameter, shielded
from pekan.faults.membership.changing import JOIN_MS, MEMBERSHIP, Changing
from pekan.faults.stored.copies import copy_tree

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member
    from pekan.etcd.spec import MemberSpec

GRACE_S = 2.0
"""For the stop: one without streams takes 1 s, and it is no matter here whether it closes its files."""
READY_S = 15.0
"""Until a member that starts on altered files serves, on a busy machine. Some never do and never end."""
READY_MS = 6_000
"""The same for the failure budget of a schedule: replay, and an election where it is alone (1 to 2 s)."""
HOLD_MS = 2_000
LOG_BYTES_MAX = 1 << 20
"""Of the log of one start that are looked through."""
_COMPLAINT = re.compile(r"corrupt|mismatch|repair|broken|torn|damaged|inconsisten|checksum|unexpected EOF|invalid", re.IGNORECASE)
_OF_OTHERS = ("rafthttp/", "auth/", "txn/", "etcdmain/", "etcdserver/util.go", "etcdserver/cluster_util.go", "etcdserver/v3_server.go")
"""Where etcd warns of peers, clients and stray files in the same words: a peer that is killed is an unexpected EOF or a broken pipe, and
somebody's token invalid."""
_REPAIR = "wal/repair.go"
"""Where etcd leaves the rest of a damaged log out, and tells so as a piece of information."""
_LOUD = ("warn", "error", "dpanic", "panic", "fatal")
SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes of a file replaced: `before` by `after` at `offset`; the file's size changes where they differ in length."""

    path: Path
    offset: int
    before: bytes
    after: bytes

    def do(self) -> None:
        """Replace them. Raises OSError."""
        _replace(self.path, self.offset, self.before, self.after)

    def undo(self) -> bool:
        """Put the original bytes back; False where the file is no longer as it was left."""
        try:
            return _replace(self.path, self.offset, self.after, self.before)
        except OSError:
            return False

    def evidence(self) -> dict[str, Any]:
        """File, offset, and the first bytes of both."""
        return {"offset": self.offset, "before": self.before[:16].hex(), "after": self.after[:16].hex(), "bytes": len(self.before)}


@dataclass(frozen=True, slots=True)
class Rename:
    """A file or directory that has its old name again."""

    path: Path
    old: Path

    def do(self) -> None:
        """Take the rename back. Raises OSError."""
        self.path.rename(self.old)

    def undo(self) -> bool:
        """Rename it again; False where there is another one by now."""
        if self.path.exists() or not self.old.exists():
            return False
        self.old.rename(self.path)
        return True

    def evidence(self) -> dict[str, Any]:
        """Both names."""
        return {"old": self.old.name, "new": self.path.name}


Alteration = Edit | Rename


def _replace(path: Path, offset: int, present: bytes, wanted: bytes) -> bool:
    with path.open("r+b", buffering=0) as file:
        fd = file.fileno()
        # What had been cut off is put back only where the file still ends there.
        if os.pread(fd, max(1, len(present)), offset) != present:
            return False
        if len(wanted) < len(present):
            os.ftruncate(fd, offset + len(wanted))
        os.pwrite(fd, wanted, offset)
        os.fsync(fd)
    return True


class Altered(Injector):
    """Stop, alter, start, hold, make whole."""

    promise: ClassVar[str] = "outside"
    frequency: ClassVar[Frequency] = "century"
    hold: ClassVar[Parameter] = Parameter(HOLD_MS, "ms", "how long the member serves on altered files, if it does")
    duration: ClassVar[str] = "hold_ms"
    claims: ClassVar[frozenset[str]] = frozenset({MEMBERSHIP, PROCESS})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(GRACE_S * 1000) + READY_MS + int(parameters["hold_ms"]) + JOIN_MS

    @abstractmethod
    def alteration(self, spec: MemberSpec, armed: Armed) -> tuple[Alteration, dict[str, Any]] | None:
        """What is to be done to the files of a member that is stopped, and how to tell of it; None where there is nothing of the kind.

        Raises OSError or ValueError where the files are not as a member's.
        """

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing: the file, the offset, the bytes before and after; of healing: what etcd did, and what state was left."""
        spec, ended = victim.spec, len(victim.exits) + 1  # the stop below comes first
        done: list[Alteration] = []
        served, logged = False, 0
        copy = spec.data_dir.with_name(spec.data_dir.name + ".unaltered")
        try:
            await shielded(self._alter(victim, armed, done, copy))
            logged = spec.log.stat().st_size
            if done:
                await shielded(_start(victim))
                served = await _serves(victim)
                if served:
                    await armed.hold(armed.number("hold_ms"))
        finally:
            if done:
                found = _reaction(victim, ended, logged, served)
                left = await shielded(self._make_whole(victim, armed, done[0], served, copy))
                armed.healed({**found, "served": served, "left": left, "directory": str(spec.data_dir)})
            elif victim.state is MemberState.STOPPED:
                await shielded(victim.start())
            shutil.rmtree(copy, ignore_errors=True)

    async def _alter(self, victim: Member, armed: Armed, done: list[Alteration], copy: Path) -> None:
        # In one piece even under cancellation: what has been altered is undone.
        await victim.stop(GRACE_S)
        if len(armed.context.cluster.voters) < 2:
            await asyncio.to_thread(copy_tree, victim.spec.data_dir, copy)
        with contextlib.suppress(OSError, ValueError):
            found = self.alteration(victim.spec, armed)
            if found is None:
                return
            alteration, evidence = found
            alteration.do()
            done.append(alteration)
            path = alteration.path.relative_to(victim.spec.data_dir)
            armed.fired({"file": str(path), **alteration.evidence(), **evidence, "incarnation": victim.incarnation})

    @staticmethod
    async def _make_whole(victim: Member, armed: Armed, alteration: Alteration, served: bool, copy: Path) -> str:
        """A member that can be relied on in its place again, where that is possible; what became of it."""
        if not served:
            if victim.alive:
                await victim.kill()
            undone = alteration.undo()
            if copy.exists():
                # All of it: a member that did not get as far as to serve may have written all the same, from what it misread.
                await asyncio.to_thread(put_back, copy, victim.spec.data_dir)
                undone = True
            if undone:
                await _start(victim)
                if await _serves(victim):
                    victim.expect_exit(None)
                    return "put back"
        if len(armed.context.cluster.voters) < 2:
            # Nobody else has what it has.
            return "as it is" if victim.alive else "down"
        changing = Changing(armed)
        with contextlib.suppress(ClusterFailure, UsageError):
            await changing.remove(victim)
        settled = await changing.settle()
        return "replaced" if settled["settled"] else "not replaced"


def put_back(copy: Path, directory: Path) -> None:
    """The content of `directory`, on which something may be mounted, is that of `copy` again."""
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    for each in copy.iterdir():
        shutil.move(each, directory / each.name)


async def _start(victim: Member) -> None:
    """Start it; whatever end it comes to is what altered files may lead to."""
    with contextlib.suppress(ClusterFailure):
        await victim.start(predicted=lambda _: True)


async def _serves(victim: Member) -> bool:
    """Whether it answers a linearizable read in time."""
    try:
        await victim.wait_ready(READY_S)
    except (PekanError, OSError):
        return False
    return True


def _reaction(victim: Member, ended: int, logged: int, served: bool) -> dict[str, Any]:
    """What etcd did about it since it was started on the altered files: {"noticed", "how"}."""
    ends = [end for end in victim.exits[ended:] if end.crash]
    if ends:
        return {"noticed": True, "how": f"{'ended' if served else 'did not start'}: {ends[0].crash}"[:SHOWN_CHARACTERS]}
    if text := complaint(victim.spec.log, logged):
        return {"noticed": True, "how": f"logged: {text}"[:SHOWN_CHARACTERS]}
    return {"noticed": False, "how": "" if served else "it neither served nor ended within the time given"}


def complaint(log: Path, offset: int) -> str:
    """The first words from `offset` (bytes) on about damage to the member's own files; "" where there are none."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read(LOG_BYTES_MAX).decode(errors="replace").splitlines()
    for entry in map(log_entry, lines):
        if entry is None:
            continue
        caller = str(entry.get("caller", ""))
        if caller.startswith(_REPAIR) or (entry.get("level") in _LOUD and not caller.startswith(_OF_OTHERS)):
            text = ": ".join(str(entry[key]) for key in ("msg", "error") if key in entry)
            if _COMPLAINT.search(text):
                return text
    return ""
