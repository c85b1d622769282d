"""A verdict for a person: the word first, each code once in full, what does not count with its reason."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pekan.history.run import RunDirectory
from pekan.history.types import History, Mark
from pekan.plan import Plan
from pekan.report import keep_verdict, print_verdict, verdict_json
from pekan.verdict import Exhibit, Finding, Undecided, Verdict

START = Mark(1_000_000_000, "start", "", {"members": {"m1": {"version": "3.5.1"}}})
HISTORY = History((), marks=(START,))
FINDING = Finding(
    "WATCH-ORDERED",
    "revision 4 came after revision 5",
    "so it went back",
    (Exhibit("watch 0 delivered 5", member="m1", start=2_500_000_000, end=2_500_000_000), Exhibit("put [red]k[/red]", start=1, end=2)),
    {"key": b"\xff"},
    ("watch",),
    count=3,
)


def shown(verdict: Verdict) -> str:
    out = io.StringIO()
    print_verdict(Console(file=out, width=140, highlight=False), verdict, HISTORY)
    return out.getvalue()


def verdict(*findings: Finding, undecided: tuple[Undecided, ...] = ()) -> Verdict:
    return Verdict(findings, undecided, "real-time", 12_345, 1.5, notes=("a note",))


def test_broken_is_told_with_promise_records_and_reason() -> None:
    """A finding shows code, times, promise, records with their time since the start, explanation and next step; text is never markup."""
    text = shown(verdict(FINDING, replace(FINDING, shape=("other",), summary="alike")))
    assert text.startswith("broken (etcd 3.5.1): 1 kind of broken promise, 12,345 operations")
    for part in (
        "WATCH-ORDERED (x3)",
        "Events are ordered by revision.",
        "+1.500 s",
        "m1",
        "put [red]k[/red]",
        "so it went back",
        "also",
        "alike",
    ):
        assert part in text


def test_what_does_not_count_says_why() -> None:
    """Findings that follow, are excused or allowed are listed with the reason; undecided says what would decide; notes are shown."""
    text = shown(verdict(replace(FINDING, status="allowed", because="--allow X"), undecided=(Undecided("no watch", "a watch"),)))
    assert text.startswith("undecided")
    for part in ("not counted", "--allow X", "no watch", "a watch", "a note"):
        assert part in text


def test_sequential_is_said() -> None:
    """A verdict that holds without a common clock says that it is the weaker promise."""
    assert shown(replace(verdict(), order="per-process")).startswith("holds (sequential)")


def test_json_has_what_scripts_rely_on() -> None:
    """The JSON form has verdict, order, findings with status and signature, undecided, operations and seconds; bytes are told as text."""
    said = json.loads(verdict_json(verdict(FINDING), run=Path("r")))
    assert said["verdict"] == "broken"
    assert said["findings"][0]["status"] == "counts"
    assert said["findings"][0]["signature"] == FINDING.signature
    assert {"order", "undecided", "operations", "seconds"} <= said.keys()


def test_verdict_is_kept_beside_the_evidence(tmp_path: Path) -> None:
    """verdict.json is written into a run directory and replaced by the next one; anywhere else nothing is written."""
    run = RunDirectory.create(tmp_path / "run", Plan("3.5.1", 1))
    run.history_path.write_bytes(b"")
    assert keep_verdict(run.path, verdict(FINDING)) is None
    assert keep_verdict(run.path, verdict()) is None
    assert json.loads(run.verdict_path.read_text())["verdict"] == "holds"
    assert keep_verdict(tmp_path, verdict()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("word", ["holds", "broken", "undecided"])
def test_every_word_has_a_first_line(word: str) -> None:
    """Each of the three words begins the report."""
    given = {"holds": verdict(), "broken": verdict(FINDING), "undecided": verdict(undecided=(Undecided("a", "b"),))}[word]
    assert shown(given).startswith(word)


def test_what_a_finding_looks_like_stands_beside_it() -> None:
    """Hints are lines of the finding of their signature and a field of its JSON form; the verdict is the same without them."""
    hints = {FINDING.signature: [{"issue": "15271", "affects": True, "text": f"like #1527{number}"} for number in range(5)]}
    out = io.StringIO()
    print_verdict(Console(file=out, width=140, highlight=False), verdict(FINDING), HISTORY, hints)
    text = out.getvalue()
    assert "like #15270" in text
    assert "like #15272" in text
    assert "and like 2 more" in text
    follows = replace(FINDING, status="follows", because="X")
    told = json.loads(verdict_json(verdict(FINDING, follows), hints))
    assert [[hint["text"] for hint in finding.get("like", [])] for finding in told["findings"]] == [
        [f"like #1527{n}" for n in range(5)],
        [],
    ]
    bare = json.loads(verdict_json(verdict(FINDING, follows)))
    assert {**told, "findings": [{k: v for k, v in finding.items() if k != "like"} for finding in told["findings"]]} == bare
