"""Histories of objects that the native core has read: operations are made when they are looked at.

::

    file ── core.Objects.read ──> columns ── operation(i) ──> Operation
                                          ── marks() ───────> the few entries that the readers in Python read themselves

What the core declines is read by the reader in Python, whose message is the one that users see where the file is malformed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pekan.history.foreign.edn import forms
from pekan.history.foreign.json_text import frozen, values
from pekan.history.foreign.jsonl import mark_of as mark_of_line
from pekan.history.foreign.pairing import Entry, entry_of, mark_of
from pekan.history.foreign.porcupine import log_entries
from pekan.history.foreign.robustness import read_held_report
from pekan.history.types import Call, History, Made, Mark, Operation
from pekan.native import core

MODELS = {"edn": None, "jepsen-json": None, "jsonl": None, "porcupine-kv": "kv-append", "porcupine-jepsen": "cas-register"}
"""The formats that the core reads, and the model that each is of."""


class HeldOperations(Made[Operation]):
    """The operations of a file that the core holds. `objects` is the core's `Objects`: the columns, for checkers that work on them."""

    def __init__(self, objects: Any) -> None:
        self.objects = objects
        self._operation = objects.operation

    def __len__(self) -> int:
        return len(self.objects)

    def make(self, index: int) -> Operation:
        process, call, ret, outcome, f, value, key, output, gave_up = self._operation(index)
        return Operation(index, process, call, ret, outcome, Call(f, value, key), output, gave_up=gave_up)


def read_held(path: Path, form: str) -> History | None:
    """The history at `path` as the core holds it; None where the core is not there or leaves it to the reader in Python."""
    if form == "robustness":
        return read_held_report(path)
    if core is None or form not in MODELS:
        return None
    try:
        objects = core.Objects.read(path, form)
    except (core.Declined, OSError):
        return None
    model, initial, per_process = objects.header()
    return History(
        operations=HeldOperations(objects),
        marks=tuple(_MARKS[form](text.decode(), time) for text, time in objects.marks()),
        order="per-process" if per_process else "real-time",
        path=path,
        format=form,
        model=model or MODELS[form],
        initial=initial,
    )


def _in_edn(text: str, time: int) -> Mark:
    ((offset, fields),) = forms(text)
    return mark_of(entry_of(offset, fields), time)


def _in_json(text: str, time: int) -> Mark:
    ((offset, fields),) = values(text)
    return mark_of(entry_of(offset, frozen(fields, offset)), time)


def _in_log(text: str, time: int) -> Mark:
    entry: Entry
    (entry,) = log_entries(text)
    return mark_of(entry, time)


def _in_jsonl(text: str, _: int) -> Mark:
    ((offset, fields),) = values(text)
    return mark_of_line(fields, offset)


_MARKS: dict[str, Callable[[str, int], Mark]] = {
    "edn": _in_edn,
    "porcupine-kv": _in_edn,
    "porcupine-jepsen": _in_log,
    "jepsen-json": _in_json,
    "jsonl": _in_jsonl,
}
