"""`pekan hunt --shrink RUN`: a smaller plan that still breaks what RUN broke."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from pekan.catalogue import allowed
from pekan.cli.hunt import deliver, live_line, located, placer, tidy, told
from pekan.cli.output import program, stdout
from pekan.durations import show_ms
from pekan.history.run import RunDirectory
from pekan.plan import Plan

if TYPE_CHECKING:
    from pekan.hunt.live import Live
    from pekan.hunt.series import Judged
    from pekan.shrink import Measured, Progress, Shrunk, Sought, Trials

NEVER, STOPPED = "never", "stopped"
KINDS_TOLD_MAX = 8
"""Of what is left out of a workload; the plan has them all."""


def shrink_run(
    broken: Path, etcd: str | None, runs: int | None, out: Path | None, allow: tuple[str, ...], budget_s: float, as_json: bool
) -> int:
    """Shrink the plan of the run at `broken`; the smaller plan and its last broken run go to `out`. Returns the exit code.

    1: the smaller plan shows it (a run of it is broken); 3: the plan did not show it again; 130, 4: ended early, with what there was.
    """
    from pekan.hunt.planning import left_out_here, possible_here
    from pekan.shrink import Trials, shrink, sought_in, spelled_out

    run = RunDirectory.open(broken)
    plan = run.plan()
    plan = replace(plan, etcd=etcd or plan.etcd, allow=allowed((*plan.allow, *allow)))
    sought, *others = sought_in(run, plan.allow, budget_s)
    for absent in left_out_here(plan):
        click.echo(f"note: no {absent.name} here: {absent.why_not}", err=True)
    plan, binary = located(spelled_out(possible_here(plan)))
    tidy()
    others_told = f"; {', '.join(each.code for each in others)} beside it: --allow what is not looked for" if others else ""
    click.echo(f"looking for {sought.code} ({sought.summary}){others_told}", err=True)
    began = time.monotonic()
    with live_line() as update:
        where = ""

        def show(live: Live) -> None:
            update(Text.assemble((f"{where}  ", "bold"), told(live)))

        def tell(progress: Progress) -> None:
            nonlocal where
            where = line_of(progress)
            trials.deliver(progress.best)
            if progress.taken:
                click.echo(where, err=True)

        trials = Trials(binary, sought, placer(out, several=False)(plan), deliver, show, budget_s)
        with trials:
            result = shrink(plan, trials, runs=runs, tell=tell)
            last = trials.deliver(result.plan)
            if result.failure is not None and last is None:
                raise result.failure
            path = trials.settle(result.plan) if result.first.hits else None
    seconds = time.monotonic() - began
    if as_json:
        click.echo(_json(plan, result, trials, sought, last, path, seconds), nl=False)
    else:
        _print(plan, result, trials, sought, seconds)
    if result.failure is not None:
        click.echo(f"pekan: {result.failure}", err=True)
    if path is not None:
        click.echo(f"smaller plan and a run of it: {path}" if last is not None else f"smaller plan: {path}", err=True)
        click.echo(f"next: {program()} hunt --plan {path / 'plan.json'}", err=True)
    return 130 if result.ended == STOPPED else 3 if result.ended == NEVER else result.failure.exit_code if result.failure else 1


def line_of(progress: Progress) -> str:
    """Where the search is, in a line."""
    seen = f"{progress.seen.hits}/{progress.seen.runs} hit"
    reduction = progress.reduction
    if reduction is None:
        which = "first plan" if progress.best == progress.first else "smaller plan"
        return f"measuring the {which}: {seen}"
    left = f"{reduction.size(progress.best)} of {reduction.size(progress.first)} {reduction.unit} left"
    return f"{left}, candidate {progress.candidate}, {seen}"


def _rate(measured: Measured) -> str:
    if not measured.runs:
        return "not measured"
    low, high = measured.interval
    return f"{measured.hits} of {measured.runs} runs ({low:.0%} to {high:.0%})"


def differences(first: Plan, plan: Plan) -> list[tuple[str, str, int | str, int | str]]:
    """What has become smaller: (name, unit, how it was, how it is)."""
    from pekan.shrink import REDUCTIONS

    rows: list[tuple[str, str, int | str, int | str]] = [
        (reduction.name, reduction.unit, reduction.size(first), reduction.size(plan))
        for reduction in REDUCTIONS
        if reduction.size(first) != reduction.size(plan)
    ]
    if first.rate != plan.rate:
        rows.append(("rate", "operations a second", first.rate or "no limit", plan.rate))
    if first.tls != plan.tls:
        rows.append(("tls", "TLS", "yes", "no"))
    if first.flags != plan.flags:
        rows.append(("flags", "flags", _flags(first), _flags(plan)))
    return rows


def _flags(plan: Plan) -> str:
    return ", ".join(f"{name}={value}" for name, value in plan.flags) or "none"


def _kept(plan: Plan) -> list[tuple[str, str]]:
    """What the plan still does: (of what, in words)."""
    from pekan.faults import show
    from pekan.workloads import kinds_of, left_in

    rows = [("fault", show(fault)) for fault in plan.schedule.faults]
    every = kinds_of(plan)
    for name, kinds in left_in(plan).items():
        more = f" and {len(kinds) - KINDS_TOLD_MAX} more" if len(kinds) > KINDS_TOLD_MAX else ""
        rows.append((name, "everything" if kinds == every[name] else ", ".join(kinds[:KINDS_TOLD_MAX]) + more))
    rows += [(f"lane {lane.name}", ", ".join(step.name or step.call for step in lane.steps)) for lane in plan.script]
    return rows


def _print(first: Plan, result: Shrunk, trials: Trials, sought: Sought, seconds: float) -> None:
    console = stdout()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    if result.ended == NEVER:
        runs, most = result.first.runs, result.first.interval[1]
        say(f"{sought.code} did not show again in {runs} runs of the plan: it hits in fewer than {most:.0%}")
        say("More runs for each candidate (--runs) give it more chances.")
        return
    say(f"{sought.code}: {_rate(result.last)} of the smaller plan hit; {_rate(result.first)} of the first one did")
    same = trials.same_signature(result.plan)
    if same.hits < same.runs:
        say(f"in {same.hits} of {same.runs} of its hits by the kinds of operations of the run that was given, else by others")
    for _, unit, was, now in differences(first, result.plan):
        say(f"  {unit}: {was} -> {now}")
    if result.plan == first:
        say("  nothing could go")
    say("left:")
    for what, words in _kept(result.plan):
        say(f"  {what}: {words}")
    if result.rule is not None:
        rule, took = result.rule, show_ms(int(seconds) * 1000)
        say(
            f"{result.candidates} candidates, {result.runs} runs, {took}; taken at {rule.needed} hits of {rule.runs}: "
            f"refuses {rule.refuses:.0%} of plans as good as the first one, takes {rule.takes:.0%} of those with a quarter of its rate"
        )
    if result.undone:
        say(f"{result.undone} steps that hit too rarely in the end were undone")
    if result.ended == "many":
        say("ended at its bound of candidates: shrink the smaller plan's run again to go on")


def _measured(measured: Measured) -> dict[str, Any]:
    return {"hits": measured.hits, "runs": measured.runs, "rate": measured.rate, "interval": list(measured.interval)}


def _json(first: Plan, result: Shrunk, trials: Trials, sought: Sought, last: Judged | None, path: Path | None, seconds: float) -> str:
    from pekan.report import verdict_json

    shrunk = {
        "code": sought.code,
        "signature": sought.signature,
        "plan": None if path is None else str(path / "plan.json"),
        "first": _measured(result.first),
        "last": _measured(result.last),
        "same_signature": _measured(trials.same_signature(result.plan)),
        "smaller": {name: {"was": was, "is": now} for name, _, was, now in differences(first, result.plan)},
        "rule": None if result.rule is None else result.rule._asdict(),
        "candidates": result.candidates,
        "runs": result.runs,
        "undone": result.undone,
        "ended": result.ended,
        "error": None if result.failure is None else str(result.failure),
        "seconds": round(seconds, 3),
    }
    if last is not None and last.verdict is not None:
        return verdict_json(last.verdict, run=path, shrink=shrunk)
    document = {"verdict": "undecided", "order": "real-time", "findings": [], "undecided": [], "operations": 0, "seconds": 0.0}
    return json.dumps({**document, "shrink": shrunk}, indent=2) + "\n"
