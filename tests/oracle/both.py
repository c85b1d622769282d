"""Any history of the tests, judged by both engines: the verdicts have to be the same, word for word. See `engines` for random ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from oracle.engines import SPENT, declined, first_difference, said
from pekan import native
from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.errors import EvidenceError
from pekan.history.reading import load
from pekan.history.types import History
from simulator.recording import recordable, write_history

SHARED_MEMORY = Path("/dev/shm")
"""Where the files go if it is there: each is written through to its device."""


class Both(NamedTuple):
    """How both engines judged one history: the first place where the verdicts differ (None: nowhere) and what each says there, and why the
    native engine left it to the reference, or one of them came to no end in its time (None where neither is so). How far a search comes in
    its time is a matter of the clock, and makes no difference."""

    difference: tuple[str, Any, Any] | None
    declined: str | None


def both(history: History, options: Options | None = None) -> Both | None:
    """`history` as a record file, judged by both; None where there is no core, or no file that holds it."""
    recorded = recordable(history) if native.core is not None else None
    if recorded is None:
        return None
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as directory:
        path = Path(directory) / "history.pb"
        if history.plan is not None:
            path.with_name("plan.json").write_text(history.plan.to_text(), encoding="utf-8")
        write_history(recorded, path)
        options = options or Options()
        try:
            reference = judge(load(path, engine="reference"), options, "reference")
        except EvidenceError:
            return None
        fast = judge(load(path), options, "native")
        if SPENT in (declined(reference), declined(fast)):
            return Both(None, SPENT)
        return Both(first_difference(said(reference), said(fast)), declined(fast))


def agree(history: History, options: Options | None = None) -> None:
    """Fails where the engines differ over `history`; says nothing where no record file can hold it."""
    found = both(history, options)
    assert found is None or found.difference is None, found
