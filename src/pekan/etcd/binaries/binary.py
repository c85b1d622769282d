"""An etcd executable and everything that says where it comes from: the value that every run records.

Two sources, both asked of the file itself, never of whoever delivered it:

===================  =====================================================
`etcd --version`     version, Git SHA, Go version
the file's bytes     sha256, size, and the main module's checksum in Go's build information
===================  =====================================================

`provider` and `origin` are what the provider adds: how the file came here, and from where.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pekan.errors import BinaryUnavailable, EvidenceError, UsageError
from pekan.etcd.binaries.buildinfo import read_main_module
from pekan.etcd.binaries.tools import ToolFailure, run_tool
from pekan.etcd.binaries.versions import version_key

ASK_TIMEOUT_S: Final = 30.0  # printing a version takes 50 ms; a busy CI machine may page 40 MB in first

ETCD_MODULES: Final = ("go.etcd.io/etcd/server/v3", "go.etcd.io/etcd", "go.etcd.io/etcd/v3")
"""Go modules with etcd's main package: since 3.5, before it, and the repository's root."""

_FIELDS: Final = ("path", "version", "git_sha", "go_version", "provider", "origin", "module_checksum", "sha256")
_OPTIONAL: Final = ("git_sha", "module_checksum")


@dataclass(frozen=True, slots=True)
class Binary:
    """One etcd executable.

    `path` is absolute; `version` exact, without `v`; `git_sha` None when the build did not set it (module and Debian
    builds do not); `go_version` as in `go1.23.11`; `provider` one of `path`, `archive`, `wheel`, `debian`, `go`;
    `origin` the URL, package, module or path; `module_checksum` the `h1:...` of its source module when the file's Go
    build information tells it; `sha256` of the file in hex; `size_bytes` of the file.
    """

    path: Path
    version: str
    git_sha: str | None
    go_version: str
    provider: str
    origin: str
    module_checksum: str | None
    sha256: str
    size_bytes: int

    def to_json(self) -> dict[str, object]:
        """A JSON object with one member for each field."""
        return {**{name: getattr(self, name) for name in _FIELDS}, "path": str(self.path), "size_bytes": self.size_bytes}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Binary:
        """The inverse of `to_json`; members it does not know are ignored. Raises `EvidenceError` on anything else."""
        texts: dict[str, str | None] = {}
        for name in _FIELDS:
            value = document.get(name)
            if not isinstance(value, str) and not (value is None and name in _OPTIONAL):
                raise EvidenceError(f"etcd binary: {name!r} should be a string, found {value!r}")
            texts[name] = value
        size_bytes = document.get("size_bytes")
        if not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
            raise EvidenceError(f"etcd binary: 'size_bytes' should be a number, found {size_bytes!r}")
        return cls(
            path=Path(texts["path"] or ""),
            version=texts["version"] or "",
            git_sha=texts["git_sha"],
            go_version=texts["go_version"] or "",
            provider=texts["provider"] or "",
            origin=texts["origin"] or "",
            module_checksum=texts["module_checksum"],
            sha256=texts["sha256"] or "",
            size_bytes=size_bytes,
        )


class VersionOutput(NamedTuple):
    """What `etcd --version` prints; `git_sha` is None where it says "Not provided"."""

    version: str
    git_sha: str | None
    go_version: str


def parse_version_output(text: str) -> VersionOutput | None:
    """Reads the output of `etcd --version` (3.4 to 3.7 print the same four lines), or None if etcd did not print it.

    The lines are, for example, `etcd Version: 3.5.1`, `Git SHA: e8732fb5f`, `Go Version: go1.16.3` and
    `Go OS/Arch: linux/amd64` (etcd, server/etcdmain/config.go).
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    version = fields.get("etcd Version", "")
    go_version = fields.get("Go Version", "")
    try:
        version_key(version)
    except UsageError:
        return None
    if not go_version.startswith("go"):
        return None
    sha = fields.get("Git SHA", "")
    return VersionOutput(version, sha if re.fullmatch(r"[0-9a-f]{7,40}", sha) else None, go_version)


def ask_version(path: Path) -> VersionOutput:
    """Runs `path --version` and reads the answer; raises `BinaryUnavailable` when this is no etcd that runs here."""
    # etcd takes flags from ETCD_* variables as well; what is in the caller's environment must not change the answer.
    env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    try:
        output = run_tool([path, "--version"], timeout_s=ASK_TIMEOUT_S, env=env)
    except ToolFailure as error:
        raise BinaryUnavailable(f"{path} does not run here as etcd: {error}") from error
    answer = parse_version_output(output)
    if answer is None:
        first = output.strip().splitlines()[0][:200] if output.strip() else "nothing"
        raise BinaryUnavailable(f"{path} is not etcd: to --version it answers {first!r}")
    return answer


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hex (about 30 ms for an etcd binary)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(path: Path, *, provider: str, origin: str) -> Binary:
    """Asks the executable and reads its bytes; raises `BinaryUnavailable` when it is not a working etcd."""
    answer = ask_version(path)
    try:
        module = read_main_module(path)
        return Binary(
            path=path,
            version=answer.version,
            git_sha=answer.git_sha,
            go_version=answer.go_version,
            provider=provider,
            origin=origin,
            module_checksum=module.checksum if module is not None and module.path in ETCD_MODULES else None,
            sha256=file_sha256(path),
            size_bytes=path.stat().st_size,
        )
    except OSError as error:
        raise BinaryUnavailable(f"cannot read {path}: {error.strerror or error}") from error
