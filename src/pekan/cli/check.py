"""`pekan check`: judge a recorded run."""

from __future__ import annotations

from pathlib import Path

import click

from pekan.cli.output import ALLOW, hints_of, json_option, reports_errors, stdout
from pekan.errors import UsageError
from pekan.places import data_directory


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--model", help="What was promised: etcd, register, fifo-queue, ... (docs/models.md); guessed where the file tells.")
@click.option("--format", "form", help="How the file is written (pekan, edn, jsonl, ...: docs/histories.md); guessed where it tells.")
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    help="auto, native (the core in Rust), reference (in Python) or generic (a second opinion on small histories).",
)
@click.option("--budget", default="10m", show_default=True, help="Bound on judging by wall time; reaching it is undecided.")
@click.option("--allow", default="", metavar="CODE[,CODE]", help=ALLOW)
@click.option("--clock-skew", metavar="D", help="Largest difference between clock domains, e.g. 5ms.")
@click.option("--writers", type=click.Choice(["exclusive", "shared"]), default="exclusive", show_default=True)
@json_option
@reports_errors
def check(
    file: Path | None,
    model: str | None,
    form: str | None,
    engine: str,
    budget: str,
    allow: str,
    clock_skew: str | None,
    writers: str,
    as_json: bool,
) -> int:
    """Judge FILE: a run directory, its history file, or a history of another tool; without FILE the newest run.

    The verdict of a run is written into it as verdict.json.

    \b
    Example:
      pekan hunt --time 20s --out run; pekan check run
    """
    from pekan.checking import check as judge
    from pekan.history.foreign import load_any
    from pekan.report import faults_json, keep_verdict, print_faults, print_verdict, verdict_json

    if file is None:
        file = _newest_run()
        click.echo(f"run: {file}", err=True)
    history = load_any(file, form, engine=engine)
    verdict = judge(
        history,
        model=model,
        format=form,
        engine=engine,
        budget=budget,
        allow=tuple(code for code in allow.split(",") if code),
        clock_skew=clock_skew,
        writers="shared" if writers == "shared" else "exclusive",
    )
    faults = faults_json(history)
    hints = hints_of(verdict.findings, history)
    note = keep_verdict(file, verdict, hints, **faults)
    if as_json:
        click.echo(verdict_json(verdict, hints, run=file, **faults), nl=False)
    else:
        print_verdict(stdout(), verdict, history, hints)
        print_faults(stdout(), history)
    if note:
        click.echo(f"note: {note}", err=True)
    return verdict.exit_code


def _newest_run() -> Path:
    runs = data_directory() / "runs"
    histories = sorted(runs.glob("*/history.pb"), key=lambda path: path.stat().st_mtime)
    if not histories:
        raise UsageError(f"no run in {runs}; name a run directory, or make one with `pekan hunt`")
    return histories[-1].parent
