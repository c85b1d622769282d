"""Sequential objects as plain Python things: what a programmer would write, and nothing shared with `pekan.models`.

A thing serves one call after the other. `serve` gives the answer, NOTHING where the answer says nothing, and raises BlockedError where the
call cannot be served now. Generators of histories and the oracle that tries all orders both drive these.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

NOTHING = object()
"""The answer of a call that answers nothing."""


class BlockedError(Exception):
    """The call cannot be served in this state: it would have to wait."""


class Thing(ABC):
    """`hint` is an answer that was given: where the thing is free to choose, it chooses that."""

    @abstractmethod
    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        """The answer to a call served now. Raises BlockedError where it would have to wait."""

    @abstractmethod
    def look(self) -> Any:
        """All that makes a difference to later answers, hashable."""

    @abstractmethod
    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        """A call to make next; `value` gives values to write."""

    def settle(self, rng: Random, f: str, value: Any) -> Any:
        """The argument of a call that was drawn, now that it is about to be served."""
        return value

    def clone(self) -> Thing:
        return copy.deepcopy(self)

    def hints(self, tokens: Iterable[Any]) -> Iterable[Any]:
        """What a call that nobody saw answered may have been answered, where that matters."""
        return (None,)


class OneValue(Thing):
    def __init__(self, compares: bool) -> None:
        self.value: Any = None
        self.compares = compares

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == "read":
            return self.value
        if f == "write":
            self.value = value
            return NOTHING
        old, new = value
        if self.value != old:
            return False
        self.value = new
        return NOTHING

    def look(self) -> Any:
        return self.value

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        f = rng.choice(("read", "read", "write", "cas") if self.compares else ("read", "read", "write"))
        return f, None if f == "read" else value() if f == "write" else (rng.choice((None, value(), value())), value())

    def clone(self) -> Thing:
        return copy.copy(self)


class Counted(Thing):
    """A register that counts its changes."""

    def __init__(self) -> None:
        self.version = 0
        self.value: Any = None

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == "read":
            return (self.version, self.value)
        asked = value[1]
        if f == "cas":
            if self.value != asked[0]:
                return False
            self.value = asked[1]
        else:
            self.value = asked
        self.version += 1
        return (self.version, asked)

    def look(self) -> Any:
        return self.version, self.value

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        f = rng.choice(("read", "write", "cas"))
        return f, None if f == "read" else (None, value()) if f == "write" else (None, (rng.choice((None, value())), value()))

    def clone(self) -> Thing:
        return copy.copy(self)


class Registers(Thing):
    """Many registers, or many lists, by key."""

    def __init__(self, lists: bool) -> None:
        self.of: dict[Any, Any] = {}
        self.lists = lists

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        answer = []
        for what, key, new in value:
            if what == "w":
                self.of[key] = new
            elif what == "append":
                self.of[key] = [*self.of.get(key, []), new]
            else:
                held = self.of.get(key)
                new = tuple(held) if isinstance(held, list) else held
            answer.append((what, key, new))
        return tuple(answer)

    def look(self) -> Any:
        return tuple(sorted((key, str(held)) for key, held in self.of.items() if held is not None))

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        parts = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            key = rng.choice("xyz")
            reads = rng.random() < 0.5
            parts.append(("r", key, None) if reads else ("append" if self.lists else "w", key, value()))
        return "txn", tuple(parts)


class Text(Thing):
    def __init__(self) -> None:
        self.text = ""

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == "get":
            return self.text
        self.text = value if f == "put" else self.text + value
        return NOTHING

    def look(self) -> Any:
        return self.text

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        f = rng.choice(("get", "get", "append", "append", "put"))
        return f, None if f == "get" else str(value())

    def clone(self) -> Thing:
        return copy.copy(self)


class Sum(Thing):
    def __init__(self) -> None:
        self.sum = 0

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == "read":
            return self.sum
        self.sum += value
        return NOTHING

    def look(self) -> Any:
        return self.sum

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        return ("read", None) if rng.random() < 0.5 else ("add", rng.choice((-1, 0, 1, 2, value())))

    def clone(self) -> Thing:
        return copy.copy(self)


class Elements(Thing):
    def __init__(self) -> None:
        self.elements: set[Any] = set()

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == "read":
            return frozenset(self.elements)
        if f == "contains":
            return value in self.elements
        if f == "add":
            self.elements.add(value)
        else:
            self.elements.discard(value)
        return NOTHING

    def look(self) -> Any:
        return frozenset(self.elements)

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        f = rng.choice(("add", "add", "remove", "contains", "contains", "read"))
        return f, None if f == "read" else value()


class Line(Thing):
    """A queue or a stack."""

    def __init__(self, into: str, out: str, end: int) -> None:
        self.into, self.out, self.end = into, out, end
        self.line: list[Any] = []

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if f == self.into:
            self.line.append(value)
            return NOTHING
        return self.line.pop(self.end) if self.line else None

    def look(self) -> Any:
        return tuple(self.line)

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        return (self.into, value()) if rng.random() < 0.55 else (self.out, None)


FIRST_TOKEN = -1_000
"""Below every token that is drawn, with room for those that nobody saw."""


class Lock(Thing):
    """A lock; with `tokens` every holder gets one that is greater than all before."""

    def __init__(self, tokens: bool) -> None:
        self.tokens = tokens
        self.held = False
        self.token = FIRST_TOKEN

    def serve(self, f: str, value: Any, hint: Any = None) -> Any:
        if self.held == (f == "acquire"):
            raise BlockedError
        if f == "release":
            if self.tokens and value is not None and value != self.token:
                raise BlockedError
            self.held = False
            return NOTHING
        self.held = True
        if not self.tokens:
            return NOTHING
        self.token = hint if hint is not None and hint > self.token else self.token + 1
        return self.token

    def look(self) -> Any:
        return self.held, self.token

    def draw(self, rng: Random, value: Callable[[], Any]) -> tuple[str, Any]:
        return rng.choice(("acquire", "release")), None

    def settle(self, rng: Random, f: str, value: Any) -> Any:
        return self.token if self.tokens and self.held and f == "release" and rng.random() < 0.5 else value

    def clone(self) -> Thing:
        return copy.copy(self)

    def hints(self, tokens: Iterable[Any]) -> Iterable[Any]:
        return (None, *tokens) if self.tokens else (None,)


THINGS: dict[str, Callable[[], Thing]] = {
    "register": lambda: OneValue(False),
    "cas-register": lambda: OneValue(True),
    "versioned-register": Counted,
    "multi-register": lambda: Registers(False),
    "kv-append": Text,
    "counter": Sum,
    "set": Elements,
    "fifo-queue": lambda: Line("enqueue", "dequeue", 0),
    "stack": lambda: Line("push", "pop", -1),
    "mutex": lambda: Lock(False),
    "fenced-lock": lambda: Lock(True),
    "list-append": lambda: Registers(True),
}
"""By the names that `--model` takes."""
