"""The two notations of histories that Porcupine's tests read.

::

    porcupine-jepsen   INFO  jepsen.util - 0  :invoke  :cas  [1 2]        Jepsen's log of a compare-and-set register
                       INFO  jepsen.util - 0  :fail    :cas  [1 2]        looked, and found another value: an answer, False
                       INFO  jepsen.util - 1  :info    :write :timed-out  indefinite
                       INFO  jepsen.util - 2  :fail    :read :timed-out   no answer, and no effect
                       INFO  jepsen.core - anything else                  not of the history
    porcupine-kv       {:process 0, :type :invoke, :f :get, :key "0", :value nil}

Neither has times: the order of the lines decides. Fields of a log line are separated by any blanks. Between the level and the process may
stand what log4j puts there (a date, a thread); a line that has no process and type is none of the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pekan.history.foreign.edn import forms
from pekan.history.foreign.pairing import Entry, Malformed, entry_of, located, pair, text_of
from pekan.history.types import History

LOG_LINE = re.compile(
    r"[^\n]*?(?:^|[ \t])jepsen\.util(?:[ \t]+-)?[ \t]+([0-9]+|:[a-z-]+)[ \t]+:(invoke|ok|fail|info)[ \t]+:([^\s]+)[ \t]*([^\n]*)",
    re.ASCII,
)
"""Process, type, function, and what follows: the value, then an error where there was one."""
_DIGITS_MAX = 18
"""Of a process: what 64 bits hold for sure."""


def read_porcupine_jepsen(path: Path) -> History:
    """The history in a log of Jepsen's at `path`; its model is a compare-and-set register. Raises EvidenceError naming file and line."""
    text = text_of(path)
    try:
        history = pair(log_entries(text), failed_cas_is_answer=True)
    except Malformed as error:
        raise located(path, text, error) from None
    return replace(history, path=path, format="porcupine-jepsen", model="cas-register")


def read_porcupine_kv(path: Path) -> History:
    """The history of a key-value store at `path`; its model is kv-append. Raises EvidenceError naming file and line."""
    text = text_of(path)
    try:
        history = pair(entry_of(offset, value) for offset, value in forms(text))
    except Malformed as error:
        raise located(path, text, error) from None
    return replace(history, path=path, format="porcupine-kv", model="kv-append")


def log_entries(text: str) -> Iterator[Entry]:
    """The entries among the lines of a log. Raises Malformed."""
    offset = 0
    for line in text.split("\n"):
        match = LOG_LINE.match(line)
        if match is not None:
            process, kind, f, raw = match.groups()
            try:
                found = [value for _, value in forms(raw, entries=False)]
            except Malformed as error:
                raise Malformed(offset, error.what) from None
            if not found:
                raise Malformed(offset, f"expected a value after :{f}; found none")
            yield Entry(offset, _process(process, offset), kind, f, found[0], None, None)
        offset += len(line) + 1


def _process(text: str, offset: int) -> int | str:
    if text[0] == ":":
        return text[1:]
    if len(text) > _DIGITS_MAX:
        raise Malformed(offset, "expected a number or a name as process")
    return int(text)
