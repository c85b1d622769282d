"""Porcupine's visualisation as JSON, for its viewer and for whatever else reads it (porcupine visualization.go, read at v1.3.0).

::

    {"Partitions":  [{"History": [{"ClientId", "Start", "OriginalStart", "End", "OriginalEnd", "Description", "Metadata"}],
                      "PartialLinearizations": [[{"Index", "StateDescription"}]],    longest first
                      "Largest": {index of an operation: which of these is the longest that holds it}}],
     "Annotations": [{"Tag", "Start", "End", "Description", ...}]}                   marks and faults

Times are their ranks times 100, so that the viewer has room between any two of them and no number is too large for JavaScript. Clients are
rows: an operation that never returned keeps its row to the end, and its client goes on in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pekan.history.foreign.pairing import shown
from pekan.history.types import OK, Call, History, Operation

STEP = 100
"""Between two ranks; the viewer moves points by up to 16."""


class Shown(NamedTuple):
    """One independent object: its operations, and orders of them that were found, each of (index in `operations`, state after)."""

    operations: Sequence[Operation]
    orders: Sequence[Sequence[tuple[int, str]]] = ()


def describe(operation: Operation) -> str:
    """An operation in a few words."""
    call = operation.input
    asked = f"{call.f}({'' if call.value is None else shown(call.value)})" if isinstance(call, Call) else shown(call)
    if operation.outcome == OK:
        return f"{asked} -> {shown(operation.output)}"
    return f"{asked}: {operation.outcome}"


def visualisation(
    history: History, parts: Sequence[Shown] | None = None, describe: Callable[[Operation], str] = describe
) -> dict[str, Any]:
    """`history` as Porcupine's viewer takes it. `parts` are its independent objects; without them those of `Call.key`, and no orders."""
    if parts is None:
        parts = by_key(history.operations)
    times = {time for part in parts for op in part.operations for time in (op.call, op.ret) if time is not None}
    times.update(mark.time for mark in history.marks)
    for fault in history.faults:
        times.update(time for time in (fault.armed, fault.healed) if time is not None)
    rank = {time: index * STEP for index, time in enumerate(sorted(times))}
    end = len(rank) * STEP
    rows = _rows([op for part in parts for op in part.operations])

    def element(op: Operation) -> dict[str, Any]:
        return {
            "ClientId": rows[op.id],
            "Start": rank[op.call],
            "OriginalStart": str(op.call),
            "End": end if op.ret is None else rank[op.ret],
            "OriginalEnd": "never" if op.ret is None else str(op.ret),
            "Description": describe(op),
            "Metadata": f"operation {op.id} of process {op.process}" + (f" of {op.client}" if op.client else ""),
        }

    return {
        "Partitions": [{"History": [element(op) for op in part.operations], **_orders(part)} for part in parts],
        "Annotations": [
            *(_annotation("marks", rank[mark.time], rank[mark.time], mark.kind) for mark in history.marks),
            *(
                _annotation(
                    "faults", rank[fault.armed], end if fault.healed is None else rank[fault.healed], f"{fault.kind} {fault.target}"
                )
                for fault in history.faults
            ),
        ],
    }


def by_key(operations: Sequence[Operation]) -> list[Shown]:
    """The objects that keys tell apart, in order of their first operation."""
    found: dict[Any, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.input.key if isinstance(operation.input, Call) else None, []).append(operation)
    return [Shown(tuple(those)) for those in found.values()]


def _orders(part: Shown) -> dict[str, Any]:
    orders = sorted(part.orders, key=len, reverse=True)
    largest: dict[str, int] = {}
    for number, order in enumerate(orders):
        for index, _ in order:
            largest.setdefault(str(index), number)
    told = [[{"Index": index, "StateDescription": state} for index, state in order] for order in orders]
    return {"PartialLinearizations": told, "Largest": largest}


def _rows(operations: list[Operation]) -> dict[int, int]:
    """Operation id -> row of its client."""
    rows: dict[int, int] = {}
    row_of: dict[int, int] = {}
    fresh = 0
    for op in sorted(operations, key=lambda op: (op.call, op.id)):
        row = row_of.get(op.process)
        if row is None:
            row, fresh = fresh, fresh + 1
        rows[op.id] = row
        if op.ret is None:
            row_of.pop(op.process, None)
        else:
            row_of[op.process] = row
    return rows


def _annotation(tag: str, start: int, end: int, text: str) -> dict[str, Any]:
    colors = {"TextColor": "", "BackgroundColor": ""}
    return {"ClientId": 0, "Tag": tag, "Start": start, "End": end, "Description": text, "Details": "", "Annotation": True, **colors}
