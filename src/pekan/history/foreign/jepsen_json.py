"""Jepsen's histories in JSON: `{"process": 0, "type": "invoke", "f": "write", "value": 3, "time": 17}`, one a line or all in one array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pekan.history.foreign.json_text import frozen, values
from pekan.history.foreign.pairing import Entry, Malformed, entry_of, located, pair, text_of
from pekan.history.types import History


def read_jepsen_json(path: Path) -> History:
    """The history in the JSON file at `path`. Raises EvidenceError naming file and line."""
    text = text_of(path)
    try:
        return replace(pair(_entries(text)), path=path, format="jepsen-json")
    except Malformed as error:
        raise located(path, text, error) from None


def _entries(text: str) -> Iterator[Entry]:
    for offset, value in values(text):
        yield entry_of(offset, frozen(value, offset))
