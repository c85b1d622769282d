"""`debian`: the `etcd-server` package of any Debian suite that this machine's own apt can reach.

::

    apt-get update --print-uris ──> the archive's address (this machine's mirror, proxy and credentials)
         │
         ▼  for each suite, in a private directory, verified by the system's Debian keyring
    apt-get update ──> apt-cache show etcd-server ──> {upstream version: suite, file, sha256}   kept for a day
                                                            │
    apt-helper download-file URL SHA256:... ────────────────┘
         └── dpkg-deb --extract ──> usr/bin/etcd

Nothing of the system is written: state, lists, caches and sources are redirected into the private directory, and the
hooks that machines hang on `apt-get update` (container images empty /var/cache/apt by one) are switched off. Root is
not needed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries.cache import Cache
from pekan.etcd.binaries.providers import ChecksumMismatch, Progress, Provided
from pekan.etcd.binaries.tools import ToolFailure, run_tool
from pekan.etcd.binaries.versions import version_key

SUITES: Final = ("bookworm", "trixie", "forky", "sid")
"""Suites looked at besides those of the machine itself; older ones carry nothing from 3.4 on."""

ALIASES: Final = ("oldstable", "stable", "testing", "unstable")
ARCHIVES_MAX: Final = 3  # a machine has one Debian mirror, perhaps a second; more would only cost time

PACKAGE: Final = "etcd-server"
MEMBER: Final = "usr/bin/etcd"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPER: Final = Path("/usr/lib/apt/apt-helper")
INDEX_NAME: Final = "debian"
INDEX_AGE_MAX_S: Final = 24 * 3600.0  # Debian publishes four times a day; etcd uploads come a few times a year
INDEX_TIMEOUT_S: Final = 180.0  # 10 MB a suite
DOWNLOAD_TIMEOUT_S: Final = 600.0
TOOL_TIMEOUT_S: Final = 60.0

# `1:3.5.16+dfsg-4` is epoch, upstream version, Debian revision. A `~` would mark a version before the release.
_DEBIAN_VERSION: Final = re.compile(r"(?:[0-9]+:)?(?P<upstream>[0-9]+\.[0-9]+\.[0-9]+)(?:\+[^-]*)?-(?P<revision>.+)")

_INDEX_URI: Final = re.compile(r"'(?P<url>\S+?)/dists/(?P<suite>[^/\s']+)/main/binary-amd64/Packages")


class Package(NamedTuple):
    """One `etcd-server` package: where it lies in the archive and what its bytes must be."""

    upstream: str
    debian: str
    suite: str
    url: str
    sha256: str


class Archive(NamedTuple):
    """A package archive that this machine's apt uses, and the Debian suites configured from it."""

    url: str
    suites: tuple[str, ...]


def upstream_version(debian: str) -> str | None:
    """The upstream release in a Debian version; None for a pre-release, a snapshot or anything before 3.4."""
    match = _DEBIAN_VERSION.fullmatch(debian)
    if match is None or version_key(match["upstream"])[:2] < (3, 4):
        return None
    return match["upstream"]


def parse_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a package index (deb822): field name to first line of its value."""
    for stanza in re.split(r"\n\s*\n", text):
        lines = (line.partition(":") for line in stanza.splitlines() if line[:1] not in ("", " ", "\t"))
        fields = {name: value.strip() for name, colon, value in lines if colon}
        if fields:
            yield fields


class DebianPackage:
    """Packages of the Debian archive, through this machine's apt; the index is kept in `cache` for a day."""

    def __init__(self, cache: Cache, progress: Progress, *, offline: bool = False) -> None:
        self._cache = cache
        self._progress = progress
        self._offline = offline
        self._packages: dict[str, Package] | None = None
        self._trouble: str | None = None

    @property
    def name(self) -> str:
        return "debian"

    def why_not(self, version: str) -> str | None:
        missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
        if missing or not HELPER.exists():
            return f"no {missing[0] if missing else HELPER} here: this is not a Debian machine"
        self._load()
        if self._trouble is not None:
            return self._trouble
        packages = self._packages or {}
        if version not in packages:
            return f"Debian carries {', '.join(sorted(packages, key=version_key)) or 'no etcd'}, as far as apt can see here"
        return None

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        reason = self.why_not(version)
        if reason is not None or self._packages is None:
            raise BinaryUnavailable(reason or "the Debian index is not known")
        package = self._packages[version]
        progress(f"etcd {version}: downloading {PACKAGE} {package.debian} of Debian {package.suite}")
        deb = destination_dir / "package.deb"
        configuration = _private_apt(destination_dir / "apt", url="", suite="")
        try:
            run_tool(
                [HELPER, "-c", configuration, "download-file", package.url, deb, f"SHA256:{package.sha256}"],
                timeout_s=DOWNLOAD_TIMEOUT_S,
                env=_environment(),
            )
        except ToolFailure as error:
            if "Hash Sum mismatch" in str(error):
                raise ChecksumMismatch(f"{_shown(package.url)} is not the package that Debian signed: {error}") from error
            # A suite moves on and drops the file: the next attempt looks at the index again.
            self._cache.index_file(INDEX_NAME).unlink(missing_ok=True)
            raise
        unpacked = destination_dir / "unpacked"
        run_tool(["dpkg-deb", "--extract", deb, unpacked], timeout_s=TOOL_TIMEOUT_S)
        executable = unpacked / MEMBER
        if executable.is_symlink() or not executable.is_file():
            raise BinaryUnavailable(f"{PACKAGE} {package.debian} of Debian {package.suite} has no file {MEMBER}")
        return Provided(executable, f"Debian {package.suite} {PACKAGE} {package.debian} ({_shown(package.url)})")

    def _load(self) -> None:
        """Reads the kept index, or looks into apt's; once in the life of this object."""
        if self._packages is not None or self._trouble is not None:
            return
        self._packages = self._kept()
        if self._packages is not None:
            return
        if self._offline:
            self._trouble = "apt has not been asked yet what Debian carries"
            return
        try:
            self._packages = self._look()
        except BinaryUnavailable as error:
            self._trouble = str(error)

    def _kept(self) -> dict[str, Package] | None:
        """The index as it was read last, unless that is too long ago."""
        document = self._cache.read_json(self._cache.index_file(INDEX_NAME))
        if document is None:
            return None
        read_at, rows = document.get("read_at"), document.get("packages")
        if not isinstance(read_at, int | float) or not 0 <= time.time() - read_at < INDEX_AGE_MAX_S:
            return None
        if not isinstance(rows, list):
            return None
        packages = [Package(*row) for row in rows if isinstance(row, list) and len(row) == len(Package._fields)]
        return {package.upstream: package for package in packages}

    def _look(self) -> dict[str, Package]:
        """Asks the archive, suite by suite. A suite that cannot be read is left out; `BinaryUnavailable` if none can."""
        failures: list[str] = []
        with tempfile.TemporaryDirectory(prefix="pekan-apt-") as name:
            directory = Path(name)
            for number, archive in enumerate(_archives(directory / "none")):
                # Another vendor's archive may use Debian's suite names; Debian's keyring does not vouch for it.
                packages = self._read_archive(directory / str(number), archive, failures)
                if packages is not None:
                    break
            else:
                raise BinaryUnavailable(f"apt could not read any Debian suite: {failures[0]}")
        document: dict[str, object] = {
            "read_at": time.time(),
            "packages": [list(package) for package in packages.values()],
            "failures": failures,
        }
        self._cache.write_json(self._cache.index_file(INDEX_NAME), document)
        return packages

    def _read_archive(self, directory: Path, archive: Archive, failures: list[str]) -> dict[str, Package] | None:
        """What an archive carries by upstream version; None if no suite could be read. Adds to `failures`."""
        packages: dict[str, Package] = {}
        suites = list(dict.fromkeys((*archive.suites, *SUITES)))
        read = 0
        for number, suite in enumerate(suites):
            self._progress(f"asking apt which etcd Debian {suite} carries ({number + 1} of {len(suites)})")
            try:
                found = _read_suite(directory / suite, archive.url, suite)
            except BinaryUnavailable as error:
                failures.append(f"{_shown(archive.url)} {suite}: {error}")
                continue
            read += 1
            for package in found:
                # The first suite that has a release names it: the machine's own, then from stable to unstable.
                packages.setdefault(package.upstream, package)
        return packages if read else None


def _shown(url: str) -> str:
    """An address without user and password."""
    return re.sub(r"//[^/]*@", "//", url)


def _environment() -> dict[str, str]:
    """The caller's environment with tools that speak English and ask nothing."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _archives(directory: Path) -> list[Archive]:
    """The archives in this machine's apt configuration that have Debian suites; `BinaryUnavailable` without any."""
    # With no lists at all apt names every index it would fetch. Its real lists would tell more (labels), but container
    # images come without them.
    (directory / "partial").mkdir(parents=True)
    listing = run_tool(
        ["apt-get", "-o", f"Dir::State::lists={directory}", "update", "--print-uris"],
        timeout_s=TOOL_TIMEOUT_S,
        env=_environment(),
    )
    archives = parse_archives(listing)
    if not archives:
        raise BinaryUnavailable("apt here has no Debian source: one line such as `deb [signed-by=KEYRING] URL trixie main` would do")
    return archives[:ARCHIVES_MAX]


def parse_archives(listing: str) -> list[Archive]:
    """The archives with Debian suites in what `apt-get update --print-uris` prints, in the order of the sources."""
    found: dict[str, list[str]] = {}
    for match in _INDEX_URI.finditer(listing):
        suite = match["suite"]
        if suite.removesuffix("-backports") in (*SUITES, *ALIASES):
            found.setdefault(match["url"], []).append(suite)
    return [Archive(url, tuple(dict.fromkeys(suites))) for url, suites in found.items()]


def _private_apt(directory: Path, *, url: str, suite: str) -> Path:
    """Writes an apt configuration whose every writable place is under `directory` (absolute); returns its file."""
    (directory / "lists" / "partial").mkdir(parents=True)
    (directory / "cache" / "archives" / "partial").mkdir(parents=True)
    (directory / "status").touch()
    sources = directory / "private.sources"
    if url:
        signed_by = f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""  # else apt's own trusted keys
        sources.write_text(
            f"Types: deb\nURIs: {url}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\nTargets: Packages\n{signed_by}",
            encoding="utf-8",
        )
    configuration = directory / "apt.conf"
    # Read after the machine's own configuration: its proxies and credentials hold, its places and hooks do not.
    configuration.write_text(
        f"""
        Dir::Etc::sourcelist "{sources}";
        Dir::Etc::sourceparts "/dev/null";
        Dir::State::lists "{directory / "lists"}";
        Dir::State::status "{directory / "status"}";
        Dir::Cache "{directory / "cache"}";
        Dir::Log "{directory}";
        APT::Sandbox::User "root";
        Acquire::Languages "none";
        Acquire::Retries "1";
        Acquire::http::Timeout "20";
        Acquire::https::Timeout "20";
        Acquire::AllowInsecureRepositories "false";
        Acquire::AllowDowngradeToInsecureRepositories "false";
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        """.replace("        ", ""),
        encoding="utf-8",
    )
    return configuration


def _read_suite(directory: Path, url: str, suite: str) -> list[Package]:
    """What a suite carries of etcd, from its signed index."""
    configuration = _private_apt(directory, url=url, suite=suite)
    run_tool(["apt-get", "-c", configuration, "update"], timeout_s=INDEX_TIMEOUT_S, env=_environment())
    try:
        text = run_tool(["apt-cache", "-c", configuration, "show", PACKAGE], timeout_s=TOOL_TIMEOUT_S, env=_environment())
    except ToolFailure:
        return []  # apt-cache fails when it knows no such package
    packages = []
    for stanza in parse_stanzas(text):
        debian, file, sha256 = (stanza.get(field, "") for field in ("Version", "Filename", "SHA256"))
        upstream = upstream_version(debian)
        if upstream is not None and stanza.get("Package") == PACKAGE and file and re.fullmatch("[0-9a-f]{64}", sha256):
            packages.append(Package(upstream, debian, suite, f"{url.rstrip('/')}/{file}", sha256))
    return packages
