"""`path`: an executable that the caller has already. It stays where it is; nothing is copied into the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries.binary import ask_version
from pekan.etcd.binaries.providers import Progress, Provided


@dataclass(frozen=True, slots=True)
class ExplicitPath:
    """The executable at `path`, which may be of any version."""

    path: Path

    @property
    def name(self) -> str:
        return "path"

    def why_not(self, version: str) -> str | None:
        """Why the file cannot serve; with an empty `version` whatever it is will do."""
        if not self.path.is_file():
            return f"{self.path} is not a file"
        if not os.access(self.path, os.X_OK):
            return f"{self.path} is not executable: `chmod +x {self.path}`"
        if not version:
            return None
        try:
            answer = ask_version(self.path)
        except BinaryUnavailable as error:
            return str(error)
        return None if answer.version == version else f"{self.path} is etcd {answer.version}, not {version}"

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        del destination_dir, progress
        reason = self.why_not(version)
        if reason is not None:
            raise BinaryUnavailable(reason)
        path = self.path.absolute()
        return Provided(path, str(path))
