"""Random histories watched by lawful watches are never faulted, and a random wrong turn always is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.checkers.case import Case
from pekan.checkers.evidence import matches, watched
from pekan.wire.messages import NODELETE, NOPUT, Event, WatchCreateRequest

from .engines import check_watch_twice
from .watching import Script, bare, case_of, story

Story = dict[int, tuple[Event, ...]]
Group = tuple[Event, ...]

RANGES = ((b"\0", b"\0"), (b"a", b""), (b"a", b"c"), (b"b", b"\0"), (b"zz", b""))


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Up to sixteen revisions over four keys, some with several changes, deletions only of keys that are there."""
    alive: set[str] = set()
    revisions: list[list[str]] = []
    for number in range(draw(st.integers(2, 16))):
        changes = []
        for key in sorted(draw(st.sets(st.sampled_from("abcd"), min_size=1, max_size=3))):
            if key in alive and draw(st.booleans()):
                changes.append(f"-{key}")
                alive.discard(key)
            else:
                changes.append(f"{key}={number}")
                alive.add(key)
        revisions.append(changes)
    return story(*revisions)


@st.composite
def lawful(draw: st.DrawFn, events: Story, stream: int) -> list[Script]:
    """A watch of `events` as etcd may serve it, and its resumes: any start, slices of any size, fragments, progress, lag, early end."""
    newest = max(events)
    key, range_end = draw(st.sampled_from(RANGES))
    filters = draw(st.sampled_from(((), (), (NOPUT,), (NODELETE,))))
    prev_kv, fragment = draw(st.booleans()), draw(st.booleans())
    begin = draw(st.integers(1, newest + 2))
    scripts: list[Script] = []
    for attempt in range(draw(st.integers(1, 3))):
        from_now = attempt == 0 and draw(st.booleans())
        # A watch from now shows where the store stood, or a little later: newer releases write that header after they registered it.
        created = min(newest, begin - 1 + (draw(st.integers(0, 2)) if from_now else 0)) if from_now else draw(st.integers(1, newest))
        script = Script(stream * 10 + attempt, draw(st.sampled_from(("m1", "m2", "m3"))), now=1_000 * (attempt + 1))
        script.create(key, range_end, 0 if from_now else begin, at=created, filters=filters, prev_kv=prev_kv, fragment=fragment)
        request = WatchCreateRequest(key, range_end, begin, filters=filters)
        due = [(r, tuple(e for e in made if matches(request, e))) for r, made in sorted(events.items()) if r >= begin]
        due = [(r, group if prev_kv else bare(group)) for r, group in due if group]
        stop = draw(st.integers(0, len(due)))
        at = 0
        while at < stop:
            size = draw(st.integers(1, stop - at))
            _deliver(draw, script, due[at : at + size], newest, fragment)
            at += size
            if draw(st.booleans()):
                upto = due[at][0] - 1 if at < len(due) else newest
                low = due[at - 1][0]
                if upto >= low >= begin:
                    script.progress(draw(st.integers(low, upto)), wid=draw(st.sampled_from((0, -1))))
                    begin = max(begin, script.messages[-1].message.header.revision + 1)
        if at:
            begin = max(begin, due[at - 1][0] + 1)
        if draw(st.booleans()):
            script.cancel().canceled(newest)
        scripts.append(script.end())
    return scripts


def _deliver(draw: st.DrawFn, script: Script, slices: list[tuple[int, Group]], newest: int, fragment: bool) -> None:
    """One message, or where asked for its fragments, with a header anywhere from its last revision on."""
    header = draw(st.integers(slices[-1][0], newest))
    together = [event for _, group in slices for event in group]
    cut = draw(st.integers(0, len(together) - 1)) if fragment else 0
    if cut:
        script.say(*together[:cut], revision=header, fragment=True)
    script.say(*together[cut:], revision=header)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    events = draw(stories())
    scripts = [script for number in range(draw(st.integers(1, 3))) for script in draw(lawful(events, number))]
    unknown = draw(st.sets(st.sampled_from(sorted(events)), max_size=3))
    return case_of(events, *scripts, unknown=unknown, order=draw(st.integers(0, 4)) > 0)


@settings(max_examples=150)
@given(cases())
def test_lawful_watches_are_never_faulted(case: Case) -> None:
    """Any slicing, lag, fragments, filters and resumes that etcd may show break no rule, with or without a replayed order."""
    assert [finding.summary for finding in check_watch_twice(case).findings] == []


@settings(max_examples=60)
@given(cases())
def test_what_watches_show_is_what_happened(case: Case) -> None:
    """Merged evidence never contradicts the history, and a revision called whole is complete."""
    assert case.order is None or all(
        tuple(event[:2] for event in known.events[revision]) == tuple(event[:2] for event in case.order.events[revision])
        for known in (watched(case),)
        for revision in known.whole
    )


@settings(max_examples=100)
@given(stories(), st.data())
def test_a_wrong_turn_is_always_caught(events: Story, data: st.DataObject) -> None:
    """Dropping, doubling or exchanging one delivery of a complete watch, or progress too early, is found with the code that says so."""
    revisions = sorted(events)
    at = data.draw(st.integers(0, len(revisions) - 2))
    turn = data.draw(st.sampled_from(("drop", "double", "exchange", "early")))
    delivered = list(revisions)
    script = Script().create(start=2, at=revisions[-1])
    expected = {"double": "WATCH-UNIQUE", "exchange": "WATCH-ORDERED", "early": "WATCH-BOOKMARKABLE"}.get(turn, "")
    if turn == "drop":
        del delivered[at]
        expected = "WATCH-RELIABLE" if at else "WATCH-RESUMABLE"
    elif turn == "double":
        delivered.insert(at, delivered[at])
    elif turn == "exchange":
        delivered[at], delivered[at + 1] = delivered[at + 1], delivered[at]
    for number, revision in enumerate(delivered):
        if turn == "early" and number == at:
            script.progress(revision)
        script.say(*bare(events[revision]), revision=revisions[-1])
    assert [finding.code for finding in check_watch_twice(case_of(events, script)).findings] == [expected]
