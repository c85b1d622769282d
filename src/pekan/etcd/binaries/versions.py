"""Which etcd releases there are: one table, as data, and the rules by which a text names one of them.

============  ===================================================
text          release
============  ===================================================
`3.5.1`       that release, whether the table knows it or not (it may be newer than this Pekan)
`v3.5.1`      the same
`3.6`         the newest patch of that minor in the table
`3.8.0-rc.0`  that pre-release
============  ===================================================

Only 3.4 and later: older servers spell flags and answers in ways no other room of Pekan knows.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pekan.errors import UsageError

NEWEST_PATCH: Final[dict[str, int]] = {"3.4": 45, "3.5": 35, "3.6": 16, "3.7": 3}
"""The newest known patch of each minor. Patches start at 0 and no number was skipped (etcd's CHANGELOG directory)."""

OLDEST_MINOR: Final = (3, 4)

_MINOR = re.compile(r"v?(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})")
_EXACT = re.compile(_MINOR.pattern + r"\.(?P<patch>[0-9]{1,4})(?:-(?P<pre>alpha|beta|rc)\.(?P<number>[0-9]{1,4}))?")

# Order of pre-releases in semantic versioning: alphabetical, and every one of them before the release itself.
_STAGES: Final = {"alpha": 0, "beta": 1, "rc": 2, None: 3}


class VersionKey(NamedTuple):
    """A release as something that sorts: `3.6.0-rc.1` before `3.6.0` before `3.6.1`."""

    major: int
    minor: int
    patch: int
    stage: int
    number: int


def version_key(version: str) -> VersionKey:
    """The sort key of an exact version; `UsageError` when `version` is not one."""
    match = _EXACT.fullmatch(version)
    if match is None:
        raise UsageError(f"{version!r} is not an etcd version such as 3.5.1")
    return VersionKey(
        int(match["major"]),
        int(match["minor"]),
        int(match["patch"]),
        _STAGES[match["pre"]],
        int(match["number"] or 0),
    )


def looks_like_version(text: str) -> bool:
    """Whether `text` has the form of a version or of a minor; says nothing about whether there is such a release."""
    return bool(_EXACT.fullmatch(text) or _MINOR.fullmatch(text))


def known_versions() -> list[str]:
    """Every release of the table, oldest first."""
    return [f"{minor}.{patch}" for minor, newest in NEWEST_PATCH.items() for patch in range(newest + 1)]


def is_known(version: str) -> bool:
    """Whether the table lists this exact release."""
    key = version_key(version)
    newest = NEWEST_PATCH.get(f"{key.major}.{key.minor}")
    return newest is not None and key.stage == _STAGES[None] and key.patch <= newest


def candidates(text: str) -> list[str]:
    """The releases that `text` may stand for, best first: one for an exact version, every patch for a minor.

    Raises `UsageError` for a text that is no version, a minor nobody has released, or anything before 3.4.
    """
    exact = _EXACT.fullmatch(text)
    match = exact or _MINOR.fullmatch(text)
    minors = ", ".join(NEWEST_PATCH)
    if match is None:
        raise UsageError(f"{text!r} is not an etcd version: use an exact one such as 3.5.1, or a minor: {minors}")
    if (int(match["major"]), int(match["minor"])) < OLDEST_MINOR or int(match["major"]) > OLDEST_MINOR[0]:
        raise UsageError(f"etcd {text} is outside what Pekan can drive: it knows 3.4 and later 3.x releases")
    if exact is not None:
        # Leading zeros and the `v` go, so that one release has one spelling (it names locks and cache entries).
        suffix = f"-{exact['pre']}.{int(exact['number'])}" if exact["pre"] else ""
        return [f"{int(exact['major'])}.{int(exact['minor'])}.{int(exact['patch'])}{suffix}"]
    minor = f"{int(match['major'])}.{int(match['minor'])}"
    newest = NEWEST_PATCH.get(minor)
    if newest is None:
        raise UsageError(f"no release of etcd {minor} is known: known minors are {minors}; name an exact version")
    return [f"{minor}.{patch}" for patch in range(newest, -1, -1)]


def resolve_version(text: str) -> str:
    """The exact release that `text` names: `3.6` is the newest patch known, `3.5.1` is itself.

    Raises `UsageError` as `candidates` does.
    """
    return candidates(text)[0]
