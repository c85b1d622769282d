"""The watch checker: for each rule a planted stream that breaks it and a near-identical one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pekan.catalogue import CODES
from pekan.checkers.case import Case, Fork, Options
from pekan.history.types import Mark, Operation
from pekan.verdict import CheckerReport
from pekan.wire import messages as wire
from pekan.wire.messages import NODELETE, NOPUT, Event, KeyValue

from .engines import check_watch_twice
from .watching import Script, bare, case_of, compaction, story

STORY = story(["a=1"], ["b=1", "c=1"], ["a=2"], ["-a"], ["b=2"], ["c=2"], ["b=3"], ["a=3"])
"""Revisions 2 to 9."""
E = {revision: bare(events) for revision, events in STORY.items()}
"""The same as a watch without prev_kv delivers it."""


TWICE = {
    2: STORY[2],
    3: tuple(event._replace(kv=event.kv._replace(mod_revision=3), prev_kv=STORY[2][0].kv) for event in STORY[4] + STORY[5]),
}
"""Revision 3 puts and deletes one key, as a transaction can whose delete is open to the end."""


def codes(case: Case) -> list[str]:
    return [finding.code for finding in check_watch_twice(case).findings]


def report(case: Case) -> CheckerReport:
    return check_watch_twice(case)


def full(start: int = 2, until: int = 9, **options: object) -> Script:
    """A watch of everything from `start`, one revision a message, up to `until`."""
    script = Script().create(start=start, at=9, **options)  # type: ignore[arg-type]
    for revision in range(max(start, 2), until + 1):
        script.say(*(STORY if options.get("prev_kv") else E)[revision], revision=9)
    return script


def changed(event: Event, **fields: object) -> Event:
    return event._replace(kv=event.kv._replace(**fields))


Build = Callable[[], Case]

PLANTED: dict[str, tuple[str, Build, Build]] = {
    "a key outside the range": (
        "WATCH-FILTER",
        lambda: case_of(STORY, Script().create(b"a", b"b", 2).say(*E[2]).say(*E[3][:1])),
        lambda: case_of(STORY, Script().create(b"a", b"c", 2).say(*E[2]).say(*E[3][:1])),
    ),
    "a key above a single key": (
        "WATCH-FILTER",
        lambda: case_of(STORY, Script().create(b"b", b"", 3).say(*E[3])),
        lambda: case_of(STORY, Script().create(b"b", b"\0", 3).say(*E[3])),
    ),
    "a delete where deletes are filtered": (
        "WATCH-FILTER",
        lambda: case_of(STORY, Script().create(start=4, filters=(NODELETE,)).say(*E[4]).say(*E[5])),
        lambda: case_of(STORY, Script().create(start=4, filters=(NODELETE,)).say(*E[4]).say(*E[6])),
    ),
    "a put where puts are filtered": (
        "WATCH-FILTER",
        lambda: case_of(STORY, Script().create(start=4, filters=(NOPUT,)).say(*E[4]).say(*E[5])),
        lambda: case_of(STORY, Script().create(start=4, filters=(NOPUT,)).say(*E[5])),
    ),
    "back in time after a snapshot (#15271)": (
        "WATCH-ORDERED",
        lambda: case_of(STORY, full(until=7).say(*E[4], revision=9).say(*E[5], revision=9).say(*E[8], revision=9)),
        lambda: case_of(STORY, full(until=7).say(*E[8], revision=9), full(4, 8)),
    ),
    "back in time within one message": (
        "WATCH-ORDERED",
        lambda: case_of(STORY, Script().create(start=2).say(*E[2], *E[4], *E[3])),
        lambda: case_of(STORY, Script().create(start=2).say(*E[2], *E[3], *E[4])),
    ),
    "the same event again": (
        "WATCH-UNIQUE",
        lambda: case_of(STORY, full(until=4).say(*E[4], revision=9)),
        lambda: case_of(STORY, full(until=4), full(4, 4)),
    ),
    "the same event twice in one message": (
        "WATCH-UNIQUE",
        lambda: case_of(STORY, Script().create(start=2).say(*E[2], *E[2])),
        lambda: case_of(STORY, Script().create(start=2).say(*E[2])),
    ),
    "a transaction in two messages": (
        "WATCH-ATOMIC",
        lambda: case_of(STORY, full(until=2).say(E[3][0], revision=9).say(E[3][1], revision=9).say(*E[4])),
        lambda: case_of(STORY, full(until=2, fragment=True).say(E[3][0], fragment=True).say(E[3][1]).say(*E[4])),
    ),
    "a lost event before later ones (#17529)": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full(until=4).say(*E[6], revision=9)),
        lambda: case_of(STORY, Script().create(b"b", b"d", 2).say(*E[3]).say(*E[6])),
    ),
    "a lost event before progress": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full(until=4).progress(6)),
        lambda: case_of(STORY, full(until=6).progress(6)),
    ),
    "a lost event that another message's header covers": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full(until=4).progress(9)),
        lambda: case_of(STORY, full(until=4)),  # Header 9 on a message with events promises nothing: a catch-up goes on.
    ),
    "progress at a revision of which nobody has seen anything": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full().progress(10), operations=_put_without_answer()),
        lambda: case_of(STORY, Script().create(b"a", b"d", 9).say(*E[9]).progress(10), operations=_put_without_answer()),
    ),
    "progress at a revision that only a put of its key can have made": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, Script().create(b"q", b"", 2).progress(10), operations=_put_without_answer()),
        lambda: case_of(STORY, Script().create(b"q", b"", 2, filters=(NOPUT,)).progress(10), operations=_put_without_answer()),
    ),
    "a lost half of a transaction": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full(until=2).say(E[3][0], revision=9).say(*E[4])),
        lambda: case_of(STORY, Script().create(b"a", b"c", 2).say(*E[2]).say(E[3][0], revision=9).say(*E[4])),
    ),
    "lost on a watch from now": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, Script().create(at=3).say(*E[5])),
        lambda: case_of(STORY, Script().create(at=4).say(*E[5])),
    ),
    "lost on a watch from now, after a delivery that came before the created reply was written": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, Script().create(at=5).say(*E[3]).say(*E[5])),
        lambda: case_of(STORY, Script().create(at=5).say(*E[4]).say(*E[5])),
    ),
    "lost on a watch for a key, seen by progress for all": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, Script().create(b"b", b"", at=4).progress(7, wid=-1)),
        lambda: case_of(STORY, Script().create(b"a", b"", at=5).progress(7, wid=-1)),
    ),
    "a start that skips the first event": (
        "WATCH-RESUMABLE",
        lambda: case_of(STORY, Script().create(start=4, at=9).say(*E[5]).say(*E[6])),
        lambda: case_of(STORY, Script().create(start=5, at=9).say(*E[5]).say(*E[6])),
    ),
    "the delete at the compaction revision (#18089)": (
        "WATCH-RESUMABLE",
        lambda: case_of(STORY, Script().create(start=5, at=9).say(*E[6]), operations=[compaction(1, 5, 900)]),
        lambda: case_of(STORY, Script().create(start=5, at=9).say(*E[5]).say(*E[6]), operations=[compaction(1, 5, 900)]),
    ),
    "nothing but progress from a start in the past (#19179)": (
        "WATCH-RESUMABLE",
        lambda: case_of(STORY, Script().create(b"a", b"", 5, at=6).progress(6)),
        lambda: case_of(STORY, Script().create(b"a", b"", 6, at=6).progress(6)),
    ),
    "half of the first revision": (
        "WATCH-RESUMABLE",
        lambda: case_of(STORY, Script().create(start=3, at=9).say(E[3][0]).say(*E[4])),
        lambda: case_of(STORY, Script().create(b"b", b"c", 3, at=9).say(E[3][0]).say(*E[6])),
    ),
    "an event at its own earlier progress (#15220)": (
        "WATCH-BOOKMARKABLE",
        lambda: case_of(STORY, full(until=3).progress(4).say(*E[4])),
        lambda: case_of(STORY, full(until=3).progress(3).say(*E[4])),
    ),
    "an event after progress for all (#15220)": (
        "WATCH-BOOKMARKABLE",
        lambda: case_of(STORY, Script().create(start=2, at=5).progress(5, wid=-1).say(*E[2], *E[3], *E[4], *E[5])),
        lambda: case_of(STORY, Script().ask(start=2).progress(5, wid=-1).created(5).say(*E[2], *E[3], *E[4], *E[5])),
    ),
    "an event below the start (#20221)": (
        "WATCH-START",
        lambda: case_of(STORY, Script().create(start=6, at=4).say(*E[5]).say(*E[6])),
        lambda: case_of(STORY, Script().create(start=5, at=4).say(*E[5]).say(*E[6])),
    ),
    "a resume that delivers the last event again": (
        "WATCH-START",
        lambda: case_of(STORY, full(until=4), Script(2).create(start=5, at=9).say(*E[4]).say(*E[5])),
        lambda: case_of(STORY, full(until=4), Script(2).create(start=4, at=9).say(*E[4]).say(*E[5])),
    ),
    "progress of a watch that has not begun (#20221)": (
        "WATCH-START",
        lambda: case_of(STORY, Script().create(start=9, at=5, progress_notify=True).progress(5)),
        lambda: case_of(STORY, Script().create(start=6, at=5, progress_notify=True).progress(5)),
    ),
    "a watch from now that tells the past": (
        "WATCH-START",
        lambda: case_of(STORY, Script().create(b"x", b"", at=6).create(at=6, wid=1).say(*E[4], wid=1)),
        lambda: case_of(STORY, Script().create(b"x", b"", at=4).create(at=6, wid=1).say(*E[5], wid=1).say(*E[6], wid=1)),
    ),
    "a wrong prev_kv": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(STORY[4][0]._replace(prev_kv=STORY[3][0].kv))),
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(STORY[4][0])),
    ),
    "a prev_kv of a created key": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, Script().create(start=2, prev_kv=True).say(E[2][0]._replace(prev_kv=KeyValue(b"a", 1, 1, 1, b"", 0)))),
        lambda: case_of(STORY, Script().create(start=2, prev_kv=True).say(E[2][0])),
    ),
    "a missing prev_kv": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 3, 900)]),
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 4, 900, "indefinite")]),
    ),
    "a first message without any prev_kv": (
        "WATCH-PREV-KV-FIRST",
        lambda: case_of(STORY, Script().create(start=4, prev_kv=True).say(*E[4])),
        lambda: case_of(STORY, Script().create(start=4).say(*E[4])),
    ),
    "a missing prev_kv in a first message that has others": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, Script().create(start=4, prev_kv=True).say(*E[4], STORY[5][0])),
        lambda: case_of(STORY, Script().create(start=4, prev_kv=True).say(STORY[4][0], STORY[5][0])),
    ),
    "a missing prev_kv, compacted only later": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 4, 9_000)]),
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 4, 1_001)]),
    ),
    "a missing prev_kv of a deletion": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=4, prev_kv=True).say(*E[5])),
        lambda: case_of(STORY, full(until=4).say(*E[5])),
    ),
    "a missing prev_kv, unless the watch was being cancelled": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]).cancel().canceled(9)),
        lambda: case_of(STORY, full(until=3, prev_kv=True).cancel().say(*E[4]).canceled(9)),
    ),
    "a missing prev_kv, beside a compaction that was refused": (
        "WATCH-PREV-KV",
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 8, 900, "failed")]),
        lambda: case_of(STORY, full(until=3, prev_kv=True).say(*E[4]), operations=[compaction(1, 8, 900)]),
    ),
    "one change of a key that a transaction put and deleted": (
        "WATCH-CONTENT",
        lambda: case_of(
            TWICE, Script().create(start=2).say(*bare(TWICE[2])).say(bare(TWICE[3])[0], changed(E[5][0], mod_revision=3, lease=1))
        ),
        lambda: case_of(TWICE, Script().create(start=2).say(*bare(TWICE[2])).say(*bare(TWICE[3]))),
    ),
    "another value": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], value=b"other"))),
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], value=b"2"))),
    ),
    "another version": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], version=3))),
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], version=2))),
    ),
    "another create revision": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], create_revision=3))),
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], create_revision=2))),
    ),
    "another lease": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], lease=7))),
        lambda: case_of(STORY, full(until=3).say(changed(E[4][0], lease=0))),
    ),
    "a delete that was a put": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(Event(wire.DELETE, KeyValue(b"a", 0, 4, 0, b"", 0), None))),
        lambda: case_of(STORY, full(until=4).say(Event(wire.DELETE, KeyValue(b"a", 0, 5, 0, b"", 0), None))),
    ),
    "a delete that carries more than key and revision": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=4).say(changed(E[5][0], version=2))),
        lambda: case_of(STORY, full(until=4).say(changed(E[5][0], version=0))),
    ),
    "an event that never was": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, full(until=3).say(*E[4], Event(wire.PUT, KeyValue(b"z", 4, 4, 1, b"", 0), None))),
        lambda: case_of(STORY, full(until=3).say(*E[4])),
    ),
    "a header beyond what was ever asked for": (
        "WATCH-PROGRESS",
        lambda: case_of(STORY, full().progress(10)),
        lambda: case_of(STORY, Script().create(b"x", b"", 2).progress(10), operations=_put_without_answer()),
    ),
    "a header before its write was asked for": (
        "WATCH-PROGRESS",
        lambda: case_of(STORY, Script(now=-15).create(at=5)),  # `case_of` invokes the write of revision r at 8 + r ns; this comes at 5.
        lambda: case_of(STORY, Script(now=-6).create(at=5)),
    ),
    "progress that goes back": (
        "WATCH-PROGRESS",
        lambda: case_of(STORY, Script().create(b"x", b"", 2).progress(7, wid=-1).progress(6)),
        lambda: case_of(STORY, full(until=6).progress(5)),
    ),
    "cancelled for a compaction nobody asked for": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, Script().create(start=2, at=9).canceled(compact_revision=5)),
        lambda: case_of(STORY, Script().create(start=2, at=9).canceled(compact_revision=5), operations=[compaction(1, 5, 900)]),
    ),
    "cancelled for a compaction asked for only later": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, Script().create(start=2, at=9).canceled(compact_revision=5), operations=[compaction(1, 5, 2_000)]),
        lambda: case_of(
            STORY, Script().create(start=2, at=9).canceled(compact_revision=5), operations=[compaction(1, 5, 900, "indefinite")]
        ),
    ),
    "cancelled for a compaction that takes nothing from it": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, Script().create(start=5, at=9).canceled(compact_revision=5), operations=[compaction(1, 5, 900)]),
        lambda: case_of(STORY, Script().create(start=4, at=9).canceled(compact_revision=5), operations=[compaction(1, 5, 900)]),
    ),
    "cancelled after it had delivered past the compaction": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, full(until=5).canceled(compact_revision=6), operations=[compaction(1, 6, 900)]),
        lambda: case_of(STORY, full(until=4).canceled(compact_revision=6), operations=[compaction(1, 6, 900)]),
    ),
    "cancelled though nobody asked": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, full(until=5).canceled(9)),
        lambda: case_of(STORY, full(until=5).cancel().canceled(9)),
    ),
    "events after the cancellation": (
        "WATCH-CANCEL",
        lambda: case_of(STORY, full(until=5).cancel().canceled(9).say(*E[6])),
        lambda: case_of(STORY, full(until=5).cancel().say(*E[6]).canceled(9).canceled(9)),
    ),
    "fragments nobody asked for": (
        "WATCH-FRAGMENT",
        lambda: case_of(STORY, full(until=2).say(E[3][0], fragment=True).say(E[3][1])),
        lambda: case_of(STORY, full(until=2, fragment=True).say(E[3][0], fragment=True).say(E[3][1])),
    ),
    "fragments that are not completed": (
        "WATCH-FRAGMENT",
        lambda: case_of(STORY, full(until=2, fragment=True).say(*E[3], fragment=True).say(*E[4])),
        lambda: case_of(STORY, full(until=2, fragment=True).say(*E[3]).say(E[4][0], fragment=True).end()),
    ),
    "members that tell different stories": (
        "MEMBER-DIVERGED",
        lambda: case_of(STORY, Script(1, "m1").create(start=4).say(*E[4]), Script(2, "m2").create(start=4).say(*_other(4)), order=False),
        lambda: case_of(STORY, Script(1, "m1").create(start=4).say(*E[4]), Script(2, "m2").create(start=4).say(*STORY[4]), order=False),
    ),
    "narrow watches that disagree": (
        "WATCH-CONTENT",
        lambda: case_of(
            STORY,
            Script(1, "m1").create(b"a", b"", 4).say(*E[4]),
            Script(2, "m2").create(b"a", b"", 4).say(*_other(4)),
            order=False,
        ),
        lambda: case_of(
            STORY,
            Script(1, "m1").create(b"a", b"", 4).say(*E[4]),
            Script(2, "m2").create(b"a", b"", 4).say(*STORY[4]),
            order=False,
        ),
    ),
    "an event that contradicts itself, with no order to hold it against": (
        "WATCH-CONTENT",
        lambda: case_of(STORY, Script().create(start=4).say(changed(E[4][0], version=1)), order=False),
        lambda: case_of(STORY, Script().create(start=4).say(changed(E[4][0], version=1, create_revision=4)), order=False),
    ),
    "what another member delivered, with no order to hold it against": (
        "WATCH-RELIABLE",
        lambda: case_of(STORY, full(until=6), _skipping(5), order=False),
        lambda: case_of(STORY, full(until=6), Script(2, "m2").create(b"b", b"d", 2).say(*E[3]).say(*E[6]), order=False),
    ),
}


def _other(revision: int) -> tuple[Event, ...]:
    return tuple(changed(event, value=b"other") for event in E[revision])


def _skipping(*skipped: int) -> Script:
    script = Script(2, "m2").create(start=2, at=9)
    for revision in range(2, 7):
        if revision not in skipped:
            script.say(*E[revision])
    return script


def _put_without_answer() -> list[Operation]:
    return [Operation(2, 2, 950, None, "indefinite", wire.PutRequest(b"q"), None, wire.PUT_METHOD, "kv-0", "m1")]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_caught_with_exactly_its_code(name: str) -> None:
    """Each rule catches the stream that breaks it, and no other rule speaks of it."""
    code, illegal, _ = PLANTED[name]
    assert codes(illegal()) == [code]


@pytest.mark.parametrize("name", PLANTED)
def test_the_near_identical_legal_stream_is_left_alone(name: str) -> None:
    """What differs from a violation in the one thing that makes it one breaks nothing."""
    _, _, legal = PLANTED[name]
    assert report(legal()).findings == ()


def test_every_watch_code_has_a_planted_violation() -> None:
    """No code of the catalogue's watch section goes without a sample."""
    planted = {code for code, _, _ in PLANTED.values()}
    assert {code for code in CODES if code.startswith("WATCH-")} <= planted


def test_a_finding_is_provable_from_its_certificate() -> None:
    """It names member, stream, watch and revision, shows request and message, and the operation that wrote the missing revision."""
    case = case_of(STORY, full(until=4).say(*E[6], revision=9))
    (finding,) = check_watch_twice(case).findings
    assert finding.subject == {"member": "m1", "stream": 1, "watch": 0, "revision": 5, "key": "'a'", "operations": [1005]}
    assert [exhibit.operation for exhibit in finding.certificate] == [None, None, None, 1005]
    assert all(exhibit.what for exhibit in finding.certificate)


def test_a_thousand_missing_events_are_one_finding() -> None:
    """A gap is one finding a watch, and the same gap on several watches is counted."""
    case = case_of(STORY, *[Script(id_, f"m{id_}").create(start=2, at=9).say(*E[2]).say(*E[9]) for id_ in (1, 2, 3)])
    (finding,) = check_watch_twice(case).findings
    assert finding.count == 3
    assert "6 revisions are missing" in finding.explanation


def test_nothing_is_concluded_from_unknown_revisions() -> None:
    """Missing or odd events of a revision that the order does not prove are no finding, but where they had to come whatever they were."""
    assert codes(case_of(STORY, Script().create(b"a", b"b", 2).say(*E[2]).say(*E[4]).say(*E[9]), unknown=[5])) == []
    assert codes(case_of(STORY, full(until=3).say(changed(E[4][0], value=b"?")).say(*E[5]), unknown=[4])) == []
    assert codes(case_of(STORY, full(until=4).say(*E[6], revision=9), unknown=[5])) == ["WATCH-RELIABLE"]
    assert codes(case_of(STORY, full(until=4).say(*E[6], revision=9), unknown=[5], start="unknown")) == []


def test_after_a_fork_streams_are_held_against_themselves_only() -> None:
    """Below the first revision that differs the order counts; from it on only a stream's own rules do."""
    fork = Fork(5, "KV-CONTENT", "", ())

    def forked(script: Script) -> list[str]:
        case = case_of(STORY, script)
        case.fork = fork
        return codes(case)

    assert forked(full(until=4).say(changed(E[6][0], value=b"other"), revision=9)) == []
    assert forked(full(until=3).say(changed(E[4][0], value=b"other"), revision=9)) == ["WATCH-CONTENT"]
    assert forked(full(until=7).say(*E[6], revision=9)) == ["WATCH-ORDERED"]
    assert forked(full(until=7).progress(8).say(*E[8], revision=9)) == ["WATCH-BOOKMARKABLE"]


def test_a_difference_that_has_a_root_is_not_told_again() -> None:
    """Where another finding names the fork, the members' different stories are its consequence."""
    scripts = (Script(1, "m1").create(start=4).say(*E[4]), Script(2, "m2").create(start=4).say(*_other(4)))
    case = case_of(STORY, *scripts)
    case.fork = Fork(4, "REFUSED-BUT-APPLIED", "", ())
    assert codes(case) == []
    case = case_of(STORY, *scripts)
    assert codes(case) == ["MEMBER-DIVERGED"]
    assert case.fork is not None
    assert case.fork.revision == 4


def test_other_writers_and_an_unknown_beginning_weaken_what_needs_a_complete_record() -> None:
    """Where somebody else may have compacted or written, cancellations, missing prev_kv and far headers prove nothing."""
    scripts: list[Callable[[], Script]] = [
        lambda: Script().create(start=2, at=9).canceled(compact_revision=5),
        lambda: full(until=3, prev_kv=True).say(*E[4]),
        lambda: Script().create(b"x", b"", 2).progress(20),
    ]
    for script in scripts:
        assert len(codes(case_of(STORY, script()))) == 1
        assert codes(case_of(STORY, script(), options=Options(writers="shared"))) == []
        assert codes(case_of(STORY, script(), start="unknown")) == []


def test_a_history_without_watches_is_not_applicable() -> None:
    """Where nothing was watched there is nothing to judge."""
    assert report(case_of(STORY)).applicable is False


def test_a_refused_or_unanswered_watch_proves_nothing() -> None:
    """A create request that was refused, or never answered, delivers nothing and misses nothing."""
    assert codes(case_of(STORY, Script().ask(start=2).refused(9), Script(2).ask(start=2))) == []


def test_a_member_whose_watches_saw_nothing_is_undecided() -> None:
    """Watches of everything that received none of what was written while they were connected are evidence of nothing."""
    silent = Script(1, "m1", now=0).create(start=0, at=1).end()
    silent.ended = 100_000
    watched = Script(2, "m2", now=0).create(start=2, at=1).at(2_000).say(*E[2])
    late = case_of(STORY, silent, watched)
    late.history = type(late.history)(
        operations=tuple(op._replace(call=op.call + 500, ret=(op.ret or 0) + 500) for op in late.history.operations),
        streams=late.history.streams,
        start="empty",
    )
    (reason,) = report(late).undecided
    assert "m1" in reason.reason
    assert report(case_of(STORY, watched)).undecided == ()
    # Not of a member that was removed: it hears of nothing any more, and some were there for a moment only.
    late.history = replace(late.history, marks=(Mark(0, "part", "m1", {"part": "leaving"}),))
    assert report(late).undecided == ()


def test_counts_tell_what_was_judged() -> None:
    """The report says how many watches, events and notifications were looked at."""
    judged = report(case_of(STORY, full().progress(9), Script(2, "m2").create(b"x"))).judged
    assert (judged["watches"], judged["events"], judged["progress"]) == (2, 9, 1)


def test_a_refused_compaction_cancels_only_where_members_have_parted() -> None:
    """A member that refuses a compaction speaks for all while they hold the same, and only for itself after a fork."""
    refused = compaction(1, 5, 900, "failed")._replace(ret=905)

    def cancelled() -> Case:
        return case_of(STORY, Script().create(start=2, at=9).canceled(compact_revision=5), operations=[refused])

    assert codes(cancelled()) == ["WATCH-CANCEL"]
    parted = cancelled()
    parted.fork = Fork(4, "REFUSED-BUT-APPLIED", "members differ from revision 4 on", ())
    assert codes(parted) == []
