"""Jepsen's way of writing a history, whatever its notation: entries that invoke and complete, paired to operations.

::

    entry :invoke ─┐
    entry :ok     ─┴─> ok           output is the value of the :ok
    entry :fail   ───> failed       it had and will have no effect
    entry :info   ───> indefinite   it may take effect at any time from its call on, once, or never
    (none)        ───> indefinite
    entry of a process that is no number (:nemesis) ───> Mark

Time is `:time` where every entry has one, else the place among the entries. An indefinite operation ends its process: Jepsen goes on under
a fresh number, and a file that goes on under the old one is accepted as well.

Refused, with the line: a completion without its invocation, two open operations of one process, a completion that names another function
than its invocation, time running backwards, times in some entries only.

Jepsen's *independent keys*: where the value of every invocation and every :ok is a pair `[k v]`, the pairs name the object and its value,
and `Call.key` is filled. A value is not taken for such a pair where that would be a guess: not in transactions (`:txn`, whose values are
lists of micro-operations), and a compare-and-set of one register also has a pair for its value, so that of a keyed one is `[k [old new]]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pekan.errors import EvidenceError
from pekan.history.types import FAILED, INDEFINITE, OK, Call, History, Mark, Operation, Outcome

TYPES = ("invoke", "ok", "fail", "info")


class Malformed(Exception):
    """What is wrong, and at which character of the text."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


class Entry(NamedTuple):
    """One entry of a history. `offset` is where it begins in the text; `time` is None where it has none."""

    offset: int
    process: Any
    type: Any
    f: Any
    value: Any
    time: Any
    key: Any


def entry_of(offset: int, fields: Any) -> Entry:
    """The entry that a map with Jepsen's fields tells. Raises Malformed where one that is needed is missing."""
    if not isinstance(fields, Mapping):
        raise Malformed(offset, f"expected a map with :process, :type, :f and :value, found {shown(fields)}")
    kind = fields.get("type")
    if kind not in TYPES:
        found = f"found {shown(kind)}" if "type" in fields else "found none"
        raise Malformed(offset, f"expected a :type of {', '.join(TYPES)}; {found}")
    if "process" not in fields:
        raise Malformed(offset, "expected a :process; found none")
    return Entry(
        offset,
        fields["process"],
        kind,
        fields.get("f"),
        fields.get("value"),
        fields.get("time"),
        fields.get("key"),
    )


def shown(value: Any) -> str:
    """`value` for a message: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_I64 = 1 << 63
"""Processes and times are 64-bit numbers, as everywhere in Jepsen and in the columns of the native core."""


def is_int(value: Any) -> bool:
    """True for a whole number of 64 bits; a truth value is none."""
    return type(value) is int and -_I64 <= value < _I64 - 1


class _Open:
    __slots__ = ("call", "entry", "index")

    def __init__(self, index: int, entry: Entry, call: int) -> None:
        self.index = index
        self.entry = entry
        self.call = call


def pair(entries: Iterable[Entry], *, failed_cas_is_answer: bool = False) -> History:
    """The history that `entries` tell. Raises Malformed.

    With `failed_cas_is_answer` a failed compare-and-set is an operation that was answered False: it looked, and found another value.
    """
    operations: list[Operation | None] = []
    marks: list[Mark] = []
    opened: dict[int, _Open] = {}
    keyed = True
    timed: bool | None = None
    now = 0
    number = -1
    for number, entry in enumerate(entries):
        offset, process, kind, f, value, time, key = entry
        if time is None:
            if timed:
                raise Malformed(offset, "this entry has no :time, and those before it have one")
            timed = False
            now = number
        else:
            if timed is False:
                raise Malformed(offset, "this entry has a :time, and those before it have none")
            timed = True
            if not is_int(time):
                raise Malformed(offset, f"expected a whole number of nanoseconds as :time; found {shown(time)}")
            if time < now and number:
                what = f"time runs backwards: {time} after {now}"
                raise Malformed(offset, f"{what} (a history without times is judged by the order of its entries)")
            now = time
        if not is_int(process):
            if not isinstance(process, str):
                raise Malformed(offset, f"expected a number or a name as :process; found {shown(process)}")
            marks.append(mark_of(entry, now))
            continue
        if kind == "invoke":
            if not isinstance(f, str):
                raise Malformed(offset, f"expected a name as :f; found {shown(f)}")
            if process in opened:
                raise Malformed(offset, f"process {process} invokes {f} while its {opened[process].entry.f} is open")
            opened[process] = _Open(len(operations), entry, now)
            operations.append(None)
            keyed = keyed and key is None and _is_pair(f, value)
            continue
        open_ = opened.pop(process, None)
        if open_ is None:
            raise Malformed(offset, f"process {process} completes ({kind}) without having invoked anything")
        asked = open_.entry
        if f is not None and f != asked.f:
            raise Malformed(offset, f"process {process} completes {shown(f)}; expected {asked.f}, which it invoked")
        ret: int | None = now
        gave_up: int | None = None
        output = None
        outcome: Outcome
        if kind == "ok":
            outcome, output = OK, value
            keyed = keyed and _is_pair(f, value) and value[0] == asked.value[0]
        elif kind == "fail" and failed_cas_is_answer and asked.f == "cas":
            outcome, output = OK, False
        elif kind == "fail":
            outcome = FAILED
        else:
            outcome, ret, gave_up = INDEFINITE, None, now
        operations[open_.index] = Operation(
            open_.index, process, open_.call, ret, outcome, Call(asked.f, asked.value, asked.key), output, gave_up=gave_up
        )
    for process, open_ in opened.items():
        asked = open_.entry
        operations[open_.index] = Operation(open_.index, process, open_.call, None, INDEFINITE, Call(asked.f, asked.value, asked.key), None)
    done = [operation for operation in operations if operation is not None]
    if keyed:
        done = [_by_key(operation) for operation in done]
    return History(operations=tuple(done), marks=tuple(marks))


def _is_pair(f: Any, value: Any) -> bool:
    if type(value) is not tuple or len(value) != 2 or f == "txn":
        return False
    key, inner = value
    return type(key) is not tuple and key is not None and (f != "cas" or (type(inner) is tuple and len(inner) == 2))


def _by_key(operation: Operation) -> Operation:
    key, value = operation.input.value
    output = operation.output
    if operation.outcome == OK and output is not False:
        output = output[1]
    return operation._replace(input=Call(operation.input.f, value, key), output=output)


def mark_of(entry: Entry, time: int) -> Mark:
    """The mark that an entry of somebody who is no client makes."""
    return Mark(time, str(entry.f), "", {"process": str(entry.process), "type": str(entry.type), "value": _plain(entry.value)})


def _plain(value: Any) -> Any:
    """`value` as JSON can say it: a mark's detail is a JSON object."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, frozenset)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def text_of(path: Path) -> str:
    """The text of a file. Raises EvidenceError where it cannot be read or is not UTF-8, naming the byte."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{path}: byte {error.start}: expected UTF-8 text") from None


def located(path: Path, text: str, error: Malformed) -> EvidenceError:
    """`error` with file and line in front."""
    line = text.count("\n", 0, error.offset) + 1
    return EvidenceError(f"{path}: line {line}: {error.what}")
