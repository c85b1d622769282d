"""What befell a run: a table of its faults by kind and class, and a timeline in which one sees them overlap.

::

    faults (up to 4 at once, half of them met 3 others)
    class  kind    asked  armed  fired  expired  healed
    day    pause       1     12     11        1      11
    year   kill        0      5      5        0       5

        0 s       10        20        30        40
    m1      ════ pause     = kill
             ═══════pause════                              two lanes: they overlap on m1
    m2         = kill            ══restart═══
    healthy               ^  ^                 ^           every member answered a linearizable read, nothing held anybody

A short run is drawn as it is. A long one is an overview - how many faults held each member at most in each column - and its busiest minute.
Everything is taken from the record: a foreign history, or a run without faults, has neither.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pekan.history.types import FaultSpan, History

WIDTH_MAX = 100
"""Columns of a timeline, on however wide a terminal: it has to fit into mail and logs."""
ROW_COLUMNS = 9
"""Of these for what a row is called."""
WHOLE_S_MAX = 90.0
"""A run that takes no longer is drawn whole: a column is then a second or less."""
WINDOW_S = 60.0
"""Of a longer run, its busiest stretch of this length is drawn."""
LANES_MAX = 8
"""Lines of one member; what overlaps beyond them is counted."""
KINDS_TOLD_MAX = 14
"""Kinds that get a line each; of more, a line a class tells."""
UNHEALED_MAX = 5
"""Faults whose end went wrong that are told; all are in the JSON form."""
ASKED = "asked"
"""The class of what was asked for by name."""
CLASS_ORDER = (ASKED, "day", "week", "year", "century", "outside")
NS = 1e9


class Bar(NamedTuple):
    """One fault that fired: who, what, from when to when (s since the start mark)."""

    target: str
    kind: str
    start: float
    end: float


def faults_json(history: History) -> dict[str, Any]:
    """`faults` and `timeline` of the JSON forms; empty where the run had none and asked for none."""
    if not history.faults and not _marks(history, "left-out") and not _marks(history, "untriggered"):
        return {}
    return {"faults": fault_table(history), "timeline": timeline(history)}


def fault_table(history: History) -> dict[str, Any]:
    """Faults counted: by kind, by class, how many at once, and what could not be injected where the run was made."""
    kinds: dict[str, dict[str, Any]] = {}
    for span in history.faults:
        row = kinds.setdefault(span.kind, {"class": "", "promise": span.promise, **_zero()})
        row["class"] = row["class"] if row["class"] not in ("", ASKED) else span.fault_class or ASKED
        _count(row, span)
    for detail in _marks(history, "untriggered"):
        named = {"class": str(detail.get("fault_class") or ASKED), "promise": str(detail.get("promise") or "")}
        row = kinds.setdefault(str(detail.get("fault", "?")), {**named, **_zero()})
        row["asked"] += bool(detail.get("required"))
        row["untriggered"] += 1
    classes: dict[str, dict[str, int]] = {}
    for span in history.faults:
        _count(classes.setdefault(span.fault_class or ASKED, _zero()), span)
    together = sorted(_together(bars(history)))
    return {
        "kinds": dict(sorted(kinds.items(), key=lambda row: (_rank(row[1]["class"]), row[0]))),
        "classes": dict(sorted(classes.items(), key=lambda row: _rank(row[0]))),
        "at_once": {"most": together[-1], "median": together[len(together) // 2]} if together else {"most": 0, "median": 0},
        "unhealed": [
            {"kind": mark.detail.get("fault"), "member": mark.member, "why": mark.detail.get("why")}
            for mark in history.marks
            if mark.kind == "unhealed"
        ],
        "left_out": {name: why for detail in _marks(history, "left-out") for name, why in (detail.get("faults") or {}).items()},
    }


def _zero() -> dict[str, int]:
    return {"asked": 0, "armed": 0, "fired": 0, "expired": 0, "healed": 0, "untriggered": 0}


def _count(row: dict[str, Any], span: FaultSpan) -> None:
    row["asked"] += span.required
    row["armed"] += 1
    row["fired"] += span.fired is not None
    row["expired"] += span.fired is None
    row["healed"] += span.healed is not None


def _rank(name: str) -> int:
    return CLASS_ORDER.index(name) if name in CLASS_ORDER else len(CLASS_ORDER)


def _marks(history: History, kind: str) -> list[dict[str, Any]]:
    return [mark.detail for mark in history.marks if mark.kind == kind]


def timeline(history: History) -> list[dict[str, Any]]:
    """Every fault that was armed, in that order; times in s since the start mark, None where that did not happen."""
    origin = _origin(history)

    def seconds(time: int | None) -> float | None:
        return None if time is None else round((time - origin) / NS, 3)

    return [
        {
            "kind": span.kind,
            "target": span.target,
            "class": span.fault_class or ASKED,
            "promise": span.promise,
            "armed": seconds(span.armed),
            "fired": seconds(span.fired),
            "healed": seconds(span.healed),
            "parameters": span.parameters,
        }
        for span in sorted(history.faults, key=lambda each: (each.armed, each.id))
    ]


def _origin(history: History) -> int:
    start = next((mark.time for mark in history.marks if mark.kind == "start"), None)
    return start if start is not None else min((span.armed for span in history.faults), default=0)


def _last(history: History) -> int:
    """The last moment that marks and faults tell of: nothing later can be drawn."""
    times = [mark.time for mark in history.marks]
    times += [time for span in history.faults for time in (span.armed, span.fired, span.healed) if time is not None]
    return max(times, default=0)


def bars(history: History) -> list[Bar]:
    """The faults that fired, by when they did. One that the record does not see healed lasts to its end."""
    origin, last = _origin(history), _last(history)
    fired = [
        Bar(span.target, span.kind, (span.fired - origin) / NS, ((last if span.healed is None else span.healed) - origin) / NS)
        for span in history.faults
        if span.fired is not None
    ]
    return sorted(fired, key=lambda bar: bar.start)


def _together(drawn: Sequence[Bar]) -> list[int]:
    """For each fault, how many held somebody at one moment of its own at most, itself included."""
    starts, ends = [bar.start for bar in drawn], sorted(bar.end for bar in drawn)
    # The number changes for the higher only where one begins.
    holding = [bisect_right(starts, start) - bisect_left(ends, start) for start in starts]
    return [max(holding[number : bisect_right(starts, bar.end)]) for number, bar in enumerate(drawn)]


# ---- for a terminal ----


def print_faults(console: Console, history: History) -> None:
    """Table and timeline of the faults of `history`; nothing where it has none."""
    if not faults_json(history):
        return
    table = fault_table(history)
    console.print()
    if table["kinds"]:
        console.print(_head(table))
        console.print(_by_kind(table["kinds"]) if len(table["kinds"]) <= KINDS_TOLD_MAX else _by_class(table))
    for failed in table["unhealed"][:UNHEALED_MAX]:
        console.print(Text(f"not undone as it should have been: {failed['kind']} on {failed['member']} ({failed['why']})", "yellow"))
    for name, why in table["left_out"].items():
        console.print(Text(f"not injected here: {name} ({why})", "dim"))
    drawn = bars(history)
    if drawn:
        console.print()
        for line in draw_timeline(drawn, _healthy(history), (_last(history) - _origin(history)) / NS, min(console.width, WIDTH_MAX)):
            console.print(line, no_wrap=True, crop=True)


def _head(table: dict[str, Any]) -> Text:
    fired = sum(row["fired"] for row in table["kinds"].values())
    at_once = table["at_once"]
    met = f", up to {at_once['most']} at once, half of them met {max(0, at_once['median'] - 1)} others or more" if fired > 1 else ""
    return Text.assemble(("faults", "bold"), f": {fired:,} fired{met}")


COUNTED = ("asked", "armed", "fired", "expired", "healed")


def _by_kind(kinds: dict[str, dict[str, Any]]) -> Table:
    grid = _grid(("class", "kind"), COUNTED)
    before = ""
    for kind, row in kinds.items():
        # What was asked for and never had its trigger expired without being armed.
        counts = {**row, "expired": row["expired"] + row["untriggered"]}
        grid.add_row(row["class"] if row["class"] != before else "", kind, *(_number(counts[name]) for name in COUNTED))
        before = row["class"]
    return grid


def _by_class(table: dict[str, Any]) -> Table:
    grid = _grid(("class",), COUNTED, "fired of armed, by kind")
    for name, counted in table["classes"].items():
        told = [f"{kind} {row['fired']}/{row['armed']}" for kind, row in table["kinds"].items() if row["class"] == name]
        grid.add_row(name, *(_number(counted[each]) for each in COUNTED), ", ".join(told))
    return grid


def _grid(names: Iterable[str], counted: Iterable[str], rest: str = "") -> Table:
    grid = Table(box=None, pad_edge=False, width=None if not rest else WIDTH_MAX)
    for name in names:
        grid.add_column(name, no_wrap=True, header_style="dim")
    for name in counted:
        grid.add_column(name, justify="right", no_wrap=True, header_style="dim")
    if rest:
        grid.add_column(rest, overflow="fold", header_style="dim")
    return grid


def _number(count: int) -> str:
    return f"{count:,}" if count else "-"


def _healthy(history: History) -> list[float]:
    origin = _origin(history)
    return [(mark.time - origin) / NS for mark in history.marks if mark.kind == "healthy"]


def draw_timeline(drawn: Sequence[Bar], healthy: Sequence[float], seconds: float, width: int) -> list[Text]:
    """The lines of the timeline of a run of that many `seconds`, none wider than `width` columns."""
    columns = width - ROW_COLUMNS
    if seconds <= WHOLE_S_MAX:
        return _lanes(drawn, healthy, 0.0, max(seconds, 1.0), columns)
    begin = _busiest(drawn, seconds)
    inside = [bar for bar in drawn if bar.start < begin + WINDOW_S and bar.end > begin]
    return [
        Text("faults that held a member at once, at most", "dim"),
        *_overview(drawn, seconds, columns),
        Text(),
        Text(f"the busiest minute, from {begin:.0f} s on", "dim"),
        *_lanes(inside, [at for at in healthy if begin <= at < begin + WINDOW_S], begin, WINDOW_S, columns),
    ]


def _busiest(drawn: Sequence[Bar], seconds: float) -> float:
    """The beginning, s, of the stretch in which most faults begin."""
    starts = [bar.start for bar in drawn]
    counts = [bisect_right(starts, start + WINDOW_S) - number for number, start in enumerate(starts)]
    best = max(range(len(starts)), key=counts.__getitem__)
    return max(0.0, min(float(int(starts[best])), seconds - WINDOW_S))


def _targets(drawn: Sequence[Bar]) -> list[str]:
    return sorted({bar.target for bar in drawn})


def _overview(drawn: Sequence[Bar], seconds: float, columns: int) -> list[Text]:
    lines = [_axis(0.0, seconds, columns)]
    for target in _targets(drawn):
        marks = []
        of_target = [bar for bar in drawn if bar.target == target]
        for column in range(columns):
            begin, end = seconds * column / columns, seconds * (column + 1) / columns
            most = _most([bar for bar in of_target if bar.start < end and bar.end >= begin], begin)
            marks.append("·" if most == 0 else str(most) if most < 10 else "+")
        lines.append(Text(f"{_row(target)}{''.join(marks)}"))
    return lines


def _most(meeting: Sequence[Bar], begin: float) -> int:
    """How many of these hold at one moment from `begin` on, at most."""
    moments = [max(begin, bar.start) for bar in meeting]
    return max((sum(bar.start <= moment <= bar.end for bar in meeting) for moment in moments), default=0)


def _lanes(drawn: Sequence[Bar], healthy: Sequence[float], begin: float, seconds: float, columns: int) -> list[Text]:
    lines = [_axis(begin, seconds, columns)]
    for target in _targets(drawn):
        lanes: list[list[str]] = []
        beyond = 0
        for bar in (bar for bar in drawn if bar.target == target):
            first = max(0, min(columns - 1, int((bar.start - begin) / seconds * columns)))
            last = max(first, min(columns - 1, int((bar.end - begin) / seconds * columns)))
            shape = _shape(bar.kind, last - first + 1)
            if first + len(shape) > columns:  # the name stands before its bar where there is no room behind it
                shape = f"{bar.kind} {'═' * (last - first + 1)}"[-(last + 1) :]
                first = last + 1 - len(shape)
            # One column stays free, so that neighbours are told apart.
            lane = next((lane for lane in lanes if not "".join(lane[max(0, first - 1) : first + len(shape)]).strip()), None)
            if lane is None:
                if len(lanes) == LANES_MAX:
                    beyond += 1
                    continue
                lane = [" "] * columns
                lanes.append(lane)
            lane[first : first + len(shape)] = shape
        for number, lane in enumerate(lanes):
            lines.append(Text(f"{_row(target if number == 0 else '')}{''.join(lane)}".rstrip()))
        if beyond:
            lines.append(Text(f"{_row('')}and {beyond} more", "dim"))
    if healthy:
        marks = [" "] * columns
        for at in healthy:
            marks[max(0, min(columns - 1, int((at - begin) / seconds * columns)))] = "^"
        lines.append(Text(f"{_row('healthy')}{''.join(marks)}".rstrip(), "green"))
    return lines


def _shape(kind: str, length: int) -> str:
    """A bar with its name in it where there is room, else behind it."""
    if length >= len(kind) + 2:
        return f"═{kind}".ljust(length, "═")
    return f"{'═' * length} {kind}"


def _row(name: str) -> str:
    return f"{name[: ROW_COLUMNS - 1]:<{ROW_COLUMNS}}"


def _axis(begin: float, seconds: float, columns: int) -> Text:
    """Times, s, at the columns where they belong."""
    step = next((step for step in (5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400) if seconds / step <= columns / 9), 604_800)
    marks = [" "] * columns
    at = -(-int(begin) // step) * step
    while at < begin + seconds:
        told = f"{at} s" if at == 0 else str(at)
        column = int((at - begin) / seconds * columns)
        if 0 <= column <= columns - len(told):
            marks[column : column + len(told)] = told
        at += step
    return Text(f"{_row('')}{''.join(marks)}".rstrip(), "dim")
