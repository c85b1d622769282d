"""From what a caller asks for to an executable that has answered to its name.

::

    spec ── a version or minor ──> cache? ──> providers in order ──> lock, make, verify, publish
         ── a release archive ───> cache? ──> unpack ─────────────> lock, make, verify, publish
         └─ an executable ───────> verify where it is

A version means what a provider delivered under that number; an archive or executable that the caller names is used as
asked, recorded with its path as origin, and never becomes what a version number stands for.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pekan.errors import BinaryUnavailable, UsageError
from pekan.etcd.binaries.binary import Binary, file_sha256, inspect
from pekan.etcd.binaries.cache import Cache, explained
from pekan.etcd.binaries.providers import ChecksumMismatch, Progress, Provider
from pekan.etcd.binaries.providers.archive import OFFICIAL_RELEASES, RELEASES_VARIABLE, ArchiveFile
from pekan.etcd.binaries.providers.chain import version_providers
from pekan.etcd.binaries.providers.path import ExplicitPath
from pekan.etcd.binaries.unpack import ARCHIVE_SUFFIXES
from pekan.etcd.binaries.versions import candidates, is_known, known_versions, looks_like_version, version_key

# A minor stands for many patches. A provider that failed this often (no network, a full module cache) is not asked
# for the older ones: each failure may cost its whole time limit.
FAILURES_MAX: Final = 2


def find(spec: str, *, progress: Progress | None = None) -> Binary:
    """The etcd executable that `spec` names, fetched or built if need be.

    `spec` is an exact version (`3.5.1`), a minor (`3.6`: the newest patch that can be had here), the path of an etcd
    executable, or the path of a release archive (`.tar.gz`, `.tgz`, `.zip`). `progress` gets lines for a person.

    Raises `UsageError` for a text that is none of these, `BinaryUnavailable` with each provider's reason when nothing
    can serve, and `EnvironmentFailure` when the cache cannot be written. Safe to call from several processes at once;
    Ctrl-C leaves the cache as it was.
    """
    report: Progress = progress if progress is not None else _silent
    require_platform()
    if looks_like_version(spec):
        return find_version(spec, Cache.of_user(), report)
    path = Path(spec).expanduser()
    if not path.exists():
        raise UsageError(
            f"{spec!r} is neither an etcd version (3.5.1, 3.6) nor an existing file: name one of the two; "
            "`pekan etcd list` shows the versions"
        )
    if path.name.endswith(ARCHIVE_SUFFIXES):
        return _find_archive(path.absolute(), Cache.of_user(), report)
    return _find_path(path, report)


def find_version(text: str, cache: Cache, progress: Progress) -> Binary:
    """The executable of a version or minor, from this cache or the providers; raises as `find` does."""
    versions = candidates(text)
    with explained(cache.root):
        providers = version_providers(cache, progress)
        failures: dict[str, list[str]] = {provider.name: [] for provider in providers}
        for version in versions:
            binary = cache.look_up(version)
            if binary is None:
                binary = _from_providers(version, cache, providers, failures, progress)
            if binary is not None:
                if version != versions[0]:
                    progress(f"etcd {versions[0]} is known, but {version} is the newest {text} to be had here")
                return binary
        raise BinaryUnavailable(_nothing_can(text, versions[0], providers, failures))


def find_default(*, progress: Progress | None = None) -> Binary:
    """What `pekan hunt` drives when nobody says: `etcd` on PATH, else the newest one in the cache. Never downloads."""
    require_platform()
    on_path = shutil.which("etcd")
    if on_path is not None:
        return _find_path(Path(on_path), progress if progress is not None else _silent)
    found = installed()
    if not found:
        raise BinaryUnavailable("no etcd on PATH and none in Pekan's cache: `pekan etcd install 3.5.1` fetches one in seconds")
    return found[0]


def find_installed(text: str) -> Binary:
    """The cached executable of a version, or of the newest cached patch of a minor. Never downloads or builds.

    Raises `BinaryUnavailable` with the command that installs it, `UsageError` as `resolve_version` does.
    """
    require_platform()
    cache = Cache.of_user()
    versions = candidates(text)
    with explained(cache.root):
        found = (cache.look_up(version) for version in versions)
        binary = next((binary for binary in found if binary is not None), None)
    if binary is None:
        raise BinaryUnavailable(f"etcd {text} is not in the cache ({cache.root}): `pekan etcd install {text}` gets it")
    return binary


def installed() -> list[Binary]:
    """Every executable in the cache, newest version first, checked for presence and size (`find` checks the bytes)."""
    cache = Cache.of_user()
    with explained(cache.root):
        return cache.entries()


@dataclass(frozen=True, slots=True)
class Availability:
    """What can be had of one release here: `cached`, and for each provider, in order, why not (None: it can)."""

    version: str
    why_not: Mapping[str, str | None]
    cached: Binary | None

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that could serve it, in the order they would be asked."""
        return tuple(name for name, reason in self.why_not.items() if reason is None)


def survey(*, offline: bool = False, progress: Progress | None = None) -> list[Availability]:
    """Every known release and every cached other one, oldest first, with what each provider says of it.

    Reads package indexes unless `offline`; downloads and builds nothing.
    """
    cache = Cache.of_user()
    with explained(cache.root):
        by_name = {name: binary for name, binary in cache.named().items() if looks_like_version(name)}
        providers = version_providers(cache, progress if progress is not None else _silent, offline=offline)
        trouble = _platform_trouble()
        return [
            Availability(
                version,
                {provider.name: trouble or provider.why_not(version) for provider in providers},
                by_name.get(version),
            )
            for version in sorted({*known_versions(), *by_name}, key=version_key)
        ]


def require_platform() -> None:
    """Raises `BinaryUnavailable` where Pekan cannot drive etcd: anywhere but on Linux x86-64."""
    trouble = _platform_trouble()
    if trouble is not None:
        raise BinaryUnavailable(trouble)


def platform_trouble(system: str, machine: str) -> str | None:
    """Why etcd cannot be driven on a platform (`sys.platform`, `platform.machine()`); None on Linux x86-64."""
    if system == "linux" and machine in ("x86_64", "AMD64", "amd64"):
        return None
    return (
        f"Pekan drives etcd on Linux x86-64 only, and this is {system} on {machine}: use such a machine or container; "
        "`pekan check` judges recorded runs everywhere"
    )


def _platform_trouble() -> str | None:
    return platform_trouble(sys.platform, platform.machine())


def _silent(line: str) -> None:
    del line


def _from_providers(
    version: str, cache: Cache, providers: tuple[Provider, ...], failures: dict[str, list[str]], progress: Progress
) -> Binary | None:
    """Asks the providers in order; None when none could, with what went wrong added to `failures`."""
    for provider in providers:
        if len(failures[provider.name]) >= FAILURES_MAX or provider.why_not(version) is not None:
            continue
        try:
            return _install(version, version, cache, provider, progress)
        except ChecksumMismatch:
            raise
        except BinaryUnavailable as error:
            failures[provider.name].append(f"{version}: {error}")
            progress(f"etcd {version}: {provider.name} could not: {str(error).splitlines()[0]}")
    return None


def _install(name: str, version: str, cache: Cache, provider: Provider, progress: Progress) -> Binary:
    """Makes, verifies and publishes one executable under `name`. An empty `version` accepts whatever it is."""
    with cache.lock(name, waiting=lambda: progress(f"another install of {name} is under way: waiting for it")):
        done = cache.look_up(name)  # by whoever held the lock before us
        if done is not None:
            return done
        with cache.staging(name) as directory:
            provided = provider.provide(version, directory, progress)
            binary = inspect(provided.path, provider=provider.name, origin=provided.origin)
            if version and binary.version != version:
                raise BinaryUnavailable(f"{provided.origin} calls itself etcd {binary.version}, not {version}")
            return cache.publish(name, binary)


def _find_archive(path: Path, cache: Cache, progress: Progress) -> Binary:
    provider = ArchiveFile(path)
    reason = provider.why_not("")
    if reason is not None:
        raise UsageError(reason)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    # The name is the archive's content, so that a file replaced by another one under the same path is unpacked anew.
    name = f"archive-{digest}"
    with explained(cache.root):
        return cache.look_up(name) or _install(name, "", cache, provider, progress)


def _find_path(path: Path, progress: Progress) -> Binary:
    provider = ExplicitPath(path)
    reason = provider.why_not("")
    if reason is not None:
        raise BinaryUnavailable(reason)
    provided = provider.provide("", path.parent, progress)
    return inspect(provided.path, provider=provider.name, origin=provided.origin)


def _nothing_can(text: str, newest: str, providers: tuple[Provider, ...], failures: Mapping[str, list[str]]) -> str:
    """The message when nothing could serve: each provider's reason on a line, then what would help."""
    what = f"etcd {text}" if text == newest else f"etcd {text} (newest known: {newest})"
    lines = [f"{what} cannot be had here:"]
    for provider in providers:
        reason = failures[provider.name][0] if failures[provider.name] else provider.why_not(newest)
        lines.append(f"  {provider.name}: {reason}".replace("\n", "\n  "))
    if not is_known(newest):
        lines.append(f"Is {newest} a release? This Pekan does not know it: `pekan etcd list` shows those it does.")
    lines.append("Install what a line above asks for, or take the release from etcd's own pages:")
    lines.append(f"  {RELEASES_VARIABLE}='{OFFICIAL_RELEASES}' pekan etcd install {newest}")
    return "\n".join(lines)
