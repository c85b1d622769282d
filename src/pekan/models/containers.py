"""Containers: what is put in comes out again, in the order that each promises.

===========  ==========================  ===============================================  ==============================================
model        call                        argument                                         answer
===========  ==========================  ===============================================  ==============================================
counter      add                         a number, may be negative                        not looked at
             read                        none                                             the sum of what was added
set          add, remove                 the element                                      not looked at
             contains                    the element                                      true or false
             read                        none                                             all elements, in any order, each once
fifo-queue   enqueue                     the element                                      not looked at
             dequeue                     none                                             the oldest element; nil where it was empty
stack        push                        the element                                      not looked at
             pop                         none                                             the newest element; nil where it was empty
kv-append    get                         none                                             the text; nil or "" where it is unset
             put, append                 the text                                         not looked at
list-append  txn                         a list of [append key element] and [r key _]     the same list, each r with the list it saw
===========  ==========================  ===============================================  ==============================================

A failed dequeue or pop says nothing: it need not have failed for emptiness. The keys of kv-append are independent objects (`Call.key`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any, ClassVar

from pekan.models.object import ANYWHERE, ILLEGAL, NOTHING, UNKNOWN, UNSAID, Called, Model
from pekan.models.registers import READS, expected_txn, micro_operations


class Counter(Model):
    """A number that is added to."""

    name = "counter"
    calls: ClassVar = {"add": "number", "read": "-> number"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = 0 if initial is None else initial

    def init(self) -> Any:
        return self.initial

    def step(self, state: Any, call: Called, output: Any) -> Any:
        if call.f == "add":
            return state + call.value
        return state if output is UNKNOWN or output == state else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        number, what = (call.value, "add takes") if call.f == "add" else (output, "read answers")
        return None if number is UNKNOWN or isinstance(number, int | float) else f"{what} a number"

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "read" or call.value == 0


class Set(Model):
    """Elements, each there or not."""

    name = "set"
    calls: ClassVar = {"add": "element", "remove": "element", "contains": "element -> true or false", "read": "-> elements"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = frozenset(initial or ())

    def init(self) -> frozenset[Any]:
        return self.initial

    def step(self, state: frozenset[Any], call: Called, output: Any) -> Any:
        if call.f == "add":
            return state | {call.value}
        if call.f == "remove":
            return state - {call.value}
        if output is UNKNOWN:
            return state
        if call.f == "contains":
            return state if output == (call.value in state) else ILLEGAL
        shown = output or ()
        return state if len(shown) == len(state) and state.issuperset(shown) and len(frozenset(shown)) == len(shown) else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        if call.f == "contains":
            return None if output is UNKNOWN or isinstance(output, bool) else "contains answers true or false"
        if call.f == "read":
            return None if output is UNKNOWN or output is None or isinstance(output, tuple | frozenset) else "read answers a set or a list"
        return None

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f in ("contains", "read")

    def partition(self, call: Called) -> Collection[Hashable] | None:
        return None if call.f == "read" else (call.value,)

    def resets(self, call: Called, output: Any) -> bool:
        return call.f == "remove"

    def viable(self, state: frozenset[Any], call: Called, output: Any) -> bool:
        if output is UNKNOWN or call.f in ("add", "remove"):
            return True
        if call.f == "contains":
            return output is True or call.value not in state
        return state.issubset(output or ())


class FifoQueue(Model):
    """First in, first out."""

    name = "fifo-queue"
    calls: ClassVar = {"enqueue": "element", "dequeue": "-> element, nil where it was empty"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = tuple(initial or ())

    def init(self) -> tuple[Any, ...]:
        return self.initial

    def step(self, state: tuple[Any, ...], call: Called, output: Any) -> Any:
        if call.f == "enqueue":
            return (*state, call.value)
        if not state:
            return state if output is None or output is UNKNOWN else ILLEGAL
        return state[1:] if output is UNKNOWN or state[0] == output else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        return "enqueue takes an element; nil is the answer of an empty queue" if call.f == "enqueue" and call.value is None else None

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "dequeue" and output is None


class Stack(Model):
    """Last in, first out."""

    name = "stack"
    calls: ClassVar = {"push": "element", "pop": "-> element, nil where it was empty"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = tuple(initial or ())

    def init(self) -> tuple[Any, ...]:
        return self.initial

    def step(self, state: tuple[Any, ...], call: Called, output: Any) -> Any:
        if call.f == "push":
            return (*state, call.value)
        if not state:
            return state if output is None or output is UNKNOWN else ILLEGAL
        return state[:-1] if output is UNKNOWN or state[-1] == output else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        return "push takes an element; nil is the answer of an empty stack" if call.f == "push" and call.value is None else None

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "pop" and output is None


class KvAppend(Model):
    """One text that is put, appended to and read."""

    name = "kv-append"
    calls: ClassVar = {"get": "-> text", "put": "text", "append": "text"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial or ""

    def init(self) -> str:
        return self.initial

    def step(self, state: str, call: Called, output: Any) -> Any:
        if call.f == "put":
            return call.value
        if call.f == "append":
            return state + call.value
        return state if output is UNKNOWN or (output or "") == state else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        if call.f == "get":
            return None if output is UNKNOWN or output is None or isinstance(output, str) else "get answers a text"
        return None if isinstance(call.value, str) else f"{call.f} takes a text"

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "get" or (call.f == "append" and not call.value)

    def requires(self, call: Called, output: Any) -> Any:
        return ANYWHERE if call.f != "get" or output is UNKNOWN else output or ""

    def produces(self, call: Called, output: Any) -> Any:
        return NOTHING if call.f == "get" else call.value if call.f == "put" else UNSAID

    def resets(self, call: Called, output: Any) -> bool:
        return call.f == "put"

    def viable(self, state: str, call: Called, output: Any) -> bool:
        return call.f != "get" or output is UNKNOWN or (output or "").startswith(state)


class ListAppend(Model):
    """Lists by key, appended to and read together, as Elle's generator makes transactions."""

    name = "list-append"
    calls: ClassVar = {"txn": "[[append key element] [r key _] ...] -> the same, lists read filled in"}

    def init(self) -> frozenset[tuple[Any, tuple[Any, ...]]]:
        return frozenset()

    def step(self, state: frozenset[tuple[Any, tuple[Any, ...]]], call: Called, output: Any) -> Any:
        lists = dict(state)
        changed = False
        for f, key, value, told in micro_operations(call, output):
            if f == "append":
                changed = True
                lists[key] = (*lists.get(key, ()), value)
            elif told and lists.get(key, ()) != (value or ()):
                return ILLEGAL
        return frozenset(lists.items()) if changed else state

    def expected(self, call: Called, output: Any) -> str | None:
        wrong = expected_txn(call, output, ("append", *READS))
        if wrong is None and any(
            f in READS and told and not isinstance(v, tuple | None) for f, _, v, told in micro_operations(call, output)
        ):
            return "txn answers a list, or nil, for every r"
        return wrong

    def readonly(self, call: Called, output: Any) -> bool:
        return all(part[0] in READS for part in call.value)

    def partition(self, call: Called) -> Collection[Hashable]:
        return {part[1] for part in call.value}

    def resets(self, call: Called, output: Any) -> bool:
        return False

    def viable(self, state: frozenset[tuple[Any, tuple[Any, ...]]], call: Called, output: Any) -> bool:
        lists = dict(state)
        for f, key, value, told in micro_operations(call, output):
            if told and f in READS:
                have = lists.get(key, ())
                if have != (value or ())[: len(have)]:
                    return False
        return True
