"""Names of places in etcd's program, and where in one executable they are.

====================================  ================================================================================================
name                                  is
====================================  ================================================================================================
`raftBeforeSave`                      a gofail site of this release, by the name that its comment gives it in etcd's source: the first
                                      instruction of the line after the comment
`wal.(*WAL).Save`, `WAL.Save`,        the entry of a function: its full name, or an end of it that only one function has. `(*T)` may be
`applierV3backend.Apply`              written `T`, and `/v3` in package paths may be left out, as Debian's builds do
`server.go:1880`,                     a source line, in every function that has code of it: an end of the file's path that only one
`etcdserver/raft.go:240`              file has
====================================  ================================================================================================

A gofail comment is nothing to the compiler of a release build; where the sites are stands in a table made from etcd's source (`sites`), and
a row of it is used only for an executable that proves to have the same lines. Elsewhere a name that stands for the beginning of a function
in every release is taken there (`ALIASES`), and the point's note says so.

The entry of a function is passed once more for a call that finds its stack too small: Go's prologue then has it grown and begins again.
Lines and sites inside are not.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pekan.errors import EnvironmentFailure, UsageError
from pekan.faults.hooks import sites
from pekan.faults.hooks.gobinary import Function, GoBinary, LineRange

if TYPE_CHECKING:
    from pekan.faults.hooks.flow import Flow

ETCD_PACKAGES: Final = "go.etcd.io/"
"""etcd's own packages, raft and bbolt among them."""

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "raftBeforeWALSaveSnaphot": ("wal.WAL.SaveSnapshot",),
    "walBeforeSync": ("wal.WAL.sync",),
    "beforeCommit": ("backend.batchTx.commit",),
    "commitBeforePreCommitHook": ("backend.batchTxBuffered.unsafeCommit",),
    "beforeStartDBTxn": ("backend.backend.begin",),
    "defragBeforeCopy": ("backend.defragdb",),
    "compactBeforeCommitScheduledCompact": ("mvcc.store.updateCompactRev",),
    "applyBeforeOpenSnapshot": ("etcdserver.openSnapshotBackend",),
    "beforeApplyOneEntryNormal": ("etcdserver.EtcdServer.applyEntryNormal",),
    "beforeApplyOneConfChange": ("etcdserver.EtcdServer.applyConfChange",),
    "beforeSyncWatchers": ("mvcc.watchableStore.syncWatchers",),
    "beforeMoveVictims": ("mvcc.watchableStore.moveVictims",),
    "beforeProgressIfSync": ("mvcc.watchableStore.progressIfSync", "mvcc.watchableStore.progress"),
}
"""Where releases without the comment have the place that a newer gofail name stands for: the entry of the function that goes on to it.
The entry is also passed when the function then finds nothing to do."""

_CANDIDATES_SHOWN: Final = 8
_LINE: Final = re.compile(r"([^:\s]+\.(?:go|s)):([1-9][0-9]*)")
_BBOLT_VERSION: Final = re.compile(r"bbolt@v([0-9.]+)/")
_WRAPPER: Final = re.compile(r"\.(deferwrap|gowrap)[0-9]+$")
_MAJOR_VERSION: Final = re.compile(r"/v[0-9]+(?=[/.])")


@dataclass(frozen=True, slots=True)
class Point:
    """One place of an executable. Passing any of `addresses` is passing it. `function` is the full name of the function that holds the
    first of them, `file`:`line` the source there, `note` what a person should know about how the name was understood, or empty."""

    name: str
    kind: str
    addresses: tuple[int, ...]
    function: str
    file: str
    line: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """The places of one executable. `release` is etcd's version (`3.5.1`) or None; without it gofail names are aliases only."""

    binary: GoBinary
    release: str | None = None
    _index: _Index = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _Index(self.binary))

    def find(self, name: str) -> Point:
        """The place called `name`. Raises `UsageError` when there is none, or several that the name fits, and says which come near."""
        line = _LINE.fullmatch(name)
        if line is not None:
            return self._line(name, line[1], int(line[2]))
        if name in self._index.site_names:
            return self._site(name)
        function = self._index.function(name)
        if function is None:
            raise UsageError(f"{name!r} is no point of {self._what()}{self._near(name)}")
        return self._entry(name, "function", function)

    def gofail_names(self) -> tuple[str, ...]:
        """The gofail sites of this release by the table, whether or not this executable has them at the table's lines; etcd's own first,
        then those of bbolt. Empty for a release that the table does not have."""
        mine = [site for site in sites.sites() if self.release in site.releases]
        bolt = [site for site in sites.sites() if site.of_bbolt and self._index.fits(site)]
        return tuple(dict.fromkeys(site.name for site in [*mine, *bolt]))

    def functions(self) -> tuple[str, ...]:
        """The full names of all functions of etcd's own packages, generated code left out, in order of their addresses."""
        return tuple(function.name for function in self._index.own if not _is_generated(function.name))

    def _what(self) -> str:
        return f"etcd {self.release}" if self.release else str(self.binary.path)

    def _near(self, name: str) -> str:
        short = {_short(function.name): function.name for function in self._index.own}
        near = difflib.get_close_matches(name, [*self._index.site_names, *short], n=4, cutoff=0.5)
        return f"; near it are {', '.join(near)}" if near else ""

    def _entry(self, name: str, kind: str, function: Function, note: str = "") -> Point:
        lines = self.binary.lines(function)
        file, line = (lines[0].file, lines[0].line) if lines else ("?", 0)
        return Point(name, kind, (function.entry,), function.name, file, line, note)

    def _site(self, name: str) -> Point:
        """A gofail site: by the table, else by an alias."""
        rows = [site for site in sites.sites() if site.name == name and (site.of_bbolt or self.release in site.releases)]
        fitting = [site for site in rows if self._index.fits(site)]
        places = {(site.file, site.line, site.mode) for site in fitting}
        if len(places) == 1:
            return self._of_site(name, fitting[0])
        if self.release is None:
            why = "the release of this executable is not known, so lines of its source are not"
        elif self.release not in sites.releases():
            why = f"the table of gofail sites does not have etcd {self.release}"
        elif not rows:
            why = f"etcd {self.release} has no gofail site of this name"
        elif not fitting:
            why = f"this executable was not built from the lines of etcd {self.release} there"
        else:
            why = f"it may be at {' or at '.join(sorted(f'{file}:{line}' for file, line, _ in places))}"
        for suffix in ALIASES.get(name, ()):
            function = self._index.function(suffix)
            if function is not None:
                return self._entry(name, "alias", function, f"{why}; taken for it: the entry of {function.name}")
        raise UsageError(f"{self._what()} has no point {name!r}: {why}{self._near(name)}")

    def _of_site(self, name: str, site: sites.Site) -> Point:
        parts = _written(self._index.parts(site.file, site.line))
        addresses: list[int] = []
        for function, ranges in parts:
            flow = self._index.flow(function)
            addresses.extend(flow.begins(ranges) if site.mode == "at" else flow.after_call(ranges))
        if not addresses:
            raise UsageError(f"{self._what()} has no code at {site.file}:{site.line}, where {name!r} is")
        return Point(name, "gofail", tuple(addresses), parts[0][0].name, parts[0][1][0].file, site.line)

    def _line(self, name: str, path: str, number: int) -> Point:
        files = self._index.files(path)
        if not files:
            raise UsageError(f"{name!r}: no function of {self._what()} comes from a file {path}")
        if len(files) > 1:
            raise UsageError(f"{name!r} may be in {_some(sorted(files))}; write more of the path")
        (file,) = files
        parts = _written([(each, ranges) for each in files[file] if (ranges := ranges_of(self.binary, each, file, number))])
        found = [(function, self._index.flow(function).begins(ranges)) for function, ranges in parts]
        addresses = tuple(address for _, places in found for address in places)
        if not addresses:
            raise UsageError(f"{name!r}: no code of {self._what()} belongs to this line{self._lines_near(file, files[file], number)}")
        return Point(name, "line", addresses, next(function.name for function, places in found if places), file, number)

    def _lines_near(self, file: str, functions: list[Function], number: int) -> str:
        with_code = {part.line for function in functions for part in self.binary.lines(function) if part.file == file}
        near = sorted(sorted(with_code, key=lambda line: (abs(line - number), line))[:4])
        return f"; lines near it that have are {', '.join(map(str, near))}" if near else ""


class _Index:
    """What names are looked up in; made when first asked for."""

    def __init__(self, binary: GoBinary) -> None:
        self.binary = binary
        self._flows: dict[int, Flow] = {}

    @cached_property
    def own(self) -> tuple[Function, ...]:
        return tuple(function for function in self.binary.functions if function.name.startswith(ETCD_PACKAGES))

    @cached_property
    def _by_end(self) -> dict[str, list[Function]]:
        """The functions by the last part of their names."""
        found: dict[str, list[Function]] = defaultdict(list)
        for function in self.binary.functions:
            found[function.name.rpartition(".")[2]].append(function)
        return found

    def function(self, name: str) -> Function | None:
        """The one function whose full name ends with `name`; None when none does. Raises `UsageError` for several."""
        exact = self.binary.by_name.get(name)
        if exact is not None:
            return exact
        candidates = self._by_end.get(name.rpartition(".")[2], [])
        for form in (str, _plain):
            wanted = form(name)
            fitting = [function for function in candidates if _ends_with(form(function.name), wanted)]
            # etcd's own come first: nobody who says `Server.Stop` means a library's.
            fitting = [function for function in fitting if function.name.startswith(ETCD_PACKAGES)] or fitting
            if len(fitting) > 1:
                raise UsageError(f"{name!r} may be {_some([function.name for function in fitting])}; write more of the name")
            if fitting:
                return fitting[0]
        return None

    @cached_property
    def _functions_of_file(self) -> dict[str, list[Function]]:
        """The functions that have code of each file, inlined code included."""
        found: dict[str, list[Function]] = defaultdict(list)
        for function in self.binary.functions:
            for file in self.binary.files(function):
                found[file].append(function)
        return found

    @cached_property
    def _files_by_name(self) -> dict[str, list[str]]:
        """The files by the last part of their paths."""
        found: dict[str, list[str]] = defaultdict(list)
        for file in self._functions_of_file:
            found[file.rpartition("/")[2]].append(file)
        return found

    def files(self, path: str) -> dict[str, list[Function]]:
        """The files whose path ends with `path`, with the functions that have code of them; etcd's own first."""
        fitting = {file: functions for file, functions in self._functions_of_file.items() if file == path or file.endswith("/" + path)}
        own = {file: functions for file, functions in fitting.items() if any(f.name.startswith(ETCD_PACKAGES) for f in functions)}
        return own or fitting

    @cached_property
    def site_names(self) -> frozenset[str]:
        return frozenset(site.name for site in sites.sites()) | ALIASES.keys()

    def parts(self, path: str, line: int) -> list[tuple[Function, list[LineRange]]]:
        """The instructions of a line of a file of etcd that the table names, by function."""
        found: list[tuple[Function, list[LineRange]]] = []
        for file in self._files_by_name[path.rpartition("/")[2]]:
            if sites.plain_path(file).endswith("/" + path):
                for function in self._functions_of_file[file]:
                    ranges = ranges_of(self.binary, function, file, line)
                    if ranges:
                        found.append((function, ranges))
        return found

    def flow(self, function: Function) -> Flow:
        """The function's control flow; large functions hold a dozen sites each."""
        if reason := why_not():
            raise EnvironmentFailure(f"{reason}; {REMEDY}")
        from pekan.faults.hooks.flow import Flow  # iced-x86 is not there for those who only check

        if function.entry not in self._flows:
            self._flows[function.entry] = Flow(self.binary, function)
        return self._flows[function.entry]

    def fits(self, site: sites.Site) -> bool:
        """Whether the lines around the site are the table's (see `sites`); not whether this is a release of the row."""
        checked = 0
        for name, begins in ((site.function, site.begins), *site.following):
            function = self._site_function(name, site.file)
            if function is None:
                continue
            checked += 1
            if self.binary.first_line(function) != begins:
                return False
            if site.of_bbolt and (version := _BBOLT_VERSION.search(self.binary.lines(function)[0].file)):
                if f"bbolt {version[1]}" not in site.releases:
                    return False
        return checked > 0

    def _site_function(self, name: str, path: str) -> Function | None:
        """The function that the table calls `name`, of the file `path`."""
        for function in self._by_end.get(name.rpartition(".")[2], []):
            if _ends_with(_plain(function.name), name):
                lines = self.binary.lines(function)
                if lines and sites.plain_path(lines[0].file).endswith("/" + path):
                    return function
        return None


def why_not() -> str:
    """Why no instruction can be read here; "" where they can."""
    return "" if importlib.util.find_spec("iced_x86") else "the Python package iced-x86 is not installed"


REMEDY: Final = "pip install 'pekan[hunt]'"


def ranges_of(binary: GoBinary, function: Function, file: str, line: int) -> list[LineRange]:
    """The ranges of the function's line table that are of this line."""
    return [part for part in binary.lines(function) if part.line == line and part.file == file]


def _written(parts: list[tuple[Function, list[LineRange]]]) -> list[tuple[Function, list[LineRange]]]:
    """Without the functions that the compiler makes of a `defer` or `go` statement, unless there are no others: they run what the statement
    has put off, and the statement's line is where it is put off."""
    return [part for part in parts if not _WRAPPER.search(part[0].name)] or parts


def _plain(name: str) -> str:
    """A function's name without what people leave out: `(*T)` is `T`, and major versions in paths go."""
    return _MAJOR_VERSION.sub("", name.replace("(*", "").replace(")", ""))


def _ends_with(name: str, end: str) -> bool:
    return name == end or (name.endswith(end) and name[-len(end) - 1] in "/.")


def _short(name: str) -> str:
    """`backend.(*batchTx).commit` of a full name."""
    return name.rpartition("/")[2]


def _is_generated(name: str) -> bool:
    """Whether a function comes from a generator (protobuf, gateway) or from the compiler (initializers)."""
    package, _, rest = _short(name).partition(".")
    return package.endswith(("pb", "gw")) or rest == "init" or rest.startswith("init.")


def _some(names: list[str]) -> str:
    more = len(names) - _CANDIDATES_SHOWN
    return ", ".join(names[:_CANDIDATES_SHOWN]) + (f" or {more} more" if more > 0 else "")
