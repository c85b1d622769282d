"""EDN, the notation of Jepsen's and Knossos' histories: a small parser, the reader and the writer.

::

    {:process 0, :type :invoke, :f :write, :value 3, :time 17}          one map a line, or maps in one vector or list
    #jepsen.history.Op{:index 1, :process 0, :type :ok, ...}            tags are dropped, what they mark stays
    {:process :nemesis, :type :info, :f :kill, :value ["n1"]}           a mark

Read: maps, vectors, lists, sets, strings, characters, keywords, symbols, whole numbers in every notation, floats, ratios, tagged values,
comments, `#_` and metadata. What the values become is in `pekan.history.values`. Refused, with the line: what EDN forbids (an odd map, a
key twice, a delimiter that closes nothing), namespaced maps, `##NaN` (it equals nothing, itself included), nesting deeper than
`values.MAX_DEPTH`. The parser does not recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

from pekan.errors import UsageError
from pekan.history.foreign.pairing import Malformed, entry_of, located, pair, text_of
from pekan.history.types import FAILED, OK, Call, History, Operation
from pekan.history.values import MAX_DEPTH, Keyword, Map, freeze, whole

_TOKEN = re.compile(
    r"""(?: [\s,]++ | ;[^\n]*+ )*+
    (?: (?P<atom>[^\s,;"()\[\]{}\\\#^'`~@]++ (?:[^\s,;"()\[\]{}\\^`~@])*+)
      | (?P<delimiter>[()\[\]{}])
      | "(?P<string>[^"\\]*+(?:\\.[^"\\]*+)*+)"
      | \\(?P<char>[^\s,;"()\[\]{}\\]++|[^\s])
      | \#(?P<hash>_|\{|"|\#[^\s,;"()\[\]{}\\]*+|[A-Za-z][^\s,;"()\[\]{}\\]*+)
      | (?P<meta>\^)
      | (?P<end>\Z) )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)N?\Z", re.ASCII)
_FLOAT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?M?\Z", re.ASCII)
_OTHER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]+)|([0-9]{1,2})[rR]([0-9a-zA-Z]+))N?\Z", re.ASCII)
_RATIO = re.compile(r"([+-]?[0-9]+)/([0-9]+)\Z", re.ASCII)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|o?([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "b": "\b", "f": "\f"}
_CHARS = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r", "backspace": "\b", "formfeed": "\f"}
_DIGITS = "0123456789"
_NAMED = {"nil": None, "true": True, "false": False}
_CLOSES = {"(": ")", "[": "]", "{": "}", "#": "}"}
_PREFIXES = frozenset("_t^")
"""Frames that take one form and end: a discarded one, a tagged one, metadata."""
_ATOMS_MAX = 1 << 16
"""Atoms remembered by their text: a history says the same keywords and numbers again and again."""


def forms(text: str, *, entries: bool = True) -> Iterator[tuple[int, Any]]:
    """(offset, value) of each form of `text`. Raises Malformed.

    Those of one vector or list around them all count as forms of the text where it holds `entries`. A map among them is a dict.
    """
    atoms: dict[str, Any] = {}
    stack: list[tuple[str, int, list[Any]]] = []
    """(kind, offset, parts) of what is open. Kinds: ( [ { as they open, # for a set, and the prefixes."""
    around: str | None = None
    """The kind of the vector or list around everything, once it has opened."""
    closed_around = False
    first = entries
    """Until anything has been read."""
    position = 0
    match = _TOKEN.match
    while True:
        token = match(text, position)
        if token is None:
            _stray(text, position)
        kind = token.lastgroup
        start, position = token.span(kind or "end")
        if kind == "atom":
            word = token[kind]
            value = atoms.get(word, atoms)
            if value is atoms:
                value = _atom(word, start)
                if len(atoms) < _ATOMS_MAX:
                    atoms[word] = value
        elif kind == "delimiter":
            opens = text[start]
            if opens in "([{":
                if first and not stack and opens != "{":
                    around, first = opens, False
                    continue
                if len(stack) >= MAX_DEPTH:
                    raise Malformed(start, f"nested deeper than {MAX_DEPTH}")
                stack.append((opens, start, []))
                first = False
                continue
            if not stack:
                if around is not None and not closed_around and _CLOSES[around] == opens:
                    closed_around = True
                    continue
                raise Malformed(start, f"'{opens}' closes nothing")
            frame, start, parts = stack.pop()
            if frame in _PREFIXES:
                raise Malformed(start, "nothing follows to be tagged or left out")
            if _CLOSES[frame] != opens:
                raise Malformed(position - 1, f"expected '{_CLOSES[frame]}' for the '{frame}' of line {text.count(chr(10), 0, start) + 1}")
            if frame == "{":
                value = _map(parts, start, plain=not stack or (len(stack) == 1 and stack[0][0] == "t"))
            else:
                value = frozenset(parts) if frame == "#" else tuple(parts)
        elif kind == "string":
            start -= 1
            position += 1
            value = token[kind]
            if "\\" in value:
                value = _unescape(value, start)
        elif kind == "char":
            value = _char(token[kind], start)
        elif kind == "hash":
            word = token[kind]
            start -= 1
            if word[0] == "#":
                value = _special(word, start)
            elif word == '"':
                raise Malformed(start, "a regular expression is no value of a history")
            else:
                if len(stack) >= MAX_DEPTH:
                    raise Malformed(start, f"nested deeper than {MAX_DEPTH}")
                stack.append(("#" if word == "{" else "_" if word == "_" else "t", start, []))
                continue
        elif kind == "meta":
            if len(stack) >= MAX_DEPTH:
                raise Malformed(start, f"nested deeper than {MAX_DEPTH}")
            stack.append(("^", start, []))
            continue
        else:
            if stack:
                frame, start, _ = stack[-1]
                what = "nothing follows to be tagged or left out" if frame in _PREFIXES else f"'{frame}' is never closed"
                raise Malformed(start, f"the file ends, and {what}")
            if around is not None and not closed_around:
                raise Malformed(len(text), f"the file ends, and the '{around}' around the entries is never closed")
            return
        # A value is complete: prefixes before it take it.
        while stack and stack[-1][0] in _PREFIXES:
            frame, start, _ = stack.pop()
            if frame == "_":
                break
            if frame == "^":
                break
        else:
            if stack:
                stack[-1][2].append(value)
            elif closed_around:
                raise Malformed(start, "something follows the vector of entries")
            else:
                first = False
                yield start, value


def _stray(text: str, position: int) -> NoReturn:
    start = re.compile(r"(?:[\s,]++|;[^\n]*+)*+").match(text, position)
    position = start.end() if start else position
    if text.startswith('"', position):
        raise Malformed(position, "a string that never ends")
    raise Malformed(position, f"expected EDN; found {text[position : position + 20]!r}")


def _map(parts: list[Any], start: int, *, plain: bool) -> Any:
    if len(parts) % 2:
        raise Malformed(start, "a map with a key that has no value")
    pairs = dict(zip(parts[::2], parts[1::2], strict=True))
    if len(pairs) * 2 != len(parts):
        raise Malformed(start, "a map that has a key twice")
    return pairs if plain else Map(pairs)


def _atom(word: str, start: int) -> Any:
    first = word[0]
    if first == ":":
        if len(word) == 1:
            raise Malformed(start, "':' names nothing")
        return Keyword(word[1:])
    if first in _DIGITS or (first in "+-" and len(word) > 1 and word[1] in _DIGITS):
        try:
            return _number(word, start)
        except (ValueError, OverflowError):
            raise Malformed(start, f"a number that is too long: {word[:20]}...") from None
    if word in _NAMED:
        return _NAMED[word]
    return Keyword(word)


def _number(word: str, start: int) -> Any:
    if _INTEGER.match(word):
        return int(word.removesuffix("N"))
    if _FLOAT.match(word) and not re.fullmatch(r"[+-]?[0-9]+", word):
        number = float(word.removesuffix("M"))
        if number in (float("inf"), float("-inf")):
            raise Malformed(start, f"a number that is too large: {word[:20]}")
        return whole(number)
    if match := _OTHER.match(word):
        sign, hexadecimal, octal, radix, digits = match.groups()
        if digits is not None and not 2 <= int(radix) <= 36:
            raise Malformed(start, f"not a number: {word[:20]}")
        number = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(digits, int(radix))
        return -number if sign == "-" else number
    if match := _RATIO.match(word):
        numerator, denominator = int(match[1]), int(match[2])
        if denominator:
            ratio = Fraction(numerator, denominator)
            return ratio.numerator if ratio.denominator == 1 else ratio
    raise Malformed(start, f"not a number: {word[:20]}")


def _char(word: str, start: int) -> str:
    if len(word) == 1:
        return word
    if word in _CHARS:
        return _CHARS[word]
    if re.fullmatch(r"u[0-9a-fA-F]{4}", word, re.ASCII):
        return _code(int(word[1:], 16), start)
    if re.fullmatch(r"o[0-7]{1,3}", word, re.ASCII):
        return chr(int(word[1:], 8))
    raise Malformed(start - 1, f"not a character: \\{word[:20]}")


def _code(code: int, start: int) -> str:
    if 0xD800 <= code < 0xE000:
        raise Malformed(start, "half of a surrogate pair is no text")
    return chr(code)


def _unescape(raw: str, start: int) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1]:
            return _code(int(match[1], 16), start)
        if match[2]:
            return chr(int(match[2], 8))
        if match[3] not in _ESCAPES:
            raise Malformed(start, f"a string with an escape that EDN does not know: \\{match[3]}")
        return _ESCAPES[match[3]]

    return _ESCAPE.sub(one, raw)


def _special(word: str, start: int) -> float:
    if word == "#Inf":
        return float("inf")
    if word == "#-Inf":
        return float("-inf")
    raise Malformed(start, "NaN equals nothing, itself included: no value of a history" if word == "#NaN" else f"not EDN: #{word[:20]}")


def read_edn(path: Path) -> History:
    """The history in the EDN file at `path`. Raises EvidenceError naming file and line."""
    text = text_of(path)
    try:
        return replace(pair(entry_of(offset, value) for offset, value in forms(text)), path=path, format="edn")
    except Malformed as error:
        raise located(path, text, error) from None


# ---- writing ----

_BARE = re.compile(r"[A-Za-z*!_?$%&=<>][A-Za-z0-9*+!_?$%&=<>.\-]*\Z")
"""A text that can stand as a keyword."""


def edn(value: Any) -> str:
    """`value` in EDN. Raises UsageError for a kind of value that foreign histories do not have."""
    if value is None:
        return "nil"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, Keyword) and _BARE.match(value):
        return f":{value}"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return f'"{text}"'
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "##Inf" if value > 0 else "##-Inf"
    if isinstance(value, (int, float, Fraction)):
        return str(value)
    if isinstance(value, tuple):
        return "[" + " ".join(map(edn, value)) + "]"
    if isinstance(value, frozenset):
        return "#{" + " ".join(sorted(map(edn, value))) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{edn(key)} {edn(part)}" for key, part in value.items()) + "}"
    raise UsageError(f"a value of kind {type(value).__name__} has no notation in EDN")


def lines(history: History) -> Iterator[str]:
    """`history` as Jepsen would have written it, one map a line.

    A process whose operation was indefinite goes on under a fresh number, as Jepsen's do; independent keys are pairs `[k v]` again.
    Raises UsageError for a history of etcd operations.
    """
    said: dict[int | None, list[tuple[int, str]]] = {}
    """process -> (time, line) of its entries, in order: among those of one time, each process keeps its own order."""
    for operation, process in zip(history.operations, _fresh_processes(history.operations), strict=True):
        call = operation.input
        if not isinstance(call, Call):
            raise UsageError("only a history of operations on objects can be written as EDN; this one holds etcd's requests")
        mine = said.setdefault(process, [])
        asked = call.value if call.key is None else (call.key, call.value)
        mine.append((operation.call, _line(process, "invoke", call.f, asked, operation.call)))
        end = operation.gave_up if operation.ret is None else operation.ret
        if end is None:
            continue
        kind, value = "info", asked
        if operation.outcome == FAILED or (operation.outcome == OK and operation.output is False and call.f == "cas"):
            kind = "fail"
        elif operation.outcome == OK:
            kind, value = "ok", operation.output if call.key is None else (call.key, operation.output)
        mine.append((end, _line(process, kind, call.f, value, end)))
    said[None] = [(mark.time, _line(Keyword("nemesis"), "info", mark.kind, mark.detail.get("value"), mark.time)) for mark in history.marks]
    for _, line in merge(*said.values(), key=itemgetter(0)):
        yield line


def _line(process: int | Keyword, kind: str, f: str, value: Any, time: int) -> str:
    return f"{{:process {edn(process)}, :type :{kind}, :f {edn(Keyword(f))}, :value {edn(freeze(value))}, :time {time}}}\n"


def _fresh_processes(operations: Sequence[Operation]) -> list[int]:
    """For each operation the process to write: a fresh one after an operation that no answer ended."""
    fresh = max((operation.process for operation in operations), default=-1) + 1
    now: dict[int, int] = {}
    numbers = []
    for operation in operations:
        process = now.get(operation.process, operation.process)
        numbers.append(process)
        if operation.ret is None:
            now[operation.process] = fresh
            fresh += 1
    return numbers
