"""A rename that was never made durable: the file has its old name again.

etcd writes a new log beside the old one and renames it, the first time with its whole directory (wal.tmp becomes wal); a file system that
loses the rename leaves a member without its last log, or without any. `outside`: etcd syncs the directory, so that this has to have lied.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pekan.faults.corruption.altered import Alteration, Altered, Rename
from pekan.faults.injector import Armed, Drawn, Parameter
from pekan.faults.stored.files import segments, wal_directory

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

WHAT = ("last", "segment", "directory")


class LostRename(Altered):
    """A stopped member's log under its temporary name."""

    kind: ClassVar[str] = "lost-rename"
    summary: ClassVar[str] = "the member is stopped, its log has the name again that it had while it was made, and it is started again"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "what": Parameter("last", "text", "the last segment of the log, the directory of a log with one segment; or either", WHAT),
        "hold_ms": Altered.hold,
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {})

    def alteration(self, spec: MemberSpec, armed: Armed) -> tuple[Alteration, dict[str, Any]] | None:
        """The last rename there was; a segment of a log that has but one was renamed with its directory."""
        written, directory = segments(spec), wal_directory(spec)
        what = armed.text("what")
        if what == "last":
            what = "segment" if len(written) > 1 else "directory"
        if what == "segment":
            if len(written) < 2:
                return None
            return Rename(written[-1], written[-1].with_name("lost.tmp")), {"what": what}
        return Rename(directory, directory.with_name(directory.name + ".tmp")), {"what": what}
