"""Pekan's JSON Lines: operations on any object, one a line, for whoever writes a history by hand or with a script of ten lines.

::

    {"pekan": 1, "model": "register", "initial": 0}                                             optional, the first line
    {"process": 0, "f": "write", "value": 3, "call": 10, "return": 25}                          ok
    {"process": 1, "f": "read", "call": 12, "return": 30, "output": 3}                          ok
    {"process": 2, "f": "write", "value": 4, "call": 14}                                        indefinite: never answered
    {"process": 3, "f": "write", "value": 5, "call": 15, "return": 20, "outcome": "failed"}     it had and will have no effect
    {"mark": "kill n1", "time": 18, "detail": {"signal": 9}}                                    worth knowing, no operation

Fields of an operation: `process`, `call` and `return` (whole numbers of 64 bits; times in ns or in any other unit of one clock), `f`
(a name), `value`, `output`, `key` (of which of several independent objects), `outcome` (`ok`, `failed`, `indefinite`; without it `ok` where
there is a return, else `indefinite`). An indefinite operation with a return was given up then. Lines may come in any order. Other fields
are an error: a name spelled wrong would lose evidence.

Fields of the first line: `pekan` (1, the version of this format), `model` (a name that `--model` takes), `initial` (what every object holds
at the start; null is unset), `clock` (`shared`, or `per-process` where each process has a clock of its own: then only the order within a
process counts).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

from pekan.errors import UsageError
from pekan.history.foreign.json_text import frozen, values
from pekan.history.foreign.pairing import Malformed, is_int, located, shown, text_of
from pekan.history.types import FAILED, INDEFINITE, OK, Call, History, Mark, Operation, Outcome

_HEADER = frozenset({"pekan", "model", "initial", "clock"})
_OPERATION = frozenset({"process", "f", "value", "key", "call", "return", "outcome", "output"})
_MARK = frozenset({"mark", "time", "detail"})
_OUTCOMES = (OK, FAILED, INDEFINITE)


def read_jsonl(path: Path) -> History:
    """The history in the JSON Lines file at `path`. Raises EvidenceError naming file and line."""
    text = text_of(path)
    try:
        return _read(path, text)
    except Malformed as error:
        raise located(path, text, error) from None


def _read(path: Path, text: str) -> History:
    operations: list[tuple[int, Operation]] = []
    marks: list[Mark] = []
    model: str | None = None
    initial: Any = None
    order: Literal["real-time", "per-process"] = "real-time"
    first = True
    for offset, fields in values(text):
        if not isinstance(fields, dict):
            raise Malformed(offset, f"expected an object; found {shown(fields)}")
        if "pekan" in fields:
            if not first:
                raise Malformed(offset, "the line that names the format may only be the first")
            _only(fields, _HEADER, offset)
            model, initial, order = _header(fields, offset)
        elif "mark" in fields:
            _only(fields, _MARK, offset)
            marks.append(mark_of(fields, offset))
        else:
            _only(fields, _OPERATION, offset)
            operations.append((offset, _operation(fields, offset)))
        first = False
    operations.sort(key=lambda item: item[1].call)
    _processes(operations)
    return History(
        operations=tuple(operation._replace(id=number) for number, (_, operation) in enumerate(operations)),
        marks=tuple(sorted(marks, key=lambda mark: mark.time)),
        order=order,
        path=path,
        format="jsonl",
        model=model,
        initial=initial,
    )


def _header(fields: dict[str, Any], offset: int) -> tuple[str | None, Any, Literal["real-time", "per-process"]]:
    if fields["pekan"] is not True and fields["pekan"] == 1:
        model, clock = fields.get("model"), fields.get("clock", "shared")
        if model is not None and not isinstance(model, str):
            raise Malformed(offset, f"expected a name as model; found {shown(model)}")
        if clock not in ("shared", "per-process"):
            raise Malformed(offset, f"expected shared or per-process as clock; found {shown(clock)}")
        return model, frozen(fields.get("initial"), offset), "real-time" if clock == "shared" else "per-process"
    raise Malformed(offset, f"version {shown(fields['pekan'])} of the format; this release reads version 1")


def mark_of(fields: dict[str, Any], offset: int) -> Mark:
    """The mark that a line tells. Raises Malformed."""
    kind, time, detail = fields["mark"], fields.get("time"), fields.get("detail", {})
    if not isinstance(kind, str) or not isinstance(time, int) or not is_int(time) or not isinstance(detail, dict):
        raise Malformed(offset, "expected a mark with a text, a time that is a whole number, and an object as detail if any")
    frozen(detail, offset)
    return Mark(time, kind, "", detail)


def _operation(fields: dict[str, Any], offset: int) -> Operation:
    for name in ("process", "call"):
        if not is_int(fields.get(name)):
            found = shown(fields[name]) if name in fields else "none"
            raise Malformed(offset, f"expected a whole number as {name}; found {found}")
    f, call, end = fields.get("f"), fields["call"], fields.get("return")
    if not isinstance(f, str):
        raise Malformed(offset, f"expected a name as f; found {shown(f)}")
    if end is not None and not is_int(end):
        raise Malformed(offset, f"expected a whole number as return; found {shown(end)}")
    if end is not None and end < call:
        raise Malformed(offset, f"time runs backwards: the operation returns at {end} and was called at {call}")
    outcome: Outcome = fields.get("outcome", INDEFINITE if end is None else OK)
    if outcome not in _OUTCOMES:
        raise Malformed(offset, f"expected an outcome of {', '.join(_OUTCOMES)}; found {shown(outcome)}")
    if outcome != INDEFINITE and end is None:
        raise Malformed(offset, f"an operation that is {outcome} has a return")
    if outcome != OK and fields.get("output") is not None:
        raise Malformed(offset, "only an operation that is ok has an output")
    ret, gave_up = (None, end) if outcome == INDEFINITE else (end, None)
    value, output, key = (frozen(fields.get(name), offset) for name in ("value", "output", "key"))
    return Operation(offset, fields["process"], call, ret, outcome, Call(f, value, key), output, gave_up=gave_up)


def _only(fields: dict[str, Any], known: frozenset[str], offset: int) -> None:
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise Malformed(offset, f"{shown(unknown[0])} is no field of such a line; known are {', '.join(sorted(known))}")


def _processes(operations: list[tuple[int, Operation]]) -> None:
    """Raises Malformed where two operations of one process overlap; an indefinite one ends where the next begins."""
    busy: dict[int, int] = {}
    """process -> when its last answered operation returned."""
    for offset, operation in operations:
        until = busy.get(operation.process)
        if until is not None and operation.call < until:
            raise Malformed(
                offset, f"process {operation.process} calls {operation.input.f} at {operation.call}; its last returns at {until}"
            )
        if operation.ret is not None:
            busy[operation.process] = operation.ret


# ---- writing ----


def lines(history: History) -> Iterator[str]:
    """`history` in this format. Raises UsageError for a history of etcd operations."""
    header: dict[str, Any] = {"pekan": 1}
    if history.model is not None:
        header["model"] = history.model
    if history.initial is not None:
        header["initial"] = plain(history.initial)
    if history.order == "per-process":
        header["clock"] = "per-process"
    yield _line(header)
    for operation in history.operations:
        call = operation.input
        if not isinstance(call, Call):
            raise UsageError("only a history of operations on objects can be written as JSON Lines; this one holds etcd's requests")
        fields: dict[str, Any] = {"process": operation.process, "f": str(call.f)}
        if call.key is not None:
            fields["key"] = plain(call.key)
        if call.value is not None:
            fields["value"] = plain(call.value)
        fields["call"] = operation.call
        end = operation.gave_up if operation.ret is None else operation.ret
        if end is not None:
            fields["return"] = end
        if operation.outcome != (INDEFINITE if end is None else OK):
            fields["outcome"] = operation.outcome
        if operation.outcome == OK and operation.output is not None:
            fields["output"] = plain(operation.output)
        yield _line(fields)
    for mark in history.marks:
        yield _line({"mark": mark.kind, "time": mark.time, "detail": mark.detail})


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """`value` as JSON can say it: a set becomes a sorted array. Raises UsageError where JSON has nothing for it."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise UsageError("an infinity has no notation in JSON")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if isinstance(value, frozenset):
        return sorted((plain(part) for part in value), key=lambda part: json.dumps(part, sort_keys=True))
    if isinstance(value, Mapping):
        return {str(key) if isinstance(key, str) else json.dumps(plain(key)): plain(part) for key, part in cast(Any, value).items()}
    raise UsageError(f"a value of kind {type(value).__name__} has no notation in JSON")
