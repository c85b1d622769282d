"""One object's operations as a monitor sees them, or why no monitor may.

==================  ===============================  ==========================  ========================  ==============================
model               INSERT (REFUSED where it failed)  TAKE                        EMPTY                     LOST
==================  ===============================  ==========================  ========================  ==============================
register            write                            read of a written value     read of the first value
cas-register        as register, where nobody compared
set                 add                              read (of what it showed)
fifo-queue          enqueue                          dequeue of an element       dequeue of nothing (nil)  dequeue without an answer
stack               push                             pop of an element           pop of nothing (nil)      pop without an answer
==================  ===============================  ==========================  ========================  ==============================

Reads, dequeues and pops that failed, and reads without an answer, say nothing and change nothing: they are left out. The rows of other
models, a set that somebody removes from or asks for single elements, and containers that do not begin empty are for the generic engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pekan.checkers.linearizability.monitors.asked import EMPTY, INSERT, LOST, NEVER, REFUSED, TAKE, Asked, Thing
from pekan.history.types import FAILED, OK, Operation
from pekan.models.containers import FifoQueue, Set, Stack
from pekan.models.object import Model
from pekan.models.registers import CasRegister, Register

THINGS: dict[type[Model], tuple[Thing, str, str]] = {
    Register: ("register", "write", "read"),
    CasRegister: ("register", "write", "read"),
    Set: ("set", "add", "read"),
    FifoQueue: ("queue", "enqueue", "dequeue"),
    Stack: ("stack", "push", "pop"),
}
"""Monitored models, and how they call what puts in and what sees or takes out. By their very type: a subclass may step otherwise."""


def classify(model: Model, operations: Sequence[Operation]) -> tuple[Asked, list[int]] | str:
    """(the question, the place in `operations` of each of its operations), or why no monitor can judge these.

    `operations` are the calls of one object in order of call, failed ones welcome.
    """
    known = THINGS.get(type(model))
    if known is None:
        return "no monitor for this model"
    thing, puts, gets = known
    first: Any = getattr(model, "initial", None)
    if thing != "register" and first:
        return "it does not begin empty"
    call: list[int] = []
    ret: list[int] = []
    acts = bytearray()
    value: list[int] = []
    places: list[int] = []
    numbers: dict[Any, int] = {}
    shown: dict[tuple[int, ...], int] = {}
    for place, (_, _, called, returned, outcome, (f, argument, _), output, *_) in enumerate(operations):
        if f == puts:
            if argument is None and thing != "register":
                return "nil is put in"
            act = REFUSED if outcome == FAILED else INSERT
            number = numbers.setdefault(argument, len(numbers))
        elif f != gets:
            if outcome == FAILED:
                continue
            return "a call that no monitor knows"
        elif outcome != OK:
            if outcome == FAILED or thing in ("register", "set"):
                continue
            act, number = LOST, 0
        elif thing == "set":
            elements = tuple(sorted([numbers.setdefault(element, len(numbers)) for element in output or ()]))
            act, number = TAKE, shown.setdefault(elements, len(shown))
        elif output == first if thing == "register" else output is None:
            act, number = EMPTY, 0
        else:
            act, number = TAKE, numbers.setdefault(output, len(numbers))
        if not (-NEVER < called < NEVER and (returned is None or returned < NEVER)):
            return "times of more than 64 bits"
        call.append(called)
        ret.append(NEVER if returned is None or outcome != OK else returned)
        acts.append(act)
        value.append(number)
        places.append(place)
    if thing == "register" and EMPTY in acts and first in numbers:
        brought = numbers[first]
        if any(act == INSERT and number == brought for act, number in zip(acts, value, strict=True)):
            return "the value that the register held at first was written again"
    return Asked(thing, call, ret, acts, value, len(numbers), tuple(shown)), places
