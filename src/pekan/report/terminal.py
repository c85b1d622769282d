"""A verdict for a person at a terminal.

::

    broken (etcd 3.5.1): 2 kinds of broken promise, 41,233 operations judged in 1.9 s by the reference engine

    1  WATCH-BOOKMARKABLE  (x14)
       progress at revision 812 came before the event at 812
       promised  A progress notification at a revision promises ...
       seen      +12.345 s  m2  stream 17 answered progress ...
                 +12.347 s  m2  stream 17 delivered ...
       hence     ...
       next      ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pekan.catalogue import CODES
from pekan.history.types import History
from pekan.verdict import Exhibit, Finding, Noticed, Verdict, Word

STYLES: dict[Word, str] = {"holds": "bold green", "broken": "bold red", "undecided": "bold yellow"}
SHOWN_CODES_MAX = 12
"""Codes of which one finding is told in full; a run that breaks more promises is not understood faster by reading further."""
SHOWN_ALIKE_MAX = 3
"""Findings of the same code and another shape that get a line each."""


Hint = Mapping[str, Any]
"""What a finding looks like, as it stands in the JSON form; "text" is for people. No part of the verdict."""
Hints = Mapping[str, Sequence[Hint]]
"""Signature of a finding that counts -> its hints."""
NO_HINTS: Hints = {}
HINTS_MAX = 3
"""Hints told beside a finding; what looks like more than that looks like nothing in particular. All are in the JSON form."""


def print_verdict(console: Console, verdict: Verdict, history: History, hints: Hints = NO_HINTS) -> None:
    """Write `verdict` over `history` to `console`. Times are shown relative to the start mark."""
    origin_ns = _origin_ns(history)
    console.print(headline(verdict, ", ".join(versions(history))))
    print_findings(console, [f for f in verdict.findings if f.status == "counts"], history, hints)
    others = [f for f in verdict.findings if f.status != "counts"]
    if others:
        console.print()
        console.print("not counted:")
        for finding in others:
            console.print(f"  {finding.code}{_times(finding)}: {finding.summary} ({finding.status}: {finding.because})", markup=False)
    if verdict.outside:
        console.print()
        console.print("outside etcd's promises, and did it notice?")
        for each in verdict.outside:
            console.print(f"  {_noticed(each, origin_ns)}", markup=False)
    for reason in verdict.undecided:
        console.print()
        console.print(Text.assemble(("undecided  ", "yellow"), reason.reason))
        console.print(Text.assemble(("to decide  ", "dim"), reason.would_decide))
    for note in verdict.notes:
        console.print(f"note: {note}", markup=False)


def print_findings(console: Console, findings: Sequence[Finding], history: History, hints: Hints = NO_HINTS) -> None:
    """The first finding of each code in full, others of the code in a line. `hints` stand beside the findings of their signature."""
    origin_ns = _origin_ns(history)
    codes = tuple(dict.fromkeys(finding.code for finding in findings))
    for number, code in enumerate(codes[:SHOWN_CODES_MAX], 1):
        first, *alike = [f for f in findings if f.code == code]
        console.print()
        console.print(_finding(number, first, origin_ns, hints.get(first.signature, ())))
        for finding in alike[:SHOWN_ALIKE_MAX]:
            console.print(Padding(Text(f"also{_times(finding)}: {finding.summary}", "dim"), (0, 0, 0, 10)))
        if len(alike) > SHOWN_ALIKE_MAX:
            console.print(Padding(Text(f"and {len(alike) - SHOWN_ALIKE_MAX} further kinds of {code}", "dim"), (0, 0, 0, 10)))
    if len(codes) > SHOWN_CODES_MAX:
        console.print(f"\n... and {len(codes) - SHOWN_CODES_MAX} further codes; all are in the JSON form")


def _origin_ns(history: History) -> int | None:
    start = next((mark for mark in history.marks if mark.kind == "start"), None)
    return start.time if start else None


def _noticed(each: Noticed, origin_ns: int | None) -> str:
    """One fault in a line: when, what, and what etcd did about it."""
    when = "" if each.time is None or origin_ns is None else f"+{(each.time - origin_ns) / 1e9:.3f} s  "
    said = f"noticed: {each.how}" if each.noticed else f"silent{f': {each.how}' if each.how else ''}"
    return f"{when}{each.fault}  {said}{f' (the member was left: {each.left})' if each.left else ''}"


def versions(history: History) -> tuple[str, ...]:
    """The etcd releases that the start mark names, e.g. ("3.5.1",); none for a history that names none."""
    start = next((mark for mark in history.marks if mark.kind == "start"), None)
    members = start.detail.get("members", {}) if start else {}
    return tuple(dict.fromkeys(str(member.get("version", "?")) for member in members.values()))


def headline(verdict: Verdict, version: str = "") -> Text:
    """One line that says the verdict and what it stands on."""
    word = "holds (sequential)" if verdict.verdict == "holds" and verdict.order == "per-process" else verdict.verdict
    about = f" (etcd {version})" if version else ""
    kinds = len(verdict.codes)
    found = f"{kinds} kind{'s' if kinds != 1 else ''} of broken promise, " if kinds else ""
    return Text.assemble(
        (f"{word}{about}", STYLES[verdict.verdict]),
        f": {found}{verdict.operations:,} operations judged in {verdict.seconds:.1f} s by the {verdict.engine} engine",
    )


def _times(finding: Finding) -> str:
    return f" (x{finding.count:,})" if finding.count > 1 else ""


def _finding(number: int, finding: Finding, origin_ns: int | None, hints: Sequence[Hint]) -> Table:
    entry = CODES[finding.code]
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(str(number), "bold"), Text.assemble((finding.code, "bold red"), _times(finding)))
    table.add_row("", Text(finding.summary, "bold"))
    table.add_row(Text("promised", "dim"), Text(entry.guarantee))
    for index, exhibit in enumerate(finding.certificate):
        table.add_row(Text("seen" if index == 0 else "", "dim"), Text(_exhibit(exhibit, origin_ns)))
    table.add_row(Text("hence", "dim"), Text(finding.explanation))
    for hint in hints[:HINTS_MAX]:
        table.add_row("", Text(str(hint["text"])))
    if len(hints) > HINTS_MAX:
        table.add_row("", Text(f"and like {len(hints) - HINTS_MAX} more", "dim"))
    table.add_row(Text("next", "dim"), Text(entry.next_step))
    return table


def _exhibit(exhibit: Exhibit, origin_ns: int | None) -> str:
    when = ""
    if exhibit.start is not None and origin_ns is not None:
        when = f"+{(exhibit.start - origin_ns) / 1e9:.3f} s"
        if exhibit.end is None:
            when += " .."
        elif exhibit.end != exhibit.start:
            when += f" .. +{(exhibit.end - origin_ns) / 1e9:.3f} s"
        when += "  "
    where = f"{exhibit.member}  " if exhibit.member else ""
    return f"{when}{where}{exhibit.what}"


def verdict_json(verdict: Verdict, hints: Hints = NO_HINTS, **extra: object) -> str:
    """`verdict` as the JSON document that `--json` prints and verdict.json holds."""
    return document_json({**verdict.to_json(), "findings": findings_json(verdict.findings, hints), **extra})


def findings_json(findings: Iterable[Finding], hints: Hints = NO_HINTS) -> list[dict[str, Any]]:
    """`findings` as JSON objects, each with its hints as "like" where there are any."""
    told = []
    for finding in findings:
        beside = hints.get(finding.signature, ()) if finding.status == "counts" else ()
        told.append({**finding.to_json(), **({"like": list(beside)} if beside else {})})
    return told


def document_json(document: Mapping[str, object]) -> str:
    """A JSON document as every `--json` prints it."""
    return json.dumps(document, indent=2, default=_plain) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot be told in JSON: {type(value).__name__}")


def print_summary(console: Console, rows: Sequence[tuple[str, str, int, int]]) -> None:
    """Findings of many runs: (signature, summary of the first, times, runs that show it), most frequent first."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (("finding", "left"), ("runs", "right"), ("times", "right"), ("first seen as", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", overflow="fold")
    for signature, summary, times, runs in rows:
        table.add_row(signature, str(runs), f"{times:,}", summary)
    console.print(table)


def print_table(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows of text under dim titles; the last column is the one that is folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, title in enumerate(titles, 1):
        table.add_column(title, header_style="dim", no_wrap=number < len(titles), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
