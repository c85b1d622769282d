"""Why a part's operations cannot be put in order, in words.

::

    summary      register "x": no order explains 3 operations
    explanation  Operation 7 was called 12 ns after operation 4 had returned.                what real time demands
                 After operations 2, 4 the object is 2: operation 7 cannot come next.        every order ends somewhere
                 The other 120 operations may take effect when they like ...                 why no others are shown
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from pekan.checkers.linearizability import ILLEGAL
from pekan.checkers.linearizability.monitors import Monitored, explain
from pekan.checkers.objects.core import Core
from pekan.checkers.objects.parts import Part
from pekan.checkers.objects.parts import told as told_by
from pekan.history.types import FAILED, INDEFINITE, OK, Call, Operation
from pekan.models.object import UNKNOWN, Model
from pekan.models.registers import is_pair
from pekan.verdict import Exhibit, Finding

SHOWN = 60
"""Characters of a value that are shown: a certificate is for reading, the history has the rest."""
EXHIBITS_MAX = 12
"""Operations of a core that are shown. Most cores have two to five; a longer one is named in full in `subject`."""
PREFIX_SHOWN = 50
"""Operations of the longest legal prefix, the latest of them in a legal order, that `subject` names."""
ENDS_MAX = 6
"""Dead ends that are told: together with real time they are the proof, as long as they are few."""
FREE_MAX = 6
"""Other operations that are tried between those of the core; with more, the core is told alone."""
ORDERS_MAX = 2_000
"""Configurations looked at for dead ends: those of a core of six or seven operations that are all concurrent."""

LINEARIZABLE = "NOT-LINEARIZABLE"
SEQUENTIAL = "NOT-SEQUENTIAL"


# ---- values and operations ----


def shown(value: Any) -> str:
    """A value as EDN writes it, cut at SHOWN characters."""
    text = _edn(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _edn(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if value.isidentifier() else f'"{value}"'
    if isinstance(value, tuple):
        return f"[{' '.join(map(_edn, value))}]"
    if isinstance(value, frozenset):
        return f"#{{{' '.join(sorted(map(_edn, value)))}}}"
    return str(value)


def asked(call: Call) -> str:
    """A call in words."""
    return call.f if call.value is None else f"{call.f} {shown(call.value)}"


def answered(call: Call, output: Any) -> str:
    """A call and its answer in words."""
    if output is UNKNOWN:
        return f"{asked(call)} -> no answer"
    says_nothing = call.value is not None and output in (None, call.value)
    return f"{asked(call)} -> {'ok' if says_nothing else shown(output)}"


def exhibit(operation: Operation, said: str = "") -> Exhibit:
    """One operation as an exhibit; `said` adds what matters about it."""
    until = "?" if operation.ret is None else operation.ret
    what = f"operation {operation.id}, process {operation.process}, {operation.call}..{until}: {_what(operation)}"
    end = operation.gave_up if operation.outcome == INDEFINITE else operation.ret
    return Exhibit(what + (f" ({said})" if said else ""), operation=operation.id, start=operation.call, end=end)


def name_of(model: Model, key: Any) -> str:
    """The object in words."""
    name = model.name or type(model).__name__
    return name if key is None else f"{name} {shown(key)}"


# ---- findings ----


def finding(part: Part, core: Core | None, sequential: bool, refused: Sequence[Operation] = ()) -> Finding:
    """What is wrong with `part`; `core` None where there was no time to find it. `refused` are the failed operations on the same object."""
    code = SEQUENTIAL if sequential else LINEARIZABLE
    model = part.machine.model
    subject, name = _subject(model, part.key), name_of(model, part.key)
    if core is None:
        text = "No order of its operations is one that such an object allows. There was no time to find out which few of them say so."
        return Finding(code, f"{name}: no order explains its {len(part.operations)} operations", text, (), subject, (subject["model"],))
    ops = [part.operations[o] for o in core.operations]
    subject["operations"] = [op.id for op in ops]
    if not sequential:
        prefix = [part.operations[o].id for o in core.order[-PREFIX_SHOWN:]]
        subject |= {"last": part.operations[core.last].id, "explained": core.explained, "prefix": prefix}
    lines = [*(_by_process(ops) if sequential else by_time(ops)), *_ends(part, core, sequential), others(core), _prefix(part, core)]
    suspect = next((op for op in refused if _asked_for(op, ops)), None)
    if suspect is not None:
        lines.append(f"Operation {suspect.id} asked for what was seen and was refused: it must not have had an effect.")
    return Finding(
        code,
        f"{name}: no order explains {count(len(ops), 'operation')}, the last {_what(ops[-1])}",
        " ".join(line for line in lines if line),
        tuple(exhibit(op) for op in (*ops[:EXHIBITS_MAX], *((suspect,) if suspect is not None else ()))),
        subject,
        (subject["model"], *(op.input.f for op in ops)),
    )


def contradiction(model: Model, key: Any, operations: Sequence[Operation], told: Monitored) -> Finding:
    """What a monitor found wrong with the object `key`: `told` names the rule and its operations."""
    ops = sorted((operations[place] for place in set(told.places)), key=lambda op: (op.call, op.id))
    name, subject = name_of(model, key), _subject(model, key)
    last = operations[told.next].id
    lines = [*explain(told, operations, lambda op: f"operation {op.id} ({_what(op)})"), _explained(told.answered, last)]
    return Finding(
        LINEARIZABLE,
        f"{name}: no order explains {count(len(ops), 'operation')}, the last {_last(ops)}",
        " ".join(line for line in lines if line),
        tuple(exhibit(op) for op in ops[:EXHIBITS_MAX]),
        subject | {"operations": [op.id for op in ops], "last": last, "explained": told.answered},
        (subject["model"], told.rule, *(op.input.f for op in ops)),
    )


def _subject(model: Model, key: Any) -> dict[str, Any]:
    subject: dict[str, Any] = {"model": model.name or type(model).__name__}
    return subject if key is None else subject | {"key": shown(key)}


def _last(ops: Sequence[Operation]) -> str:
    return _what(max(ops, key=lambda op: op.call))


def _what(op: Operation) -> str:
    return f"{asked(op.input)} -> refused" if op.outcome == FAILED else answered(op.input, told_by(op))


def _asked_for(refused: Operation, ops: Sequence[Operation]) -> bool:
    """Whether `refused` wanted to bring in what some operation was answered that nobody among `ops` brought in."""
    wanted = refused.input.value[1] if refused.input.f == "cas" and is_pair(refused.input.value) else refused.input.value
    seen = any(op.outcome == OK and op.output == wanted != op.input.value for op in ops)
    return wanted is not None and seen and not any(op.input.value == wanted for op in ops)


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _ids(ops: Sequence[Operation]) -> str:
    return ("operation " if len(ops) == 1 else "operations ") + ", ".join(str(op.id) for op in ops)


def by_time(ops: Sequence[Operation]) -> list[str]:
    """Who returned before whom was called, leaving out what follows from the rest."""
    before = [(a, b) for a in ops for b in ops if a.ret is not None and a.ret < b.call]
    lines = []
    for a, b in before:
        assert a.ret is not None
        if not any(c.ret is not None and a.ret < c.call and c.ret < b.call for c in ops):
            lines.append(f"Operation {b.id} was called after operation {a.id} had returned.")
    return lines


def _by_process(ops: Sequence[Operation]) -> list[str]:
    """Who came after whom in one process."""
    lines = []
    for i, b in enumerate(ops):
        earlier = [a for a in ops[:i] if a.process == b.process]
        if earlier:
            lines.append(f"Process {b.process} called operation {b.id} after operation {earlier[-1].id}.")
    return lines


def _ends(part: Part, core: Core, sequential: bool) -> list[str]:
    """Where the orders that get furthest end: what the object is by then, and which operations cannot come next."""
    ends = _stuck(part, core.operations, core.free, sequential) if 0 < len(core.free) <= FREE_MAX else None
    alone = ends is None and bool(core.free)
    if ends is None:
        ends = _stuck(part, core.operations, (), sequential)
    if not ends:
        return []
    placed = {end: sum(o in core.operations for o in end[0]) for end in ends}
    furthest = [end for end in ends if placed[end] == max(placed.values())]
    if len(furthest) > ENDS_MAX:
        return []
    lines = []
    for done, state, stuck in furthest:
        after = f"after {_ids([part.operations[o] for o in done])} the object is" if done else "at first the object is"
        cannot = " nor ".join(f"operation {part.operations[o].id} ({_what(part.operations[o])})" for o in stuck)
        line = f"{after} {shown(part.machine.states[state])}: {cannot} cannot come next."
        lines.append(f"Of these alone, {line}" if alone else line[:1].upper() + line[1:])
    return lines


_End: TypeAlias = tuple[tuple[int, ...], int, tuple[int, ...]]
"""Operations in order, the state they leave, and those that could come next by time and cannot."""


def _stuck(part: Part, kept: Sequence[int], free: Sequence[int], sequential: bool) -> list[_End] | None:
    """Where every order of `kept`, with any of `free` between, ends; None where there are too many to look at."""
    q, machine = part.question, part.machine
    of = {o: q.of[o] for o in kept} | {o: machine.class_of(machine.classes[q.of[o]][0], UNKNOWN) for o in free}
    ends: list[_End] = []
    seen: set[tuple[frozenset[int], int]] = set()

    def before(a: int, b: int) -> bool:
        if sequential:
            return part.operations[a].process == part.operations[b].process and a < b
        ret = q.ret[a]
        return ret is not None and ret < q.call[b]

    def go(done: tuple[int, ...], state: int) -> bool:
        here = (frozenset(done), state)
        if here in seen:
            return True
        seen.add(here)
        if len(seen) > ORDERS_MAX:
            return False
        left = [o for o in kept if o not in done]
        enabled = [o for o in (*left, *free) if o not in done and not any(before(a, o) for a in left if a != o)]
        after = {o: machine.step(state, of[o]) for o in enabled}
        on = [o for o in enabled if after[o] != ILLEGAL and (o in left or after[o] != state)]
        if not on:
            ends.append((done, state, tuple(o for o in enabled if o in left)))
        return all(go((*done, o), after[o]) for o in on)

    return ends if go((), q.init) else None


def others(core: Core) -> str:
    """Why no other operation is shown."""
    if not core.free:
        return "Nothing else that was asked for can change that."
    free = count(len(core.free), "other operation")
    return f"It does not help that {free} may take effect at any time after being called, or never, whatever they answered."


def _explained(operations: int, last: int) -> str:
    """How far it goes well: the longest legal prefix."""
    return f"What was answered before operation {last} ({count(operations, 'operation')}) can be put in order." if operations else ""


def _prefix(part: Part, core: Core) -> str:
    text = _explained(core.explained, part.operations[core.last].id)
    return text if core.minimal else text + " Time ran out before it was known whether all of the operations shown are needed."
