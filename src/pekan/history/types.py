"""What happened, as values: operations, streams, faults and marks of one run or one foreign history.

::

    Record (bytes as seen)  ── operations(records) ──>  Operation (process, call, return, outcome, input, output)
                            ── streams(records) ─────>  Stream    (messages both ways, with times)
                            ── faults, marks ────────>  FaultSpan, Mark

Two layers and no third: checkers read these, and go back to a record only to show it.
All times are integer nanoseconds of one clock domain (see `History.order`).

A history lives in memory, or in a record file that the native core holds in columns (`recorded.py`): then operations and messages are
sequences that make a value when it is looked at, and checkers ask for what they need of it (`History.of`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

from pekan.plan import Plan

Outcome = Literal["ok", "failed", "indefinite"]
OK: Outcome = "ok"
FAILED: Outcome = "failed"
INDEFINITE: Outcome = "indefinite"


class Operation(NamedTuple):
    """One request and what became of it.

    `ret` is None where no answer came that proves anything: the operation may take effect at any time after `call`, once, or never.
    A *read* that got any error is FAILED: it has no effect. `input` is a value of `pekan.wire.Request` (for foreign histories, whatever
    their model steps over); `output` is the response, or a `WireError` where outcome is FAILED or INDEFINITE, or None where the history
    ends before any answer. `gave_up` is when the client stopped waiting (ns), None where it never did.
    """

    id: int
    process: int
    call: int
    ret: int | None
    outcome: Outcome
    input: Any
    output: Any
    method: str = ""
    client: str = ""
    member: str = ""
    user: str = ""
    gave_up: int | None = None


class Call(NamedTuple):
    """What an operation on an object asked for: `Operation.input` of an object history.

    `f` is the name of the operation ("read", "write", "cas", "enqueue", ...), `value` its argument (None where it has none), `key` names
    one of several independent objects (None: there is but one). The answer, `Operation.output`, is the value of the ok. All values are as
    `pekan.history.values` tells: plain and immutable.
    """

    f: str
    value: Any = None
    key: Any = None


_Value = TypeVar("_Value")


class Made(Sequence[_Value]):
    """A sequence whose values are made when they are looked at. Equals the tuple of them."""

    @abstractmethod
    def make(self, index: int) -> _Value:
        """The value at `index`, which is at least 0 and below the length."""

    @overload
    def __getitem__(self, index: int) -> _Value: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_Value, ...]: ...
    def __getitem__(self, index: int | slice) -> _Value | tuple[_Value, ...]:
        size = len(self)
        if isinstance(index, slice):
            return tuple(map(self.make, range(*index.indices(size))))
        if not -size <= index < size:
            raise IndexError(f"index {index} of {size}")
        return self.make(index % size)

    def __iter__(self) -> Iterator[_Value]:
        return map(self.make, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Made | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to a tuple, whose hash would take making all of it


class Operations(Made[Operation]):
    """The operations of a record file that the native core holds."""

    session: Any
    """The core's `Session`: the columns, for checkers that work on them."""

    @abstractmethod
    def of(self, kinds: frozenset[type]) -> Sequence[Operation]:
        """The operations whose input is of one of these types, in order of call."""


class StreamMessage(NamedTuple):
    """One message of a stream. `sent` tells the direction: True from client to member."""

    time: int
    sent: bool
    message: Any


@dataclass(frozen=True, slots=True)
class Stream:
    """All messages of one gRPC stream in the order in which this client sent and received them.

    `ended` is None while it was open at the end of the record; `code` and `reason` are the gRPC status, `by_client` whether the client
    closed it.
    """

    id: int
    method: str
    client: str
    member: str
    user: str
    messages: Sequence[StreamMessage]
    ended: int | None
    code: int
    reason: str
    by_client: bool


class RecordedStreams(tuple[Stream, ...]):
    """The streams of a record file that the native core holds: their messages are `Made`."""

    session: Any


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """One fault from armed to healed. `fired` and `healed` are None where that did not happen; times in ns."""

    id: int
    kind: str
    target: str
    parameters: dict[str, Any]
    promise: str
    required: bool
    fault_class: str
    armed: int
    fired: int | None
    healed: int | None
    evidence: dict[str, Any] = field(default_factory=dict)


class Mark(NamedTuple):
    """Something worth knowing that is no request: start, phase, member state, epoch, end. `detail` is a JSON object."""

    time: int
    kind: str
    member: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What members told that were started on crash image `image`, in the `attempt`-th start: a history of its own, on the run's clock."""

    image: int
    attempt: int
    history: History


@dataclass(frozen=True, slots=True)
class History:
    """Everything that a checker may look at.

    operations   in order of call
    start        "empty" where traffic began on a store proved empty, else "unknown"
    order        "real-time" where all times are of one clock domain, else "per-process"
    complete     False where the record ends before its end mark (Pekan was killed, or the disk was full)
    cut          bytes dropped at the end of a history file that was cut in mid-record (0: none)
    path         the run directory or file it came from, None for a history made in memory
    format       how it was written; "pekan" for our own record
    model        the name of the model that the file itself names, None where it names none
    initial      what its objects hold at the start, where the file says so; None is unset
    notes        what the reader wants to be known: what it kept and did not use
    declined     why the native core does not hold it; empty where it does, and where it was not asked to
    too_large    why it was not read at all: what it would take of memory, and what there is; empty where it was
    epochs       what members told that were started beside the run, on crash images of it; no part of what is judged as the run
    """

    operations: Sequence[Operation]
    streams: tuple[Stream, ...] = ()
    faults: tuple[FaultSpan, ...] = ()
    marks: tuple[Mark, ...] = ()
    plan: Plan | None = None
    start: Literal["empty", "unknown"] = "unknown"
    order: Literal["real-time", "per-process"] = "real-time"
    complete: bool = True
    cut: int = 0
    path: Path | None = None
    format: str = "pekan"
    model: str | None = None
    initial: Any = None
    notes: tuple[str, ...] = ()
    declined: str = field(default="", compare=False)
    too_large: str = ""
    epochs: tuple[Epoch, ...] = ()

    @property
    def session(self) -> Any:
        """The native core's `Session` over exactly these operations and streams; None where they live in memory, or one is not its own."""
        if isinstance(self.operations, Operations) and isinstance(self.streams, RecordedStreams):
            session = self.operations.session
            return session if self.streams.session is session else None
        return None

    def of(self, *kinds: type) -> Sequence[Operation]:
        """The operations whose input is of one of the types `kinds`, in order of call; others are not made."""
        if isinstance(self.operations, Operations):
            return self.operations.of(frozenset(kinds))
        wanted = frozenset(kinds)
        return [op for op in self.operations if type(op.input) in wanted]
