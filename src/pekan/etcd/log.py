"""What a member's log says: its end, the words with which its program gave up, why it did not start.

etcd logs JSON, a line an entry (zap); Go's runtime writes plain text beside it, and what a person would read is neither.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pekan.etcd.spec import MemberSpec

# Enough for a Go panic with the stack of its goroutine, small enough to stand in a record.
LOG_TAIL_BYTES = 32 * 1024
LOG_TAIL_LINES = 200

# A process with a thousand goroutines writes less when it dumps them all.
CRASH_BYTES = 1024 * 1024
CRASH_CHARACTERS = 500

# Lines of the log in a message to a person. The whole bounded tail is in `MemberExit.log_tail`.
MESSAGE_LOG_LINES = 12
MESSAGE_LOG_LINE_CHARACTERS = 240


def log_tail(log: Path, offset: int = 0) -> tuple[str, ...]:
    """The last lines of the log from `offset` (bytes) on: at most `LOG_TAIL_LINES` lines and `LOG_TAIL_BYTES` bytes."""
    return tuple(_last_lines(log, offset, LOG_TAIL_BYTES)[-LOG_TAIL_LINES:])


def _last_lines(log: Path, offset: int, bytes_max: int) -> list[str]:
    """The whole lines among the last `bytes_max` bytes from `offset` on; none of a file that cannot be read."""
    try:
        with log.open("rb") as file:
            first = max(offset, file.seek(0, os.SEEK_END) - bytes_max)
            file.seek(first)
            text = file.read(bytes_max).decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    return lines[1:] if first > offset else lines


def crash(log: Path, offset: int = 0) -> str | None:
    """The words with which the program gave up in its log from `offset` (bytes) on, or None.

    The Go runtime's `panic: ...` or `fatal error: ...` line; else what etcd logged last on its levels panic and fatal. A trace
    of goroutines may follow, so that it is looked for in the last `CRASH_BYTES` bytes.
    """
    logged = None
    for line in _last_lines(log, offset, CRASH_BYTES):
        if line.startswith(("panic: ", "fatal error: ")):
            return line[:CRASH_CHARACTERS]
        entry = log_entry(line) if line.startswith("{") else None
        if entry is not None and entry.get("level") in ("panic", "fatal"):
            logged = ": ".join(str(entry[key]) for key in ("msg", "error") if key in entry)[:CRASH_CHARACTERS]
    return logged


def log_entry(line: str) -> dict[str, Any] | None:
    """A line of etcd's log (zap's JSON), or None for free text."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


# What etcd writes when it cannot start, and what that means for the person at the terminal. The first that matches counts.
# `quoted` is the text around the match, to the quotation mark or line end before it. No pattern begins with a repetition: a long
# log is searched in linear time.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"listen tcp \S*?(?P<found>[\d.]+:\d+|\[\S+\]:\d+): bind: address already in use"),
        "{found} is taken: another program listens there (`ss -ltnp` names it). Stop it, or start again to get other ports",
    ),
    (
        re.compile(r"flag provided but not defined: -?-?(?P<found>[\w-]+)"),
        "etcd {version} has no flag --{found}",
    ),
    (
        re.compile(r"invalid value .* for flag [\w-]+"),
        "etcd {version} refuses a flag ({quoted})",
    ),
    (
        re.compile(r"permission denied|read-only file system|not a directory|no space left on device"),
        "its data directory {data_dir} cannot be used ({quoted}). Free or repair it, or choose another place for the run",
    ),
    (
        re.compile(r"(?:flocked|locked) by another process|another etcd process is using|file already locked"),
        "another etcd uses its data directory {data_dir} ({quoted})",
    ),
)

# Worst first. What etcd wrote on the worst level, last, is what ended it.
_LEVELS = ("panic", "fatal", "error", "warn")


def diagnose(spec: MemberSpec, lines: Sequence[str]) -> str | None:
    """Why etcd did not start, in a sentence, from the lines of its log; None where they do not tell."""
    text = "\n".join(lines)
    for pattern, meaning in _CAUSES:
        if match := pattern.search(text):
            begin = max(text.rfind(mark, 0, match.start()) for mark in '"\n') + 1
            return meaning.format(
                version=spec.binary.version, data_dir=spec.data_dir, quoted=text[begin : match.end()], **match.groupdict()
            )
    entries = [entry for line in lines if (entry := log_entry(line))]
    for level in _LEVELS:
        for entry in reversed(entries):
            if entry.get("level") == level:
                return f"etcd says: {': '.join(str(entry[key]) for key in ('msg', 'error') if key in entry)}"
    return None


def _shown(line: str) -> str:
    """A line of etcd's log as a person reads it: level, place, message, then the rest, cut."""
    entry = log_entry(line)
    if entry is not None:
        head = [str(entry.pop(key, "")) for key in ("level", "caller", "msg")]
        entry.pop("ts", None)
        line = "  ".join([*head, *(f"{key}={value}" for key, value in entry.items())])
    return line if len(line) <= MESSAGE_LOG_LINE_CHARACTERS else line[:MESSAGE_LOG_LINE_CHARACTERS] + "..."


def explained(spec: MemberSpec, lines: Sequence[str]) -> str:
    """Why etcd did not start, as far as the lines of its log tell, and the last of them, for a message."""
    # The page of help after a refused flag says nothing about this member.
    told = list(itertools.takewhile(lambda line: not line.startswith("Usage:"), lines))
    shown = "\n".join(f"  {_shown(line)}" for line in told[-MESSAGE_LOG_LINES:]) or "  (empty)"
    return f"{diagnose(spec, lines) or 'its log may tell why'}\nlast lines of {spec.log}:\n{shown}"
