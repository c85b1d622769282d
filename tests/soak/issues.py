"""Every historical issue on the releases that its file speaks of, recorded, and the page that tells it.

::

    make issues
    .venv/bin/python tests/soak/issues.py [NUMBER ...] [--line 3.5] [--again] [--list]
    .venv/bin/python tests/soak/issues.py 17247 --build e3c70c8a9=PATH
    .venv/bin/python tests/soak/issues.py [NUMBER ...] --bisect

    last affected release of each line     10 attempts     shows it
    first fixed release of each line        5 attempts     does not
    newest 3.7                              3 attempts     does not, where it is fixed there
    a build of no release (`--build`)      10 attempts     what a binary shows that somebody gives; nothing is claimed of it

    where one of a pair cannot be had here, the nearest release on its side of the line stands in for it

One cell is one issue on one release: a `pekan reproduce`, whose answer goes into docs/issues-results.json as soon as it is there, and
docs/issues.md is written anew. A cell that stands there already is left out, unless it was recorded of another recipe, or could not be run,
or `--again` is given; so what was interrupted goes on where it was. A release that has to be built takes a minute or two more; those that
are there come first.

With `--bisect` each issue's border is looked for instead, by `pekan reproduce NUMBER --bisect`, and recorded beside the cells.

Ends with 0 where every cell that could be run says what its issue's file claims, with 1 where one does not, with 130 where interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from pekan import __version__
from pekan.errors import UsageError
from pekan.etcd.binaries import resolve_version, survey, version_key
from pekan.etcd.binaries.binary import file_sha256
from pekan.issues import ISSUES, Issue, called, claims

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "issues-results.json"
LAST, FIRST, NEWEST, BUILD = "last affected", "first fixed", "newest", "build"
ATTEMPTS = {LAST: 10, FIRST: 5, NEWEST: 3, BUILD: 10}
BUILT = "go"
"""The provider that builds."""
EXPECTED = {LAST: "shown", FIRST: "not shown"}
INTERRUPTED = 130
ADDRESS = re.compile(r"https?://\S*/")
"""Of a package, up to its name: which mirror it came from is this machine's business."""


class Cell(NamedTuple):
    """One issue on one release, and which claim it is to bear out."""

    issue: Issue
    etcd: str
    """A release; of a build, what it is called."""
    role: str
    binary: Path | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.issue.name, self.etcd


def cells(known: dict[tuple[str, str], dict[str, Any]]) -> list[Cell]:
    """All that are worth running, issue by issue; what could not be had when it was tried is not there, although a provider names it."""
    newest = resolve_version("3.7")
    missed = {etcd for (_, etcd), said in known.items() if said["answer"] == "not run"}
    rows = [row for row in survey(offline=True) if row.cached is not None or row.providers]
    # A release that has to be built may turn out not to be had, so it stands in for none.
    ready = [row.version for row in rows if row.cached is not None or row.providers != (BUILT,)]
    there = {row.version for row in rows} - (missed - set(ready))
    found: dict[tuple[str, str], Cell] = {}
    for issue in ISSUES.values():
        for last, first in issue.boundaries:
            for version, role in ((last, LAST), (first, FIRST)):
                for each in filter(None, (version, stand_in(issue, version, role, ready) if version and version not in there else "")):
                    found.setdefault((issue.name, each), Cell(issue, each, role))
        if not issue.not_released:
            found.setdefault((issue.name, newest), Cell(issue, newest, NEWEST))
    return list(found.values())


def stand_in(issue: Issue, version: str, role: str, ready: list[str]) -> str:
    """The release nearest to one that cannot be had, in its line and on its side; empty where none is there."""
    line = [each for each in ready if version_key(each)[:2] == version_key(version)[:2] and claims.has_recipe(issue, each)]
    if role == FIRST:
        return next((each for each in line if version_key(each) > version_key(version)), "")
    return next((each for each in reversed(line) if version_key(each) < version_key(version) and issue.affects(each)), "")


def recorded() -> dict[tuple[str, str], dict[str, Any]]:
    """What has been run so far."""
    return {(cell["issue"], cell["etcd"]): cell for cell in _results("cells")}


def borders() -> dict[str, dict[str, Any]]:
    """What `--bisect` has said so far, by issue."""
    return {border["issue"]: border for border in _results("borders")}


def _results(part: str) -> list[dict[str, Any]]:
    try:
        told: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8")).get(part, [])
    except FileNotFoundError:
        return []
    return told


def record(known: dict[tuple[str, str], dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
    """Write results, in the order of `cells` and then by release, and the page; whole or not at all."""
    order = {name: number for number, name in enumerate(ISSUES)}

    def place(cell: dict[str, Any]) -> tuple[Any, ...]:
        release = () if cell["role"] == BUILD else version_key(cell["etcd"])
        return order.get(cell["issue"], len(order)), release, cell["etcd"]

    results = {
        "cells": sorted(known.values(), key=place),
        "borders": sorted(found.values(), key=lambda border: order.get(border["issue"], len(order))),
    }
    written = RESULTS.with_suffix(".new")
    written.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(written, RESULTS)
    page = runpy.run_path(str(DOCS / "generate.py"))["issues"]()
    (DOCS / "issues.md").write_text(page, encoding="utf-8")


def reproduced(*arguments: str) -> tuple[dict[str, Any], float] | None:
    """The document of one `pekan reproduce`, and how long it took (s); None where somebody interrupted it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pekan-issues-") as place:
        full = [sys.executable, "-m", "pekan", "reproduce", *arguments, "--json", "--out", f"{place}/runs"]
        ended = subprocess.run(full, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode in (INTERRUPTED, -2):
        return None
    said = json.loads(ended.stdout) if ended.stdout.strip() else {"error": f"exit code {ended.returncode}"}
    return said, round(time.monotonic() - began, 1)


def circumstances(*arguments: str) -> dict[str, str]:
    """What was typed, when, and what it ran on."""
    command = " ".join(("pekan", "reproduce", *arguments))
    return {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "pekan": __version__}


def run(cell: Cell) -> dict[str, Any] | None:
    """What `pekan reproduce` says of a cell; None where somebody interrupted it."""

    def arguments(etcd: str) -> tuple[str, ...]:
        return cell.issue.name, "--etcd", etcd, "--attempts", str(ATTEMPTS[cell.role])

    ended = reproduced(*arguments(cell.etcd if cell.binary is None else str(cell.binary)))
    if ended is None:
        return None
    said, seconds = ended
    about = {"issue": cell.issue.name, "etcd": cell.etcd, "role": cell.role, "recipe": recipe_of(cell)}
    about |= circumstances(*arguments(cell.etcd if cell.binary is None else f"./etcd-{cell.etcd}"))
    if "answer" not in said:
        return {**about, "answer": "not run", "why": reasons(said["error"])}
    answers = [attempt["answer"] for attempt in said["attempts"]]
    if "interrupted" in answers:
        return None
    given = f"a binary that was given, SHA-256 {file_sha256(cell.binary)}" if cell.binary is not None else ""
    return {
        **about,
        "origin": given or ADDRESS.sub("", said["origin"]),
        "answer": said["answer"],
        "attempts": said["asked"],
        "counted": said["counted"],
        "fired": said["fired"],
        "shown": said["shown"],
        "median_seconds": said["median_seconds"],
        "codes": list(dict.fromkeys(finding["code"] for finding in said["findings"])),
        "other": list(dict.fromkeys(finding["code"] for finding in said["other"])),
        "masked_by": said["masked_by"],
        "why": next((attempt["why"][0] for attempt in said["attempts"] if attempt["why"]), ""),
        "tries": len(answers),
        "seconds": seconds,
    }


def reasons(error: str) -> str:
    """Of an error, what it is and a line for each provider; without what only this machine is told: commands, paths and addresses."""
    first, *rest = error.splitlines()
    lines = [line.strip().partition(": ") for line in rest if line.startswith("  ") and not line.startswith(("   ", "  PEKAN_"))]
    told = [f"  {name}: {'it could not be built' if '`' in reason or '/' in reason else reason}" for name, _, reason in lines]
    return "\n".join((first, *told))


def look_for_border(issue: Issue) -> dict[str, Any] | None:
    """What `pekan reproduce --bisect` says of an issue; None where somebody interrupted it."""
    arguments = (issue.name, "--bisect")
    ended = reproduced(*arguments)
    if ended is None:
        return None
    said, seconds = ended
    about = {"issue": issue.name, **circumstances(*arguments), "seconds": seconds}
    names = ("last_affected", "first_fixed", "claimed", "words", "sure", "not_tried_between")
    return about | ({name: said[name] for name in names} if "words" in said else {"words": reasons(said["error"]), "sure": ""})


def look_for_borders(issues: list[Issue]) -> int:
    """Each one's border, recorded; 1 where one is not as is said."""
    known, found = recorded(), borders()
    wrong = 0
    for number, issue in enumerate(issues, 1):
        print(f"[{number}/{len(issues)}] {called(issue.name)} --bisect", file=sys.stderr)
        said = look_for_border(issue)
        if said is None:
            return INTERRUPTED
        found[issue.name] = said
        record(known, found)
        print(f"{called(issue.name)}: {said['words']}")
        claimed = said.get("claimed", {})
        wrong += not claimed or any(said[name] != claimed[name] for name in ("last_affected", "first_fixed"))
    print(f"issues: {len(found)} borders recorded, {wrong} of these not as is said")
    return 1 if wrong else 0


def recipe_of(cell: Cell) -> str:
    """What stands for the recipe of a cell; empty where there is none for its release."""
    try:
        return claims.fingerprint(cell.issue.run(cell.etcd))
    except UsageError:
        return ""


def machine() -> str:
    """What the figures are of."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return f"{os.cpu_count()} processors, {memory:.0f} GiB, Linux {'.'.join(platform.release().split('.')[:2])}"


def as_claimed(cell: Cell, said: dict[str, Any]) -> bool:
    """Whether a cell that was run bears its claim out."""
    if cell.role == BUILD:
        return True
    expected = EXPECTED.get(cell.role) or ("not shown" if cell.issue.affects(cell.etcd) is False else "shown")
    return said["answer"] in (expected, "not run")


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("issues", nargs="*", help="only these")
    asked.add_argument("--line", action="append", default=[], help="only releases of this line, e.g. 3.5; may be given again")
    asked.add_argument("--again", action="store_true", help="also what has been recorded")
    asked.add_argument("--list", action="store_true", help="say what would be run, and run nothing")
    asked.add_argument(
        "--build", metavar="NAME=PATH", type=_build, help="run the issues named on this binary, of no release, and on no other"
    )
    asked.add_argument("--bisect", action="store_true", help="look for the borders of the issues named, or of all that have one")
    options = asked.parse_args()
    if unknown := [each for each in options.issues if each not in ISSUES]:
        asked.error(f"no issue is called {', '.join(unknown)}; there are {', '.join(ISSUES)}")
    if options.bisect:
        return look_for_borders(
            [each for each in ISSUES.values() if (each.name in options.issues if options.issues else any(map(all, each.boundaries)))]
        )
    known = recorded()
    if options.build and not options.issues:
        asked.error("--build: name the issues too")
    wanted = [cell for cell in cells(known) if not options.issues or cell.issue.name in options.issues]
    if options.line:
        wanted = [cell for cell in wanted if cell.etcd.rpartition(".")[0] in options.line]
    if options.build:
        name, binary = options.build
        wanted = [Cell(ISSUES[each], name, BUILD, binary) for each in options.issues]
    there = {row.version for row in survey(offline=True) if row.cached is not None}
    due = [cell for cell in wanted if options.again or is_due(cell, known.get(cell.key))]
    due.sort(key=lambda cell: cell.etcd not in there)
    if options.list:
        for cell in due:
            print(f"{called(cell.issue.name)} on {cell.etcd} ({cell.role}): {ATTEMPTS[cell.role]} attempts")
        return 0
    began = time.monotonic()
    for number, cell in enumerate(due, 1):
        print(f"[{number}/{len(due)}, {(time.monotonic() - began) / 60:.0f} min] {called(cell.issue.name)} on {cell.etcd}", file=sys.stderr)
        said = run(cell)
        if said is None:
            return INTERRUPTED
        known[cell.key] = said
        record(known, borders())
        told = f"{said['shown']}/{said['counted']} shown, {said['fired']} fired" if "shown" in said else said["why"].splitlines()[0]
        print(f"  {said['answer']}: {told}", file=sys.stderr)
    record(known, borders())
    wrong = [cell for cell in wanted if cell.key in known and not as_claimed(cell, known[cell.key])]
    for cell in wrong:
        print(f"NOT AS CLAIMED  {called(cell.issue.name)} on {cell.etcd} ({cell.role}): {known[cell.key]['answer']}")
    print(f"issues: {len(known)} cells recorded, {len(wrong)} not as claimed")
    return 1 if wrong else 0


def _build(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH of a binary")
    return name, Path(path).resolve()


def is_due(cell: Cell, said: dict[str, Any] | None) -> bool:
    """Whether a cell has not been run, could not be, or was run by another recipe."""
    return said is None or said["answer"] == "not run" or said["recipe"] != recipe_of(cell)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
