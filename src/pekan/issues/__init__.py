"""The historical inconsistencies of etcd, one file each: the story, a plan, the finding it expects. Data, no machinery.

Each file has one `Issue` called ISSUE; `ISSUES` finds them by name, `named` however its letters are written.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from pekan.issues import claims
from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.issues.likeness import Like, alike, called
from pekan.verdict import Finding


def _collected() -> dict[str, Issue]:
    """The issues of every file here whose name begins with "issue_" or "cve_", by name: numbers first, in ascending order."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(("issue_", "cve_")):
            found.append(importlib.import_module(f"{__name__}.{module.name}").ISSUE)
    return {issue.name: issue for issue in sorted(found, key=lambda each: (not each.name.isdecimal(), each.name.zfill(8)))}


ISSUES: dict[str, Issue] = _collected()


def named(name: str) -> Issue | None:
    """The issue that is asked for by `name`, in capital letters or not, a number with its # or without; None where there is none."""
    asked = name.removeprefix("#").casefold()
    return next((issue for issue in ISSUES.values() if issue.name.casefold() == asked), None)


def like(finding: Finding, versions: Iterable[str]) -> tuple[Like, ...]:
    """The issues that `finding` looks like on one of `versions`, the releases of the members; none given: of unknown release."""
    return alike(finding, versions, ISSUES.values())


__all__ = ["ISSUES", "Boundary", "Issue", "Like", "Recipe", "alike", "called", "claims", "like", "named", "numbered"]
