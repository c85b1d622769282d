"""Lengths of time as people write them: `500ms`, `30s`, `2m`, `1h`."""

from __future__ import annotations

import re

from pekan.errors import UsageError

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_ms(text: str, what: str = "duration") -> int:
    """Milliseconds (int) of `text`. Raises UsageError naming `what` where it is none."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{what}: {text!r} is no length of time; write a number and a unit, as in 500ms, 30s, 2m or 1h")
    return round(float(match.group(1)) * _UNITS_MS[match.group(2)])


def show_ms(ms: int) -> str:
    """The shortest text that `parse_ms` takes back to `ms`."""
    for unit in ("h", "m", "s"):
        if ms and ms % _UNITS_MS[unit] == 0:
            return f"{ms // _UNITS_MS[unit]}{unit}"
    return f"{ms}ms"
