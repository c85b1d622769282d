"""Writes the generated pages: docs/findings.md from the catalogue, docs/faults.md from the registry of faults, docs/issues.md from the
files of the historical issues and docs/issues-results.json. Tests fail when a page and the code differ.

Run: ``.venv/bin/python docs/generate.py``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pekan.catalogue import CODES
from pekan.durations import show_ms
from pekan.errors import UsageError
from pekan.faults import EQUIPMENT, INJECTORS, Injector, class_of, parse
from pekan.faults.grammar import show_trigger
from pekan.faults.injector import Parameter
from pekan.issues import ISSUES, Issue, called, claims

FINDINGS = """# Findings

Every finding has a stable code. This page is generated from the catalogue in the code: what was promised, what a finding of this code
means, and what to look at next. A finding with status `counts` makes a run `broken`; `follows`, `excused` and `allowed` do not, and
name why.
"""

FAULTS = """# Faults

This page is generated from the code. `pekan doctor` says which of these faults can be injected on your machine, why not the rest, and what
would make it possible.

## Ask for faults

```
pekan hunt --faults day,week,year                 # drawn by the seed, by how often clusters meet them
pekan hunt --faults all                           # everything inside etcd's promises, stacked
pekan hunt --faults outside                       # what etcd promises nothing under: did it notice?
pekan hunt --faults kill,pause                    # kinds by name
pekan hunt --faults none --fault 'pause leader 2s at 10s'
```

| `--faults` | is |
|---|---|
| `day`, `week`, `year` | what clusters meet each day, week or year, inside etcd's promises |
| `all` | every fault inside etcd's promises |
| `century`, `outside` | what etcd promises nothing under: storage that lies or is altered, corrupted bytes |
| `none` | no fault |
| a kind below | that one |

Drawn faults come in storms, in which several at once are the normal case, with calms between them in which every member is whole and the
members are compared. The schedule is a function of seed, kinds, members and time, and it is in `plan.json`. It knows the failure budget,
(members - 1) / 2: no more members are down at once, but for short moments on purpose and for kills of all members. A drawn fault whose
moment does not come has *expired*: it is counted, and the run is undecided only where no fault of a class asked for fired at all. Kinds
that cannot be injected on this machine are left out, with a note.

An hour of traffic makes a record of some gigabytes. Without `--rate`, a hunt sends in a long run only what half of the free memory can
judge afterwards.

## One fault exactly

```
--fault 'KIND [leader|follower|any|NAME] [DURATION] [name=value ...]
         [at T | at revision R | on log "TEXT" | on failpoint NAME[#N] | on step NAME | after [healed] FAULT]
         [until revision R | until log "TEXT" | until step NAME | until after [healed] FAULT]'
```

The order is free after KIND; members are called `m1`, `m2`, ...; roles are resolved when the fault is armed. DURATION sets the parameter
marked so below. Lengths of time are written `500ms`, `2s`, `1m`, `1h`, sizes as a number of bytes or with `KiB`, `MiB`, `GiB`. What has
spaces or quotes in it stands in double quotes, in which `\\"` is a quote and `\\\\` a backslash. A fault asked for so has to fire, or the
run is undecided; one that cannot be injected here ends the hunt with exit code 4 before it begins.

| trigger | the fault is armed |
|---|---|
| `at 10s` | 10 s after the traffic began; 5 s where no trigger is given |
| `at revision 900` | when a reply to any client names revision 900 or a later one |
| `on log "elected leader"` | when a member's log has a new line with that text: the target's, or anybody's where the target is a role |
| `on failpoint raftBeforeSave#3` | when a member comes by that point of its program the third time |
| `after pause`, `after pause#2` | when the first, the second fault of that kind has fired |
| `after healed pause#2` | when the second fault of that kind has been healed |
| `on step compacted` | when the plan's script has done the step of that name ([scripts](scripts.md)) |

A time may stand before another trigger, which then counts from there on: `at 5s on log "elected leader"`. Where a member's log or program
brought the moment about and the target is `any`, that member is the victim.

Where a DURATION is marked "or until", a moment may end the fault instead: `isolate m2 on step seen until step behind`. Without that moment
it ends with the faults' phase.
"""

LIFE = """## One life for every fault

```
probed ──> armed ──> fired ──────────────> healed          in the record: FaultArmed, FaultFired, FaultHealed
             │         evidence: a wait status, a counter, bytes held back, a line of a log
             └──> expired: its moment did not come
```

A fault has fired when its *effect* has been seen, not when something was asked for. It is healed on every path out: at its time, at the end
of the faults' phase, on Ctrl-C. A fault window lasts from arming to the first linearizable read through every member after healing.

| promise | what holds while such a fault is about |
|---|---|
| `within` | everything that etcd promises |
| `liveness` | everything but that requests are served |
| `lease-time` | everything but the time that a lease lasts |
| `outside` | nothing that the fault can explain; such findings are excused, and the report says whether etcd noticed |

What the kernel does not undo by itself when a process ends (control groups, mounts, network namespaces, loop devices) is noted in a journal
before it is made. A watchdog undoes it when Pekan is killed, and the next start of Pekan what the watchdog could not.
"""

ISSUES_HEAD = """# Historical issues

Inconsistencies that etcd is known to have had, each met by one command on releases as they were shipped. This page is generated from their
files (`src/pekan/issues/`) and from recorded runs (`docs/issues-results.json`; `make issues` runs what is missing, and writes both anew;
`make issues ARGS=--bisect` looks for the borders).

```
pekan reproduce --list                     # what there is
pekan reproduce 18089 --story              # what happens inside, and how it is met
pekan reproduce 18089                      # ten attempts on the last affected release that can be had here
pekan reproduce 18089 --etcd 3.5.16        # ... and on another one
pekan reproduce all --etcd 3.5.1           # all of them on one release
pekan reproduce 18089 --bisect             # the last affected and the first fixed release, from real runs
```

An attempt is a hunt like any other: a plan with its requests spelled out, faults as `--fault` takes them, the record, the checkers. No
issue has a judge of its own; its file says by which findings it is known. An attempt *counts* when the cluster came up and recovered, and
has *fired* when every fault of the plan has, and every step of its script was done.

| exit code | the issue is |
|---|---|
| 1 | shown: an expected finding counts in one attempt at least |
| 0 | not shown, and the conditions fired in every attempt |
| 3 | undecided: they fired in fewer (`did not fire: 4 of 10`) |
| 4 | not to be met here: no such release, no such fault on this machine |

Findings that are not expected are listed beside it; where another issue is known to show as one of them, and this one is not shown, the
cell says which (`masked by`). The other way round, a finding of any `pekan hunt` or `pekan check` tells which issues it is like.
"""

FREQUENCIES = {
    "day": "Each day",
    "week": "Each week",
    "year": "Each year",
    "century": "Once in a hundred years",
    "outside": "Outside etcd's promises",
}


def findings() -> str:
    """The text of docs/findings.md."""
    parts = [FINDINGS]
    for code, entry in CODES.items():
        promised = f"**Promised.** {entry.guarantee} ([source]({entry.source}))"
        parts.append(f"## {code}\n\n{promised}\n\n**Means.** {entry.means}\n\n**Next.** {entry.next_step}\n")
    return "\n".join(parts)


def faults() -> str:
    """The text of docs/faults.md."""
    parts = [FAULTS]
    for name, title in FREQUENCIES.items():
        of_class = [injector for injector in INJECTORS.values() if class_of(injector) == name]
        if of_class:
            parts.append(f"## {title}\n")
            parts.extend(_fault(injector) for injector in of_class)
    if EQUIPMENT:
        parts.append("## Mechanisms\n\nWhat is put around members before they start, where a fault of the run needs it.\n")
        parts.append("| mechanism | is | for |\n|---|---|---|\n" + "".join(map(_mechanism, EQUIPMENT)))
    return "\n".join((*parts, LIFE))


def _fault(injector: Injector) -> str:
    facts = [f"promise `{injector.promise}`", f"frequency `{injector.frequency}`"]
    if injector.members_min > 1:
        facts.append(f"in clusters of {injector.members_min} members and more")
    if injector.needs:
        facts.append("needs " + ", ".join(f"`{name}`" for name in injector.needs))
    summary = injector.summary if injector.summary.endswith(".") else f"{injector.summary}."
    text = f"### {injector.kind}\n\n{summary[0].upper()}{summary[1:]} ({'; '.join(facts)})\n\n"
    if injector.parameters:
        rows = (_parameter(name, each, injector) for name, each in injector.parameters.items())
        text += "| parameter | default | unit | meaning |\n|---|---|---|---|\n" + "".join(rows) + "\n"
    return f"{text}```\npekan hunt --faults none --fault '{example(injector)}'\n```\n"


def example(injector: Injector) -> str:
    """A `--fault` of that kind, with its usual length of time."""
    held = injector.parameters[injector.duration].default if injector.duration else 0
    text = f"{injector.kind} any {f'{show_ms(int(held))} ' if held else ''}at 10s"
    assert parse(text).trigger.at_ms == 10_000
    return text


def _parameter(name: str, parameter: Parameter, injector: Injector) -> str:
    default = str(parameter.default)
    if parameter.unit == "ms" and int(parameter.default) > 0:
        default = show_ms(int(parameter.default))
    marked = f" (DURATION{' or until' if injector.open_end else ''})" if name == injector.duration else ""
    choices = f"; one of {', '.join(f'`{each}`' for each in parameter.choices)}" if parameter.choices else ""
    return f"| `{name}`{marked} | {f'`{default}`' if default else ''} | {parameter.unit} | {_cell(parameter.meaning)}{choices} |\n"


def _mechanism(name: str) -> str:
    needing = [f"`{kind}`" for kind, injector in INJECTORS.items() if name in injector.needs]
    what = (EQUIPMENT[name].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return f"| `{name}` | {_cell(' '.join(what.split()))} | {', '.join(needing) or EQUIPMENT[name].loss} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


RESULTS = Path(__file__).parent / "issues-results.json"


def issues() -> str:
    """The text of docs/issues.md."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    recorded: list[dict[str, Any]] = results["cells"]
    borders: dict[str, dict[str, Any]] = {border["issue"]: border for border in results.get("borders", ())}
    parts = [ISSUES_HEAD, "## What runs showed\n", _results_table(recorded, borders)]
    parts.extend(
        _issue(issue, [cell for cell in recorded if cell["issue"] == issue.name], borders.get(issue.name)) for issue in ISSUES.values()
    )
    return "\n".join(parts)


def _results_table(recorded: list[dict[str, Any]], borders: dict[str, dict[str, Any]]) -> str:
    head = "| issue | broken | shown by | not shown by | median time to the finding | border by `--bisect` |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        _results_row(issue, [cell for cell in recorded if cell["issue"] == issue.name], borders.get(issue.name))
        for issue in ISSUES.values()
    )


def _results_row(issue: Issue, recorded: list[dict[str, Any]], border: dict[str, Any] | None) -> str:
    shown = [f"{cell['etcd']} ({cell['shown']}/{cell['counted']})" for cell in recorded if cell["answer"] == "shown"]
    clean = [f"{cell['etcd']} ({cell['shown']}/{cell['counted']})" for cell in recorded if cell["answer"] == "not shown"]
    times = [f"{cell['median_seconds']:.1f} s" for cell in recorded if cell["answer"] == "shown"]
    link = f"[{called(issue.name)}](#{_anchor(issue)})"
    pair = f"{border['last_affected']} / {border['first_fixed']}" if border and border.get("last_affected") else ""
    told = (link, issue.title, ", ".join(shown), ", ".join(clean), ", ".join(times), pair)
    return f"| {' | '.join(_cell(each) or '-' for each in told)} |\n"


def _anchor(issue: Issue) -> str:
    """What a heading that is the name and the title becomes in an address."""
    kept = "".join(letter for letter in _issue_title(issue).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _issue_title(issue: Issue) -> str:
    return f"{called(issue.name)}: {issue.title}"


def _issue(issue: Issue, recorded: list[dict[str, Any]], border: dict[str, Any] | None) -> str:
    facts = [f"**Broken.** {issue.guarantee}.", f"**Shows as.** {issue.shows_as} ({', '.join(f'`{code}`' for code in issue.codes)})."]
    facts.append(f"**Said to be affected.** {claims.affected(issue)}.")
    facts.append(f"**See.** {', '.join(f'<{link}>' for link in issue.links)}")
    text = f"## {_issue_title(issue)}\n\n{issue.story.strip()}\n\n" + "\n\n".join(facts) + "\n"
    recipe = claims.usual_recipe(issue)
    if recipe is not None:
        plan = recipe.plan
        flags = "".join(f" --etcd-flag {name}={value}" for name, value in plan.flags)
        lines = [f"{plan.members} member{'s' if plan.members > 1 else ''}{flags}", *claims.script_lines(plan, show_trigger)]
        lines += [f"--fault '{spec}'" for spec in recipe.faults]
        text += "\n**The run.**\n\n```\n" + "\n".join(lines) + "\n```\n"
    if recorded:
        text += "\n| etcd | answer | shown | fired | median | command | date, machine |\n|---|---|---|---|---|---|---|\n"
        text += "".join(_result(issue, cell) for cell in recorded)
    if border:
        sure = f" {border['sure']}." if border["sure"] else ""
        text += f"\n`{border['command']}` ({border['date']}, {border['machine']}): {border['words']}.{sure}\n"
    return text


def _result(issue: Issue, cell: dict[str, Any]) -> str:
    """A row of what was recorded on one release."""
    answer = cell["answer"]
    if cell.get("masked_by"):
        answer += f", masked by {', '.join(cell['masked_by'])}"
    if cell.get("why") and answer != "shown":
        answer += f": {cell['why'].splitlines()[0]}"
    if cell["recipe"] != _fingerprint(issue, cell["etcd"]):
        answer += " (by an earlier recipe)"
    counted = cell.get("counted", 0)
    shown, fired = (f"{cell[name]}/{counted}" if counted else "-" for name in ("shown", "fired"))
    median = f"{cell['median_seconds']:.1f} s" if cell.get("median_seconds") is not None else "-"
    told = (cell["etcd"], answer, shown, fired, median, f"`{cell['command']}`", f"{cell['date']}, {cell['machine']}")
    return f"| {' | '.join(map(_cell, told))} |\n"


def _fingerprint(issue: Issue, etcd: str) -> str:
    try:
        return claims.fingerprint(issue.run(etcd))
    except UsageError:
        return ""


if __name__ == "__main__":
    for page, text in (("findings.md", findings()), ("faults.md", faults()), ("issues.md", issues())):
        (Path(__file__).parent / page).write_text(text, encoding="utf-8")
