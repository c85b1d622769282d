"""When which fault is injected: drawn from a seed, in storms with calm between them.

::

    0 ── quiet ──┬── storm ──┬─ calm ─┬──── storm ────┬─ calm ─┬─ storm ─┬── healed, traffic goes on ──> end of the traffic
              quiet_ms       │        │               │        │      heal_ms
      pause        ────  ─   │        │     ───       │        │  ──     │
      kill        x          │        │  x      xxx   │        │     x   │      several faults at once are the normal case in a storm;
      slow disk     ───────  │        │ ────   ───────│        │ ────    │      in a calm every member is whole, and they are compared

What is drawn comes from a deck of all kinds asked for, those that clusters meet often in it more often, dealt to its end before it is
shuffled again: in a long run no kind starves, in a short one each has its chance. Of the victims no more are down at once than the
*failure budget* allows, (members - 1) / 2: then a majority goes on serving. A share of faults goes beyond it on purpose, and short. All
faults are healed, so that a majority returns from whatever happens here, and the faults' promises are the injectors' own.

What a heal takes on a busy machine is not known beforehand: a storm begins later where the calm before it does (`storms`).

In a share of storms everything that may hit any member hits the same one: a slow disk, a cut link and a kill on one victim.

`draw` is a pure function of its arguments: a plan is replayed by drawing it again, or by reading it from plan.json.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pekan.durations import show_ms
from pekan.errors import UsageError
from pekan.faults.classes import class_of
from pekan.faults.grammar import show
from pekan.faults.injector import CLUSTER, Injector
from pekan.faults.registry import INJECTORS
from pekan.plan import ROLES, Fault, Schedule, Trigger

EDGE_MS = (3_000, 60_000)
"""The least quiet start, and the least healed end, of a run that is long enough: what is compared with the time under faults, and enough
for a member to elect, replay and answer. A minute of each is enough for the longest run."""
EDGE_SHARE = 0.1
EDGE_SHARE_MAX = 0.25
"""No edge takes more than a quarter of a short run."""

STORM_MS = (8_000, 20_000)
"""From the first fault of a storm to its last: up to ten elections' time, in which one fault meets what others have left behind."""
CALM_MS = (4_000, 7_000)
"""From the end of a storm's last fault to the next storm: an election (1 to 2 s), a replay (1 s), a linearizable read through every member,
and a comparison of the members while they stand still."""
FAULTS_A_SECOND_OF_KIND = 0.22
"""In a storm, while few kinds are asked for: each comes every five seconds."""
FAULTS_A_SECOND_MAX = 1.2
"""In a storm of many kinds: faults last two to four seconds on average, so that three overlap, and traffic still finds who serves it."""
DRAWN_OF_KIND_MIN = 3
"""In a short run, each of few kinds is expected this often."""
WEIGHTS = {"day": 5, "week": 4, "year": 3, "century": 2}
"""Cards of a kind in the deck. The true ratios (1 : 1/7 : 1/365 ...) would leave nothing to be learned of a rare fault in an hour."""
FOCUS_SHARE = 0.35
"""Of storms: those that have one victim."""
ALL_KILLED_SHARE = 0.12
"""Of kills: all members at once. Nobody is left who remembers anything that is not on disk; a majority returns, so it is `within`."""
QUORUM_LOSS_SHARE = 0.25
"""Of faults that take their victim down: let through beyond the failure budget, short. The others are moved to where a majority stays up,
so that traffic goes on."""
QUORUM_LOSS_MS_MAX = 800
"""Long enough for requests in flight to be cut, short enough that most of them do not time out."""
LAST_FIFTH = 0.8
LAST_PAUSE_MS = (1_200, 2_500)
"""With pauses asked for, one follower is paused in the last fifth of the traffic: a member that continues and answers before it has caught
up is what transactions of compares only are about, and they are sent only there."""
FAULTS_MAX = 20_000
"""A bound on what is drawn: five hours at the highest rate, and a plan of some megabytes. In longer runs calms become longer instead."""


def phases(time_ms: int) -> tuple[int, int]:
    """(quiet_ms, heal_ms) of traffic that lasts `time_ms`."""
    shortest, longest = EDGE_MS
    edge = int(min(max(shortest, EDGE_SHARE * time_ms), EDGE_SHARE_MAX * time_ms, longest))
    return edge, time_ms - edge


def draw(seed: int, kinds: tuple[str, ...], members: int, time_ms: int, injectors: Mapping[str, Injector] = INJECTORS) -> Schedule:
    """The schedule of `kinds` for `members` members and `time_ms` of traffic."""
    quiet, heal = phases(time_ms)
    drawing = _Drawing(
        random.Random(f"pekan/schedule/{seed}"), tuple(injectors[kind] for kind in injectors if kind in kinds), members, heal
    )
    faults: list[Fault] = []
    storms: list[int] = []
    if drawing.injectors:
        faults = _last_pause(random.Random(f"pekan/schedule/{seed}/last"), time_ms, heal) if "pause" in kinds and members > 1 else []
        drawing.place(faults, injectors)
        at = quiet + drawing.rng.randint(0, min(1_000, (heal - quiet) // 4))
        while at < heal and len(faults) < FAULTS_MAX:
            storms.append(at)
            end = drawing.storm(at, faults)
            after = end + drawing.calm(end - at)
            # The pause in the last fifth belongs to a storm of its own where it would disturb a calm.
            at = next((fault.trigger.at_ms for fault in faults[:1] if end < fault.trigger.at_ms < after), after)
    return Schedule(
        quiet_ms=quiet, heal_ms=heal, end_ms=time_ms, faults=tuple(sorted(faults, key=_order)[:FAULTS_MAX]), storms=tuple(storms)
    )


def scripted(time_ms: int) -> Schedule:
    """The phases of a run of nothing but a script: no quiet start, and nothing drawn."""
    return Schedule(quiet_ms=0, heal_ms=phases(time_ms)[1], end_ms=time_ms)


def _order(fault: Fault) -> tuple[int, str, str]:
    return fault.trigger.at_ms, fault.kind, fault.target


def _last_pause(rng: random.Random, time_ms: int, heal: int) -> list[Fault]:
    at = int(time_ms * (LAST_FIFTH + rng.uniform(0.005, 0.03)))
    if at >= heal:  # in a run too short to be healed after the last fifth has begun there is no room for it
        return []
    return [_drawn(INJECTORS["pause"], "follower", at, {"hold_ms": min(heal - at, rng.randint(*LAST_PAUSE_MS))})]


def _drawn(injector: Injector, target: str, at_ms: int, parameters: Mapping[str, int | str]) -> Fault:
    every = {**{name: each.default for name, each in injector.parameters.items()}, **parameters}
    return Fault(kind=injector.kind, target=target, trigger=Trigger(at_ms), parameters=every, fault_class=class_of(injector))


class _Span(NamedTuple):
    """What a fault, or several at once, take while they last: `down` members out of the majority until `down_end`, `claims` of `victim`
    until `end`. `victim` is "" where it is chosen only when the fault is armed."""

    start: int
    end: int
    down_end: int
    down: int
    victim: str
    claims: frozenset[str]


@dataclass
class _Drawing:
    """One schedule while it is drawn: what was dealt, what is owed, and what is taken when."""

    rng: random.Random
    injectors: tuple[Injector, ...]
    members: int
    heal: int
    deck: list[Injector] = field(default_factory=list)
    owed: list[Injector] = field(default_factory=list)
    spans: list[_Span] = field(default_factory=list)
    ends: int = 0
    """When the last fault drawn so far is over, its victim's recovery included."""

    def storm(self, at: int, faults: list[Fault]) -> int:
        """Add the faults of a storm that begins `at`; returns when the last of them is over."""
        length = min(self.rng.randint(*STORM_MS), self.heal - at)
        self.spans = [span for span in self.spans if max(span.end, span.down_end) > at]
        self.ends = at + length
        focus = f"m{self.rng.randint(1, self.members)}" if self.members > 1 and self.rng.random() < FOCUS_SHARE else ""
        owed, self.owed = self.owed, []
        exact = self.rate() * length / 1000
        count = max(1, int(exact) + (self.rng.random() < exact % 1))
        for number, injector in enumerate([*owed, *self.deal(max(0, count - len(owed)))]):
            # A storm begins with a fault; where the others come in it is chance.
            wanted = at if number == 0 else at + self.rng.randrange(max(1, length))
            found = self.fit(injector, wanted, at, at + length, focus)
            if found:
                faults.extend(found)
            else:
                self.owed.append(injector)
        return min(self.ends, self.heal)

    def rate(self) -> float:
        """Faults a second, in a storm."""
        kinds, seconds = len(self.injectors), self.heal / 1000
        wanted = max(FAULTS_A_SECOND_OF_KIND * kinds, DRAWN_OF_KIND_MIN * kinds / seconds)
        return min(wanted, FAULTS_A_SECOND_MAX)

    def calm(self, storm: int) -> int:
        """How long the calm after a storm of that length is, ms."""
        calm = self.rng.randint(*CALM_MS)
        # Groups that are killed together come on top of the rate.
        expected = self.rate() * self.heal / 1000
        return calm + int((storm + calm) * max(0.0, expected / FAULTS_MAX - 1))

    def deal(self, count: int) -> Iterator[Injector]:
        """The next `count` cards."""
        for _ in range(count):
            if not self.deck:
                self.deck = [injector for injector in self.injectors for _ in range(WEIGHTS[injector.frequency])]
                self.rng.shuffle(self.deck)
            yield self.deck.pop()

    def fit(self, injector: Injector, wanted: int, begin: int, end: int, focus: str) -> list[Fault]:
        """One of this kind at `wanted`, or at the first time from then on (from `begin` on, where there is none) that the budget and the
        claims leave before `end`; nothing where they leave none."""
        drawn = injector.draw(self.rng)
        target = "any" if self.members == 1 else focus if focus and drawn.target == "any" else drawn.target
        fault = _drawn(injector, target, wanted, drawn.parameters)
        takes_down = injector.down_ms(fault.parameters) > 0
        # A cluster of one loses its majority with every fault that takes it down: there, and where all are killed, everybody is up first.
        group = [fault]
        beyond = takes_down and (self.members == 1 or self.rng.random() < QUORUM_LOSS_SHARE)
        if injector.kind == "kill" and self.members > 1 and self.rng.random() < ALL_KILLED_SHARE:
            down_ms = self.rng.randint(100, QUORUM_LOSS_MS_MAX)
            group = [_drawn(injector, "any", wanted, {"down_ms": down_ms})] * self.members
            beyond = True
        elif beyond and self.members > 1:
            group = [_shortened(fault, injector, QUORUM_LOSS_MS_MAX, injector.patience)]
        budget = self.members if beyond else (self.members - 1) // 2
        for start in (wanted, begin):
            span = self.first_free(_span(group, injector, start), budget)
            if span.start < end:
                self.spans.append(span)
                kept = [_shortened(each, injector, self.heal - span.start) for each in group]
                self.ends = max(self.ends, span.end, span.down_end)
                return [replace(each, trigger=Trigger(span.start)) for each in kept]
        return []

    def first_free(self, wanted: _Span, budget: int) -> _Span:
        """`wanted`, moved to the first time at which nobody else has its claims and no more than `budget` members are down with it."""
        while True:
            ends = [span.end for span in self.spans if _claimed(span, wanted)]
            met = [span for span in self.spans if span.down and span.start < wanted.down_end and wanted.start < span.down_end]
            # All that it meets count together, though they need not meet each other: too careful is fine here.
            if wanted.down and met and _down([*met, wanted]) > budget:
                ends.append(min(span.down_end for span in met))
            if not ends:
                return wanted
            later = max(ends) - wanted.start
            wanted = wanted._replace(start=wanted.start + later, end=wanted.end + later, down_end=wanted.down_end + later)

    def place(self, faults: list[Fault], injectors: Mapping[str, Injector]) -> None:
        """Take note of faults that stay where they are."""
        self.spans += [_span([fault], injectors[fault.kind], fault.trigger.at_ms) for fault in faults]


def _span(group: list[Fault], injector: Injector, start: int) -> _Span:
    """What faults of one kind take that are injected together."""
    fault = group[0]
    down = injector.down_ms(fault.parameters)
    victim = "" if fault.target in ROLES else fault.target
    return _Span(start, start + injector.lasts_ms(fault.parameters), start + down, len(group) if down else 0, victim, injector.claims)


def _claimed(taken: _Span, wanted: _Span) -> bool:
    """Whether `wanted` asks for what `taken` has: an affair of the cluster, or one of the same, known victim."""
    if not (taken.start < wanted.end and wanted.start < taken.end):
        return False
    shared = taken.claims & wanted.claims
    return any(claim.startswith(CLUSTER) for claim in shared) or (bool(shared) and bool(wanted.victim) and taken.victim == wanted.victim)


def _down(spans: list[_Span]) -> int:
    """How many members are down at most: a victim that is known counts once, however much befalls it."""
    return sum(span.down for span in spans if not span.victim) + len({span.victim for span in spans if span.victim})


def _shortened(fault: Fault, injector: Injector, ms: int, patience: str = "") -> Fault:
    """`fault` with the lengths of time that it holds its victim for cut, one after the other, to `ms` in all; the parameter `patience` is
    left as it is."""
    kept = dict(fault.parameters)
    left = ms
    for name, parameter in injector.parameters.items():
        holds = name == injector.duration or injector.down_ms({**fault.parameters, name: 0}) != injector.down_ms(fault.parameters)
        if parameter.unit == "ms" and holds and name != patience:
            kept[name] = max(0, min(int(kept[name]), left))
            left -= int(kept[name])
    return replace(fault, parameters=kept)


def _awaited(fault: Fault) -> Iterator[str]:
    """The faults for which it waits, to begin or to end."""
    for moment in (fault.trigger, fault.until):
        if moment is not None:
            yield from filter(None, (moment.after, moment.healed))


def with_faults(schedule: Schedule, faults: tuple[Fault, ...]) -> Schedule:
    """`schedule` with `faults` asked for by name beside those that were drawn.

    Raises `UsageError` where one has no time to be healed, or waits for another one that is not there.
    """
    merged = tuple(sorted((*schedule.faults, *faults), key=_order))
    for fault in faults:
        if fault.trigger.at_ms >= schedule.heal_ms:
            raise UsageError(
                f"--fault {show(fault)!r}: faults are healed at {show_ms(schedule.heal_ms)}, of {show_ms(schedule.end_ms)} of traffic; "
                "trigger it earlier or give --time more"
            )
        for awaited in _awaited(fault):
            kind, _, number = awaited.partition("#")
            there = sum(other.kind == kind and other is not fault for other in merged)
            if there < int(number or 1):
                raise UsageError(f"--fault {show(fault)!r}: it waits for {awaited}, and there are {there} of {kind} besides")

    return replace(schedule, faults=merged)
