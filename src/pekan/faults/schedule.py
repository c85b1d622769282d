"""When which fault is injected: drawn from a seed, or asked for in words.

::

    0 ──── quiet ────┬──────────── faults ────────────┬──── healed, traffic goes on ────> end of the traffic
                  quiet_ms                         heal_ms                              end_ms

    kill     ·   x··   x·          x··x·                      each class is staggered on its own: gaps uniform in [0, 2 mean],
    pause    ·  ────      ─    ────────      ──               so that faults of different classes meet
    restart  ·        o                o

`draw` is a pure function of its arguments: a plan is replayed by drawing it again, or by reading it from plan.json.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from typing import NamedTuple

from pekan.durations import parse_ms, show_ms
from pekan.errors import UsageError
from pekan.faults.injector import ROLES
from pekan.faults.registry import INJECTORS
from pekan.plan import Fault, Schedule, Trigger

CLASSES: dict[str, tuple[str, ...]] = {
    "kill": ("kill",),
    "pause": ("pause",),
    "restart": ("restart",),
    "all": ("kill", "pause", "restart"),
    "none": (),
}
"""What `--faults` takes: a class stands for one or more kinds."""

EDGE_MS = 3_000
"""The least quiet start, and the least healed end, of a run that is long enough: what is compared with the time under faults, and enough
for a member to elect, replay and answer."""
EDGE_SHARE = 0.1
EDGE_SHARE_MAX = 0.25
"""No edge takes more than a quarter of a short run."""
MEAN_GAP_MS = {"kill": 6_000, "pause": 5_000, "restart": 10_000}
"""Between two faults of a kind on average. A restarted member needs about a second to serve again; all together these still leave a cluster
of three whole for a good part of the time, or traffic would mostly wait and members could seldom be compared."""
GAPS_MIN = 3
"""In a short faults' phase gaps shrink, so that each class is expected at least this often."""
ALL_KILLED_SHARE = 0.12
"""Of kills: all members at once. Nobody is left who remembers anything that is not on disk; a majority returns, so it is `within`."""
QUORUM_LOSS_SHARE = 0.25
"""Of faults that meet others beyond the failure budget (in a cluster of three: any second one): let through, short. The others are moved
to later, so that a majority stays up and traffic goes on."""
QUORUM_LOSS_MS_MAX = 800
"""Long enough for requests in flight to be cut, short enough that most of them do not time out."""
LAST_FIFTH = 0.8
LAST_PAUSE_MS = (1_200, 2_500)
"""With pauses asked for, one follower is paused in the last fifth of the traffic: a member that continues and answers before it has caught
up is what transactions of compares only are about, and they are sent only there."""
FAULTS_MAX = 500
"""A bound on what is drawn: an hour of all classes."""
AT_MS = 5_000
"""When a fault asked for without a time is armed: after the shortest quiet start, with time left to heal in a ten-second run."""


class _Span(NamedTuple):
    start: int
    end: int
    down: int


def kinds_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of fault in `classes`, each once, in a fixed order. Raises `UsageError` for an unknown class."""
    wanted: set[str] = set()
    for name in classes:
        if name not in CLASSES:
            raise UsageError(f"no class of faults is called {name!r}; there are {', '.join(CLASSES)}")
        wanted.update(CLASSES[name])
    return tuple(kind for kind in INJECTORS if kind in wanted)


def phases(time_ms: int) -> tuple[int, int]:
    """(quiet_ms, heal_ms) of traffic that lasts `time_ms`."""
    edge = int(min(max(EDGE_MS, EDGE_SHARE * time_ms), EDGE_SHARE_MAX * time_ms))
    return edge, time_ms - edge


def draw(seed: int, classes: tuple[str, ...], members: int, time_ms: int) -> Schedule:
    """The schedule of `classes` for `members` members and `time_ms` of traffic. Raises `UsageError` for an unknown class."""
    quiet, heal = phases(time_ms)
    kinds = kinds_of(classes)
    wanted: list[Fault] = []
    for kind in kinds:
        wanted.extend(_stagger(random.Random(f"pekan/schedule/{seed}/{kind}"), kind, members, quiet, heal))
    last = _last_pause(random.Random(f"pekan/schedule/{seed}/last"), time_ms, heal) if "pause" in kinds and members > 1 else ()
    faults = _within_budget(random.Random(f"pekan/schedule/{seed}/budget"), sorted(wanted, key=_order), last, members, heal)
    return Schedule(quiet_ms=quiet, heal_ms=heal, end_ms=time_ms, faults=faults[:FAULTS_MAX])


def _order(fault: Fault) -> tuple[int, str, str]:
    return fault.trigger.at_ms, fault.kind, fault.target


def _stagger(rng: random.Random, kind: str, members: int, quiet: int, heal: int) -> list[Fault]:
    """Faults of one kind, gaps uniform in [0, 2 mean]."""
    mean = min(MEAN_GAP_MS[kind], max(1, (heal - quiet) // GAPS_MIN))
    faults: list[Fault] = []
    at = quiet + int(rng.uniform(0, mean))
    while at < heal and len(faults) < FAULTS_MAX:
        drawn = INJECTORS[kind].draw(rng)
        if kind == "kill" and rng.random() < ALL_KILLED_SHARE and members > 1:
            faults.extend(_drawn(kind, "any", at, down_ms=rng.randint(100, QUORUM_LOSS_MS_MAX)) for _ in range(members))
        else:
            faults.append(_drawn(kind, drawn.target if members > 1 else "any", at, **drawn.parameters))
        at += max(1, int(rng.uniform(0, 2 * mean)))
    return faults


def _last_pause(rng: random.Random, time_ms: int, heal: int) -> tuple[Fault, ...]:
    at = int(time_ms * (LAST_FIFTH + rng.uniform(0.005, 0.03)))
    # In a run too short to be healed after the last fifth has begun there is no room for it.
    return (_drawn("pause", "follower", at, hold_ms=min(heal - at, rng.randint(*LAST_PAUSE_MS))),) if at < heal else ()


def _drawn(kind: str, target: str, at_ms: int, **parameters: int | str) -> Fault:
    return Fault(kind=kind, target=target, trigger=Trigger(at_ms), parameters=parameters, fault_class=kind)


def _within_budget(rng: random.Random, wanted: list[Fault], fixed: tuple[Fault, ...], members: int, heal: int) -> tuple[Fault, ...]:
    """Move faults so that a majority stays up, but for those that lose it on purpose; drop what no longer fits before `heal`.

    `fixed` stay where they are.
    """
    budget = (members - 1) // 2
    spans = [_span(fault.trigger.at_ms, [fault]) for fault in fixed]
    kept = list(fixed)
    for _, together in itertools.groupby(wanted, key=lambda fault: (fault.trigger.at_ms, fault.kind)):
        group = list(together)
        # What is over before this one is wanted is over for all that follow.
        spans = [span for span in spans if span.end > group[0].trigger.at_ms]
        # A cluster of one loses its majority with every fault; there, and where all are killed, everybody has to be up first.
        on_purpose = len(group) > 1 or members == 1 or rng.random() < QUORUM_LOSS_SHARE
        if on_purpose and len(group) == 1 and members > 1:
            group = [_shortened(fault, QUORUM_LOSS_MS_MAX) for fault in group]
        span = _first_free(spans, _span(group[0].trigger.at_ms, group), members if on_purpose else budget)
        if span.start < heal:
            spans.append(span)
            kept.extend(replace(_shortened(fault, heal - span.start), trigger=Trigger(span.start)) for fault in group)
    return tuple(sorted(kept, key=_order))


def _span(at: int, group: list[Fault]) -> _Span:
    """How long the victims of faults injected together count as down."""
    return _Span(at, at + max(INJECTORS[fault.kind].down_ms(fault.parameters) for fault in group), len(group))


def _shortened(fault: Fault, ms: int) -> Fault:
    """`fault` with its parameters, lengths of time one after the other, cut so that it lasts no longer than `ms`."""
    kept: dict[str, int] = {}
    for name, value in fault.parameters.items():
        kept[name] = min(value, ms - sum(kept.values()))
    return replace(fault, parameters=kept)


def _first_free(spans: list[_Span], wanted: _Span, budget: int) -> _Span:
    """`wanted`, moved to the first time at which no more than `budget` members are down with it."""
    while True:
        met = [span for span in spans if span.start < wanted.end and wanted.start < span.end]
        # All that it meets count together, though they need not meet each other: too careful is fine here.
        if not met or sum(span.down for span in met) + wanted.down <= budget:
            return wanted
        later = min(span.end for span in met)
        wanted = wanted._replace(start=later, end=later + wanted.end - wanted.start)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_DURATION = re.compile(r"\d+(\.\d+)?(ms|s|m|h)")
_LATER = {"revision", "log", "failpoint"}
FORM = 'KIND [leader|follower|any|NAME] [DURATION] [name=value ...] [at T], for example "pause leader 2s at 10s"'


def parse(text: str, members: tuple[str, ...] = ()) -> Fault:
    """The fault that `text` asks for, required to fire. `members`, where given, are the names that may be a target.

    The order is free after KIND. Raises `UsageError` naming the word that is wrong and what would be right.
    """
    words = text.split()
    if not words:
        raise UsageError(f"--fault: empty; write {FORM}")
    kind, rest = words[0], words[1:]
    injector = INJECTORS.get(kind)
    if injector is None:
        raise UsageError(f"--fault {text!r}: no fault is called {kind!r}; there are {', '.join(INJECTORS)}")
    target, at_ms = "", -1
    parameters: dict[str, int] = {}

    def setting(name: str, value: int) -> None:
        if name in parameters:
            raise UsageError(f"--fault {text!r}: {name} is given twice")
        parameters[name] = value

    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if word in ("at", "on", "after"):
            what = rest[position] if position < len(rest) else ""
            position += 1
            if word != "at" or what in _LATER:
                raise UsageError(f"--fault {text!r}: {word!r} {what!r} is no trigger of this release; write at T, as in at 10s")
            if at_ms >= 0:
                raise UsageError(f"--fault {text!r}: a time is given twice")
            at_ms = parse_ms(what, f"--fault {text!r}: at")
        elif "=" in word:
            name, _, value = word.partition("=")
            if name not in injector.parameters:
                raise UsageError(f"--fault {text!r}: {kind} takes no {name!r}; it takes {', '.join(injector.parameters)}")
            setting(name, _whole(text, name, value))
        elif _DURATION.fullmatch(word):
            setting(injector.duration, parse_ms(word, f"--fault {text!r}"))
        elif _NAME.fullmatch(word):
            if target:
                raise UsageError(f"--fault {text!r}: two targets, {target!r} and {word!r}")
            if members and word not in ROLES and word not in members:
                raise UsageError(f"--fault {text!r}: no member is called {word!r}; write {', '.join((*ROLES, *members))}")
            target = word
        else:
            raise UsageError(f"--fault {text!r}: {word!r} is neither a target, a duration, name=value nor at T; write {FORM}")
    return Fault(
        kind=kind,
        target=target or "any",
        trigger=Trigger(AT_MS if at_ms < 0 else at_ms),
        parameters={**{name: each.default for name, each in injector.parameters.items()}, **parameters},
        required=True,
    )


def _whole(text: str, name: str, value: str) -> int:
    """Milliseconds: a bare number, or a number with a unit."""
    if value.isdecimal():
        return int(value)
    return parse_ms(value, f"--fault {text!r}: {name}")


def show(fault: Fault) -> str:
    """The text that `parse` takes back to the same fault (required or not)."""
    settings = " ".join(f"{name}={value}" for name, value in fault.parameters.items())
    return " ".join(part for part in (fault.kind, fault.target, settings, f"at {show_ms(fault.trigger.at_ms)}") if part)


def with_faults(schedule: Schedule, faults: tuple[Fault, ...]) -> Schedule:
    """`schedule` with `faults` asked for by name beside those that were drawn. Raises `UsageError` where one has no time to be healed."""
    for fault in faults:
        if fault.trigger.at_ms >= schedule.heal_ms:
            raise UsageError(
                f"--fault {show(fault)!r}: faults are healed at {show_ms(schedule.heal_ms)}, of {show_ms(schedule.end_ms)} of traffic; "
                "trigger it earlier or give --time more"
            )
    merged = tuple(sorted((*schedule.faults, *faults), key=_order))
    return Schedule(schedule.quiet_ms, schedule.heal_ms, schedule.end_ms, merged)
