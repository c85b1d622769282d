"""JSON as evidence: values frozen, everything that is no plain value refused with its line.

Refused besides what JSON forbids: a name twice in one object, NaN and infinities, half of a surrogate pair, nesting deeper than
`values.MAX_DEPTH`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from pekan.history.foreign.pairing import Malformed
from pekan.history.values import MAX_DEPTH, freeze


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object that has a name twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"a number that is too large: {text[:20]}")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
_SPACE = " \t\r\n"


def values(text: str) -> Iterator[tuple[int, Any]]:
    """(offset, value) of each JSON value of `text`; those of one array around them all count as values of the text. Raises Malformed.

    The values of the text itself, and what is in them, are as `json` gives them; `frozen` makes them immutable.
    """
    position = _skip(text, 0)
    around = text.startswith("[", position)
    if around:
        position = _skip(text, position + 1)
        if text.startswith("]", position):
            _nothing_after(text, position + 1)
            return
    while position < len(text):
        value, end = _one(text, position)
        yield position, value
        position = _skip(text, end)
        if around:
            if text.startswith("]", position):
                _nothing_after(text, position + 1)
                return
            if not text.startswith(",", position):
                raise Malformed(position, "expected ',' or ']' in the array of entries")
            position = _skip(text, position + 1)
    if around:
        raise Malformed(position, "the file ends, and the '[' around the entries is never closed")


def frozen(value: Any, offset: int) -> Any:
    """`value` immutable. Raises Malformed at `offset` where it nests too deep or is no text."""
    try:
        return freeze(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(offset, str(error) if isinstance(error, ValueError) else f"nested deeper than {MAX_DEPTH}") from None


def _one(text: str, position: int) -> tuple[Any, int]:
    try:
        value, end = _decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise Malformed(min(error.pos, len(text)), f"expected JSON: {error.msg}") from None
    except ValueError as error:
        raise Malformed(position, str(error)) from None
    except RecursionError:
        raise Malformed(position, f"nested deeper than {MAX_DEPTH}") from None
    if "\\" in (raw := text[position:end]) and "\\u" in raw and ("\\ud" in raw or "\\uD" in raw) and _has_surrogate(value):
        raise Malformed(position, "half of a surrogate pair is no text")
    return value, end


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return True
    return False


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _nothing_after(text: str, position: int) -> None:
    position = _skip(text, position)
    if position < len(text):
        raise Malformed(position, "something follows the array of entries")
