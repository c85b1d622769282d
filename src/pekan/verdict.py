"""Verdict and Finding: the two types every room speaks.

======================  =========  ==========================================================================================
verdict                 exit code  when
======================  =========  ==========================================================================================
``broken``              1          at least one finding with status ``counts``
``undecided``           3          no such finding, and at least one reason why the evidence does not decide
``holds``               0          neither
======================  =========  ==========================================================================================

`broken` outranks `undecided`, which outranks `holds`. A finding is evidence a reader can follow with a pencil: two or three records, an
explanation in plain sentences, what to look at next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Word = Literal["holds", "broken", "undecided"]
Status = Literal["counts", "follows", "excused", "allowed"]
EXIT_CODES: dict[Word, int] = {"holds": 0, "broken": 1, "undecided": 3}


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One record of a certificate, told so that it can be found again and understood without the file.

    what      one line: who asked or saw what and was answered what
    operation operation id, or None
    stream    stream id, or None
    member    name of the member concerned, empty where none is
    start, end   ns of the run's clock (end equal to start for an instant; None where it never ended)
    """

    what: str
    operation: int | None = None
    stream: int | None = None
    member: str = ""
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise.

    code         stable name from the catalogue, e.g. "WATCH-ORDERED"
    summary      one line
    explanation  plain sentences that lead from the certificate to the contradiction
    certificate  the two or three records that prove it
    subject      what it is about: any of member, key, revision, operations, stream, lease, user (values JSON-ready)
    shape        what makes two findings the same kind: operation and message kinds of the certificate in order, request options,
                 kind of subject; no key, revision, member or time
    status       "counts", or why it does not: follows | excused | allowed, with `because` naming the finding, fault or option
    count        how many times the same shape was seen in this run (the others are left out of the report)
    """

    code: str
    summary: str
    explanation: str
    certificate: tuple[Exhibit, ...]
    subject: dict[str, Any] = field(default_factory=dict)
    shape: tuple[str, ...] = ()
    status: Status = "counts"
    because: str = ""
    count: int = 1

    @property
    def signature(self) -> str:
        """Stable over runs, seeds and versions: the code and a short hash of the shape."""
        digest = hashlib.sha256("\x1f".join(self.shape).encode()).hexdigest()[:8]
        return f"{self.code}/{digest}"

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        because = data.pop("because")
        data["signature"] = self.signature
        if self.status != "counts":
            data[{"follows": "follows", "excused": "excused_by", "allowed": "allowed_by"}[self.status]] = because
        return data


@dataclass(frozen=True, slots=True)
class Undecided:
    """A reason why the evidence does not decide: the bound that was met, and what would decide it."""

    reason: str
    would_decide: str
    checker: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What etcd did about a fault for which it promises nothing: altered or lost storage, corrupted bytes between members.

    fault    kind and target, e.g. "flip-byte on m2"
    noticed  whether it said or did anything: a CORRUPT alarm, a refusal to start, a panic, a complaint in its log
    how      its words; empty where it stayed silent
    left     what has become of the member, where the fault says so: put back, replaced, as it is, down
    time     when the fault fired (ns of the run's clock)
    """

    fault: str
    noticed: bool
    how: str = ""
    left: str = ""
    time: int | None = None


@dataclass(frozen=True, slots=True)
class CheckerReport:
    """What one checker did: `applicable` False where the history held nothing for it to judge; `judged` counts what it looked at.

    `engine` says what decided, where that is not the engine of the whole verdict.
    """

    name: str
    applicable: bool
    judged: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    seconds: float = 0.0
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer over one history."""

    findings: tuple[Finding, ...]
    undecided: tuple[Undecided, ...]
    order: Literal["real-time", "per-process"]
    operations: int
    seconds: float
    engine: str = "reference"
    checkers: tuple[CheckerReport, ...] = ()
    notes: tuple[str, ...] = ()
    outside: tuple[Noticed, ...] = ()

    @property
    def verdict(self) -> Word:
        if any(f.status == "counts" for f in self.findings):
            return "broken"
        return "undecided" if self.undecided else "holds"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def codes(self) -> tuple[str, ...]:
        """Distinct codes of the findings that count, in order of appearance."""
        return tuple(dict.fromkeys(f.code for f in self.findings if f.status == "counts"))

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "order": self.order,
            "findings": [f.to_json() for f in self.findings],
            "undecided": [asdict(u) for u in self.undecided],
            "operations": self.operations,
            "seconds": round(self.seconds, 6),
            "engine": self.engine,
            "checkers": {c.name: {"applicable": c.applicable, "judged": c.judged, "seconds": c.seconds} for c in self.checkers},
            "notes": list(self.notes),
            "outside": [asdict(each) for each in self.outside],
        }


def group(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per (signature, status), the first of each, with `count` telling how many there were; first seen first."""
    first: dict[tuple[str, Status], Finding] = {}
    for finding in findings:
        key = (finding.signature, finding.status)
        seen = first.get(key)
        first[key] = finding if seen is None else replace(seen, count=seen.count + finding.count)
    return tuple(first.values())
