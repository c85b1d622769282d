"""What the engine is asked and what it answers.

::

    operation   0      1      2    ...          call[o] <= ret[o], closed intervals: what ends when another begins is concurrent with it
    call        10     12     15                ret None: the operation may take effect at any time after its call, once, or never
    ret         14     13     None
    class       0      1      0                 one number for each distinct (call, output); of[o]
                                                step(state, class) -> state, or ILLEGAL;   states are numbers of the caller, too

The engine knows neither values nor models: it asks `step` once for each distinct (state, class), which is why a model written in Python
runs nearly as fast as one compiled. Everything else that a model may tell is a hint: it never changes an answer, only the time it takes,
*provided that it is true*. What each hint promises is written beside it, and it is a promise about a class: in every state, not in this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

ILLEGAL = -1
"""Of `step`: the class is not possible in this state."""
ANYWHERE = -1
"""Of `Hints.requires`: the class is legal in every state."""
UNSAID = -2
"""Of `Hints.requires` and `Hints.produces`: nothing is promised."""
NOTHING = -1
"""Of `Hints.produces`: the class changes no state."""

Bound = Literal["", "time", "steps", "memory", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a model knows of its classes beyond `step`; one entry a class in each sequence that is not empty.

    requires  the one state in which the class is legal (in any other it is illegal or, of an operation that never returned, changes
              nothing), ANYWHERE, or UNSAID
    produces  the one state to which the class always leads where it is legal, NOTHING for one that changes no state, or UNSAID.
              Where every class says both, an unanswered operation whose product nobody needs is left out, and a state that somebody
              still needs is not left while nobody is there to produce it again.
    goals     True for classes that `viable` can judge; empty: all
    resets    True for classes after which anything is possible again; given wherever `viable` is
    viable    viable(state, goal) -> False where no sequence of operations that are no resets leads from the state to one in which the
              goal is legal. (An append-only text: what a get returned must begin with what is there, unless a put comes between.)
    """

    requires: Sequence[int] = ()
    produces: Sequence[int] = ()
    goals: Sequence[bool] = ()
    resets: Sequence[bool] = ()
    viable: Callable[[int, int], bool] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One object's operations in columns and the machine that they were done on.

    `readonly` promises of a class that it never changes *any* state: such an operation is put in as soon as it is legal. That a class
    changes nothing in the present state is no such promise (a write of the value that is there: taken now, it is missing later).
    `init` is the state at the start. Raises ValueError where columns differ in length or an operation returns before it is called.
    """

    call: Sequence[int]
    ret: Sequence[int | None]
    of: Sequence[int]
    step: Callable[[int, int], int]
    readonly: Sequence[bool]
    init: int = 0
    hints: Hints = field(default_factory=Hints)

    def __post_init__(self) -> None:
        if not len(self.call) == len(self.ret) == len(self.of):
            raise ValueError(f"columns differ in length: {len(self.call)} calls, {len(self.ret)} returns, {len(self.of)} classes")
        classes = len(self.readonly)
        for name in ("requires", "produces", "goals", "resets"):
            if len(getattr(self.hints, name)) not in (0, classes):
                raise ValueError(f"{name}: {len(getattr(self.hints, name))} entries for {classes} classes")
        if self.hints.viable is not None and len(self.hints.resets) != classes:
            raise ValueError("viable without resets: nobody knows what it leaves out")
        if bool(self.hints.requires) != bool(self.hints.produces):
            raise ValueError("requires and produces are one hint: both or neither")
        for o, (call, ret, c) in enumerate(zip(self.call, self.ret, self.of, strict=True)):
            if ret is not None and ret < call:
                raise ValueError(f"operation {o} returns at {ret}, before its call at {call}")
            if not 0 <= c < classes:
                raise ValueError(f"operation {o} is of class {c}; there are {classes}")


@dataclass(frozen=True, slots=True)
class Budget:
    """Where the search gives up; None: no such bound. `time_s` and `memory_bytes` hold for all questions of one call together."""

    time_s: float | None = 60.0
    steps: int | None = None
    memory_bytes: int | None = 4 << 30


@dataclass(frozen=True, slots=True)
class Answer:
    """ok: there is an order; illegal: there is none; unknown: a bound was met first.

    order    ok: every operation that returned, and those of the others that are needed, in a legal order;
             else: the legal order that got furthest, where the search has been
    blocked  the operation whose return that order cannot pass (-1 where the verdict is ok)
    bound    unknown: time, steps, memory, or `elsewhere`: another question of the same call was found illegal
    steps    transitions looked at;  configurations: remembered;  asked: distinct transitions asked of the model
    """

    verdict: Literal["ok", "illegal", "unknown"]
    order: tuple[int, ...]
    blocked: int = -1
    bound: Bound = ""
    steps: int = 0
    configurations: int = 0
    asked: int = 0
