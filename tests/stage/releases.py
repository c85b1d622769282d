"""Which releases of etcd the tests run, and what becomes of a test whose release cannot be had here.

Three need no build (PyPI and Debian have them), so that a fresh machine is not busy with compilers for most of a test run; the newest is
built from its module, once. What needs other releases is a target of its own.
"""

from __future__ import annotations

from functools import cache

import pytest

from pekan.errors import EnvironmentFailure
from pekan.etcd.binaries import Binary, find

READY_MADE = ("3.4.23", "3.5.1", "3.5.16", "3.5.30")
NEWEST = "3.7.3"
RELEASES = (*READY_MADE, NEWEST)


@cache
def _found(version: str) -> Binary | str:
    try:
        return find(version)
    except EnvironmentFailure as failure:
        return str(failure)


def provided(version: str) -> Binary:
    """The executable of a release, fetched or built where it is not cached; the test is skipped with the reason where it cannot be had."""
    found = _found(version)
    if isinstance(found, str):
        pytest.skip(found)
    return found
