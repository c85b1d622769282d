"""The table of etcd's gofail sites, and which of its rows an executable can be held to.

`gofail.json` beside this file is made from etcd's source by `tests/gofail/table.py`: for each site and each distinct state of the file
around it one row, with the releases that have that state. A row is right for an executable when all of this holds:

* the executable is one of the row's releases (for bbolt, a module of its own, when the path of its files does not tell another version);
* the function around the site begins at the row's line, and so does whichever of the three functions after it is there: a line added
  or removed anywhere in between, as a distribution's patch would, shows there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parent / "gofail.json"

BBOLT: Final = "bbolt/"


@dataclass(frozen=True, slots=True)
class Site:
    """One row. `mode` is `at` (the first code of `line`) or `after` (the return of the last call of `line`); `following` are functions that
    begin after `function`, which begins at `begins`, in the same file."""

    name: str
    file: str
    line: int
    mode: str
    function: str
    begins: int
    following: tuple[tuple[str, int], ...]
    releases: tuple[str, ...]

    @property
    def of_bbolt(self) -> bool:
        return self.file.startswith(BBOLT)


@cache
def sites() -> tuple[Site, ...]:
    """All rows of the table."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(
        Site(name, file, line, mode, function, begins, tuple((other, at) for other, at in following), tuple(releases))
        for name, file, line, mode, function, begins, following, releases in rows
    )


@cache
def releases() -> frozenset[str]:
    """The releases of etcd that the table was made from."""
    return frozenset(release for site in sites() if not site.of_bbolt for release in site.releases)


_VERSION_IN_PATH: Final = re.compile(r"@v[^/]*|/v[0-9]+(?=/)")


def plain_path(file: str) -> str:
    """A source file's path without versions of modules: `go.etcd.io/etcd/server/v3@v3.7.3/wal/wal.go` and
    `go.etcd.io/etcd/server/wal/wal.go` are the same."""
    return _VERSION_IN_PATH.sub("", _VERSION_IN_PATH.sub("", file))
