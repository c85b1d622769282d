"""Faults in words: what `--fault` takes, and what a plan prints, are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.errors import UsageError
from pekan.faults import INJECTORS, parse, show
from pekan.faults.grammar import AT_MS
from pekan.plan import ROLES, Fault, Plan, Schedule, Trigger

MEMBERS = ("m1", "m2", "m3")
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
NAMES = st.from_regex(r"[a-zA-Z][\w./*()-]{0,30}", fullmatch=True)
EVENTS = st.one_of(
    st.just({}),
    st.builds(lambda revision: {"revision": revision}, st.integers(1, 2**62)),
    st.builds(lambda log: {"log": log}, TEXT),
    st.builds(lambda failpoint, hit: {"failpoint": failpoint, "hit": hit}, NAMES | TEXT, st.integers(1, 10_000)),
    st.builds(lambda kind, n: {"after": kind if n == 1 else f"{kind}#{n}"}, st.sampled_from(sorted(INJECTORS)), st.integers(1, 9)),
)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """Any fault that can be asked for."""
    kind = draw(st.sampled_from(sorted(INJECTORS)))
    parameters: dict[str, Any] = {}
    for name, parameter in INJECTORS[kind].parameters.items():
        if isinstance(parameter.default, int):
            parameters[name] = draw(st.integers(-(2**40), 2**40))
        else:
            parameters[name] = draw(st.sampled_from(parameter.choices) if parameter.choices else TEXT | st.just(""))
    event = draw(EVENTS)
    if "#" in event.get("failpoint", "") and event["hit"] == 1:
        event["failpoint"] = event["failpoint"].replace("#", "")
    end = draw(st.none() | EVENTS.filter(lambda found: found and "failpoint" not in found)) if INJECTORS[kind].open_end else None
    if end is not None:
        del parameters[INJECTORS[kind].duration]
    at_ms = draw(st.integers(0, 10_000_000))
    event = {name: value for name, value in event.items() if value}
    return Fault(kind, draw(st.sampled_from((*ROLES, *MEMBERS))), Trigger(at_ms, **event), parameters, True, "", end and Trigger(**end))


@given(faults().filter(lambda fault: fault.trigger.failpoint or fault.trigger.hit == 1))
def test_what_is_shown_is_what_is_parsed(fault: Fault) -> None:
    """A fault printed by a plan can be pasted back, whatever its trigger, texts and numbers; so can one that was drawn."""
    assert parse(show(fault), MEMBERS) == fault
    assert parse(show(replace(fault, required=False)), MEMBERS) == fault
    plan = Plan(etcd="3.5.1", seed=1, schedule=Schedule(0, 1, 2, (fault,)))
    assert Plan.from_text(plan.to_text()) == plan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kill", Fault("kill", "any", Trigger(AT_MS), {"down_ms": 500}, required=True)),
        ("pause leader 2s at 10s", Fault("pause", "leader", Trigger(10_000), {"hold_ms": 2_000}, required=True)),
        ("pause at 10s 2s leader", Fault("pause", "leader", Trigger(10_000), {"hold_ms": 2_000}, required=True)),
        ("kill m2 down_ms=30 at 1.5s", Fault("kill", "m2", Trigger(1_500), {"down_ms": 30}, required=True)),
        (
            "restart follower down_ms=1s",
            Fault("restart", "follower", Trigger(AT_MS), {"grace_ms": 10_000, "down_ms": 1_000}, required=True),
        ),
        ("kill at revision 900", Fault("kill", "any", Trigger(revision=900), {"down_ms": 500}, required=True)),
        ("kill at 5s at revision 900 leader", Fault("kill", "leader", Trigger(5_000, revision=900), {"down_ms": 500}, required=True)),
        ('kill on log "elected leader" 1s', Fault("kill", "any", Trigger(log="elected leader"), {"down_ms": 1_000}, required=True)),
        (r'kill on log "a \"b\" \\c"', Fault("kill", "any", Trigger(log=r'a "b" \c'), {"down_ms": 500}, required=True)),
        ("kill on log at", Fault("kill", "any", Trigger(log="at"), {"down_ms": 500}, required=True)),
        (
            "kill on failpoint raftBeforeSave#3 leader",
            Fault("kill", "leader", Trigger(failpoint="raftBeforeSave", hit=3), {"down_ms": 500}, required=True),
        ),
        (
            "kill on failpoint mvcc.(*store).Commit",
            Fault("kill", "any", Trigger(failpoint="mvcc.(*store).Commit"), {"down_ms": 500}, required=True),
        ),
        ("kill after pause", Fault("kill", "any", Trigger(after="pause"), {"down_ms": 500}, required=True)),
        ("kill after healed pause#2", Fault("kill", "any", Trigger(healed="pause#2"), {"down_ms": 500}, required=True)),
        ("kill m1 on step compacted", Fault("kill", "m1", Trigger(step="compacted"), {"down_ms": 500}, required=True)),
        ("kill after pause#2 m1 at 9s", Fault("kill", "m1", Trigger(9_000, after="pause#2"), {"down_ms": 500}, required=True)),
        ("pause m1 until step written", Fault("pause", "m1", Trigger(AT_MS), {}, required=True, until=Trigger(step="written"))),
        (
            'restart m1 on step a until log "b c" grace_ms=1s',
            Fault("restart", "m1", Trigger(step="a"), {"grace_ms": 1_000}, required=True, until=Trigger(log="b c")),
        ),
        (
            "kill until after healed pause#2 at revision 9",
            Fault("kill", "any", Trigger(revision=9), {}, required=True, until=Trigger(healed="pause#2")),
        ),
    ],
)
def test_a_fault_in_words(text: str, expected: Fault) -> None:
    """Target, duration, settings and trigger, in any order after the kind; what is left out has a default."""
    assert parse(text, MEMBERS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("explode", "no fault is called 'explode'; there are kill, pause, restart"),
        ("kill m9", "no member is called 'm9'; write leader, follower, any, m1, m2, m3"),
        ("kill leader follower", "two targets, 'leader' and 'follower'"),
        ("kill at", "'' is no length of time"),
        ("kill at soon", "'soon' is no length of time"),
        ("kill at 5s at 6s", "a time is given twice"),
        ("kill 5s down_ms=4", "down_ms is given twice"),
        ("kill speed=3", "kill takes no 'speed'; it takes down_ms"),
        ("kill down_ms=fast", "'fast' is no length of time"),
        ("kill at revision", "at revision '': write a revision"),
        ("kill at revision 0", "at revision '0'"),
        ("kill at revision 5s", "at revision '5s'"),
        ("kill on", "on '': write on log \"TEXT\", on failpoint NAME"),
        ("kill on fire", "on 'fire': write on log"),
        ("kill until 5s", "until '5s': write until revision R"),
        ("kill until", "until '': write until revision R"),
        ("kill until after", "'': write after KIND"),
        ("kill until step", "write the name of a step"),
        ("kill until step a until step b", "until is given twice"),
        ("kill 5s until step a", "it ends twice, by down_ms and by until"),
        ("defragment until step a", "defragment takes no until"),
        ("kill on log", "on log: write the text"),
        ('kill on log ""', "on log: write the text"),
        ('kill on log "elected', "a quote is opened and never closed"),
        ('kill on log elected leader "', "a quote is opened and never closed"),
        ("kill on failpoint", "'': write on failpoint NAME"),
        ("kill on failpoint raftBeforeSave#0", "'raftBeforeSave#0': write on failpoint NAME"),
        ("kill on failpoint raftBeforeSave#x", "N a whole number"),
        ("kill on step", "on step: write the name of a step"),
        ("kill after healed rain", "after 'rain': no fault is called that"),
        ("kill after", "after '': no fault is called that|'': write after KIND"),
        ("kill after rain", "after 'rain': no fault is called that"),
        ("kill after pause after restart", "two triggers; one is enough besides a time: after restart"),
        ("kill at revision 5 on log x", "two triggers"),
        ("kill 50%", "'50%' is neither"),
    ],
)
def test_a_fault_that_makes_no_sense(text: str, message: str) -> None:
    """The message names the word that is wrong and what would be right."""
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse(text, MEMBERS)
