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

A gofail comment is nothing to the compiler of a release build; the site's function and lines stand in `gofail.json`, made from etcd's
source at each release's tag. A line number means nothing in another release, nor where a distribution has changed the file, so a row is
used only when the executable says it is that release, has that function, and the function begins at the line of the row. For a release
without a row, a name that stands for the beginning of a function in every release is taken there (`ALIASES`), and the point says so.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pekan.errors import UsageError
from pekan.faults.hooks.flow import Flow, lines_where
from pekan.faults.hooks.gobinary import Function, GoBinary

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
"""Where releases without the comment have the place that a newer gofail name stands for: the entry of a function that does nothing before
it."""

_CANDIDATES_SHOWN: Final = 8
_LINE: Final = re.compile(r"([^:\s]+\.(?:go|s)):([1-9][0-9]*)")
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
        if name in ALIASES:
            return self._alias(name)
        function = self._index.function(name)
        if function is None:
            raise UsageError(f"{name!r} is no point of {self._what()}{self._near(name)}")
        return self._entry(name, "function", function)

    def functions(self) -> tuple[str, ...]:
        """The full names of all functions of etcd's own packages, generated code left out, in order of their addresses."""
        return tuple(function.name for function in self._index.own if not _is_generated(function.name))

    def _what(self) -> str:
        return f"etcd {self.release}" if self.release else str(self.binary.path)

    def _near(self, name: str) -> str:
        short = {_short(function.name): function.name for function in self._index.own}
        near = difflib.get_close_matches(name, [*ALIASES, *short], n=4, cutoff=0.5)
        return f"; near it are {', '.join(near)}" if near else ""

    def _entry(self, name: str, kind: str, function: Function, note: str = "") -> Point:
        lines = self.binary.lines(function)
        file, line = (lines[0].file, lines[0].line) if lines else ("?", 0)
        return Point(name, kind, (function.entry,), function.name, file, line, note)

    def _alias(self, name: str) -> Point:
        for suffix in ALIASES[name]:
            function = self._index.function(suffix)
            if function is not None:
                return self._entry(
                    name, "alias", function, f"{self._what()} has no gofail site of this name here: the entry of {function.name}"
                )
        raise UsageError(f"{self._what()} has no place for {name!r}: none of {', '.join(ALIASES[name])} is in it")

    def _line(self, name: str, path: str, number: int) -> Point:
        files = self._index.files(path)
        if not files:
            raise UsageError(f"{name!r}: no function of {self._what()} comes from a file {path}")
        if len(files) > 1:
            raise UsageError(f"{name!r} may be in {_some(sorted(files))}; write more of the path")
        (file,) = files
        addresses: list[int] = []
        first: Function | None = None
        for function in files[file]:
            ranges = lines_where(self.binary, function, lambda part: part.line == number and part.file == file)
            if ranges:
                found = Flow(self.binary, function).first_of(ranges)
                if found:
                    first = first or function
                    addresses.extend(found)
        if first is None:
            raise UsageError(f"{name!r}: no code of {self._what()} belongs to this line{self._lines_near(file, files[file], number)}")
        return Point(name, "line", tuple(addresses), first.name, file, number)

    def _lines_near(self, file: str, functions: list[Function], number: int) -> str:
        with_code = {part.line for function in functions for part in self.binary.lines(function) if part.file == file}
        near = sorted(sorted(with_code, key=lambda line: (abs(line - number), line))[:4])
        return f"; lines near it that have are {', '.join(map(str, near))}" if near else ""


class _Index:
    """What names are looked up in; made when first asked for."""

    def __init__(self, binary: GoBinary) -> None:
        self.binary = binary

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

    def files(self, path: str) -> dict[str, list[Function]]:
        """The files whose path ends with `path`, with the functions that have code of them; etcd's own first."""
        fitting = {file: functions for file, functions in self._functions_of_file.items() if file == path or file.endswith("/" + path)}
        own = {file: functions for file, functions in fitting.items() if any(f.name.startswith(ETCD_PACKAGES) for f in functions)}
        return own or fitting


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
