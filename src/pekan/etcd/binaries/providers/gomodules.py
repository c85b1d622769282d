"""`go`: etcd built from its published Go modules by the Go toolchain of this machine.

::

    go list -m -f {{.GoVersion}} MODULE@vX     the go line of that release
    go.mod  = module pekan.invalid/etcd, that go line, require MODULE vX        (no Go source of our own)
    go list -deps MODULE                       fetches and verifies every module; how many packages there are
    go build -mod=mod -trimpath -o etcd MODULE

The go line matters: the main module's decides which runtime defaults (GODEBUG: timers, TLS, HTTP routing) Go compiles
in, so the release's own is taken, not the toolchain's. With `-trimpath` and CGO_ENABLED=0 the result is the same bytes
wherever it is built with one toolchain. The finished file names its source: version and `h1:` checksum of the module
are in its build information, and are compared with what was asked. Go's own module and build caches are used.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Final, NamedTuple

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries.buildinfo import read_main_module
from pekan.etcd.binaries.providers import Progress, Provided
from pekan.etcd.binaries.tools import run_tool
from pekan.etcd.binaries.versions import version_key

MODULE: Final = "go.etcd.io/etcd/server/v3"
OLD_MODULE: Final = "go.etcd.io/etcd"

OLD_RELEASES: Final = {
    "3.4.3": "v0.0.0-20191023171146-3cf2f69b5738",
    "3.4.12": "v0.5.0-alpha.5.0.20200819165624-17cef6e3e9d5",
}
"""3.4 releases as Go modules. Their tags break Go's rule on major versions; only these commits were pinned by others
under a pseudo-version, and so stand in the public module proxy and checksum database."""

OLD_GO_LINE: Final = "1.17"  # 3.4 has no go line that a current toolchain takes; the first with a pruned module graph

OLDEST_TOOLCHAIN: Final = (1, 21)  # from here on Go fetches a newer toolchain by itself when a module asks for one
OFFICIAL_PLACE: Final = Path("/usr/local/go/bin/go")  # where Go's own installer puts it, often not on PATH
ASK_TIMEOUT_S: Final = 180.0  # may fetch a toolchain (70 MB) first
FETCH_TIMEOUT_S: Final = 600.0
BUILD_TIMEOUT_S: Final = 30 * 60.0  # cold: a minute on two idle cores, three on busy ones; bounded for one slow core
PROGRESS_EVERY_S: Final = 0.5


class _Source(NamedTuple):
    """A Go module in one version."""

    module: str
    version: str

    def __str__(self) -> str:
        return f"{self.module}@{self.version}"


def module_of(version: str) -> _Source | None:
    """The module that holds etcd's main package in this release; None where no such module was ever published."""
    if version_key(version) >= version_key("3.5.0-alpha.0"):
        return _Source(MODULE, f"v{version}")
    pseudo = OLD_RELEASES.get(version)
    return None if pseudo is None else _Source(OLD_MODULE, pseudo)


class GoModules:
    """The Go toolchain on PATH, or where Go's installer puts it."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._go: str | None = None

    @property
    def name(self) -> str:
        return "go"

    def why_not(self, version: str) -> str | None:
        if module_of(version) is None:
            return f"of 3.4 only {' and '.join(OLD_RELEASES)} exist as Go modules"
        if self._go is None and self._reason is None:
            self._ask_toolchain()
        return self._reason

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        reason, source = self.why_not(version), module_of(version)
        if reason is not None or source is None or self._go is None:
            raise BinaryUnavailable(reason or "no Go toolchain")
        progress(f"etcd {version}: asking Go for {source}")
        (destination_dir / "go.mod").write_text(
            f"module pekan.invalid/etcd\n\ngo {self._go_line(source, destination_dir)}\n\nrequire {source.module} {source.version}\n",
            encoding="ascii",
        )
        packages = self._fetch(version, source, destination_dir, progress)
        self._build(version, source, destination_dir, progress, packages)
        executable = destination_dir / "etcd"
        main = read_main_module(executable)
        if main is None or (main.path, main.version) != source or main.checksum is None:
            raise BinaryUnavailable(f"Go built something else than {source}: its build information names {main}")
        return Provided(executable, str(source))

    def _ask_toolchain(self) -> None:
        go = shutil.which("go") or (str(OFFICIAL_PLACE) if os.access(OFFICIAL_PLACE, os.X_OK) else None)
        if go is None:
            self._reason = "no Go toolchain on PATH: install Go from https://go.dev/dl"
            return
        try:
            answer = run_tool([go, "version"], timeout_s=ASK_TIMEOUT_S, env=_environment())
        except BinaryUnavailable as error:
            self._reason = str(error)
            return
        match = re.search(r"\bgo(\d+)\.(\d+)", answer)
        if match is not None and (int(match[1]), int(match[2])) < OLDEST_TOOLCHAIN:
            self._reason = f"{go} is {match[0]}: 1.21 or later is needed, see https://go.dev/dl"
            return
        self._go = go

    def _run(self, arguments: list[str], directory: Path, timeout_s: float, progress: Progress | None = None) -> str:
        assert self._go is not None, "provide() has asked for the toolchain"
        return run_tool([self._go, *arguments], timeout_s=timeout_s, cwd=directory, env=_environment(), on_line=progress)

    def _go_line(self, source: _Source, directory: Path) -> str:
        if source.module == OLD_MODULE:
            return OLD_GO_LINE
        answer = self._run(["list", "-m", "-f", "{{.GoVersion}}", str(source)], directory, ASK_TIMEOUT_S).strip()
        if not re.fullmatch(r"\d+\.\d+(\.\d+)?(rc\d+)?", answer):
            raise BinaryUnavailable(f"Go did not tell the go line of {source}: {answer[:100]!r}")
        return answer

    def _fetch(self, version: str, source: _Source, directory: Path, progress: Progress) -> int:
        """Fetches all modules of the build (filling go.mod and go.sum); returns the number of packages in it."""
        progress(f"etcd {version}: fetching its Go modules")
        fetched = 0

        def on_line(line: str) -> None:
            nonlocal fetched
            if line.startswith("go: downloading"):
                fetched += 1
                progress(f"etcd {version}: fetching its Go modules ({fetched})")

        listing = self._run(["list", "-mod=mod", "-deps", source.module], directory, FETCH_TIMEOUT_S, on_line)
        return len(listing.splitlines())

    def _build(self, version: str, source: _Source, directory: Path, progress: Progress, packages: int) -> None:
        """Builds with -v, which names each package that is compiled and not taken from Go's build cache."""
        compiled = 0
        shown_at = 0.0
        progress(f"etcd {version}: building with Go ({packages} packages)")

        def on_line(line: str) -> None:
            nonlocal compiled, shown_at
            if " " not in line:
                compiled += 1
                if time.monotonic() - shown_at > PROGRESS_EVERY_S:
                    shown_at = time.monotonic()
                    progress(f"etcd {version}: building with Go ({compiled} of at most {packages} packages compiled)")

        arguments = ["build", "-v", "-mod=mod", "-trimpath", "-o", "etcd", source.module]
        self._run(arguments, directory, BUILD_TIMEOUT_S, on_line)


def _environment() -> dict[str, str]:
    """The caller's environment, where everything that would change the bytes built is set to one value.

    Proxies, private-module settings, caches and the choice of toolchain (GOTOOLCHAIN) stay the caller's.
    """
    return {
        **os.environ,
        "CGO_ENABLED": "0",  # static: runs in every namespace and on every libc
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        # Not empty, because an empty value would let the user's `go env -w` file through; there is no VCS to stamp.
        "GOFLAGS": "-buildvcs=false",
        "GOEXPERIMENT": "",
    }
