"""Faults of a run for a person and a program: counted by kind and class, and drawn so that overlaps are seen."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pekan.history.types import FaultSpan, History, Mark
from pekan.report import fault_table, faults_json, print_faults, timeline
from pekan.report.faults import KINDS_TOLD_MAX, ROW_COLUMNS, WIDTH_MAX, Bar, draw_timeline

S = 1_000_000_000
START = Mark(10 * S, "start", "", {})


def span(
    number: int, kind: str, target: str, fired: float | None, healed: float | None, *, name: str = "year", asked: bool = False
) -> FaultSpan:
    """A fault armed when it fired, or at 1 s; times in s since the start mark."""
    armed = int((10 + (1.0 if fired is None else fired)) * S)
    times = [None if each is None else int((10 + each) * S) for each in (fired, healed)]
    return FaultSpan(number, kind, target, {}, "within", asked, "" if asked else name, armed, *times)


def history(*spans: FaultSpan, marks: tuple[Mark, ...] = ()) -> History:
    return History((), faults=spans, marks=(START, *marks, Mark(70 * S, "end", "", {"reason": "finished"})))


def shown(told: History, width: int = 140) -> list[str]:
    out = io.StringIO()
    print_faults(Console(file=out, width=width, highlight=False), told)
    return [line.rstrip() for line in out.getvalue().splitlines()]


RUN = history(
    span(1, "pause", "m1", 10, 20, name="day"),
    span(2, "kill", "m1", 12, 15),
    span(3, "kill", "m2", 13, 14),
    span(4, "kill", "m2", None, None),
    span(5, "restart", "m3", 40, None, asked=True),
    marks=(
        Mark(30 * S, "healthy", "", {}),
        Mark(60 * S, "untriggered", "", {"fault": "slow", "required": True, "trigger": {"log": "x"}}),
        Mark(61 * S, "unhealed", "m3", {"fault": "restart", "number": 5, "why": "it would not start"}),
        Mark(11 * S, "left-out", "", {"faults": {"packet-loss": "EPERM"}}),
    ),
)


def test_faults_are_counted_by_kind_and_class() -> None:
    """Armed, fired, expired and healed; what was asked for by name and what could not be injected are told apart."""
    table = fault_table(RUN)
    assert list(table["kinds"]) == ["restart", "slow", "pause", "kill"]
    assert table["kinds"]["kill"] == {
        "class": "year", "promise": "within", "asked": 0, "armed": 3, "fired": 2, "expired": 1, "healed": 2, "untriggered": 0
    }  # fmt: skip
    assert (table["kinds"]["restart"]["asked"], table["kinds"]["restart"]["healed"]) == (1, 0)
    assert (table["kinds"]["slow"]["asked"], table["kinds"]["slow"]["armed"], table["kinds"]["slow"]["untriggered"]) == (1, 0, 1)
    assert {name: row["fired"] for name, row in table["classes"].items()} == {"asked": 1, "day": 1, "year": 2}
    assert table["at_once"] == {"most": 3, "median": 3}
    assert table["unhealed"] == [{"kind": "restart", "member": "m3", "why": "it would not start"}]
    assert table["left_out"] == {"packet-loss": "EPERM"}


def test_json_has_table_and_timeline_and_nothing_without_faults() -> None:
    """The JSON forms survive JSON; a history without faults has neither key."""
    document = json.loads(json.dumps(faults_json(RUN)))
    assert document["timeline"] == timeline(RUN)
    first = next(each for each in document["timeline"] if each["kind"] == "pause")
    assert (first["target"], first["armed"], first["fired"], first["healed"]) == ("m1", 10.0, 10.0, 20.0)
    assert next(each for each in document["timeline"] if each["kind"] == "restart")["healed"] is None
    assert faults_json(history()) == {}
    assert shown(history()) == []


def test_overlapping_faults_of_a_member_stand_on_lines_of_their_own() -> None:
    """Two faults that hold one member at once are drawn above each other, at the same columns; one without an end lasts to the end."""
    lines = shown(RUN)
    row = next(number for number, line in enumerate(lines) if line.startswith("m1"))
    pause, kill = lines[row], lines[row + 1]
    assert "pause" in pause
    assert "kill" in kill
    assert pause.index("═") < kill.index("═") < len(pause.rstrip())
    axis = lines[row - 1]
    assert axis.index("10") == pause.index("═")
    assert next(line for line in lines if line.startswith("m3")).endswith("═")
    assert next(line for line in lines if line.startswith("healthy")).index("^") == axis.index("20")
    assert any(line == "not undone as it should have been: restart on m3 (it would not start)" for line in lines)
    assert any(line == "not injected here: packet-loss (EPERM)" for line in lines)
    assert max(map(len, lines)) <= WIDTH_MAX


def test_many_kinds_are_told_by_class() -> None:
    """A run of more kinds than fit a screen has a line a class, in which every kind is counted."""
    kinds = [f"kind-{number}" for number in range(KINDS_TOLD_MAX + 1)]
    text = "\n".join(shown(history(*(span(number, kind, "m1", number, number + 2) for number, kind in enumerate(kinds)))))
    assert all(f"{kind} 1/1" in " ".join(text.split()) for kind in kinds)


def test_a_long_run_has_an_overview_and_its_busiest_minute() -> None:
    """The digits of the overview say how many faults held a member at once; the minute drawn is the one in which most began."""
    bars = [Bar("m1", "pause", at, at + 5) for at in (100.0, 900.0, 2000.0)] + [Bar("m1", "kill", 2001.0 + n, 2004.0 + n) for n in range(4)]
    lines = [line.plain for line in draw_timeline(sorted(bars, key=lambda bar: bar.start), [], 3600.0, WIDTH_MAX)]
    overview = next(line for line in lines if line.startswith("m1"))[ROW_COLUMNS:]
    assert overview.count("1") == 2
    assert overview.count("5") == 1
    assert "the busiest minute, from 2000 s on" in lines
    assert sum("kill" in line for line in lines) >= 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("m1", "m2", "a-very-long-name-of-a-link")),
            st.sampled_from(("kill", "x", "a-kind-with-a-very-long-name-that-goes-on")),
            st.floats(0, 5_000),
            st.floats(0, 500),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(60, 140),
)
def test_no_line_is_wider_than_asked_for(drawn: list[tuple[str, str, float, float]], width: int) -> None:
    """Whatever overlaps and however long names are, the timeline keeps to its width."""
    bars = sorted((Bar(target, kind, start, start + length) for target, kind, start, length in drawn), key=lambda bar: bar.start)
    for seconds in (60.0, max(bar.end for bar in bars)):
        assert all(len(line.plain) <= width for line in draw_timeline(bars, [0.0, seconds], seconds, width))


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_table_fits_a_terminal(width: int) -> None:
    """Nothing is wider than a terminal of that width, or than a hundred columns."""
    assert max(map(len, shown(RUN, width))) <= min(width, WIDTH_MAX)
