"""One run of a candidate on a real cluster, and the run directories that come of many.

::

    RUN ──> what is sought: code, signature
    plan ──> hunt_once, until the code is seen ──> hit ──> .OUT-trials/run-N ──> OUT, of the best plan so far
                                               └─> no hit, removed

A run *hits* when a finding of the sought code counts in it. The signature, which tells the shape of the finding as well, is counted beside:
a smaller plan may meet the same broken promise by other operations.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pekan.checking import check
from pekan.errors import EnvironmentFailure, UsageError
from pekan.etcd.binaries import Binary
from pekan.history.run import RunDirectory
from pekan.hunt.live import Live
from pekan.hunt.series import Judged, hunt_once, room_for_another
from pekan.plan import Plan
from pekan.shrink.rates import Measured
from pekan.shrink.search import Stopped

FAILED_MAX = 3
"""Runs that follow each other and do not come about. One may meet a port or a processor that somebody else needs; three are a state."""


class Sought(NamedTuple):
    """What smaller plans have to show: a finding of this code. `signature` and `summary` are of the run that it is taken from."""

    code: str
    signature: str
    summary: str


def sought_in(run: RunDirectory, allowed: Collection[str], budget_s: float | None = None) -> tuple[Sought, ...]:
    """What counts in `run`, the first finding of each code, in the order of its verdict; codes that are `allowed` do not.

    By the run's verdict.json where that says broken, else judged anew. Raises UsageError where nothing counts.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(run.verdict_path.read_text(encoding="utf-8"))["findings"]
        found = [Sought(each["code"], each["signature"], each["summary"]) for each in told if each["status"] == "counts"]
        if chosen := _chosen(found, allowed):
            return chosen
    verdict = check(run.path, budget=budget_s)
    found = [Sought(each.code, each.signature, each.summary) for each in verdict.findings if each.status == "counts"]
    if chosen := _chosen(found, allowed):
        return chosen
    counts = ", ".join(verdict.codes)
    left = f"; what counts in it is allowed: {counts}" if counts else ""
    raise UsageError(f"--shrink {run.path}: the verdict is {verdict.verdict}{left}; give a run in which a promise is broken")


def _chosen(found: list[Sought], allowed: Collection[str]) -> tuple[Sought, ...]:
    first: dict[str, Sought] = {}
    for each in found:
        if each.code not in allowed:
            first.setdefault(each.code, each)
    return tuple(first.values())


class Trials:
    """Runs of candidates. Called with a plan it does one run and says whether that hit; used as a context it removes what it leaves.

    out     where a run that hit of the plan that was delivered last lies; must not be there yet, or be empty
    ran     told of each run that hit, which then lies at its path: verdicts are written there
    show    what a run is doing
    """

    def __init__(
        self,
        binary: Binary,
        sought: Sought,
        out: Path,
        ran: Callable[[Judged], None],
        show: Callable[[Live], None],
        budget_s: float | None = None,
    ) -> None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out}: is not an empty directory; the smaller plan needs a directory of its own, give another one")
        self._binary, self._sought, self._out, self._ran, self._show, self._budget_s = binary, sought, out, ran, show, budget_s
        self._place = out.absolute().parent / f".{out.name}-trials-{os.getpid()}"
        self._number = 0
        """Of what was put into `_place` last."""
        self._hits: dict[str, Judged] = {}
        """The last run that hit of each plan that is still of interest, by the plan's text."""
        self._lies: dict[str, Path] = {}
        """Where it lies."""
        self._first = ""
        self._delivered = ""
        self._same: dict[str, Measured] = {}
        """Plan's text -> how many of its hits had the very signature."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._place, ignore_errors=True)

    def __call__(self, plan: Plan) -> bool:
        """One run. Raises `Stopped` where it was interrupted, and what keeps runs from coming about after FAILED_MAX of them."""
        self._forget(plan.to_text())
        for left in range(FAILED_MAX, 0, -1):
            self._number += 1
            path = self._place / f"run-{self._number}"
            room_for_another(path)
            judged = hunt_once(
                plan, self._binary, path, self._show, until_broken=True, sought=(self._sought.code,), budget_s=self._budget_s
            )
            if judged.conducted.reason == "interrupted":
                raise Stopped
            found = [each for each in judged.verdict.findings if each.status == "counts"] if judged.verdict is not None else []
            if any(each.code == self._sought.code for each in found):
                self._keep(judged, any(each.signature == self._sought.signature for each in found))
                return True
            shutil.rmtree(path, ignore_errors=True)
            if judged.verdict is not None and judged.conducted.failure is None:
                return False
            if left == 1:
                raise judged.conducted.failure or EnvironmentFailure(f"{FAILED_MAX} runs after each other left nothing to judge")
        raise AssertionError("returned or raised")

    def _keep(self, judged: Judged, same: bool) -> None:
        text = judged.plan.to_text()
        self._first = self._first or text
        before = self.same_signature(judged.plan)
        self._same[text] = Measured(before.hits + same, before.runs + 1)
        self._ran(judged)
        if text in self._lies:
            # One is enough; the one that was delivered stays where it is.
            shutil.rmtree(judged.path, ignore_errors=True)
            return
        self._hits[text], self._lies[text] = judged, judged.path

    def deliver(self, plan: Plan) -> Judged | None:
        """Put a run that hit of `plan` to `out`, in place of what lies there; that run, or None where none is kept."""
        text = plan.to_text()
        if text not in self._lies:
            return None
        if text != self._delivered:
            if self._delivered:
                self._number += 1
                aside = self._place / f"earlier-{self._number}"
                os.rename(self._out, aside)
                self._lies[self._delivered], self._delivered = aside, ""
            else:
                self._out.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self._lies[text], self._out)
            self._lies[text], self._delivered = self._out, text
        return self._hits[text]

    def same_signature(self, plan: Plan) -> Measured:
        """How many of all runs of `plan` that hit had the signature of the finding that is sought."""
        return self._same.get(plan.to_text(), Measured(0, 0))

    def settle(self, plan: Plan) -> Path:
        """See to it that `out` is of `plan`, at the end: where no run of it is kept, it has its plan.json alone. Returns `out`."""
        if self.deliver(plan) is None:
            if self._delivered:
                shutil.rmtree(self._out)
            RunDirectory.create(self._out, plan)
        return self._out

    def _forget(self, text: str) -> None:
        """Remove the runs of plans that are neither the first one, nor the one delivered, nor the one that is run now."""
        for other in [each for each in self._lies if each not in (text, self._first, self._delivered)]:
            shutil.rmtree(self._lies.pop(other), ignore_errors=True)
            del self._hits[other]
