"""The historical inconsistencies of etcd, one file each: the story, a plan, the finding it expects. Data, no machinery.

Each file has one `Issue` called ISSUE; `ISSUES` finds them by name.
"""

from __future__ import annotations

import importlib
import pkgutil

from pekan.issues.issue import Boundary, Issue, Recipe, numbered


def _collected() -> dict[str, Issue]:
    """The issues of every file here whose name begins with "issue_", by name: numbers first, in ascending order."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("issue_"):
            found.append(importlib.import_module(f"{__name__}.{module.name}").ISSUE)
    return {issue.name: issue for issue in sorted(found, key=lambda each: (not each.name.isdecimal(), each.name.zfill(8)))}


ISSUES: dict[str, Issue] = _collected()

__all__ = ["ISSUES", "Boundary", "Issue", "Recipe", "numbered"]
