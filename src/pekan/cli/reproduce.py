"""`pekan reproduce`: show a historical etcd inconsistency, by number, on a release as it was shipped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.padding import Padding
from rich.text import Text

from pekan.cli.etcd import binary_progress
from pekan.cli.hunt import SEED_MAX, deliver, live_line, needs, sweep_and_tell
from pekan.cli.output import hints_of, json_option, program, reports_errors, stderr, stdout
from pekan.durations import parse_ms
from pekan.errors import BinaryUnavailable, EnvironmentFailure, PekanError, UsageError
from pekan.issues import ISSUES, Issue, Recipe, called, like
from pekan.places import data_directory
from pekan.plan import Plan

if TYPE_CHECKING:
    from pekan.etcd.binaries import Binary
    from pekan.history.types import History
    from pekan.hunt.attempts import Attempt, Outcome
    from pekan.hunt.releases import Bisected, Tried

ATTEMPTS = 10
BISECT_ATTEMPTS = 5
"""A search tries half a dozen releases, and most of the time goes into those that show nothing."""
ALL = "all"
ANSWER_STYLES = {"shown": "bold red", "not shown": "bold green", "did not fire": "bold yellow", "undecided": "bold yellow"}
LABEL_COLUMNS = 10


@click.command()
@click.argument("number", required=False, metavar="[NUMBER|all]")
@click.option("--list", "list_", is_flag=True, help="What there is: number, story in a line, releases, what each needs.")
@click.option("--story", is_flag=True, help="What happens inside etcd, which releases are affected, and how it is met; nothing is run.")
@click.option(
    "--etcd",
    "etcd_spec",
    metavar="VERSION|PATH",
    help="3.5.1, 3.6 (newest patch), a binary, an archive. [the last affected release that can be had here, a cached one first]",
)
@click.option(
    "--attempts",
    "wanted",
    type=click.IntRange(1),
    default=None,
    help=f"So many that count. [{ATTEMPTS}; {BISECT_ATTEMPTS} of each with --bisect]",
)
@click.option("--until-shown", is_flag=True, help="End with the first attempt that shows it.")
@click.option("--bisect", "bisecting", is_flag=True, help="Find the last affected and the first fixed release, from real runs.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, help="Of the first attempt; they count up.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the runs.")
@click.option("--budget", default="60s", show_default=True, help="Bound on judging an attempt by wall time; reaching it is undecided.")
@click.option(
    "--keep",
    is_flag=False,
    flag_value="data",
    type=click.Choice(["data", "all"]),
    help="Keep the members' data directories; with 'all' also the records of attempts that show nothing.",
)
@json_option
@reports_errors
def reproduce(
    number: str | None,
    list_: bool,
    story: bool,
    etcd_spec: str | None,
    wanted: int | None,
    until_shown: bool,
    bisecting: bool,
    seed: int,
    out: Path | None,
    budget: str,
    keep: str | None,
    as_json: bool,
) -> int:
    """Reproduce a historical etcd inconsistency NUMBER (as at etcd's tracker), or all of them, on an unmodified release.

    Each attempt is a hunt whose requests and faults are spelled out, judged as every hunt is. The exit code is 1 where it is shown, 0 where
    its conditions fired in every attempt and it is not, and 3 where they fired in fewer.

    \b
    Example:
      pekan reproduce --list
      pekan reproduce 18089 --etcd 3.5.1 --attempts 3
    """
    if list_:
        return _list(as_json)
    if number is None:
        raise UsageError("which issue? Name its number, or `all`; --list shows what there is")
    issues = _chosen(number)
    if story:
        return _tell(issues, as_json)
    if bisecting and (until_shown or number == ALL):
        raise UsageError(
            "--bisect is for one issue, and finds out by itself how many attempts that takes"
            if until_shown
            else "--bisect is for one issue"
        )
    needs()
    asked = _Asked(
        etcd=etcd_spec,
        wanted=wanted or (BISECT_ATTEMPTS if bisecting else ATTEMPTS),
        until_shown=until_shown,
        seed=seed,
        out=out,
        several=bisecting or number == ALL,
        budget_s=parse_ms(budget, "--budget") / 1000,
        keep=keep,
        quiet=as_json,
    )
    sweep_and_tell()
    if bisecting:
        return _bisect(issues[0], asked)
    if number == ALL:
        return _all(issues, asked)
    return _one(issues[0], asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options, as far as they are about runs. `several`: of more than one issue or release; `quiet`: nothing but JSON on stdout."""

    etcd: str | None
    wanted: int
    until_shown: bool
    seed: int
    out: Path | None
    several: bool
    budget_s: float
    keep: str | None
    quiet: bool


@dataclass(frozen=True, slots=True)
class _Cell:
    """One issue on one release: what came of it, or why nothing could come of it, with the exit code of that."""

    issue: Issue
    etcd: str
    outcome: Outcome | None
    why_not: str = ""
    failed: int = 0
    origin: str = ""

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code if self.outcome is not None else self.failed


# ---- what there is ----


def _chosen(number: str) -> list[Issue]:
    if number == ALL:
        return list(ISSUES.values())
    issue = ISSUES.get(number.removeprefix("#"))
    if issue is None:
        raise UsageError(f"{number}: not known; there are {', '.join(ISSUES) or 'none'}, and `all`")
    return [issue]


def _list(as_json: bool) -> int:
    from pekan.report import document_json, print_table

    if as_json:
        click.echo(document_json({"issues": [_issue_json(issue) for issue in ISSUES.values()]}), nl=False)
        return 0
    rows = [
        (called(issue.name), issue.introduced or "always", _fixed_in(issue), needed(issue), f"{issue.title}. Breaks: {issue.guarantee}")
        for issue in ISSUES.values()
    ]
    print_table(stdout(), ("issue", "introduced", "fixed in", "needs", "what"), rows)
    click.echo(f"next: {program()} reproduce NUMBER --story, or {program()} reproduce NUMBER", err=True)
    return 0


def _fixed_in(issue: Issue) -> str:
    if issue.not_released:
        return "never released"
    return ", ".join(dict.fromkeys(boundary.first_fixed or "open" for boundary in issue.boundaries))


def needed(issue: Issue) -> str:
    """What the recipe of `issue` takes: members, and faults by kind."""
    recipe = _usual_recipe(issue)
    if recipe is None:
        return "-"
    kinds = dict.fromkeys(spec.split()[0] for spec in recipe.faults)
    members = f"{recipe.plan.members} member{'s' if recipe.plan.members > 1 else ''}"
    return ", ".join((members, *kinds))


def _usual_recipe(issue: Issue) -> Recipe | None:
    """The recipe for the newest of the releases that are said to be affected, or for any that is known of."""
    from pekan.etcd.binaries import known_versions

    for version in (
        *reversed([boundary.last_affected for boundary in issue.boundaries if boundary.last_affected]),
        *reversed(known_versions()),
    ):
        try:
            return issue.run(version)
        except UsageError:
            continue
    return None


def _issue_json(issue: Issue) -> dict[str, Any]:
    return {
        "issue": issue.name,
        "title": issue.title,
        "guarantee": issue.guarantee,
        "shows_as": issue.shows_as,
        "introduced": issue.introduced,
        "boundaries": [boundary._asdict() for boundary in issue.boundaries],
        "codes": issue.codes,
        "needs": needed(issue),
        "links": issue.links,
        "not_released": issue.not_released,
        "story": issue.story,
    }


def _tell(issues: Sequence[Issue], as_json: bool) -> int:
    from pekan.report import document_json

    if as_json:
        told = [{**_issue_json(issue), "recipe": _recipe_json(issue)} for issue in issues]
        click.echo(document_json({"issues": told}), nl=False)
        return 0
    console = stdout()
    for issue in issues:
        console.print(_heading(issue))
        for paragraph in issue.story.strip().split("\n\n"):
            console.print()
            console.print(Text(" ".join(paragraph.split())))
        console.print()
        _line("breaks", issue.guarantee)
        _line("shows as", f"{issue.shows_as} ({', '.join(issue.codes)})")
        _line("affected", affected_releases(issue))
        _line("needs", needed(issue))
        recipe = _usual_recipe(issue)
        for label, spec in zip(("faults", *[""] * 99), recipe.faults if recipe else (), strict=False):
            _line(label, spec)
        for label, link in zip(("see", *[""] * 99), issue.links, strict=False):
            _line(label, link)
        console.print()
    click.echo(f"next: {program()} reproduce {issues[0].name if len(issues) == 1 else ALL}", err=True)
    return 0


def _recipe_json(issue: Issue) -> dict[str, Any] | None:
    recipe = _usual_recipe(issue)
    return None if recipe is None else {"plan": recipe.plan.to_json(), "faults": recipe.faults}


def affected_releases(issue: Issue) -> str:
    """Which releases are said to be affected, in a phrase."""
    if issue.not_released:
        return issue.not_released
    lines = []
    for last, fixed in issue.boundaries:
        lines.append(
            f"up to {last}, fixed in {fixed}" if last and fixed else f"up to {last} at least, no fix" if last else f"fixed in {fixed}"
        )
    return f"{f'from {issue.introduced}, ' if issue.introduced else ''}{'; '.join(lines)}"


def _heading(issue: Issue) -> Text:
    return Text.assemble((called(issue.name), "bold"), "  ", (issue.title, "bold"))


def _line(label: str, text: str) -> None:
    stdout().print(Text.assemble((f"{label:<{LABEL_COLUMNS}}", "dim"), text))


# ---- one issue on one release ----


def _one(issue: Issue, asked: _Asked) -> int:
    from pekan.report import document_json

    cell, shown = _run(issue, asked)
    if cell.outcome is None:
        raise _failure(cell)
    if asked.quiet:
        click.echo(document_json(_cell_json(cell, shown)), nl=False)
    else:
        _others(cell.outcome)
        stdout().print(_answer(cell))
    _next(cell.outcome)
    return cell.exit_code


def _failure(cell: _Cell) -> PekanError:
    error = EnvironmentFailure if cell.failed == EnvironmentFailure.exit_code else UsageError
    return error(cell.why_not)


def _run(issue: Issue, asked: _Asked) -> tuple[_Cell, History | None]:
    """One issue on the release that is asked for, or its default; also the history of the first attempt that shows it."""
    try:
        version, binary, recipe = _prepared(issue, asked.etcd)
    except (UsageError, EnvironmentFailure) as error:
        return _Cell(issue, asked.etcd or "", None, str(error), error.exit_code), None
    return _attempted(issue, version, binary, recipe, asked)


def _prepared(issue: Issue, spec: str | None) -> tuple[str, Binary, Recipe]:
    """How the plan names the release, its executable, and the recipe for it."""
    from pekan.etcd import binaries

    if spec is None and issue.not_released:
        raise UsageError(f"{called(issue.name)}: {issue.not_released}; name an executable with --etcd PATH")
    with binary_progress() as report:
        binary = binaries.find(spec or _default_release(issue), progress=report)
    named = binary.version if spec is None or binaries.looks_like_version(spec) else spec
    return named, binary, issue.run(binary.version)


def _default_release(issue: Issue) -> str:
    from pekan.etcd import binaries
    from pekan.hunt.releases import last_to_show

    lasts = [boundary.last_affected for boundary in issue.boundaries if boundary.last_affected]
    return last_to_show(
        binaries.survey(offline=True), lasts, lambda version: issue.affects(version) is True and _has_recipe(issue, version)
    )


def _has_recipe(issue: Issue, version: str) -> bool:
    try:
        issue.run(version)
    except UsageError:
        return False
    return True


def _attempted(issue: Issue, named: str, binary: Binary, recipe: Recipe, asked: _Asked, first: int = 0) -> tuple[_Cell, History | None]:
    """Attempts at `issue` with `binary`, told as they end. `first`: how many seeds have been used up."""
    from pekan.hunt.attempts import Outcome, attempts
    from pekan.hunt.planning import make_plan
    from pekan.report import print_findings

    def plan_of(seed: int) -> Plan:
        return make_plan(replace(recipe.plan, etcd=named, seed=seed), (), recipe.faults)

    done: list[Attempt] = []
    shown: History | None = None
    if not asked.quiet:
        stdout().print(_heading(issue))
        _line("shows as", issue.shows_as)
        _line("on", _about(binary, plan_of(asked.seed + first), asked))

    def before() -> str:
        hits = sum(attempt.answer == "shown" for attempt in done)
        return f"{called(issue.name)} attempt {len(done) + 1} of {asked.wanted}, shown {hits}  "

    with live_line(before) as show:
        for attempt in attempts(
            plan_of,
            binary,
            _placer(issue, asked),
            show,
            first_seed=asked.seed + first,
            wanted=asked.wanted,
            expects=issue.expects,
            known_as=lambda finding: [each.called for each in like(finding, [binary.version]) if each.name != issue.name],
            until_shown=asked.until_shown,
            keep=asked.keep is not None,
            budget_s=asked.budget_s,
        ):
            deliver(attempt.judged)
            if not asked.quiet:
                _tell_attempt(len(done) + 1, attempt)
            if attempt.shown and shown is None:
                shown = attempt.judged.history
                if not asked.quiet and shown is not None:
                    print_findings(stdout(), attempt.shown, shown, hints_of(attempt.shown, shown))
                    stdout().print()
            if asked.keep != "all" and attempt.answer == "not shown":
                attempt.judged.conducted.run.drop_record()
            # A record is mapped into memory as long as somebody looks at it.
            done.append(replace(attempt, judged=replace(attempt.judged, history=None)))
    return _Cell(issue, named, Outcome(tuple(done), asked.wanted), origin=binary.origin), shown


def _about(binary: Binary, plan: Plan, asked: _Asked) -> str:
    members = f"{plan.members} member{'s' if plan.members > 1 else ''}"
    faults = ", ".join(dict.fromkeys(fault.kind for fault in plan.schedule.faults)) or "none"
    return f"etcd {binary.version} ({binary.origin}), {members}, {', '.join(plan.workloads)}, faults: {faults}, seeds from {plan.seed} on"


def _placer(issue: Issue, asked: _Asked) -> Callable[[Plan], Path]:
    """Where the run of a plan goes: DIR/seed-N, with several issues or releases DIR/ISSUE-etcd-VERSION/seed-N."""

    def place(plan: Plan) -> Path:
        version = Path(plan.etcd).name
        if asked.out is not None:
            inside = asked.out / f"{issue.name}-etcd-{version}" if asked.several else asked.out
            return inside / f"seed-{plan.seed}"
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return data_directory() / "runs" / f"{stamp}-etcd-{version}-issue-{issue.name}-seed-{plan.seed}-{os.getpid()}"

    return place


def _tell_attempt(number: int, attempt: Attempt) -> None:
    codes = ", ".join(dict.fromkeys(finding.code for finding in attempt.shown or attempt.other))
    masked = f"  masked by {', '.join(attempt.masked_by)}" if attempt.masked_by else ""
    kept = f"  {attempt.judged.path}" if attempt.answer != "not shown" else ""
    console = stdout()
    console.print(
        Text.assemble(
            f"attempt {number:>2}  ",
            (f"{attempt.answer:<12}", ANSWER_STYLES.get(attempt.answer, "bold")),
            f"  {attempt.judged.seconds:5.1f} s  {codes}{masked}{kept}",
        )
    )
    for why in attempt.why:
        console.print(Padding(Text(why, "dim"), (0, 0, 0, 12)))


def _others(outcome: Outcome) -> None:
    """Findings that count and were not expected, in a line each."""
    from pekan.hunt.attempts import grouped_findings

    rows = grouped_findings(outcome.attempts, lambda attempt: attempt.other)
    if rows:
        stdout().print("other findings:")
    for finding, times, runs in rows:
        stdout().print(f"  {finding.code} (x{times} in {runs} attempt{'s' if runs > 1 else ''}): {finding.summary}", markup=False)


def _answer(cell: _Cell) -> Text:
    outcome = cell.outcome
    if outcome is None:
        return Text(f"{called(cell.issue.name)} on etcd {cell.etcd}: not run, {cell.why_not}")
    median = f", median {outcome.median_s:.1f} s to the verdict" if outcome.median_s is not None else ""
    return Text.assemble(
        (f"{called(cell.issue.name)} on etcd {cell.etcd}: ", "bold"),
        (outcome.words, ANSWER_STYLES.get(outcome.answer, "bold")),
        median,
    )


def _next(outcome: Outcome) -> None:
    """The last lines on stderr: where the record is, and what to type next."""
    if not outcome.attempts:
        return
    last = next((attempt for attempt in outcome.attempts if attempt.answer == "shown"), outcome.attempts[-1])
    click.echo(f"run: {last.judged.path}", err=True)
    if last.judged.conducted.run.history_path.exists():
        click.echo(f"next: {program()} check {last.judged.path}", err=True)
    else:
        click.echo(f"next: {program()} hunt --plan {last.judged.path / 'plan.json'} does that run again", err=True)


# ---- JSON ----


def _cell_json(cell: _Cell, shown: History | None = None) -> dict[str, Any]:
    from pekan.hunt.attempts import grouped_findings
    from pekan.report import findings_json

    about = {"issue": cell.issue.name, "title": cell.issue.title, "etcd": cell.etcd, "origin": cell.origin, "exit_code": cell.exit_code}
    outcome = cell.outcome
    if outcome is None:
        return {**about, "answer": "not run", "why": cell.why_not}
    expected = grouped_findings(outcome.attempts, lambda attempt: attempt.shown)
    hints = hints_of([finding for finding, _, _ in expected], shown) if shown is not None else {}
    verdicts = [attempt.judged.verdict for attempt in outcome.attempts if attempt.judged.verdict is not None]
    words = [verdict.verdict for verdict in verdicts]
    return {
        "verdict": next((word for word in ("broken", "undecided", "holds") if word in words), "undecided"),
        "order": "real-time",
        **about,
        "answer": outcome.answer,
        "words": outcome.words,
        "asked": outcome.asked,
        "counted": outcome.counted,
        "fired": outcome.fired,
        "shown": outcome.shown,
        "median_seconds": None if outcome.median_s is None else round(outcome.median_s, 3),
        "masked_by": list(outcome.masked_by),
        "findings": [
            {**told, "count": times, "runs": runs} for finding, times, runs in expected for told in findings_json((finding,), hints)
        ],
        "other": [
            {**finding.to_json(), "count": times, "runs": runs}
            for finding, times, runs in grouped_findings(outcome.attempts, lambda attempt: attempt.other)
        ],
        "undecided": [vars_of for verdict in verdicts for vars_of in verdict.to_json()["undecided"]],
        "operations": sum(verdict.operations for verdict in verdicts),
        "seconds": round(sum(attempt.judged.seconds for attempt in outcome.attempts), 3),
        "attempts": [_attempt_json(attempt) for attempt in outcome.attempts],
    }


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    judged = attempt.judged
    return {
        "seed": judged.plan.seed,
        "run": str(judged.path),
        "verdict": judged.verdict.verdict if judged.verdict else None,
        "ended": judged.conducted.reason,
        "answer": attempt.answer,
        "counted": attempt.counted,
        "fired": attempt.fired,
        "why": list(attempt.why),
        "masked_by": list(attempt.masked_by),
        "codes": list(dict.fromkeys(finding.code for finding in attempt.shown)),
        "seconds": round(judged.seconds, 3),
    }


# ---- all of them ----


def _all(issues: Sequence[Issue], asked: _Asked) -> int:
    from pekan.hunt.series import worst
    from pekan.report import document_json, print_table

    cells: list[tuple[_Cell, History | None]] = []
    for issue in issues:
        cells.append(_run(issue, asked))
        cell, _ = cells[-1]
        if not asked.quiet:
            if cell.outcome is None:
                stdout().print(_heading(issue))
            stdout().print(_answer(cell))
            stdout().print()
        if cell.outcome is not None and cell.outcome.answer == "interrupted":
            break
    # What has no recipe for a release, and what cannot be done here, is told and is no answer.
    code = worst([cell.exit_code for cell, _ in cells if cell.outcome is not None]) if any(cell.outcome for cell, _ in cells) else 4
    if asked.quiet:
        told = [_cell_json(cell, shown) for cell, shown in cells]
        words = [cell.get("verdict") for cell in told]
        document = {
            "verdict": next((word for word in ("broken", "undecided", "holds") if word in words), "undecided"),
            "order": "real-time",
            "findings": [finding for cell in told for finding in cell.get("findings", ())],
            "undecided": [reason for cell in told for reason in cell.get("undecided", ())],
            "operations": sum(cell.get("operations", 0) for cell in told),
            "seconds": round(sum(cell.get("seconds", 0.0) for cell in told), 3),
            "exit_code": code,
            "issues": told,
        }
        click.echo(document_json(document), nl=False)
    else:
        print_table(stdout(), ("issue", "etcd", "shown", "fired", "median", "answer"), [_row(cell) for cell, _ in cells])
    return code


def _row(cell: _Cell) -> tuple[str, ...]:
    outcome = cell.outcome
    if outcome is None:
        return called(cell.issue.name), cell.etcd or "-", "-", "-", "-", f"not run: {cell.why_not}"
    median = "-" if outcome.median_s is None else f"{outcome.median_s:.1f} s"
    counts = (f"{outcome.shown}/{outcome.counted}", f"{outcome.fired}/{outcome.counted}", median)
    return called(cell.issue.name), cell.etcd, *counts, outcome.words


# ---- where it ends ----


def _bisect(issue: Issue, asked: _Asked) -> int:
    from pekan.etcd import binaries
    from pekan.hunt.releases import CannotTry, bisect

    claimed, lines = _claimed(issue, asked.etcd)
    rows = [row for row in binaries.survey(offline=True) if _of_lines(row.version, lines) and issue.not_released == ""]
    if issue.introduced:
        rows = [row for row in rows if binaries.version_key(row.version) >= binaries.version_key(issue.introduced)]
    if not rows:
        raise UsageError(
            f"{called(issue.name)}: no release to search in; {issue.not_released or 'name a line with --etcd, as in --etcd 3.5'}"
        )
    absent = {
        row.version: "; ".join(f"{name}: {why}" for name, why in row.why_not.items())
        for row in rows
        if not row.cached and not row.providers
    }
    releases = [row.version for row in rows if row.version not in absent]
    cells: dict[str, list[_Cell]] = {}

    def attempt(version: str) -> Tried:
        _progress(issue, f"trying etcd {version}")
        try:
            named, binary, recipe = _prepared(issue, version)
        except (BinaryUnavailable, UsageError) as error:
            raise CannotTry(str(error)) from None
        cell, _ = _attempted(issue, named, binary, recipe, replace(asked, until_shown=True, quiet=True))
        assert cell.outcome is not None, "it was run"
        cells[version] = [cell]
        _progress(issue, f"etcd {version}: {cell.outcome.words}")
        if cell.outcome.answer == "interrupted":
            raise click.Abort
        if cell.outcome.answer == "shown":
            return "shows"
        if cell.outcome.answer == "not shown" and not cell.outcome.masked_by:
            return "does not"
        raise CannotTry(cell.outcome.words)

    found = bisect(releases, attempt, cached={row.version for row in rows if row.cached}, claimed=claimed)
    if found.last_affected and found.first_fixed:
        # How often it shows where it does is what the misses where it does not are measured by.
        named, binary, recipe = _prepared(issue, found.last_affected)
        before = cells[found.last_affected][0].outcome
        used = len(before.attempts) if before is not None else 0
        more, _ = _attempted(issue, named, binary, recipe, replace(asked, until_shown=False, quiet=True), first=used)
        cells[found.last_affected].append(more)
        if more.outcome is not None and more.outcome.answer == "interrupted":
            raise click.Abort
    return _tell_bisected(issue, asked, found, cells, absent, claimed)


def _claimed(issue: Issue, line: str | None) -> tuple[tuple[str, str], tuple[str, str]]:
    """The pair that is said to be the one, and the first and last line of releases to search: those of it, or the one that is asked for."""
    from pekan.etcd.binaries import resolve_version

    asked = ".".join(resolve_version(line).split(".")[:2]) if line else ""
    for last, fixed in reversed(issue.boundaries) if not asked else issue.boundaries:
        ends = [".".join(version.split(".")[:2]) for version in (last, fixed) if version]
        if last and (asked in ends or (not asked and fixed)):
            return (last, fixed), (ends[0], ends[-1])
    if asked:
        return ("", ""), (asked, asked)
    if issue.boundaries:
        last, fixed = issue.boundaries[-1]
        ends = [".".join(version.split(".")[:2]) for version in (last, fixed) if version]
        return (last, fixed), (ends[0], ends[-1])
    raise UsageError(f"{called(issue.name)}: no release is named where it may end; name a line of releases with --etcd, as in --etcd 3.5")


def _of_lines(version: str, lines: tuple[str, str]) -> bool:
    line = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    first, last = (tuple(int(part) for part in each.split(".")) for each in lines)
    return "-" not in version and first <= line <= last


def _progress(issue: Issue, text: str) -> None:
    stderr().print(f"{called(issue.name)}: {text}", markup=False)


def _tell_bisected(
    issue: Issue,
    asked: _Asked,
    found: Bisected,
    cells: dict[str, list[_Cell]],
    absent: dict[str, str],
    claimed: tuple[str, str],
) -> int:
    from pekan.report import document_json, print_table

    left_out = {**absent, **found.left_out}
    between = [version for version in left_out if found.last_affected and found.first_fixed and _between(version, found)]
    counted = {version: [each.outcome for each in of_it if each.outcome is not None] for version, of_it in cells.items()}
    rows = {
        version: (sum(outcome.shown for outcome in outcomes), sum(outcome.counted for outcome in outcomes), outcomes[0].words)
        for version, outcomes in counted.items()
    }
    sure = _sureness(found, rows) if found.last_affected and found.first_fixed else ""
    said = _bisected_words(found, claimed, between)
    code = 0 if found.last_affected else 3
    if asked.quiet:
        document = {
            "issue": issue.name,
            "last_affected": found.last_affected,
            "first_fixed": found.first_fixed,
            "claimed": {"last_affected": claimed[0], "first_fixed": claimed[1]},
            "words": said,
            "sure": sure,
            "not_tried_between": between,
            "left_out": left_out,
            "releases": {version: {"shown": shown, "counted": of, "words": words} for version, (shown, of, words) in rows.items()},
            "cells": [_cell_json(cell) for of_it in cells.values() for cell in of_it],
            "exit_code": code,
        }
        click.echo(document_json(document), nl=False)
        return code
    console = stdout()
    console.print(_heading(issue))
    in_order = sorted({*rows, *found.left_out}, key=_key)
    print_table(console, ("etcd", "shown", "answer"), [_release_row(version, rows, found) for version in in_order])
    console.print()
    console.print(Text(f"{called(issue.name)}: {said}", "bold"))
    for line in filter(None, (sure, *(f"etcd {version} could not be tried: {left_out[version]}" for version in between))):
        console.print(line, markup=False)
    return code


def _key(version: str) -> tuple[int, ...]:
    from pekan.etcd.binaries import version_key

    return tuple(version_key(version))


def _between(version: str, found: Bisected) -> bool:
    return _key(found.last_affected) < _key(version) < _key(found.first_fixed)


def _release_row(version: str, rows: dict[str, tuple[int, int, str]], found: Bisected) -> tuple[str, str, str]:
    shown, counted, words = rows.get(version, (0, 0, ""))
    return version, f"{shown}/{counted}" if counted else "-", found.left_out.get(version) or words


def _bisected_words(found: Bisected, claimed: tuple[str, str], between: Sequence[str]) -> str:
    if not found.tried:
        return "no release gave an answer"
    if not found.last_affected:
        return f"not shown by any release that was tried, the newest of them {found.first_fixed}"
    as_claimed = ", as is said" if (found.last_affected, found.first_fixed) == claimed else ""
    if not found.first_fixed:
        return f"shown up to {found.last_affected}, the newest release that was tried{as_claimed}"
    gap = f" ({len(between)} between them could not be tried)" if between else ""
    said = "" if as_claimed or not any(claimed) else f"; said to be {claimed[0] or 'unknown'} and {claimed[1] or 'none'}"
    return f"last affected {found.last_affected}, first fixed {found.first_fixed}{gap}{as_claimed}{said}"


def _sureness(found: Bisected, rows: dict[str, tuple[int, int, str]]) -> str:
    """How likely it is that the first fixed release only looks so."""
    from pekan.hunt.releases import least_rate

    hits, tries, _ = rows[found.last_affected]
    _, misses, _ = rows[found.first_fixed]
    rate = least_rate(hits, tries)
    return (
        f"{hits} of {tries} attempts showed it on {found.last_affected} (at least {rate:.0%} of attempts do, with 95 % confidence) and 0 of "
        f"{misses} on {found.first_fixed}: if that release showed it as often, it would be missed so in {(1 - rate) ** misses:.2%} of searches"
    )
