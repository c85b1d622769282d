"""Histories that others recorded, read into the same values as our own; and the formats that we can write.

::

    name               what it is                                                          file
    ─────────────────  ──────────────────────────────────────────────────────────────────  ───────────────
    pekan              our own run                                                         ../reading.py
    edn                Jepsen's and Knossos' EDN                                           edn.py
    jepsen-json        the same entries in JSON                                            jepsen_json.py
    porcupine-jepsen   Jepsen's log lines as in Porcupine's tests                          porcupine.py
    porcupine-kv       key-value maps as in Porcupine's tests                              porcupine.py
    robustness         a report directory of etcd's robustness tests                       robustness.py
    jsonl              Pekan's JSON Lines, for anybody's object                            jsonl.py

Every reader refuses malformed input with file, line or byte, and what was expected (EvidenceError). None crashes, whatever the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pekan.errors import EvidenceError, UsageError
from pekan.history.foreign import edn, jsonl
from pekan.history.foreign.edn import read_edn
from pekan.history.foreign.held import read_held
from pekan.history.foreign.jepsen_json import read_jepsen_json
from pekan.history.foreign.jsonl import read_jsonl
from pekan.history.foreign.porcupine import LOG_LINE, read_porcupine_jepsen, read_porcupine_kv
from pekan.history.foreign.robustness import read_robustness
from pekan.history.foreign.visualisation import visualisation
from pekan.history.memory import TEXT_PER_BYTE, too_large
from pekan.history.reading import load
from pekan.history.types import History
from pekan.native import core

READERS: dict[str, Callable[[Path], History]] = {
    "pekan": load,
    "edn": read_edn,
    "jepsen-json": read_jepsen_json,
    "porcupine-jepsen": read_porcupine_jepsen,
    "porcupine-kv": read_porcupine_kv,
    "robustness": read_robustness,
    "jsonl": read_jsonl,
}
"""Format -> its reader; the names are those of `--format`."""
WRITERS: dict[str, Callable[[History], Iterable[str]]] = {
    "edn": edn.lines,
    "jsonl": jsonl.lines,
    "porcupine-viz": lambda history: [json.dumps(visualisation(history), indent=1) + "\n"],
}
"""Format -> the text of a history in it, in pieces; the names are those of `pekan convert --to`."""

_HEAD = 1 << 16
"""Bytes of a file that are looked at to tell its format: a log may begin with pages of other lines."""
_NAMES_MAX = 8
"""Names of a directory that a message lists."""
_KV_ENTRY = re.compile(r"\{:process\s+\d+,?\s+:type\s+:invoke,?\s+:f\s+:(?:get|put|append),?\s+:key\s")
_EDN_START = re.compile(r"(?:[\s,]++|;[^\n]*+)*+(?:[\[(\s,]*\{|[\[(\s,]*#[A-Za-z_])")


def load_any(path: Path, format: str | None = None, *, engine: str = "auto") -> History:  # noqa: A002 - the option's name on the command line
    """The history at `path`, read as `format`, or as what name and content tell; `engine` "reference" reads without the native core.

    A history for which there is not the memory is not read (`History.too_large`). Raises UsageError where neither name nor content tells
    the format (it lists what was seen) and for an unknown one, EvidenceError where the history is unreadable.
    """
    chosen = format or guess(path)
    if chosen not in READERS:
        raise UsageError(f"--format {chosen}: not known; choose from {', '.join(READERS)}")
    if chosen == "pekan":
        return load(path, engine=engine)
    files = (path,) if path.is_file() else tuple(path.glob("client-*/*.json"))
    if engine != "reference" and core is not None:
        if why := too_large(files, "native", per_byte=TEXT_PER_BYTE):
            return History((), path=path, format=chosen, too_large=why)
        held = read_held(path, chosen)
        if held is not None:
            return held
    if why := too_large(files, "reference", per_byte=TEXT_PER_BYTE):
        return History((), path=path, format=chosen, too_large=why)
    return READERS[chosen](path)


_RECORD_START = re.compile(rb"[\x80-\xff]{0,4}[\x00-\x7f]\x09.{7}\x00", re.DOTALL)
"""How a record file begins: a length, the tag of the time, and eight bytes of it, the highest of them 0 on a machine that has been up for
less than two years. No text begins so."""


def guess(path: Path) -> str:
    """The format of what lies at `path`, told by its name and its first bytes. Raises UsageError listing what was seen."""
    if path.is_dir():
        return _guess_directory(path)
    if not path.exists():
        raise EvidenceError(f"{path}: does not exist")
    if re.fullmatch(r"history(?:-\d+)?\.pb", path.name):
        return "pekan"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    if _RECORD_START.match(head):
        return "pekan"
    text = head.decode(errors="replace")
    return _guess_text(text) or _give_up(path, text)


def _guess_directory(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if "history.pb" in names or "plan.json" in names:
        return "pekan"
    if any(re.fullmatch(r"client-\d+", name) for name in names) or any(name.startswith("server-") for name in names):
        return "robustness"
    if "history.edn" in names:
        raise UsageError(f"{path}: a directory of Jepsen's; name the history in it: {path / 'history.edn'}")
    if any(path.glob("*/history.pb")):
        return "pekan"  # a series of runs, of which it is said there how to name one
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    seen = ", ".join(names[:_NAMES_MAX]) + more if names else "nothing"
    raise UsageError(f"{path}: neither a run (plan.json, history.pb) nor a robustness report (client-N); it holds {seen}. Name a file")


def _guess_text(text: str) -> str | None:
    stripped = text.lstrip(" \t\r\n")
    if stripped.startswith("{") and _KV_ENTRY.match(stripped):
        return "porcupine-kv"
    if stripped[:1] in "[{" and re.match(r'(?:\[\s*)?\{\s*"', stripped):
        return _guess_json(stripped)
    if _EDN_START.match(text):
        return "edn"
    if any(LOG_LINE.match(line) for line in text.split("\n")):
        return "porcupine-jepsen"
    return None


def _guess_json(text: str) -> str | None:
    first = text.split("\n", 1)[0]
    if '"pekan"' in first or ('"call"' in text and '"process"' in text) or '"mark"' in first:
        return "jsonl"
    if '"type"' in text and '"process"' in text:
        return "jepsen-json"
    return None


def _give_up(path: Path, text: str) -> str:
    line = next((line for line in text.split("\n") if line.strip()), "")
    seen = f"it begins with {line[:60]!r}" if line else "it is empty"
    raise UsageError(f"{path}: no format that Pekan knows ({seen}); say --format {'|'.join(READERS)}")


__all__ = ["READERS", "WRITERS", "guess", "load_any"]
