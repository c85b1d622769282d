"""Small random histories of objects, valid and mutated, and the oracle that tries all orders.

::

    history_of(seed)   a real concurrent object on a virtual clock: processes call, the object serves each call at one moment between call
                       and return, answers go back; some calls fail, some are never answered, times collide on purpose
    mutated            by MUTATIONS: bugs of the object while it serves, and lies told afterwards
    legal(name, ops)   True where some order explains the answers: every order is tried, over `oracle.things`
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oracle.things import NOTHING, THINGS, BlockedError, Thing
from pekan.history.types import FAILED, INDEFINITE, OK, Call, Operation

# ---- the oracle ----


def legal(name: str, operations: Sequence[Operation], before: Before | None = None) -> bool:
    """True where the object `name` can have answered so: some order of the operations explains every answer and keeps `before`.

    What was never answered may stand anywhere that `before` allows, or nowhere. Operations that failed have no effect. `Call.key` names
    independent objects, each judged alone.
    """
    keys = {operation.input.key for operation in operations}
    return all(_legal(name, [o for o in operations if o.input.key == key and o.outcome != FAILED], before or in_time) for key in keys)


Before = Callable[[Operation, Operation], bool]
"""Whether the first stands before the second in every order."""


def in_time(a: Operation, b: Operation) -> bool:
    """Real time: `a` returned before `b` was called."""
    return a.ret is not None and a.ret < b.call


def in_process(a: Operation, b: Operation) -> bool:
    """The order of each process, which goes on without what was never answered."""
    return a.process == b.process and a.outcome == OK and (a.call, a.id) < (b.call, b.id)


def _legal(name: str, operations: list[Operation], before: Before) -> bool:
    tokens = {o.input.value for o in operations if o.input.f == "release" and isinstance(o.input.value, int)}
    must = sum(1 << i for i, o in enumerate(operations) if o.outcome == OK)
    earlier = [sum(1 << j for j, a in enumerate(operations) if a.outcome == OK and before(a, b)) for b in operations]
    dead: set[Any] = set()

    def place(thing: Thing, left: int) -> bool:
        """Whether the operations in the mask `left` can follow, where the object is `thing`."""
        if not left & must:
            return True
        here = (left, thing.look())
        if here in dead:
            return False
        for i, operation in enumerate(operations):
            if left >> i & 1 and not earlier[i] & left and any(place(t, left & ~(1 << i)) for t in served(thing, operation, tokens)):
                return True
        dead.add(here)
        return False

    return place(THINGS[name](), (1 << len(operations)) - 1)


def served(thing: Thing, operation: Operation, tokens: set[Any]) -> Iterator[Thing]:
    """The object after serving `operation` now, if it then answers as was recorded."""
    call, told = operation.input, operation.output
    seen = operation.outcome == OK
    for hint in (told,) if seen and told is not None else thing.hints(tokens):
        after = thing.clone()
        try:
            answer = after.serve(call.f, call.value, hint)
        except BlockedError:
            continue
        if not seen or agree(call.f, answer, told):
            yield after


def agree(f: str, answer: Any, told: Any) -> bool:
    """Whether an answer is the one that was told, as far as that answer says anything."""
    if f in ("write", "cas") and isinstance(answer, tuple):  # A version and what was asked for: only the version is an answer.
        return told is not False and (not isinstance(told, tuple) or told[0] in (None, answer[0]))
    if f in ("read", "contains", "get", "dequeue", "pop", "txn"):
        if isinstance(answer, frozenset):
            return sorted(answer, key=repr) == sorted(told or (), key=repr)
        if f == "read" and isinstance(answer, tuple):
            version, value = told if isinstance(told, tuple) else (None, told)
            return bool(value == answer[1] and version in (None, answer[0]))
        return bool((told or "") == answer) if f == "get" else txn_agrees(answer, told) if f == "txn" else bool(told == answer)
    if f == "acquire":
        return answer is NOTHING or told is None or bool(told == answer)
    if f == "cas":
        return bool((told is False) == (answer is False))
    return True


def txn_agrees(answer: Any, told: Any) -> bool:
    """Whether all lists and values read are the same; an unset list is the empty list."""
    return told is None or all((ours[2] or None) == (theirs[2] or None) for ours, theirs in zip(answer, told, strict=True))


# ---- histories ----

Serve = Callable[[Random, Thing, list[Thing], str, Any], Any]
"""(rng, the object, the object as it was after every earlier call, f, value) -> answer."""


@dataclass(frozen=True)
class Config:
    """How a random history is made; a function of its seed."""

    name: str
    seed: int
    operations: int
    processes: int
    keys: tuple[Any, ...]
    values: int
    """Distinct values drawn from; 0: no value is written twice."""
    span: int
    """Times of one step: small numbers collide."""
    failing: float
    unanswered: float


def config_of(seed: int, name: str | None = None) -> Config:
    rng = Random(seed)
    return Config(
        name or rng.choice(sorted(THINGS)),
        seed,
        operations=rng.randint(2, 10),
        processes=rng.choice((1, 2, 2, 3, 3, 4, 5)),
        keys=rng.choice(((None,), (None,), (None,), ("a", 7))),
        values=rng.choice((0, 0, 2, 3)),
        span=rng.choice((1, 2, 3, 9)),
        failing=rng.choice((0.0, 0.1)),
        unanswered=rng.choice((0.0, 0.1, 0.3)),
    )


def serve_well(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
    return thing.serve(f, value, len(past))


def simulate(config: Config, serve: Serve = serve_well, refused_applies: bool = False) -> tuple[Operation, ...]:
    """The operations of a history on real objects, in order of call. `serve` may have bugs."""
    rng = Random(config.seed)
    fresh = 0

    def value() -> Any:
        nonlocal fresh
        fresh += 1
        return rng.randint(1, config.values) if config.values else fresh

    objects = {key: THINGS[config.name]() for key in config.keys}
    pasts: dict[Any, list[Thing]] = {key: [thing.clone()] for key, thing in objects.items()}
    free_at = [rng.randint(0, config.span) for _ in range(config.processes)]
    called: list[tuple[int, int, int, int, Call, str]] = []  # point, call, return, process, what, outcome
    for _ in range(config.operations):
        process = min(range(config.processes), key=lambda p: (free_at[p], rng.random()))
        call = free_at[process] + rng.randint(0, config.span)
        point = call + rng.randint(0, config.span)
        ret = point + rng.randint(0, config.span)
        key = rng.choice(config.keys)
        draw = rng.random()
        outcome = FAILED if draw < config.failing else INDEFINITE if draw < config.failing + config.unanswered else OK
        if outcome == INDEFINITE:
            point += rng.choice((0, 0, 2, 9)) * config.span
        f, argument = objects[key].draw(rng, value)
        called.append((point, call, ret, process, Call(f, argument, key), outcome))
        free_at[process] = ret
    operations = []
    for _, call, ret, process, what, outcome in sorted(called, key=lambda c: (c[0], rng.random())):
        thing, past = objects[what.key], pasts[what.key]
        answer: Any = None
        what = what._replace(value=thing.settle(rng, what.f, what.value))
        if (outcome != FAILED or refused_applies) and not (outcome == INDEFINITE and rng.random() < 0.4):
            try:
                answer = serve(rng, thing, past, what.f, what.value)
            except BlockedError:
                outcome = FAILED if outcome == OK else outcome
            past.append(thing.clone())
        if answer is NOTHING:
            answer = rng.choice((None, what.value))
        told = answer if outcome == OK else None
        operations.append(Operation(0, process, call, ret if outcome != INDEFINITE else None, outcome, what, told))
    return numbered(operations)


def numbered(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """In order of call, with ids in that order."""
    return tuple(o._replace(id=i) for i, o in enumerate(sorted(operations, key=lambda o: o.call)))


# ---- mutations ----


@dataclass(frozen=True)
class Mutation:
    """One way to go wrong. `change` makes the history of a configuration with it."""

    name: str
    change: Callable[[Config], tuple[Operation, ...]]


def buggy(name: str, serve: Serve, rate: float = 0.5) -> Mutation:
    """An object that now and then serves by `serve`."""

    def sometimes(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
        return (serve if rng.random() < rate else serve_well)(rng, thing, past, f, value)

    return Mutation(name, lambda config: simulate(config, sometimes))


def stale(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
    """Answered from the past, and without effect there."""
    return rng.choice(past).clone().serve(f, value, len(past))


def lost(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
    """Acknowledged and not done."""
    return thing.clone().serve(f, value, len(past))


def twice(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
    """Done again after it was answered."""
    answer = thing.serve(f, value, len(past))
    thing.serve(f, value, len(past))
    return answer


def rolled_back(rng: Random, thing: Thing, past: list[Thing], f: str, value: Any) -> Any:
    """The object is as it was before, for this call and all later ones."""
    thing.__dict__.update(rng.choice(past).clone().__dict__)
    return thing.serve(f, value, len(past))


def lie(name: str, change: Callable[[Random, list[Operation]], None]) -> Mutation:
    """A history whose record was changed afterwards."""

    def changed(config: Config) -> tuple[Operation, ...]:
        operations = list(simulate(config))
        change(Random(config.seed + 1), operations)
        return numbered(operations)

    return Mutation(name, changed)


def _pick(rng: Random, operations: list[Operation], *outcomes: str) -> int | None:
    found = [i for i, o in enumerate(operations) if o.outcome in outcomes]
    return rng.choice(found) if found else None


def wrong_answer(rng: Random, operations: list[Operation]) -> None:
    """Two calls of one kind have each other's answers."""
    told = [i for i, o in enumerate(operations) if o.outcome == OK and o.output is not None]
    pairs = [(i, j) for i in told for j in told if interchangeable(operations[i], operations[j])]
    if pairs:
        i, j = rng.choice(pairs)
        operations[i], operations[j] = (
            operations[i]._replace(output=operations[j].output),
            operations[j]._replace(output=operations[i].output),
        )


def interchangeable(a: Operation, b: Operation) -> bool:
    """Whether the answers of `a` and `b` differ and could each be the other's."""
    return a.output != b.output and a.input.f == b.input.f and a.input.value == b.input.value


def moved(rng: Random, operations: list[Operation]) -> None:
    """An operation was earlier or later than it was."""
    i = _pick(rng, operations, OK)
    if i is not None:
        by = rng.randint(-8, 8)
        o = operations[i]
        assert o.ret is not None
        operations[i] = o._replace(call=o.call + by, ret=o.ret + by)


def shortened(rng: Random, operations: list[Operation]) -> None:
    """An operation took no time."""
    i = _pick(rng, operations, OK)
    if i is not None:
        at = rng.choice((operations[i].call, operations[i].ret))
        operations[i] = operations[i]._replace(call=at, ret=at)


def unanswered(rng: Random, operations: list[Operation]) -> None:
    """Legal always: an answer got lost."""
    i = _pick(rng, operations, OK)
    if i is not None:
        operations[i] = operations[i]._replace(ret=None, outcome=INDEFINITE, output=None)


def refused(rng: Random, operations: list[Operation]) -> None:
    """An operation that may have been done is told to have failed."""
    i = _pick(rng, operations, OK, INDEFINITE)
    if i is not None:
        o = operations[i]
        operations[i] = o._replace(ret=o.call if o.ret is None else o.ret, outcome=FAILED, output=None)


def dropped(rng: Random, operations: list[Operation]) -> None:
    """An operation is not in the record."""
    if operations:
        del operations[rng.randrange(len(operations))]


def repeated(rng: Random, operations: list[Operation]) -> None:
    """An operation is in the record twice."""
    if operations:
        operations.append(rng.choice(operations))


MUTATIONS = (
    buggy("stale read", stale),
    buggy("lost acknowledged write", lost),
    buggy("applied twice", twice),
    buggy("rolled back", rolled_back, 0.3),
    Mutation("refused but applied", lambda config: simulate(config, refused_applies=True)),
    lie("wrong answer", wrong_answer),
    lie("moved in time", moved),
    lie("shortened", shortened),
    lie("answer lost", unanswered),
    lie("told to have failed", refused),
    lie("dropped", dropped),
    lie("repeated", repeated),
)


@dataclass(frozen=True)
class Sample:
    """A history with where it came from."""

    config: Config
    mutation: str
    operations: tuple[Operation, ...]


def samples(seed: int, cases: int, name: str | None = None) -> Iterator[Sample]:
    """`cases` histories, every third valid, the others mutated, in every way in turn."""
    rng = Random(seed)
    for case in range(cases):
        config = config_of(rng.getrandbits(48), name)
        if case % 3 == 0:
            yield Sample(config, "valid", simulate(config))
        else:
            mutation = MUTATIONS[rng.randrange(len(MUTATIONS))]
            yield Sample(config, mutation.name, mutation.change(config))


def tell(operations: Sequence[Operation]) -> str:
    """One line an operation."""
    return "\n".join(
        f"#{o.id} p{o.process} [{o.call}, {'?' if o.ret is None else o.ret}] {o.outcome:10} {o.input} -> {o.output!r}" for o in operations
    )


if __name__ == "__main__":
    from oracle.objects_fuzz import main

    sys.exit(main())
