"""What a sequential object is: a first state, and what each call does to a state.

::

    class Door(Model):                                      a model of one's own is two methods
        def init(self):
            return "shut"

        def step(self, state, call, output):
            if call.f == "open":
                return "open" if state == "shut" else ILLEGAL
            ...

A history is *linearizable* where its calls can be put into one order, each at a point between its call and its return, in which `step`
never says ILLEGAL. Checkers ask for every distinct (state, call, output) once: a model may be slow, but it must be a function of the
three.

States are compared by `==` and hashed; so are the values in calls and outputs. States that cannot be hashed get a `key`.

Hints make judging faster and never change an answer, if their condition is true. A wrong hint makes wrong verdicts; without hints
judging is slower and as right.

===============  ========================================  ===========================================================================
hint             says                                      condition, for all states and calls
===============  ========================================  ===========================================================================
``key``          what tells two states apart               states with equal keys step to states with equal keys, or ILLEGAL, alike
``readonly``     this call with this answer changes        `step` gives the state it was given (an equal one), or ILLEGAL
                 nothing, *whatever the state*
``partition``    the parts of the object that a call       the object is made of parts that know nothing of each other: what a call
                 reads or changes                          answers, and what it changes, is in the parts it names, and `init` serves
                                                           each part alone
``requires``     the one state in which this call can      in every other state `step` says ILLEGAL or, where the answer is UNKNOWN,
                 have this answer; ANYWHERE: in all        changes nothing
``produces``     the one state that it leaves; NOTHING:    it leaves that state from wherever it is legal; (NOTHING: as ``readonly``)
                 what was there
``resets``       this call can lead anywhere               every call that can make ``viable`` true again once it is false says so
``viable``       whether this call can still get its       where it is False, no sequence of calls that do not reset leads from
                 answer without a reset                    this state to one where the call has its answer
===============  ========================================  ===========================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable
from enum import Enum
from typing import Any, ClassVar, Final, Protocol


class _Token(Enum):
    """Values that no history can hold."""

    ILLEGAL = "illegal"
    UNKNOWN = "unknown"
    ANYWHERE = "anywhere"
    NOTHING = "nothing"
    UNSAID = "unsaid"

    def __repr__(self) -> str:
        return self.name


ILLEGAL: Final = _Token.ILLEGAL
"""From `Model.step`: a sequential object cannot do this here."""
UNKNOWN: Final = _Token.UNKNOWN
"""As the output: nobody saw the answer, so any is right. `step` says ILLEGAL only where the call cannot happen at all."""

ANYWHERE: Final = _Token.ANYWHERE
"""From `Model.requires`: legal in every state."""
NOTHING: Final = _Token.NOTHING
"""From `Model.produces`: it leaves the state that was there."""
UNSAID: Final = _Token.UNSAID
"""From `Model.requires` and `Model.produces`: no promise."""


class Called(Protocol):
    """What was asked: `f` names the operation, `value` is its argument, `key` names one of several independent objects.

    `pekan.history.types.Call` is one. A model needs no `key`: it sees the calls of one object only.
    """

    @property
    def f(self) -> str: ...

    @property
    def value(self) -> Any: ...

    @property
    def key(self) -> Any: ...


class Model(ABC):
    """A sequential object. Subclass it with `init` and `step`; `name` and `calls` are shown to people, the rest are hints."""

    name: ClassVar[str] = ""
    calls: ClassVar[dict[str, str]] = {}
    """Every `f` that the model knows, with a line on argument and answer. Empty: the model takes whatever comes."""

    @abstractmethod
    def init(self) -> Any:
        """The state of an object that nobody has touched."""

    @abstractmethod
    def step(self, state: Any, call: Called, output: Any) -> Any:
        """The state after `call` was made at `state` and answered `output`, or ILLEGAL where it cannot be answered so.

        `output` is UNKNOWN where nobody saw an answer. Changes nothing that it was given.
        """

    def expected(self, call: Called, output: Any) -> str | None:
        """What `call` or its answer should look like, where `step` could make no sense of it; None where it can.

        Asked once for every distinct call and answer, before any step.
        """
        return None

    # ---- hints ----

    def key(self, state: Any) -> Hashable:
        """What tells `state` apart from others."""
        return state  # type: ignore[no-any-return]

    def readonly(self, call: Called, output: Any) -> bool:
        """True only where `call`, answered `output`, changes no state at all."""
        return False

    def partition(self, call: Called) -> Collection[Hashable] | None:
        """The parts of the object that `call` touches; None: it may touch all of it."""
        return None

    def requires(self, call: Called, output: Any) -> Any:
        """The one state in which `call` can be answered `output`, or ANYWHERE, or UNSAID."""
        return UNSAID

    def produces(self, call: Called, output: Any) -> Any:
        """The one state that `call` leaves where it is answered `output`, or NOTHING, or UNSAID."""
        return UNSAID

    def resets(self, call: Called, output: Any) -> bool:
        """True where `call` can lead from any state to any other; see `viable`."""
        return True

    def viable(self, state: Any, call: Called, output: Any) -> bool:
        """False only where `call` cannot be answered `output` at `state` nor after any calls that do not reset."""
        return True
