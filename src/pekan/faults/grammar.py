"""A fault in words, as `--fault` takes it and as a plan prints it.

::

    KIND [leader|follower|any|NAME] [DURATION] [name=value ...]
         [at T] [at revision R | on log "TEXT" | on failpoint NAME[#N] | on step NAME | after KIND[#N] | after healed KIND[#N]]
         [until revision R | until log "TEXT" | until step NAME | until after KIND[#N] | until after healed KIND[#N]]

    pause leader 2s at 10s
    kill any on log "elected leader"              the member that says so
    kill leader down_ms=200 at 5s at revision 900 the first reply from 5 s on that names revision 900 or a later one
    restart follower after pause#2                when the second pause has fired
    kill m1 on step compacted                     when the plan's script has done the step of that name
    isolate m2 on step seen until step behind     instead of a duration: for as long as the script takes from the one to the other

The order is free after KIND. A value, a text of a log or the name of a failpoint with spaces, quotes or nothing in it stands in double
quotes, in which \\" is a quote and \\\\ a backslash.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pekan.durations import parse_ms, show_ms
from pekan.errors import UsageError
from pekan.faults.injector import Injector, Parameter
from pekan.faults.registry import INJECTORS
from pekan.plan import ROLES, Fault, Trigger

FORM = (
    "KIND [leader|follower|any|NAME] [DURATION] [name=value ...] "
    '[at T | at revision R | on log "TEXT" | on failpoint NAME[#N] | on step NAME | after [healed] FAULT] '
    '[until revision R | until log "TEXT" | until step NAME | until after [healed] FAULT], '
    'for example "pause leader 2s at 10s"'
)
AT_MS = 5_000
"""When a fault asked for without a trigger is armed: after the shortest quiet start, with time left to heal in a ten-second run."""

_WORD = re.compile(r'\s*((?:[^\s"]|"(?:[^"\\]|\\.)*")+)', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^\s"\\]+')
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_DURATION = re.compile(r"\d+(\.\d+)?(ms|s|m|h)")
_BYTES = re.compile(r"(-?\d+)(KiB|MiB|GiB|B)?")
_BYTES_UNIT = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_BEFORE = {"revision": "at", "log": "on", "step": "on", "after": "after"}
"""What ends a fault, and what stands before it where it begins one."""


class _Word(NamedTuple):
    """A word as it was written, and what it says: quotes taken off, escapes undone."""

    written: str
    said: str


def parse(text: str, members: tuple[str, ...] = ()) -> Fault:
    """The fault that `text` asks for, required to fire. `members`, where given, are the names that may be a target.

    Raises `UsageError` naming the word that is wrong and what would be right.
    """
    words = _words(text)
    if not words:
        raise UsageError(f"--fault: empty; write {FORM}")
    injector = INJECTORS.get(words[0].said)
    if injector is None:
        raise UsageError(f"--fault {text!r}: no fault is called {words[0].said!r}; there are {', '.join(INJECTORS)}")
    return _Reading(text, words[1:], injector, members).fault()


def _words(text: str) -> list[_Word]:
    words, position = [], 0
    while text[position:].strip():
        match = _WORD.match(text, position)
        if match is None or (match.end() < len(text) and not text[match.end()].isspace()):
            raise UsageError(f"--fault {text!r}: a quote is opened and never closed")
        words.append(_Word(match[1], _QUOTED.sub(lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), match[1])))
        position = match.end()
    return words


class _Reading:
    """The words after KIND, read from left to right."""

    def __init__(self, text: str, words: list[_Word], injector: Injector, members: tuple[str, ...]) -> None:
        self.text, self.words, self.injector, self.members = text, words, injector, members
        self.position = 0
        self.target = ""
        self.at_ms = -1
        self.event: dict[str, int | str] = {}
        self.end: dict[str, int | str] = {}
        self.parameters: dict[str, int | str] = {}

    def fault(self) -> Fault:
        while self.position < len(self.words):
            self.word(self.next())
        at_ms = self.at_ms if self.at_ms >= 0 else 0 if self.event else AT_MS
        parameters = {**{name: each.default for name, each in self.injector.parameters.items()}, **self.parameters}
        if self.end:
            if self.injector.duration in self.parameters:
                raise self.wrong(f"it ends twice, by {self.injector.duration} and by until")
            del parameters[self.injector.duration]
        return Fault(
            kind=self.injector.kind,
            target=self.target or "any",
            trigger=Trigger(at_ms=at_ms, **self.event),  # type: ignore[arg-type] # its fields are named and typed where they are read
            parameters=parameters,
            required=True,
            until=Trigger(**self.end) if self.end else None,  # type: ignore[arg-type]
        )

    def next(self) -> _Word:
        self.position += 1
        return self.words[self.position - 1] if self.position <= len(self.words) else _Word("", "")

    def wrong(self, message: str) -> UsageError:
        return UsageError(f"--fault {self.text!r}: {message}")

    def word(self, word: _Word) -> None:
        name, equals, _ = word.written.partition("=")
        if word.written in ("at", "on", "after"):
            self.trigger(word.written)
        elif word.written == "until":
            self.until()
        elif equals and _NAME.fullmatch(name):
            self.setting(name, word.said[len(name) + 1 :])
        elif _DURATION.fullmatch(word.written):
            if not self.injector.duration:
                raise self.wrong(f"{self.injector.kind} takes no length of time; it takes {self.known()}")
            self.set(self.injector.duration, parse_ms(word.written, f"--fault {self.text!r}"))
        elif _NAME.fullmatch(word.written):
            if self.target:
                raise self.wrong(f"two targets, {self.target!r} and {word.written!r}")
            if self.members and word.written not in ROLES and word.written not in self.members:
                raise self.wrong(f"no member is called {word.written!r}; write {', '.join((*ROLES, *self.members))}")
            self.target = word.written
        else:
            raise self.wrong(f"{word.written!r} is neither a target, a duration, name=value nor a trigger; write {FORM}")

    def known(self) -> str:
        return ", ".join(self.injector.parameters) or "no parameters"

    # ---- parameters ----

    def setting(self, name: str, value: str) -> None:
        parameter = self.injector.parameters.get(name)
        if parameter is None:
            raise self.wrong(f"{self.injector.kind} takes no {name!r}; it takes {self.known()}")
        self.set(name, self.value(name, parameter, value))

    def set(self, name: str, value: int | str) -> None:
        if name in self.parameters:
            raise self.wrong(f"{name} is given twice")
        self.parameters[name] = value

    def value(self, name: str, parameter: Parameter, value: str) -> int | str:
        """What `value` says in the unit of `parameter`."""
        if isinstance(parameter.default, str):
            if parameter.choices and value not in parameter.choices:
                raise self.wrong(f"{name}={value!r}: it may be {', '.join(parameter.choices)}")
            return value
        if re.fullmatch(r"-?\d+", value):
            return int(value)
        if parameter.unit == "ms":
            sign = -1 if value.startswith("-") else 1
            return sign * parse_ms(value.removeprefix("-"), f"--fault {self.text!r}: {name}")
        if parameter.unit == "bytes" and (size := _BYTES.fullmatch(value)):
            return int(size[1]) * _BYTES_UNIT[size[2] or ""]
        if parameter.unit == "percent" and re.fullmatch(r"\d+%", value):
            return int(value[:-1])
        forms = {"bytes": "a whole number, or one with KiB, MiB or GiB", "percent": "a whole number of percent"}
        raise self.wrong(f"{name}={value!r} is not {forms.get(parameter.unit, 'a whole number')}")

    # ---- triggers ----

    def trigger(self, word: str) -> None:
        what = self.next()
        if word == "at" and what.written != "revision":
            if self.at_ms >= 0:
                raise self.wrong("a time is given twice")
            self.at_ms = parse_ms(what.said, f"--fault {self.text!r}: at")
            return
        if self.event:
            raise self.wrong(f"two triggers; one is enough besides a time: {word} {what.written}")
        self.event = self.moment(word, what)

    def until(self) -> None:
        if not self.injector.open_end:
            raise self.wrong(f"{self.injector.kind} takes no until: when it ends is its own affair")
        if self.end:
            raise self.wrong("until is given twice")
        what = self.next()
        if what.written not in _BEFORE:
            raise self.wrong(f'until {what.written!r}: write until revision R, until log "TEXT", until step NAME or until after FAULT')
        self.end = self.moment(_BEFORE[what.written], self.next() if what.written == "after" else what)

    def moment(self, word: str, what: _Word) -> dict[str, int | str]:
        """The field, or fields, of `Trigger` that "`word` `what` ..." means."""
        if word == "after":
            name = "after"
            if what.written == "healed":
                name, what = "healed", self.next()
            kind, number = self.numbered(what.said, "after KIND, after KIND#N or after healed KIND")
            if kind not in INJECTORS:
                raise self.wrong(f"after {kind!r}: no fault is called that; there are {', '.join(INJECTORS)}")
            return {name: kind if number == 1 else f"{kind}#{number}"}
        if word == "at":
            said = self.next().said
            if not said.isdecimal() or int(said) < 1:
                raise self.wrong(f"at revision {said!r}: write a revision, a whole number from 1 on")
            return {"revision": int(said)}
        if what.written == "log":
            said = self.next().said
            if not said:
                raise self.wrong('on log: write the text that a line has to have, as in on log "elected leader"')
            return {"log": said}
        if what.written == "failpoint":
            name, number = self.numbered(self.next().said, "on failpoint NAME or on failpoint NAME#N")
            return {"failpoint": name, "hit": number}
        if what.written == "step":
            said = self.next().said
            if not said:
                raise self.wrong("on step: write the name of a step of the plan's script")
            return {"step": said}
        raise self.wrong(f'on {what.written!r}: write on log "TEXT", on failpoint NAME[#N] or on step NAME')

    def numbered(self, said: str, form: str) -> tuple[str, int]:
        """NAME or NAME#N."""
        name, hash_sign, number = said.rpartition("#")
        if not hash_sign:
            name, number = said, "1"
        if not name or not number.isdecimal() or int(number) < 1:
            raise self.wrong(f"{said!r}: write {form}, N a whole number from 1 on")
        return name, int(number)


def show(fault: Fault) -> str:
    """The text that `parse` takes back to the same fault (required or not)."""
    settings = " ".join(f"{name}={_quoted(str(value))}" for name, value in fault.parameters.items())
    end = "" if fault.until is None else f"until {show_trigger(fault.until).removeprefix('on ').removeprefix('at ')}"
    return " ".join(part for part in (fault.kind, fault.target, settings, show_trigger(fault.trigger), end) if part)


def show_trigger(trigger: Trigger) -> str:
    """When, as `parse` takes it: "at 10s", 'at 5s on log "elected leader"'."""
    event = ""
    if trigger.revision:
        event = f"at revision {trigger.revision}"
    elif trigger.log:
        event = f"on log {_quoted(trigger.log, always=True)}"
    elif trigger.failpoint:
        event = f"on failpoint {_quoted(f'{trigger.failpoint}#{trigger.hit}' if trigger.hit > 1 else trigger.failpoint)}"
    elif trigger.after:
        event = f"after {trigger.after}"
    elif trigger.healed:
        event = f"after healed {trigger.healed}"
    elif trigger.step:
        event = f"on step {_quoted(trigger.step)}"
    at = f"at {show_ms(trigger.at_ms)}" if trigger.at_ms or not event else ""
    return " ".join(filter(None, (at, event)))


def _quoted(text: str, *, always: bool = False) -> str:
    if not always and _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
