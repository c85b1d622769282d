"""A historical inconsistency of etcd as data: its story, the run that meets it, and the finding by which it is known.

::

    Issue.run(version) ──> Recipe(plan, faults)   what every hunt is made of; nothing here is carried out
    Issue.expects(finding) ──> bool               a pure function over the ordinary findings of the ordinary checkers

No issue has an oracle of its own: what it expects is the code of a root finding (status "counts") and what that finding is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pekan.plan import Plan
from pekan.verdict import Finding


class Boundary(NamedTuple):
    """Where an issue ends in one line of releases: the last release that shows it, and the first that does not; "" where there is none."""

    last_affected: str
    first_fixed: str


class Recipe(NamedTuple):
    """How to meet an issue.

    plan    members, flags, script or workload, time; no faults, no etcd, no seed
    faults  each as `--fault` takes it; a required fault that does not fire means that the conditions were not met
    """

    plan: Plan
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Issue:
    """One inconsistency.

    name        how it is asked for: the number at etcd's tracker, that of a vulnerability (CVE-...), or a word where it has neither
    title       the story in a line
    guarantee   the promise that it breaks, in a phrase
    shows_as    what a user meets, in a phrase
    story       what happens inside and why that breaks the guarantee, for somebody who never saw etcd's code; paragraphs
    introduced  the first affected release, or "" where it was always there
    boundaries  one a line of releases, oldest first; claims that runs have to confirm
    codes       of the findings that it expects
    run         the recipe for a release; raises UsageError where there is none for it (the message says why)
    about       what an expected finding is about; the default takes every finding with one of the codes
    links       pages with more: the issue, the fix
    not_released  why no release shows it; "" for all others
    """

    name: str
    title: str
    guarantee: str
    shows_as: str
    story: str
    introduced: str
    boundaries: tuple[Boundary, ...]
    codes: tuple[str, ...]
    run: Callable[[str], Recipe]
    about: Callable[[Finding], bool] = lambda finding: True
    links: tuple[str, ...] = ()
    not_released: str = ""

    def expects(self, finding: Finding) -> bool:
        """Whether `finding` is what this issue shows as."""
        return finding.status == "counts" and finding.code in self.codes and self.about(finding)

    def affects(self, version: str) -> bool | None:
        """Whether a release is affected by what is claimed here; None where no boundary speaks for its line of releases."""
        number = numbered(version)
        line = number[:2]
        if self.introduced and number < numbered(self.introduced):
            return False
        for last, fixed in self.boundaries:
            if (last and numbered(last)[:2] == line) or (fixed and numbered(fixed)[:2] == line):
                return number < numbered(fixed) if fixed else True
        lasts = [numbered(last) for last, _ in self.boundaries if last]
        fixes = [numbered(fixed) for _, fixed in self.boundaries if fixed]
        if fixes and number > max(fixes):
            return False
        if lasts and line < min(lasts)[:2] and not self.introduced:
            return True
        return None


def parts(finding: Finding, member: str) -> bool:
    """Whether `member` is one of those that `finding` compares, or the one that it is about."""
    return member in (finding.subject.get("member"), finding.subject.get("other"))


def numbered(version: str) -> tuple[int, ...]:
    """3.5.1 as (3, 5, 1), so that releases can be compared; what follows a dash or a plus is left out."""
    return tuple(int(part) for part in version.split("-")[0].split("+")[0].split("."))
