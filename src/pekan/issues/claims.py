"""What is claimed of an issue, for people: which releases are affected, what meeting it takes, and which pair a search should end at.

Claims stand in the files of the issues; what runs have shown stands in docs/issues.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from pekan.errors import UsageError
from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.issues.likeness import called
from pekan.plan import Plan, Step, Trigger

ANY_RELEASE = "3.6.0"
"""What a recipe is asked for that no release is named of: that of an issue which was never released."""


class Span(NamedTuple):
    """Where an issue is said to end, and the first and the last line of releases, (3, 5), in which to look for that."""

    claimed: Boundary
    first_line: tuple[int, ...]
    last_line: tuple[int, ...]

    def covers(self, version: str) -> bool:
        """Whether `version` is a release, not a pre-release, of these lines."""
        return "-" not in version and self.first_line <= numbered(version)[:2] <= self.last_line


def span(issue: Issue, line: str = "") -> Span:
    """Where to search for the end of `issue`: in the line of releases that is asked for ("3.5"), or in that of the newest claim.

    Raises UsageError where nothing is claimed and no line is asked for.
    """
    for claimed in sorted(issue.boundaries, key=lambda each: (bool(each.first_fixed), numbered(max(each, key=_order))), reverse=True):
        lines = [numbered(version)[:2] for version in claimed if version]
        if lines and (not line or numbered(line)[:2] in lines):
            return Span(claimed, lines[0], lines[-1])
    if not line:
        raise UsageError(
            f"{called(issue.name)}: no release is named where it may end; name a line of releases with --etcd, as in --etcd 3.5"
        )
    return Span(Boundary("", ""), numbered(line)[:2], numbered(line)[:2])


def _order(version: str) -> tuple[int, ...]:
    return numbered(version) if version else ()


def usual_recipe(issue: Issue) -> Recipe | None:
    """The recipe for the newest release that is said to be affected; None where there is none for any that is named."""
    lasts = sorted((last for last, _ in issue.boundaries if last), key=numbered, reverse=True)
    for version in (*lasts, *(fixed for _, fixed in issue.boundaries if fixed), *filter(None, [issue.introduced]), ANY_RELEASE):
        try:
            return issue.run(version)
        except UsageError:
            continue
    return None


def has_recipe(issue: Issue, version: str) -> bool:
    """Whether there is one for this release."""
    try:
        issue.run(version)
    except UsageError:
        return False
    return True


def needs(issue: Issue) -> str:
    """What meeting `issue` takes: members, and faults by kind."""
    recipe = usual_recipe(issue)
    if recipe is None:
        return "-"
    members = f"{recipe.plan.members} member{'s' if recipe.plan.members > 1 else ''}"
    return ", ".join((members, *dict.fromkeys(spec.split()[0] for spec in recipe.faults)))


def fixed_in(issue: Issue) -> str:
    """The first fixed releases, oldest line first, in a phrase."""
    if issue.not_released:
        return "never released"
    return ", ".join(dict.fromkeys(boundary.first_fixed or "open" for boundary in issue.boundaries))


def affected(issue: Issue) -> str:
    """Which releases are said to be affected, in a phrase."""
    if issue.not_released:
        return issue.not_released
    return f"{f'from {issue.introduced} on, ' if issue.introduced else ''}{'; '.join(map(_ends, issue.boundaries))}"


def _ends(boundary: Boundary) -> str:
    last, fixed = boundary
    if last and fixed:
        return f"up to {last}, fixed in {fixed}"
    return f"up to {last} at least, no fix" if last else f"fixed in {fixed}"


def to_json(issue: Issue) -> dict[str, Any]:
    """All of it as a JSON object."""
    recipe = usual_recipe(issue)
    return {
        "issue": issue.name,
        "title": issue.title,
        "guarantee": issue.guarantee,
        "shows_as": issue.shows_as,
        "codes": list(issue.codes),
        "introduced": issue.introduced,
        "boundaries": [boundary._asdict() for boundary in issue.boundaries],
        "not_released": issue.not_released,
        "needs": needs(issue),
        "story": issue.story,
        "links": list(issue.links),
        "plan": recipe.plan.to_json() if recipe is not None else None,
        "faults": list(recipe.faults) if recipe is not None else [],
    }


def script_lines(plan: Plan, show_trigger: Callable[[Trigger], str]) -> list[str]:
    """The script of `plan`, a line for each lane and each of its steps. `show_trigger` spells moments as `--fault` does."""
    lines = []
    for lane in plan.script:
        lines.append(f"{lane.name}, at {lane.member}:")
        lines.extend(f"  {_step_line(step, show_trigger)}" for step in lane.steps)
    return lines


def _step_line(step: Step, show_trigger: Callable[[Trigger], str]) -> str:
    asked = ", ".join(f"{name} {json.dumps(value)}" for name, value in step.request.items())
    told = [
        f"{show_trigger(step.wait)}: " if step.wait is not None else "",
        f"[{step.name}] " if step.name else "",
        step.call,
        f" {asked}" if asked else "",
        f", at {step.member}" if step.member else "",
        f", {step.times} times" if step.times > 1 else "",
        f", by each of {step.clients} clients" if step.clients > 1 else "",
        f", one each {step.every_ms} ms" if step.every_ms else "",
        f", until {show_trigger(step.until)}" if step.until is not None else "",
    ]
    return "".join(told)


def fingerprint(recipe: Recipe) -> str:
    """Twelve hex digits that stand for exactly this recipe, so that figures of an earlier one are known for that."""
    spoken = {"plan": _spoken(recipe.plan), "faults": recipe.faults}
    return hashlib.sha256(json.dumps(spoken, sort_keys=True).encode()).hexdigest()[:12]


def _spoken(value: Any) -> Any:
    """A value without the fields that say what they say anyway: a later Pekan may have more of them."""
    if isinstance(value, list | tuple):
        return [_spoken(each) for each in value]
    if not is_dataclass(value):
        return value
    told = {}
    for each in fields(value):
        content = getattr(value, each.name)
        usual = each.default_factory() if each.default_factory is not MISSING else each.default
        if content != usual:
            told[each.name] = _spoken(content)
    return told
