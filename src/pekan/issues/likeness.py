"""The other way round: what a finding looks like, of what is known.

A hint beside a finding and no part of the verdict: who meets something known need not look for its cause. Where an issue is said to be
mended in the release at hand there is no hint, since what only looks like it may be new.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pekan.issues.issue import Issue
from pekan.verdict import Finding


class Like(NamedTuple):
    """An issue that shows as such a finding. `affects`: whether it is said to affect the release; None where nobody said."""

    name: str
    title: str
    affects: bool | None

    @property
    def called(self) -> str:
        """#15220, or the word by which an issue without a number is asked for."""
        return called(self.name)

    def __str__(self) -> str:
        return f"{self.called}, which {'affects' if self.affects else 'may affect'} this version: {self.title}"

    def to_json(self) -> dict[str, Any]:
        return {"issue": self.name, "title": self.title, "affects": self.affects, "text": f"like {self}"}


def called(name: str) -> str:
    """How an issue is written in a sentence."""
    return f"#{name}" if name[:1].isdecimal() else name


def alike(finding: Finding, versions: Iterable[str], issues: Iterable[Issue]) -> tuple[Like, ...]:
    """Of `issues`, those that show as `finding` and are not known to be mended in each of `versions` (none: unknown releases).

    Those that affect come before those that may.
    """
    releases = tuple(versions)
    found = [Like(issue.name, issue.title, _affects(issue, releases)) for issue in issues if issue.expects(finding)]
    return tuple(sorted((like for like in found if like.affects is not False), key=lambda like: like.affects is not True))


def _affects(issue: Issue, releases: tuple[str, ...]) -> bool | None:
    """Whether one of `releases` is affected; None where that is not known of one, and none is."""
    said = []
    for release in releases:
        try:
            said.append(issue.affects(release))
        except ValueError:  # a build that bears no number
            said.append(None)
    if True in said:
        return True
    return None if None in said or not said else False
