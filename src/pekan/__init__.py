"""Pekan hunts data inconsistencies in etcd and in anything that speaks etcd's API.

>>> import pekan
>>> pekan.check("path/to/run").verdict  # doctest: +SKIP
'holds'
"""

from __future__ import annotations

__version__ = "0.1.0"  # before the imports: what they bring asks for it

from pekan.checking import check
from pekan.errors import EnvironmentFailure, EvidenceError, PekanError, UsageError
from pekan.history.types import Call, History, Operation
from pekan.models.object import ILLEGAL, UNKNOWN, Model
from pekan.verdict import Finding, Verdict

__all__ = [
    "ILLEGAL",
    "UNKNOWN",
    "Call",
    "EnvironmentFailure",
    "EvidenceError",
    "Finding",
    "History",
    "Model",
    "Operation",
    "PekanError",
    "UsageError",
    "Verdict",
    "__version__",
    "check",
]
