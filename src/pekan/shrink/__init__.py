"""A smaller plan that still breaks the same promise: faults, clients and operations taken away, each candidate run some times.

::

    cli ──> shrink ──> hunt ──> ...        ddmin, rates: no plans, no clusters
              │                           reductions: plans, no clusters
              └── trials: one run a call  search: asks `shows`, whoever that is
"""

from __future__ import annotations

from pekan.shrink.ddmin import minimal, smallest
from pekan.shrink.rates import Measured, Rule, rule_for, rule_of
from pekan.shrink.reductions import REDUCTIONS, Reduction, spelled_out
from pekan.shrink.search import Progress, Shrunk, Stopped, shrink
from pekan.shrink.trials import Sought, Trials, sought_in

__all__ = [
    "REDUCTIONS",
    "Measured",
    "Progress",
    "Reduction",
    "Rule",
    "Shrunk",
    "Sought",
    "Stopped",
    "Trials",
    "minimal",
    "rule_for",
    "rule_of",
    "shrink",
    "smallest",
    "sought_in",
    "spelled_out",
]
