"""The few operations of a contradiction in words: why no order of them is legal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pekan.checkers.linearizability.monitors.asked import Monitored
from pekan.history.types import OK, Operation

VALUES_TOLD = 6
"""Values of a long chain that are told one by one; the others are of the same kind."""


def explain(answer: Monitored, operations: Sequence[Operation], name: Callable[[Operation], str]) -> tuple[str, ...]:
    """One sentence for each step of the contradiction in an illegal `answer` about `operations`; `name` says how to call one of them."""
    ops = [operations[place] for place in answer.places]
    return tuple(_TOLD[answer.rule](ops, name))


Name = Callable[[Operation], str]


def _unknown(ops: Sequence[Operation], name: Name) -> list[str]:
    told = [f"No operation brought in what {name(ops[0])} saw."]
    if len(ops) > 1:
        told.append(f"{_capital(name(ops[1]))} was refused: it must not have had an effect.")
    return told


def _early(ops: Sequence[Operation], name: Name) -> list[str]:
    return [f"{_capital(name(ops[0]))} saw what was brought in by {name(ops[1])}, which was called only after it had returned."]


def _twice(ops: Sequence[Operation], name: Name) -> list[str]:
    return [f"Of what {name(ops[0])} put in once, both {name(ops[1])} and {name(ops[2])} took it out."]


def _zones(ops: Sequence[Operation], name: Name) -> list[str]:
    a_first, b_last, b_first, a_last = ops
    return [
        f"{_capital(name(a_first))} had returned before {name(b_last)} was called: its value came before the other's.",
        f"{_capital(name(b_first))} had returned before {name(a_last)} was called: its value came before the other's, too.",
        "Each value was written once, so none of them can come back after the other.",
    ]


def _untouched(ops: Sequence[Operation], name: Name) -> list[str]:
    return [f"{_capital(name(ops[0]))} had returned before {name(ops[1])} was called, which still saw what was there before anybody wrote."]


def _doubled(ops: Sequence[Operation], name: Name) -> list[str]:
    return [f"{_capital(name(ops[0]))} shows an element more than once."]


def _incomparable(ops: Sequence[Operation], name: Name) -> list[str]:
    return [
        f"{_capital(name(ops[0]))} shows an element that {name(ops[1])} does not, and the other way round.",
        "Nothing is ever removed, so one of the two must show all that the other shows.",
    ]


def _missing(ops: Sequence[Operation], name: Name) -> list[str]:
    return [
        f"{_capital(name(ops[1]))} was called after {name(ops[0])} had returned, and an element that was in the set by then is missing."
    ]


def _skipped(ops: Sequence[Operation], name: Name) -> list[str]:
    return [
        f"{_capital(name(ops[0]))} had returned before {name(ops[1])} was called.",
        f"{_capital(name(ops[2]))} shows what the later one added, and not what the earlier one did.",
    ]


def _overtaken(ops: Sequence[Operation], name: Name) -> list[str]:
    insert_x, take_x, insert_y, take_y = ops[:4]
    told = [f"{_capital(name(insert_x))} had returned before {name(insert_y)} was called: its element was ahead in the queue."]
    if take_x is not insert_x:
        return [
            *told,
            f"Yet {name(take_y)} had returned with the later element before {name(take_x)} was called, which took the earlier one.",
        ]
    told.append(f"Yet {name(take_y)} returned the later element, and nobody was seen to take the earlier one.")
    return told + _lost(ops[4:], name, "that")


def _lost(lost: Sequence[Operation], name: Name, when: str) -> list[str]:
    return [f"The first that may have taken it without an answer, {name(op)}, was called only after {when}." for op in lost]


def _stuck(ops: Sequence[Operation], name: Name) -> list[str]:
    # For n values 3 n operations, then n - 1 lost ones.
    values = (len(ops) + 1) // 4
    told = [
        f"{_capital(name(x))} had returned before {name(y)} was called, and {name(take)} returned the later element:"
        " the earlier one was out by then."
        for x, y, take in zip(ops[0 : 3 * values : 3], ops[1 : 3 * values : 3], ops[2 : 3 * values : 3], strict=True)
    ]
    few = values - 1
    several = "No operation that may have taken it" if not few else f"Only {few} operation{'s' if few > 1 else ''} that may have taken them"
    return [*told[:VALUES_TOLD], f"{several} without an answer {'were' if few > 1 else 'was'} called in time."]


def _pairs(ops: Sequence[Operation]) -> tuple[list[tuple[Operation, Operation]], Sequence[Operation]]:
    """(insert and take of each value, the lost take behind them)."""
    return list(zip(ops[::2], ops[1::2], strict=False)), ops[len(ops) // 2 * 2 :]


def _inside(insert: Operation, take: Operation, name: Name) -> str:
    until = f"until {name(take)} was called" if take is not insert else "from then on, for nobody was seen to take it"
    return f"After {name(insert)} had returned its element was inside {until}."


def _never_empty(ops: Sequence[Operation], name: Name) -> list[str]:
    pairs, lost = _pairs(ops[1:])
    told = [_inside(insert, take, name) for insert, take in pairs[:VALUES_TOLD]]
    told.append(f"So something was inside from before {name(ops[0])} was called until after it had returned, and it found nothing.")
    return told + [f"The first that may have taken something without an answer, {name(op)}, was called too late." for op in lost]


def _no_bottom(ops: Sequence[Operation], name: Name) -> list[str]:
    pairs, lost = _pairs(ops)
    first = pairs[0][0]
    last = pairs[-1][1] if pairs[-1][1] is not pairs[-1][0] else None
    told = [_inside(insert, take, name) for insert, take in pairs[:VALUES_TOLD]]
    told.append("So the stack was never empty in between: one of these elements lay below all others, was pushed first and popped last.")
    for insert, take in pairs[:VALUES_TOLD]:
        assert first.ret is not None
        if insert.call > first.ret:
            told.append(f"Not that of {name(insert)}: it was called after {name(first)} had returned.")
        elif last is not None and take.ret is not None and take.ret < last.call:
            told.append(f"Not that of {name(insert)}: {name(take)} had returned before {name(last)} was called.")
        elif last is None and take is not insert and take.outcome == OK:
            told.append(f"Not that of {name(insert)}: {name(take)} took it, and another was left.")
    return told + [f"The first that may have taken something without an answer, {name(op)}, was called too late." for op in lost]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_TOLD: dict[str, Callable[[Sequence[Operation], Name], list[str]]] = {
    "unknown": _unknown,
    "early": _early,
    "twice": _twice,
    "zones": _zones,
    "untouched": _untouched,
    "doubled": _doubled,
    "incomparable": _incomparable,
    "missing": _missing,
    "skipped": _skipped,
    "overtaken": _overtaken,
    "stuck": _stuck,
    "never-empty": _never_empty,
    "no-bottom": _no_bottom,
}
