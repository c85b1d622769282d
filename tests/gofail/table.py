"""Makes `src/pekan/faults/hooks/gofail.json`, the table of etcd's gofail sites, from etcd's source.

    cd tests && python -m gofail.table --clone DIRECTORY [--module VERSION=DIRECTORY ...] [--bbolt VERSION=DIRECTORY ...]

`--clone` is a git clone of etcd with its tags: every release from 3.4.0 on is read. `--module` is the source of go.etcd.io/etcd/server/v3
at a version whose tag the clone does not have (as `go mod download` leaves it), `--commit VERSION=COMMIT` one more commit that was released
under a version, `--bbolt` the source of go.etcd.io/bbolt at a version.

A row says where a site is and how to know that an executable was built from a file with the same lines::

    site, file, line, "at" or "after", function around it, line where that begins, functions that follow it and where, releases

`at`: the first code of the line. `after`: where the comment is the last in its block there is no such line; the place is then the return of
the last call of the statement before it. Releases whose rows are equal share one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).resolve().parents[2] / "src" / "pekan" / "faults" / "hooks" / "gofail.json"

SITE = re.compile(r"^(\s*)//\s*gofail(?:-go)?:\s*var\s+(\w+)\s")
FUNCTION = re.compile(r"^func\s+(?:\(\s*(?:\w+\s+)?\*?(\w+)(?:\[[^\]]*\])?\s*\)\s*)?(\w+)")
FOLLOWING = 3  # functions after the site's own: one of them may have been inlined away
SKIPPED = ("}", "//", ")", "if r.lg != nil {", "if lg != nil {")
RELEASE = re.compile(r"v(3\.[4-9]\.[0-9]+)")


class Site(NamedTuple):
    name: str
    file: str
    line: int
    mode: str
    function: str
    begins: int
    following: tuple[tuple[str, int], ...]


def sites_of(path: str, package: str, text: str) -> Iterator[Site]:
    """The sites in one file; `path` as the table names it."""
    lines = text.split("\n")
    functions = [
        (f"{package}.{match[1]}.{match[2]}" if match[1] else f"{package}.{match[2]}", number)
        for number, line in enumerate(lines, 1)
        if (match := FUNCTION.match(line)) and match[2] != "init"
    ]
    for number, line in enumerate(lines, 1):
        site = SITE.match(line)
        if site is None:
            continue
        name, begins = [each for each in functions if each[1] < number][-1]
        following = tuple(each for each in functions if each[1] > number)[:FOLLOWING]
        code = next_code(lines, number)
        if lines[code - 1].strip().startswith("}"):
            yield Site(site[2], path, statement_before(lines, number, site[1]), "after", name, begins, following)
        else:
            yield Site(site[2], path, code, "at", name, begins, following)


def next_code(lines: list[str], number: int) -> int:
    """The number of the first line after line `number` that is neither empty nor a comment."""
    return next(at for at in range(number + 1, len(lines) + 1) if (text := lines[at - 1].strip()) and not text.startswith("//"))


def statement_before(lines: list[str], number: int, indentation: str) -> int:
    """The number of the line that begins the statement before line `number`: the last with the same indentation that closes nothing."""
    for at in range(number - 1, 0, -1):
        text = lines[at - 1]
        # Releases before 3.5 end blocks with a choice between two loggers.
        if text.startswith(indentation) and not text[len(indentation)].isspace() and not text.lstrip().startswith(SKIPPED):
            return at
    raise ValueError(f"no statement before line {number}")


def package_of(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


def is_release_code(path: str) -> bool:
    return path.endswith(".go") and not path.endswith("_test.go") and not path.startswith(("tests/", "vendor/", "contrib/", "tools/"))


def git(clone: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(clone), *arguments], capture_output=True, text=True, check=True).stdout


def of_commit(clone: Path, commit: str) -> Iterator[Site]:
    for found in git(clone, "grep", "-l", "gofail", commit, "--", "*.go").splitlines():
        path = found.partition(":")[2]
        if is_release_code(path):
            short = path.removeprefix("server/")
            yield from sites_of(short, package_of(short), git(clone, "show", f"{commit}:{path}"))


def of_directory(directory: Path, prefix: str = "") -> Iterator[Site]:
    for file in sorted(directory.rglob("*.go")):
        path = file.relative_to(directory).as_posix()
        if is_release_code(path) and "gofail" in (text := file.read_text(encoding="utf-8")):
            short = prefix + path
            yield from sites_of(short, package_of(short), text)


def named(text: str) -> tuple[str, str]:
    version, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} should be VERSION=VALUE")
    return version, value


def main() -> None:
    parser = argparse.ArgumentParser(description="make the table of gofail sites from etcd's source")
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--commit", type=named, action="append", default=[])
    parser.add_argument("--module", type=named, action="append", default=[])
    parser.add_argument("--bbolt", type=named, action="append", default=[])
    options = parser.parse_args()
    releases: dict[Site, set[str]] = defaultdict(set)
    for tag in git(options.clone, "tag").split():
        if match := RELEASE.fullmatch(tag):
            for site in of_commit(options.clone, tag):
                releases[site].add(match[1])
    for version, commit in options.commit:
        for site in of_commit(options.clone, commit):
            releases[site].add(version)
    for version, directory in options.module:
        for site in of_directory(Path(directory)):
            releases[site].add(version)
    for version, directory in options.bbolt:
        for site in of_directory(Path(directory), "bbolt/"):
            releases[site].add(f"bbolt {version}")
    rows = []
    for site in sorted(releases):
        versions = sorted(releases[site], key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
        rows.append(json.dumps([*site[:6], [list(each) for each in site.following], versions]))
    TABLE.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    print(f"{len(rows)} rows, {len({site.name for site in releases})} names")


if __name__ == "__main__":
    main()
