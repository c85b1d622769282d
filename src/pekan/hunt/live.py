"""What a hunt is doing right now, for whoever wants to show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Live:
    """State of one run, changed in place by the run and read by the caller's `observe`.

    phase       starting | quiet | faults | recovery | final | judging
    counts      operations by outcome, as `Traffic.counts`
    faults      what is armed now, in order of arming: "pause m2"
    fired       faults that fired so far
    findings    kinds of broken promise so far, by the last look at the record
    """

    seed: int
    etcd: str
    phase: str = "starting"
    elapsed_ms: int = 0
    time_ms: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: tuple[str, ...] = ()
    fired: int = 0
    findings: int = 0

    @property
    def operations(self) -> int:
        return sum(self.counts[outcome] for outcome in ("ok", "refused", "failed", "indefinite"))
