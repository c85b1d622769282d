"""The other way round: what a finding looks like, of what is known.

A hint beside a finding and no part of the verdict: who meets something known need not look for its cause. Where an issue is said to be
mended in the release at hand there is no hint, since what only looks like it may be new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from pekan.issues.issue import Issue
from pekan.verdict import Finding

MEMBERS = ("m1", "m2", "m3", "m4", "m5")
"""As members are called in every plan."""
MEMBER_FIELDS = ("member", "other")
"""Where the subject of a finding names one."""


class Like(NamedTuple):
    """An issue that shows as such a finding. `affects`: whether it is said to affect the release; None where nobody said."""

    name: str
    title: str
    affects: bool | None

    @property
    def called(self) -> str:
        """#15220, CVE-2026-33343, or the word by which an issue without a number is asked for."""
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
    found = [Like(issue.name, issue.title, _affects(issue, releases)) for issue in issues if _shows_as(issue, finding)]
    return tuple(sorted((like for like in found if like.affects is not False), key=lambda like: like.affects is not True))


def _shows_as(issue: Issue, finding: Finding) -> bool:
    """Whether `issue` shows as such a finding at any member: which one it has to be is a matter of the issue's own run."""
    named = [field for field in MEMBER_FIELDS if finding.subject.get(field)]
    renamed = (replace(finding, subject={**finding.subject, field: name}) for field in named for name in MEMBERS)
    return issue.expects(finding) or any(map(issue.expects, renamed))


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
