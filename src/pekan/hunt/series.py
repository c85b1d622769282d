"""Runs over seeds: each conducted and judged, their findings grouped by signature.

::

    seed, seed + 1, ...  ──> conduct ──> judge ──> Judged      until `runs` are done, one is broken, or somebody says stop
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pekan.checking import check
from pekan.errors import EnvironmentFailure, EvidenceError
from pekan.etcd.binaries import Binary
from pekan.history.reading import load
from pekan.history.run import RunDirectory
from pekan.history.types import History
from pekan.hunt.early import watch_findings
from pekan.hunt.live import Live
from pekan.hunt.planning import with_seed, workloads_of
from pekan.hunt.run import Conducted, conduct
from pekan.plan import Plan
from pekan.verdict import Finding, Verdict

Show = Callable[[Live], None]
SHOW_EVERY_S = 0.5
FREE_BYTES_MIN = 2 << 30
"""Three members preallocate about 400 MB of logs and databases, and evidence of earlier runs must not be the victim."""
DESCRIPTORS = 1 << 16
"""Enough for a thousand members and their streams, little enough that a loop over all descriptors stays cheap."""
EXIT_SEVERITY = (1, 130, 4, 2, 3, 0)
"""Exit codes from worst to best: a broken promise outranks everything, then what kept a run from being judged."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One run with its verdict. `verdict` is None where the record could not be judged; `seconds` is wall time of the run."""

    plan: Plan
    conducted: Conducted
    history: History | None
    verdict: Verdict | None
    seconds: float

    @property
    def path(self) -> Path:
        return self.conducted.run.path

    @property
    def exit_code(self) -> int:
        """130 where interrupted, 4 where the environment failed and nothing is broken, else the verdict's."""
        if self.verdict is not None and self.verdict.verdict == "broken" and self.conducted.reason != "interrupted":
            return self.verdict.exit_code
        if self.conducted.reason == "interrupted":
            return 130
        if self.conducted.failure is not None:
            return self.conducted.failure.exit_code
        return 3 if self.verdict is None else self.verdict.exit_code


def hunt_once(
    plan: Plan,
    binary: Binary,
    directory: Path,
    show: Show,
    *,
    keep: bool = False,
    until_broken: bool = False,
    sought: Collection[str] = (),
    budget_s: float | None = None,
) -> Judged:
    """Conduct `plan` into a new run directory at `directory` and judge the record. PekanErrors before the first record are raised.

    `until_broken`: traffic and faults end early, in good order, when a promise is seen broken; where codes are `sought`, one of those.
    """
    began = time.monotonic()
    _many_descriptors()
    run = RunDirectory.create(directory, plan)
    live = Live(seed=plan.seed, etcd=binary.version)
    conducted = asyncio.run(_conduct(plan, binary, run, live, show, keep, until_broken, sought))
    live.phase = "judging"
    show(live)
    history = verdict = None
    with contextlib.suppress(EvidenceError):
        history = load(run.path)
        # Without a start mark the cluster never served: that is the environment's failure, and there is nothing to judge.
        if any(mark.kind == "start" for mark in history.marks):
            verdict = check(history, budget=budget_s)
            live.findings = len(verdict.codes)
            show(live)
    if not keep:
        # An image that shows something wrong is evidence that nobody could make again.
        run.drop_images(
            [image for finding in verdict.findings if isinstance(image := finding.subject.get("image"), int)] if verdict else ()
        )
    return Judged(plan, conducted, history, verdict, time.monotonic() - began)


def _many_descriptors() -> None:
    """Let this process open as many files as it may: clients, proxies, hooks and namespaces of members that come and go need some dozen a
    member, and the usual soft limit of 1,024 is there for select(2), which nobody here uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _conduct(
    plan: Plan, binary: Binary, run: RunDirectory, live: Live, show: Show, keep: bool, until_broken: bool, sought: Collection[str]
) -> Conducted:
    async def shows() -> None:
        while True:
            show(live)
            await asyncio.sleep(SHOW_EVERY_S)

    loop = asyncio.get_running_loop()
    broken = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        aside = [group.create_task(shows()), group.create_task(watch_findings(run.path, live, broken, sought))]
        work = group.create_task(conduct(plan, binary, run, live, keep=keep, enough=broken if until_broken else None))
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, work.cancel)
        try:
            return await work
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            for task in aside:
                task.cancel()


def series(
    plan: Plan,
    binary: Binary,
    place: Callable[[Plan], Path],
    show: Show,
    *,
    runs: int,
    until_broken: bool = False,
    in_turn: bool = False,
    keep: bool = False,
    budget_s: float | None = None,
) -> Iterator[Judged]:
    """Runs for seeds plan.seed, plan.seed + 1, ...; at most `runs` (0: no bound, with `until_broken`).

    `in_turn`: each seed has the workload whose turn it is. Ends, with EnvironmentFailure, before a run for which the disk has no room.
    Ends after an interrupted run, and with `until_broken` after a broken one, which itself ends as soon as that is seen. A run whose
    cluster did not come up is yielded like any other; the caller decides.
    """
    number = 0
    while runs == 0 or number < runs:
        one = plan if number == 0 else with_seed(plan, plan.seed + number)
        if in_turn:
            one = replace(one, workloads=workloads_of(one.seed))
        directory = place(one)
        if number > 0:
            room_for_another(directory)
        judged = hunt_once(one, binary, directory, show, keep=keep, until_broken=until_broken, budget_s=budget_s)
        yield judged
        number += 1
        if judged.conducted.reason == "interrupted":
            return
        if until_broken and judged.verdict is not None and judged.verdict.verdict == "broken":
            return


def room_for_another(directory: Path) -> None:
    """Raise EnvironmentFailure where the disk has no room for one more run at `directory`."""
    standing = next(parent for parent in directory.absolute().parents if parent.exists())
    free = shutil.disk_usage(standing).free
    if free < FREE_BYTES_MIN:
        raise EnvironmentFailure(
            f"{standing}: {free / 1e9:.1f} GB free; a series goes on only while there are {FREE_BYTES_MIN / 1e9:.1f} GB, free some space"
        )


def worst(codes: list[int]) -> int:
    """The exit code of a series: that of its worst run."""
    return next((code for code in EXIT_SEVERITY if code in codes), 0)


def grouped(results: list[Judged]) -> list[tuple[Finding, int, int]]:
    """Findings that count over all runs by signature: (first seen, times in all, runs that show it), most runs first."""
    seen: dict[str, tuple[Finding, int, int]] = {}
    for result in results:
        for finding in result.verdict.findings if result.verdict else ():
            if finding.status == "counts":
                first, times, runs = seen.get(finding.signature, (finding, 0, 0))
                seen[finding.signature] = (first, times + finding.count, runs + 1)
    return sorted(seen.values(), key=lambda row: (-row[2], row[0].code))
