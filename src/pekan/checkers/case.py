"""What a checker is given, and what it gives back.

::

    History ──> Case(history, options) ──> evidence  (what watches and members' answers show; evidence.py)
                                      ──> order     (the replayed revision order; kv.py fills it, watch.py judges streams against it)
                    checker(case) ──> CheckerReport

Every checker looks at every history and answers *not applicable* where it has nothing to judge. Checkers run in the order of
`judge.CHECKERS`; a later one may read what an earlier one established (`Case.order`, `Case.fork`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pekan.history.types import History
from pekan.models.object import Model
from pekan.verdict import CheckerReport, Exhibit
from pekan.wire.messages import Event


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge. `budget_s` bounds the searches (None: the default of each); `clock_skew_ns` joins clock domains.

    `model` is what objects are judged by (None: what the history tells), `engine` what judges.
    """

    allow: tuple[str, ...] = ()
    clock_skew_ns: int | None = None
    writers: Literal["exclusive", "shared"] = "exclusive"
    budget_s: float | None = None
    model: Model | str | None = None
    engine: str = "auto"


@dataclass(frozen=True, slots=True)
class Fork:
    """The first proven divergence: members' histories differ from here on.

    `revision` is the first revision at which two members differ; `code` the code of the root finding that names it.
    `groups` lists the members of each side where known (names).
    """

    revision: int
    code: str
    summary: str
    certificate: tuple[Exhibit, ...]
    groups: tuple[tuple[str, ...], ...] = ()
    time: int | None = None


@dataclass(slots=True)
class Order:
    """The one history that the replies and watches prove, revision by revision.

    first, last  revisions covered (first is 2 for a store proved empty)
    events       revision -> its events in key order, each with its full `prev_kv` (None exactly where the key did not exist before)
    unknown      revisions inside [first, last] whose events are not proven; nothing may be concluded about them
    written_by   revision -> operation id that wrote it (absent for lease expiry and unknown)
    """

    first: int
    last: int
    events: dict[int, tuple[Event, ...]] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    written_by: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Case:
    """One history under judgement, with what has been established about it so far.

    Of a history that the native core holds `order` stays None: `pekan.checkers.native.evidence.proven` is what it is in memory.
    """

    history: History
    options: Options = field(default_factory=Options)
    order: Order | None = None
    fork: Fork | None = None
    shared: dict[str, object] = field(default_factory=dict)
    """Derived evidence that several checkers need, computed once (see `evidence.watched`)."""


SUSPECTED_FORK = "suspected fork"
"""Key of `Case.shared`: a `Fork` that a finding suggests and nothing has shown yet (a refused request that was applied may have been
applied by all members, or by all but the one that refused it). A checker that sees members differ at or above its revision makes it
`Case.fork`."""

Checker: TypeAlias = Callable[[Case], CheckerReport]
