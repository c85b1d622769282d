"""Registers: one value or several that are read, written and compared.

==================  ======================  =====================================  =================================================
model               call                    argument                               answer
==================  ======================  =====================================  =================================================
register            read                    none                                   the value; nil where nobody wrote
                    write                   the value                              not looked at
cas-register        read, write             as above
                    cas                     [expected new]                         false: it was not as expected, nothing changed;
                                                                                   anything else: it was and is new now
versioned-register  read                    none                                   [version value]; a nil version is not told
                    write                   [_ value]                              [version _], the version after it, or not told
                    cas                     [_ [expected new]]                     as write; false as for cas-register
multi-register      txn                     a list of [r key _] and [w key value]  the same list, each r with the value it saw
==================  ======================  =====================================  =================================================

A write of nil leaves a register as unset. Versions count changes from 0. A transaction's parts run in order, at one instant.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Any, ClassVar, NamedTuple

from pekan.models.object import ANYWHERE, ILLEGAL, NOTHING, UNKNOWN, UNSAID, Called, Model

READS = ("r", "read")
WRITES = ("w", "write")


class Register(Model):
    """One value, read and written. `initial` is what it holds before anybody writes."""

    name = "register"
    calls: ClassVar = {"read": "-> value", "write": "value"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial

    def init(self) -> Any:
        return self.initial

    def step(self, state: Any, call: Called, output: Any) -> Any:
        if call.f == "write":
            return call.value
        return state if output is UNKNOWN or output == state else ILLEGAL

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "read"

    def requires(self, call: Called, output: Any) -> Any:
        return ANYWHERE if call.f == "write" or output is UNKNOWN else output

    def produces(self, call: Called, output: Any) -> Any:
        return call.value if call.f == "write" else NOTHING


class CasRegister(Register):
    """A register with compare-and-set."""

    name = "cas-register"
    calls: ClassVar = {**Register.calls, "cas": "[expected new] -> false where it was not as expected"}

    def step(self, state: Any, call: Called, output: Any) -> Any:
        if call.f != "cas":
            return super().step(state, call, output)
        expected, new = call.value
        if output is UNKNOWN:
            return new if state == expected else state
        if output is False:
            return state if state != expected else ILLEGAL
        return new if state == expected else ILLEGAL

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "read" or (call.f == "cas" and (output is False or call.value[0] == call.value[1]))

    def requires(self, call: Called, output: Any) -> Any:
        if call.f != "cas":
            return super().requires(call, output)
        return UNSAID if output is False else call.value[0]

    def produces(self, call: Called, output: Any) -> Any:
        if call.f != "cas":
            return super().produces(call, output)
        return NOTHING if self.readonly(call, output) else call.value[1]

    def expected(self, call: Called, output: Any) -> str | None:
        return "cas takes [expected new]" if call.f == "cas" and not is_pair(call.value) else None


class Versioned(NamedTuple):
    """The state of a versioned register: `version` counts the changes."""

    version: int
    value: Any


class VersionedRegister(Model):
    """A register that tells how often it was changed, as Jepsen's test of etcd records one."""

    name = "versioned-register"
    calls: ClassVar = {"read": "-> [version value]", "write": "[_ value] -> [version _]", "cas": "[_ [expected new]] -> [version _]"}

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial

    def init(self) -> Versioned:
        return Versioned(0, self.initial)

    def step(self, state: Versioned, call: Called, output: Any) -> Any:
        told = version_told(call, output)
        if call.f == "read":
            value = output[1] if is_pair(output) else output
            right = output is UNKNOWN or (value == state.value and told in (None, state.version))
            return state if right else ILLEGAL
        new = call.value[1]
        if call.f == "cas":
            expected, new = new
            if output is False:
                return state if state.value != expected else ILLEGAL
            if state.value != expected:
                return state if output is UNKNOWN else ILLEGAL
        return Versioned(state.version + 1, new) if told in (None, state.version + 1) else ILLEGAL

    def expected(self, call: Called, output: Any) -> str | None:
        told = version_told(call, output) if call.f == "read" or is_pair(call.value) else None
        if told is not None and (not isinstance(told, int) or isinstance(told, bool)):
            return "a version is a whole number"
        if call.f == "read":
            return None if output is UNKNOWN or output is None or is_pair(output) else "read answers [version value]"
        if not is_pair(call.value):
            return f"{call.f} takes [version value], the version nil where it is not known"
        return "cas takes [version [expected new]]" if call.f == "cas" and not is_pair(call.value[1]) else None

    def readonly(self, call: Called, output: Any) -> bool:
        return call.f == "read" or output is False

    def resets(self, call: Called, output: Any) -> bool:
        return False

    def viable(self, state: Versioned, call: Called, output: Any) -> bool:
        told = version_told(call, output)
        if told is None or output is False:  # (A refused cas changes nothing, at whatever version.)
            return True
        return bool(state.version <= told if call.f == "read" else state.version < told)


def version_told(call: Called, output: Any) -> Any:
    """The version that an answer, or else the call, names; None where neither does."""
    for told in (output, call.value):
        if is_pair(told) and told[0] is not None:
            return told[0]
    return None


class MultiRegister(Model):
    """Several registers by key, read and written together."""

    name = "multi-register"
    calls: ClassVar = {"txn": "[[r key _] [w key value] ...] -> the same, values read filled in"}

    def init(self) -> frozenset[tuple[Any, Any]]:
        return frozenset()

    def step(self, state: frozenset[tuple[Any, Any]], call: Called, output: Any) -> Any:
        registers = dict(state)
        changed = False
        for f, key, value, told in micro_operations(call, output):
            if f in WRITES:
                changed = True
                if value is None:
                    registers.pop(key, None)
                else:
                    registers[key] = value
            elif told and registers.get(key) != value:
                return ILLEGAL
        return frozenset(registers.items()) if changed else state

    def expected(self, call: Called, output: Any) -> str | None:
        return expected_txn(call, output, (*READS, *WRITES))

    def readonly(self, call: Called, output: Any) -> bool:
        return all(part[0] in READS for part in call.value)

    def partition(self, call: Called) -> Collection[Hashable]:
        return {part[1] for part in call.value}


# ---- transactions, for this and for lists ----


class MicroOperation(NamedTuple):
    """One part of a transaction. `told`: somebody saw `value` (of a read)."""

    f: str
    key: Any
    value: Any
    told: bool


def micro_operations(call: Called, output: Any) -> Iterator[MicroOperation]:
    """The parts of a transaction with what its answer shows."""
    told = isinstance(output, tuple)
    for f, key, value in output if told else call.value:
        yield MicroOperation(f, key, value, told)


def expected_txn(call: Called, output: Any, known: tuple[str, ...]) -> str | None:
    """What is wrong with a transaction of `known` parts, None where nothing is."""
    shapes = [call.value, output] if isinstance(output, tuple) else [call.value]
    for told in shapes:
        if not isinstance(told, tuple) or not all(isinstance(part, tuple) and len(part) == 3 and part[0] in known for part in told):
            return f"txn takes and answers a list of [f key value], f one of {', '.join(known)}"
    if isinstance(output, tuple):
        asked, answered = ([(f, key, None if f in READS else value) for f, key, value in told] for told in (call.value, output))
        if asked != answered:
            return "txn answers the parts that it was asked for, in their order"
    return None


def is_pair(value: Any) -> bool:
    """Whether `value` is a list of two."""
    return isinstance(value, tuple) and len(value) == 2
