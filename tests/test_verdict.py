"""Which findings make which verdict, and what makes two findings the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pekan.verdict import Exhibit, Finding, Undecided, Verdict, group

FINDING = Finding("KV-CONTENT", "s", "e", (Exhibit("a"), Exhibit("b")), {"key": "k"}, ("put", "range"))
OPEN = Undecided("no watch", "a watch")


def _verdict(*findings: Finding, undecided: tuple[Undecided, ...] = ()) -> Verdict:
    return Verdict(findings, undecided, "real-time", 1, 0.0)


@pytest.mark.parametrize(
    ("verdict", "word", "code"),
    [
        (_verdict(), "holds", 0),
        (_verdict(undecided=(OPEN,)), "undecided", 3),
        (_verdict(FINDING, undecided=(OPEN,)), "broken", 1),
        (_verdict(replace(FINDING, status="allowed", because="--allow KV-CONTENT")), "holds", 0),
        (_verdict(replace(FINDING, status="follows", because="X"), undecided=(OPEN,)), "undecided", 3),
    ],
)
def test_rank(verdict: Verdict, word: str, code: int) -> None:
    """broken outranks undecided, which outranks holds; only findings that count break."""
    assert (verdict.verdict, verdict.exit_code) == (word, code)


def test_status_names_its_reason() -> None:
    """In JSON a finding that does not count says why under the name of its status."""
    said = replace(FINDING, status="excused", because="fault 3").to_json()
    assert said["excused_by"] == "fault 3"
    assert "because" not in said


def test_grouped_by_shape_and_status() -> None:
    """Findings of one shape and status are one, counted; another status or shape is another finding."""
    other_key = replace(FINDING, subject={"key": "other"})
    follows = replace(FINDING, status="follows", because="X")
    other_shape = replace(FINDING, shape=("txn", "range"))
    grouped = group([FINDING, other_key, follows, other_shape])
    assert [(f.status, f.shape, f.count) for f in grouped] == [
        ("counts", ("put", "range"), 2),
        ("follows", ("put", "range"), 1),
        ("counts", ("txn", "range"), 1),
    ]
    assert FINDING.signature == other_key.signature != other_shape.signature
