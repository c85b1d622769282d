"""`pekan.check`: the one entry to judging, for Python and for the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pekan import native
from pekan.durations import parse_ms
from pekan.errors import EnvironmentFailure, UsageError
from pekan.history.types import History
from pekan.models.object import Model
from pekan.models.ready import READY
from pekan.verdict import Verdict

MODELS = (*READY, "etcd")
ENGINES = ("auto", "reference", "native", "generic")


def check(
    history: History | str | os.PathLike[str],
    *,
    model: Model | str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name on the command line
    engine: str = "auto",
    budget: str | float | None = None,
    allow: Sequence[str] = (),
    clock_skew: str | None = None,
    writers: Literal["exclusive", "shared"] = "exclusive",
) -> Verdict:
    """Judge a recorded run or a history.

    history     a run directory, its history file, a history in one of the formats of `pekan.history.foreign`, or a `History`
    model       what was promised: one of MODELS, or a `Model` of your own; without it, what the file names or its calls look like
    format      how the file is written; guessed where it tells
    engine      "auto": the native core where it is there and takes the history, else the reference in Python; their answers are the same.
                "native": the same, and the verdict notes why where the core did not take it. "reference": without the core. "generic": the
                search for a legal order that knows nothing of etcd nor of distinct values, a second opinion on small histories
    budget      bound on every search, seconds or a text like "30s"; what it leaves open is undecided
    allow       finding codes that are notes here, besides those that the run's plan allows; "known": those of docs/known-deviations.md
    clock_skew  largest difference between clock domains, e.g. "5ms"; without it real-time edges hold only within a domain
    writers     "shared" where others write to the same store: changes that nobody here asked for are theirs

    Raises EvidenceError where the file cannot be read as evidence, UsageError for an option that makes no sense, EnvironmentFailure where
    the native engine is asked for and not there.
    """
    from pekan.checkers.case import Options
    from pekan.checkers.judge import judge
    from pekan.history.foreign import READERS, load_any

    _one_of("model", model if isinstance(model, str) else None, MODELS)
    _one_of("format", format, tuple(READERS))
    _one_of("engine", engine, ENGINES)
    _one_of("writers", writers, ("exclusive", "shared"))
    if engine == "native" and native.core is None:
        raise EnvironmentFailure(f"--engine native: the native core is not there: {native.reason}; {native.remedy}")
    loaded = history if isinstance(history, History) else load_any(Path(history), format, engine=engine)
    planned = loaded.plan.allow if loaded.plan else ()
    options = Options(
        allow=tuple(dict.fromkeys((*planned, *allow))),
        clock_skew_ns=None if clock_skew is None else parse_ms(clock_skew, "--clock-skew") * 1_000_000,
        writers=writers,
        budget_s=parse_ms(budget, "--budget") / 1_000 if isinstance(budget, str) else budget,
        model=model,
        engine=engine,
    )
    return judge(loaded, options, engine)


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"--{name} {value}: not known; choose from {', '.join(known)}")
