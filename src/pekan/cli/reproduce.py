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
from pekan.cli.hunt import SEED_MAX, deliver, live_line, needs, tidy, told
from pekan.cli.output import json_option, program, reports_errors, stderr, stdout
from pekan.durations import parse_ms
from pekan.errors import BinaryUnavailable, EnvironmentFailure, PekanError, UsageError
from pekan.issues import ISSUES, Issue, Recipe, called, claims, like, named
from pekan.places import data_directory
from pekan.plan import Plan

if TYPE_CHECKING:
    from pekan.etcd.binaries import Binary
    from pekan.hunt.attempts import Attempt, Found, Outcome
    from pekan.hunt.live import Live
    from pekan.hunt.releases import Bisected, Tried

ATTEMPTS = 10
BISECT_ATTEMPTS = 5
"""A search tries half a dozen releases, and most of its time goes into those that show nothing."""
ALL = "all"
INTERRUPTED = 130
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
    help=f"So many, of those whose cluster came up and recovered. [{ATTEMPTS}; with --bisect {BISECT_ATTEMPTS} of a release]",
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
    """Reproduce a historical etcd inconsistency NUMBER (as at etcd's tracker, or a CVE), or all of them, on an unmodified release.

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
        return _stories(issues, as_json)
    if bisecting and number == ALL:
        raise UsageError("--bisect is for one issue: name its number")
    if bisecting and until_shown:
        raise UsageError("--bisect ends the attempts at a release by itself: leave out --until-shown")
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
        silent=as_json,
    )
    tidy()
    if bisecting:
        return _bisect(issues[0], asked, as_json)
    return _all(issues, asked) if number == ALL else _one(issues[0], asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options, as far as they are about runs. `several`: issues or releases; `silent`: attempts are not told on stdout."""

    etcd: str | None
    wanted: int
    until_shown: bool
    seed: int
    out: Path | None
    several: bool
    budget_s: float
    keep: str | None
    silent: bool


# ---- what there is ----


def _chosen(number: str) -> list[Issue]:
    if number == ALL:
        return list(ISSUES.values())
    issue = named(number)
    if issue is None:
        raise UsageError(f"{number}: not known; there are {', '.join(ISSUES) or 'none'}, and `{ALL}`")
    return [issue]


def _list(as_json: bool) -> int:
    from pekan.report import document_json, print_table

    if as_json:
        click.echo(document_json({"issues": [claims.to_json(issue) for issue in ISSUES.values()]}), nl=False)
        return 0
    rows = [
        (
            called(issue.name),
            issue.introduced or "always",
            claims.fixed_in(issue),
            claims.needs(issue),
            f"{issue.title}; broken: {issue.guarantee}",
        )
        for issue in ISSUES.values()
    ]
    print_table(stdout(), ("issue", "introduced", "fixed in", "needs", "what"), rows)
    click.echo(f"next: {program()} reproduce NUMBER, or with --story what happens inside", err=True)
    return 0


def _stories(issues: Sequence[Issue], as_json: bool) -> int:
    from pekan.faults import show_trigger
    from pekan.report import document_json

    if as_json:
        click.echo(document_json({"issues": [claims.to_json(issue) for issue in issues]}), nl=False)
        return 0
    console = stdout()
    for issue in issues:
        console.print(_heading(issue))
        for paragraph in issue.story.strip().split("\n\n"):
            console.print()
            console.print(Text(" ".join(paragraph.split())))
        console.print()
        _labelled("broken", issue.guarantee)
        _labelled("shows as", f"{issue.shows_as} ({', '.join(issue.codes)})")
        _labelled("affected", claims.affected(issue))
        _labelled("needs", claims.needs(issue))
        recipe = claims.usual_recipe(issue)
        if recipe is not None:
            _labelled("script", *claims.script_lines(recipe.plan, show_trigger))
            _labelled("faults", *recipe.faults)
        _labelled("see", *issue.links)
        console.print()
    click.echo(f"next: {program()} reproduce {issues[0].name if len(issues) == 1 else ALL}", err=True)
    return 0


def _heading(issue: Issue) -> Text:
    return Text.assemble((called(issue.name), "bold"), "  ", (issue.title, "bold"))


def _labelled(label: str, *lines: str) -> None:
    for number, line in enumerate(lines):
        text = Text.assemble((f"{label if number == 0 else '':<{LABEL_COLUMNS}}", "dim"), line)
        stdout().print(text, soft_wrap=True)


# ---- one issue on one release ----


@dataclass(frozen=True, slots=True)
class _Cell:
    """One issue on one release: what came of it, or why nothing could come of it."""

    issue: Issue
    etcd: str
    outcome: Outcome | None = None
    version: str = ""
    origin: str = ""
    why_not: PekanError | None = None


def _one(issue: Issue, asked: _Asked) -> int:
    from pekan.report import document_json

    named, binary, recipe = _prepared(issue, asked.etcd)
    cell = _attempted(issue, named, binary, recipe, asked)
    outcome = cell.outcome
    assert outcome is not None, "it was attempted"
    if asked.silent:
        click.echo(document_json(_json(cell)), nl=False)
    else:
        _tell_others(cell)
        stdout().print(_answer(cell))
    last = next((attempt for attempt in outcome.attempts if attempt.answer == "shown"), outcome.attempts[-1])
    click.echo(f"run: {last.judged.path}", err=True)
    recorded = last.judged.conducted.run.history_path.exists()
    click.echo(
        f"next: {program()} {'check ' if recorded else 'hunt --plan '}{last.judged.path}{'' if recorded else '/plan.json'}", err=True
    )
    return outcome.exit_code


def _prepared(issue: Issue, spec: str | None) -> tuple[str, Binary, Recipe]:
    """How the plan names the release, its executable, and the recipe for it."""
    from pekan.etcd import binaries

    if spec is None and issue.not_released:
        raise UsageError(f"{called(issue.name)} is in no release: {issue.not_released}")
    with binary_progress() as report:
        binary = binaries.find(spec or _default_release(issue), progress=report)
    named = binary.version if spec is None or binaries.looks_like_version(spec) else spec
    return named, binary, issue.run(binary.version)


def _default_release(issue: Issue) -> str:
    from pekan.etcd import binaries
    from pekan.hunt.releases import last_to_show

    lasts = [last for last, _ in issue.boundaries if last]
    return last_to_show(
        binaries.survey(offline=True), lasts, lambda version: bool(issue.affects(version)) and claims.has_recipe(issue, version)
    )


def _attempted(issue: Issue, named: str, binary: Binary, recipe: Recipe, asked: _Asked, used: int = 0) -> _Cell:
    """Attempts at `issue` with `binary`, told as they end. `used`: how many seeds earlier attempts have used up."""
    from pekan.hunt.attempts import Outcome, attempts
    from pekan.hunt.planning import make_plan
    from pekan.report import print_findings

    def plan_of(seed: int) -> Plan:
        return make_plan(replace(recipe.plan, etcd=named, seed=seed), (), recipe.faults)

    def show(live: Live) -> None:
        hits = sum(bool(attempt.shown) for attempt in done)
        update(Text(f"{called(issue.name)} attempt {len(done) + 1}/{asked.wanted}, shown {hits}  ") + told(live))

    done: list[Attempt] = []
    if not asked.silent:
        stdout().print(_heading(issue))
        _labelled("shows as", issue.shows_as)
        _labelled("on", _about(binary, plan_of(asked.seed + used)))
    with live_line() as update:
        for attempt in attempts(
            plan_of,
            binary,
            _placer(issue, asked),
            show,
            first_seed=asked.seed + used,
            wanted=asked.wanted,
            expects=issue.expects,
            known_as=lambda finding: [each.called for each in like(finding, [binary.version]) if each.name != issue.name],
            until_shown=asked.until_shown,
            keep=asked.keep is not None,
            budget_s=asked.budget_s,
        ):
            deliver(attempt.judged)
            history = attempt.judged.history
            if not asked.silent:
                _tell_attempt(len(done) + 1, attempt)
                if attempt.shown and history is not None and not any(earlier.shown for earlier in done):
                    print_findings(stdout(), attempt.shown, history)
                    stdout().print()
            if asked.keep != "all" and attempt.answer == "not shown":
                attempt.judged.conducted.run.drop_record()
            # A record stays mapped into memory as long as somebody has it in hand.
            done.append(replace(attempt, judged=replace(attempt.judged, history=None)))
    return _Cell(issue, named, Outcome(tuple(done), asked.wanted), binary.version, binary.origin)


def _about(binary: Binary, plan: Plan) -> str:
    members = f"{plan.members} member{'s' if plan.members > 1 else ''}"
    faults = ", ".join(dict.fromkeys(fault.kind for fault in plan.schedule.faults)) or "none"
    workloads = ", ".join(plan.workloads)
    return f"etcd {binary.version} (from {binary.provider}), {members}, {workloads}, faults {faults}, seeds from {plan.seed} on"


def _placer(issue: Issue, asked: _Asked) -> Callable[[Plan], Path]:
    """Where the run of a plan goes: DIR/seed-N, with several issues or releases DIR/ISSUE-etcd-VERSION/seed-N."""

    def place(plan: Plan) -> Path:
        version = Path(plan.etcd).name
        if asked.out is not None:
            return (asked.out / f"{issue.name}-etcd-{version}" if asked.several else asked.out) / f"seed-{plan.seed}"
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return data_directory() / "runs" / f"{stamp}-etcd-{version}-issue-{issue.name}-seed-{plan.seed}-{os.getpid()}"

    return place


def _tell_attempt(number: int, attempt: Attempt) -> None:
    codes = ", ".join(dict.fromkeys(finding.code for finding in attempt.shown or attempt.other))
    style = ANSWER_STYLES.get(attempt.answer, "bold")
    masked = f"masked by {', '.join(attempt.masked_by)}" if attempt.masked_by else ""
    notes = filter(None, (codes, masked))
    stdout().print(
        Text.assemble(f"attempt {number:>2}  ", (f"{attempt.answer:<12}", style), f"  {attempt.judged.seconds:5.1f} s  ", "  ".join(notes))
    )
    for why in attempt.why:
        stdout().print(Padding(Text(why, "dim"), (0, 0, 0, 12)))


def _tell_others(cell: _Cell) -> None:
    """Findings that count and were not expected, in a line each."""
    others = cell.outcome.other if cell.outcome is not None else []
    if others:
        stdout().print("other findings:")
    for found in others:
        tries = f"{found.attempts} attempt{'s' if found.attempts > 1 else ''}"
        known = ", ".join(each.called for each in like(found.first, [cell.version]))
        hint = f" (like {known})" if known else ""
        stdout().print(Text(f"  {found.first.code} (x{found.times} in {tries}): {found.first.summary}{hint}"))


def _answer(cell: _Cell) -> Text:
    outcome = cell.outcome
    on = (f"{called(cell.issue.name)} on etcd {cell.etcd}: ", "bold")
    if outcome is None:
        return Text.assemble(on, (f"not run: {cell.why_not}", "bold yellow"))
    median = f", median {outcome.median_s:.1f} s to the verdict" if outcome.median_s is not None else ""
    return Text.assemble(on, (outcome.words, ANSWER_STYLES.get(outcome.answer, "bold")), median)


def _json(cell: _Cell) -> dict[str, Any]:
    about = {"issue": cell.issue.name, "title": cell.issue.title, "etcd": cell.etcd, "origin": cell.origin}
    outcome = cell.outcome
    if outcome is None:
        code = cell.why_not.exit_code if cell.why_not is not None else None
        return {**about, "answer": "not run", "why": str(cell.why_not), "exit_code": code}
    document = outcome.to_json()
    document["findings"] = [_found_json(found) for found in outcome.expected]
    document["other"] = [
        {**_found_json(found), "like": [each.to_json() for each in like(found.first, [cell.version])]} for found in outcome.other
    ]
    return {**about, **document}


def _found_json(found: Found) -> dict[str, Any]:
    return {**found.first.to_json(), "count": found.times, "attempts": found.attempts}


# ---- all of them ----


def _all(issues: Sequence[Issue], asked: _Asked) -> int:
    """Every issue, on the release that is asked for or each on its own; what cannot be run is told and is no answer."""
    from pekan.hunt.series import worst
    from pekan.report import document_json, print_table

    cells: list[_Cell] = []
    for issue in issues:
        try:
            cells.append(_attempted(issue, *_prepared(issue, asked.etcd), asked))
        except (UsageError, EnvironmentFailure) as error:
            cells.append(_Cell(issue, asked.etcd or "", why_not=error))
        cell = cells[-1]
        if not asked.silent:
            _tell_others(cell)
            stdout().print(_answer(cell))
            stdout().print()
        if cell.outcome is not None and cell.outcome.answer == "interrupted":
            break
    codes = [cell.outcome.exit_code for cell in cells if cell.outcome is not None]
    code = worst(codes) if codes else EnvironmentFailure.exit_code
    if asked.silent:
        click.echo(document_json(_all_json([_json(cell) for cell in cells], code)), nl=False)
    else:
        print_table(stdout(), ("issue", "etcd", "shown", "fired", "median", "answer"), [_row(cell) for cell in cells])
    return code


def _all_json(cells: Sequence[dict[str, Any]], code: int) -> dict[str, Any]:
    from pekan.hunt.attempts import WORST_FIRST

    words = [cell.get("verdict") for cell in cells]
    return {
        "verdict": next((word for word in WORST_FIRST if word in words), "undecided"),
        "order": "real-time",
        "findings": [finding for cell in cells for finding in cell.get("findings", ())],
        "undecided": [reason for cell in cells for reason in cell.get("undecided", ())],
        "operations": sum(cell.get("operations", 0) for cell in cells),
        "seconds": round(sum(cell.get("seconds", 0.0) for cell in cells), 3),
        "exit_code": code,
        "issues": list(cells),
    }


def _row(cell: _Cell) -> tuple[str, ...]:
    outcome = cell.outcome
    if outcome is None:
        return called(cell.issue.name), cell.etcd or "-", "-", "-", "-", f"not run: {cell.why_not}"
    median = "-" if outcome.median_s is None else f"{outcome.median_s:.1f} s"
    of = f"{outcome.counted}"
    return called(cell.issue.name), cell.etcd, f"{outcome.shown}/{of}", f"{outcome.fired}/{of}", median, outcome.words


# ---- where it ends ----


def _bisect(issue: Issue, asked: _Asked, as_json: bool) -> int:
    from pekan.etcd import binaries
    from pekan.hunt.releases import Bisected, CannotTry, bisect

    if issue.not_released:
        raise UsageError(f"{called(issue.name)} is in no release, so there are none to search: {issue.not_released}")
    claimed, *_ = span = claims.span(issue, binaries.resolve_version(asked.etcd) if asked.etcd else "")
    since = binaries.version_key(issue.introduced) if issue.introduced else None
    rows = [row for row in binaries.survey(offline=True) if span.covers(row.version)]
    rows = [row for row in rows if since is None or binaries.version_key(row.version) >= since]
    absent = {row.version: _why_absent(row.why_not) for row in rows if not row.cached and not row.providers}
    tried: dict[str, list[_Cell]] = {}

    def attempted(version: str, until_shown: bool) -> _Cell:
        """So many attempts more on a release. Raises click.Abort where somebody interrupts one."""
        earlier = tried.setdefault(version, [])
        used = sum(len(cell.outcome.attempts) for cell in earlier if cell.outcome is not None)
        named, binary, recipe = _prepared(issue, version)
        cell = _attempted(issue, named, binary, recipe, replace(asked, until_shown=until_shown, silent=True), used)
        if cell.outcome is not None and cell.outcome.answer == "interrupted":
            raise click.Abort
        earlier.append(cell)
        stderr().print(_answer(cell))
        return cell

    def attempt(version: str) -> Tried:
        stderr().print(f"{called(issue.name)}: trying etcd {version}", markup=False)
        try:
            outcome = attempted(version, until_shown=True).outcome
        except (BinaryUnavailable, UsageError) as error:
            raise CannotTry(str(error)) from None
        assert outcome is not None, "it was attempted"
        if outcome.answer == "shown":
            return "shows"
        if outcome.answer == "not shown" and not outcome.masked_by:
            return "does not"
        raise CannotTry(outcome.words)

    releases = [row.version for row in rows if row.version not in absent]
    try:
        found = bisect(releases, attempt, cached={row.version for row in rows if row.cached is not None}, claimed=claimed)
        if found.last_affected and found.first_fixed:
            # How often it shows where it does is what the misses where it does not are measured by.
            attempted(found.last_affected, until_shown=False)
    except (click.Abort, KeyboardInterrupt):
        _tell_bisected(issue, Bisected("", "", {}, {}), tried, absent, claimed, INTERRUPTED, as_json)
        return INTERRUPTED
    code = 0 if found.last_affected else 3
    _tell_bisected(issue, found, tried, absent, claimed, code, as_json)
    return code


def _why_absent(reasons: Any) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _tell_bisected(
    issue: Issue,
    found: Bisected,
    tried: dict[str, list[_Cell]],
    absent: dict[str, str],
    claimed: tuple[str, str],
    code: int,
    as_json: bool,
) -> None:
    from pekan.etcd.binaries import version_key
    from pekan.report import document_json, print_table

    left_out = {**absent, **found.left_out}
    between = found.between(left_out)
    outcomes = {version: [cell.outcome for cell in cells if cell.outcome is not None] for version, cells in tried.items() if cells}
    hits = {version: (sum(each.shown for each in of), sum(each.counted for each in of)) for version, of in outcomes.items()}
    sure = _sureness(found, hits) if found.last_affected and found.first_fixed else ""
    words = "interrupted" if code == INTERRUPTED else found.words(claimed)
    if as_json:
        document = {
            "issue": issue.name,
            "title": issue.title,
            "last_affected": found.last_affected,
            "first_fixed": found.first_fixed,
            "claimed": {"last_affected": claimed[0], "first_fixed": claimed[1]},
            "words": words,
            "sure": sure,
            "not_tried_between": between,
            "left_out": left_out,
            "exit_code": code,
            "releases": [_json(cell) for cells in tried.values() for cell in cells],
        }
        click.echo(document_json(document), nl=False)
        return
    console = stdout()
    console.print(_heading(issue))
    rows = []
    for version in sorted({*outcomes, *found.left_out}, key=version_key):
        shown, counted = hits.get(version, (0, 0))
        rows.append((version, f"{shown}/{counted}" if counted else "-", found.left_out.get(version) or outcomes[version][0].words))
    print_table(console, ("etcd", "shown", "answer"), rows)
    console.print()
    console.print(Text(f"{called(issue.name)}: {words}", "bold"))
    if sure:
        console.print(Text(sure))
    for why, versions in _by_reason(between, left_out).items():
        console.print(Text(f"between them, {', '.join(versions)} could not be tried: {why}"))


def _by_reason(versions: Sequence[str], reasons: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for version in versions:
        found.setdefault(reasons[version], []).append(version)
    return found


def _sureness(found: Bisected, hits: dict[str, tuple[int, int]]) -> str:
    """How likely it is that the first fixed release only looks so."""
    from pekan.hunt.releases import least_rate

    shown, tries = hits[found.last_affected]
    _, misses = hits[found.first_fixed]
    rate = least_rate(shown, tries)
    return (
        f"etcd {found.last_affected} showed it in {shown} of {tries} attempts (in {rate:.0%} of all at least, with 95 % confidence), "
        f"{found.first_fixed} in 0 of {misses}; an affected release would be missed in {(1 - rate) ** misses:.1%} of such searches at most"
    )
