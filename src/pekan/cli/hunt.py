"""`pekan hunt`: run traffic and faults against a real etcd, record it, judge it."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from rich.live import Live as LiveLine
from rich.text import Text

from pekan.catalogue import allowed
from pekan.cli.etcd import binary_progress
from pekan.cli.output import ALLOW, hints_of, json_option, program, reports_errors, stderr, stdout
from pekan.durations import parse_ms, show_ms
from pekan.errors import EnvironmentFailure, PekanError, UsageError
from pekan.places import data_directory
from pekan.plan import Plan

if TYPE_CHECKING:
    from pekan.etcd.binaries import Binary
    from pekan.hunt.live import Live
    from pekan.hunt.series import Judged
    from pekan.report import Hints

SEED_MAX = 2**63
LIVE_FAULTS_MAX = 4
"""Faults named on the live line at once; a line of a usual terminal has no room for more."""


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command()
@click.option(
    "--etcd",
    "etcd_spec",
    metavar="VERSION|PATH",
    help="3.5.1, 3.6 (newest patch), a binary, an archive. [etcd on PATH, else newest cached]",
)
@click.option("--members", type=int, default=3, show_default=True, help="1, 3 or 5.")
@click.option("--time", "time_text", default="60s", show_default=True, help="How long traffic runs.")
@click.option("--workload", default="", metavar="NAME[,NAME]", callback=_names, help="kv, kubernetes, auth. [in turn, by seed]")
@click.option(
    "--faults",
    default="kill,pause,restart",
    show_default=True,
    metavar="CLASS|KIND[,...]",
    callback=_names,
    help="Drawn by the seed, several at once: by how often clusters meet them (day, week, year), all (inside etcd's promises), outside "
    "(= century: what etcd promises nothing under), none, or kinds by name (pekan doctor lists them).",
)
@click.option(
    "--fault",
    "fault_specs",
    multiple=True,
    metavar="SPEC",
    help='Exactly this one: KIND [leader|follower|any|NAME] [DURATION] [name=value ...] [at T | at revision R | on log "TEXT" | '
    "on failpoint NAME[#N] | on step NAME | after [healed] FAULT], e.g. 'pause leader 2s at 10s'. A run in which it does not fire is "
    "undecided.",
)
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=None, help="Of schedule and traffic. [drawn]")
@click.option("--runs", type=click.IntRange(1), default=None, help="This many runs, seeds counting up. [1]")
@click.option("--until-broken", is_flag=True, help="Go through seeds until a promise is broken, and stop that run as soon as it is seen.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan.json: do that run again.")
@click.option(
    "--shrink",
    "broken_run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Look for a smaller plan that still breaks what RUN broke; --runs for each candidate. [as many as its hit rate needs]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the run (of the runs, with several).")
@click.option("--allow", default="", metavar="CODE[,CODE]", callback=_names, help=ALLOW)
@click.option(
    "--rate",
    type=int,
    default=None,
    help="Operations a second over all clients; 0: as fast as they go. [0; in long runs what half of the free memory can judge]",
)
@click.option("--concurrency", type=int, default=8, show_default=True, help="Clients of the main traffic.")
@click.option("--timeout", "timeout_text", default="2s", show_default=True, help="Deadline of each request.")
@click.option("--tls", is_flag=True, help="TLS everywhere, with a CA made for the run.")
@click.option("--etcd-flag", "flags", multiple=True, metavar="NAME=VALUE", help="A flag for every member, by its newest name.")
@click.option("--budget", default="60s", show_default=True, help="Bound on judging by wall time; reaching it is undecided.")
@click.option(
    "--keep",
    is_flag=False,
    flag_value="data",
    type=click.Choice(["data", "all"]),
    help="Keep the members' data directories; with 'all' also the records of runs in a series that hold.",
)
@json_option
@reports_errors
def hunt(
    etcd_spec: str | None,
    members: int,
    time_text: str,
    workload: tuple[str, ...],
    faults: tuple[str, ...],
    fault_specs: tuple[str, ...],
    seed: int | None,
    runs: int | None,
    until_broken: bool,
    plan_file: Path | None,
    broken_run: Path | None,
    out: Path | None,
    allow: tuple[str, ...],
    rate: int | None,
    concurrency: int,
    timeout_text: str,
    tls: bool,
    flags: tuple[str, ...],
    budget: str,
    keep: str | None,
    as_json: bool,
) -> int:
    """Hunt a real etcd: start it, drive it under faults, record everything, judge the record.

    \b
    Example:
      pekan hunt --etcd 3.5.1 --time 30s --seed 1
    """
    needs()
    from pekan.hunt.planning import judgeable_rate, left_out_here, make_plan, possible_here, workloads_of
    from pekan.hunt.series import series, worst

    budget_s = parse_ms(budget, "--budget") / 1000
    if broken_run is not None:
        from pekan.cli.shrinking import shrink_run

        _alone("--shrink", "broken_run", "etcd_spec", "runs", "out", "allow", "budget", "as_json")
        return shrink_run(broken_run, etcd_spec, runs, out, allow, budget_s, as_json)
    if plan_file is not None:
        plan = _read_plan(plan_file)
        if etcd_spec is not None:
            plan = replace(plan, etcd=etcd_spec)
        plan = possible_here(plan)
    else:
        if seed is None:
            seed = time.time_ns() % 1_000_000
            click.echo(f"seed {seed}", err=True)
        time_ms = parse_ms(time_text, "--time")
        asked = Plan(
            etcd=etcd_spec or "",
            seed=seed,
            members=members,
            workloads=workload or workloads_of(seed),
            time_ms=time_ms,
            rate=judgeable_rate(time_ms) if rate is None else rate,
            concurrency=concurrency,
            timeout_ms=parse_ms(timeout_text, "--timeout"),
            tls=tls,
            flags=tuple(_flag(text) for text in flags),
            allow=allow,
        )
        plan = make_plan(asked, faults, fault_specs)
    for absent in left_out_here(plan):
        click.echo(f"note: no {absent.name} here: {absent.why_not}", err=True)
    plan = replace(plan, allow=allowed(plan.allow))
    count = runs or (0 if until_broken else 1)
    plan, binary = located(plan)
    tidy()
    place = placer(out, several=count != 1)
    results: list[Judged] = []
    in_turn = not workload and plan_file is None
    stopped: list[int] = []
    try:
        with live_line() as update:

            def show(live: Live) -> None:
                update(told(live))

            for judged in series(
                plan, binary, place, show, runs=count, until_broken=until_broken, in_turn=in_turn, keep=keep is not None, budget_s=budget_s
            ):
                results.append(judged)
                deliver(judged)
                if not as_json:
                    _show(judged, brief=count != 1)
                if count != 1 and keep != "all" and judged.verdict is not None and judged.verdict.verdict == "holds":
                    judged.conducted.run.drop_record()
    except PekanError as error:
        if not results:
            raise
        # What earlier runs found is not lost with the series.
        click.echo(f"pekan: {error}", err=True)
        stopped.append(error.exit_code)
    if as_json:
        click.echo(_json(results), nl=False)
    elif count != 1:
        _summary(results)
    _next(results)
    return worst([*stopped, *(result.exit_code for result in results)])


def needs() -> None:
    """Raises EnvironmentFailure where no cluster can be driven."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EnvironmentFailure(
            f"hunting drives Linux x86-64 binaries of etcd, and this is {sys.platform} on {platform.machine()}; "
            "`pekan check` judges recorded runs here"
        )
    if importlib.util.find_spec("grpc") is None:
        raise EnvironmentFailure("hunting needs gRPC: pip install 'pekan[hunt]'")


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.from_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--plan {path}: {error}") from None


def _flag(text: str) -> tuple[str, str]:
    name, equals, value = text.lstrip("-").partition("=")
    if not equals or not name:
        raise UsageError(f"--etcd-flag {text!r}: write name=value, as in snapshot-count=100")
    return name, value


def _alone(option: str, *taken: str) -> None:
    """Raise UsageError where an option was given besides `option` that is not among the parameters `taken`."""
    context = click.get_current_context()
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    for parameter in context.command.params:
        if parameter.name in given - set(taken):
            with_it = ", ".join(each.opts[0] for each in context.command.params if each.name in taken and each.opts[0] != option)
            raise UsageError(f"{option} takes the plan of its run, and no {parameter.opts[0]}; it goes with {with_it}")


def located(plan: Plan) -> tuple[Plan, Binary]:
    """The binary that `plan` asks for, and the plan with its exact version."""
    from pekan.etcd import binaries

    with binary_progress() as report:
        binary = binaries.find(plan.etcd, progress=report) if plan.etcd else binaries.find_default(progress=report)
    return replace(plan, etcd=binary.version if binaries.looks_like_version(plan.etcd) else plan.etcd or str(binary.path)), binary


def tidy() -> None:
    """Remove what earlier runs had to leave, and say so."""
    from pekan.faults import sweep

    swept = sweep()
    for line in (*(f"removed, left by an earlier run: {each}" for each in swept.undone), *(f"still left: {each}" for each in swept.left)):
        click.echo(f"note: {line}", err=True)


def placer(out: Path | None, *, several: bool) -> Callable[[Plan], Path]:
    """Where the run of a plan goes."""

    def place(plan: Plan) -> Path:
        if out is not None:
            return out / f"seed-{plan.seed}" if several else out
        stamp = time.strftime("%Y%m%d-%H%M%S")
        version = Path(plan.etcd).name
        return data_directory() / "runs" / f"{stamp}-etcd-{version}-seed-{plan.seed}-{os.getpid()}"

    return place


@contextmanager
def live_line() -> Iterator[Callable[[Text], None]]:
    """One line on a terminal that is rewritten; silence elsewhere."""
    console = stderr()
    if not console.is_terminal:
        yield lambda _text: None
        return
    with LiveLine(console=console, transient=True, auto_refresh=False) as line:
        yield lambda text: line.update(text, refresh=True)


def told(live: Live) -> Text:
    """What a run is doing, in a line."""
    rate = live.operations / max(live.elapsed_ms / 1000, 0.001)
    shown = live.faults[:LIVE_FAULTS_MAX]
    more = f" and {len(live.faults) - len(shown)} more" if len(live.faults) > len(shown) else ""
    now = f" (now: {', '.join(shown)}{more})" if shown else ""
    return Text.assemble(
        (f"etcd {live.etcd} seed {live.seed} ", "bold"),
        f"{live.phase} {live.elapsed_ms / 1000:.0f}/{live.time_ms / 1000:.0f} s  ",
        f"{live.operations:,} operations, {rate:,.0f}/s  faults fired: {live.fired}{now}  ",
        (f"findings so far: {live.findings}", "bold red" if live.findings else ""),
    )


def deliver(judged: Judged) -> None:
    """Write the verdict beside the evidence."""
    from pekan.report import faults_json, keep_verdict

    if judged.verdict is not None and judged.history is not None:
        note = keep_verdict(judged.path, judged.verdict, hints_of(judged.verdict.findings, judged.history), **faults_json(judged.history))
        if note:
            click.echo(f"note: {note}", err=True)


def _show(judged: Judged, *, brief: bool) -> None:
    from pekan.report import headline, print_faults, print_verdict

    console = stdout()
    if judged.conducted.failure is not None:
        click.echo(f"pekan: {judged.conducted.failure}", err=True)
    if judged.verdict is None or judged.history is None:
        return
    if brief:
        console.print(Text.assemble(f"seed {judged.plan.seed}: ", headline(judged.verdict)), end="")
        console.print(f"  {', '.join(judged.verdict.codes)}  {judged.path}", markup=False)
        return
    console.print(_about(judged), markup=False)
    print_verdict(console, judged.verdict, judged.history, hints_of(judged.verdict.findings, judged.history))
    print_faults(console, judged.history)


def _about(judged: Judged) -> str:
    plan = judged.plan
    faults = ", ".join(plan.fault_classes) or "none"
    members = f"{plan.members} member{'s' if plan.members > 1 else ''}"
    return f"etcd {plan.etcd}, {members}, {', '.join(plan.workloads)} for {show_ms(plan.time_ms)}, faults {faults}, seed {plan.seed}"


def _summary(results: list[Judged]) -> None:
    from pekan.hunt.series import grouped
    from pekan.report import print_summary

    rows = grouped(results)
    words = [result.verdict.verdict if result.verdict else "not judged" for result in results]
    stdout().print(f"{len(results)} runs: " + ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)))
    if rows:
        print_summary(stdout(), [(first.signature, first.summary, times, runs) for first, times, runs in rows])


def _json(results: list[Judged]) -> str:
    from pekan.hunt.series import grouped, worst
    from pekan.report import document_json, faults_json, findings_json, verdict_json

    one = results[0]
    if len(results) == 1 and one.verdict is not None:
        more = {"error": str(one.conducted.failure)} if one.conducted.failure else {}
        hints: Hints = {}
        if one.history is not None:
            more |= faults_json(one.history)
            hints = hints_of(one.verdict.findings, one.history)
        return verdict_json(one.verdict, hints, run=one.path, seed=one.plan.seed, etcd=one.plan.etcd, ended=one.conducted.reason, **more)
    words = [result.verdict.verdict for result in results if result.verdict]
    known: Hints = {}
    for result in results:
        if result.verdict is not None and result.history is not None:
            known = {**known, **hints_of(result.verdict.findings, result.history)}
    document = {
        "verdict": next((word for word in ("broken", "undecided", "holds") if word in words), "undecided"),
        "order": "real-time",
        "findings": [
            {**finding, "count": times, "runs": runs}
            for first, times, runs in grouped(results)
            for finding in findings_json((first,), known)
        ],
        "undecided": [reason.reason for result in results if result.verdict for reason in result.verdict.undecided],
        "operations": sum(result.verdict.operations for result in results if result.verdict),
        "seconds": round(sum(result.seconds for result in results), 3),
        "exit_code": worst([result.exit_code for result in results]),
        "runs": [
            {
                "seed": result.plan.seed,
                "run": str(result.path),
                "verdict": result.verdict.verdict if result.verdict else None,
                "ended": result.conducted.reason,
                "error": str(result.conducted.failure) if result.conducted.failure else None,
                "faults": faults_json(result.history).get("faults") if result.history is not None else None,
            }
            for result in results
        ],
    }
    return document_json(document)


def _next(results: list[Judged]) -> None:
    """The last lines on stderr: where the record is, and what to type next."""
    if not results:
        return
    last = next((result for result in results if result.verdict and result.verdict.verdict == "broken"), results[-1])
    if last.verdict is not None and last.verdict.verdict == "holds":
        click.echo(f"etcd {last.plan.etcd} kept its promises here.", err=True)
    click.echo(f"run: {last.path}", err=True)
    if last.verdict is not None:
        click.echo(f"next: {program()} check {last.path}", err=True)
