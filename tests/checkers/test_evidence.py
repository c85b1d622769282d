"""What is read from watch streams: how they split, what is whole, where members differ."""

from __future__ import annotations

from pekan.checkers.evidence import (
    bounds,
    compactions,
    first_difference,
    is_whole,
    matches,
    member_ids,
    watched,
    watches,
)
from pekan.wire.messages import NODELETE, NOPUT, WatchCreateRequest

from .watching import Script, bare, case_of, compaction, story

STORY = story(["a=1"], ["b=1", "c=1"], ["a=2"], ["-a"], ["b=2"])


def test_a_stream_splits_into_the_watches_that_were_asked_for() -> None:
    """Creates in flight are answered in order, and each message goes to the watch of its id."""
    script = Script().ask(b"a", b"", 2).ask(b"b", b"", 3).created(1, 0).created(1, 1)
    script.say(*bare(STORY[2]), wid=0).say(*bare(STORY[3][:1]), wid=1).progress(4, wid=-1)
    first, second = watches(case_of(STORY, script))
    assert (first.id, first.request.key, [m.message.header.revision for m in first.messages]) == (0, b"a", [2, 4])
    assert (second.id, second.request.key, [m.message.header.revision for m in second.messages]) == (1, b"b", [3, 4])


def test_a_watch_id_used_again_after_a_cancellation_is_another_watch() -> None:
    """A client may choose the id that a cancelled watch had; what comes between the two belongs to neither."""
    script = Script().create(start=2, wid=7, watch_id=7).say(*bare(STORY[2]), wid=7).cancel(7).canceled(2, 7)
    script.say(*bare(STORY[3]), wid=7).create(start=4, wid=7, at=3, watch_id=7).say(*bare(STORY[4]), wid=7)
    first, second = watches(case_of(STORY, script))
    assert [len(m.message.events) for m in first.messages] == [1, 0]
    assert first.canceled is not None
    assert first.cancel_sent is not None
    assert [m.message.events for m in first.late] == [bare(STORY[3])]
    assert [m.message.events for m in second.messages] == [bare(STORY[4])]
    assert second.floor == 3


def test_a_progress_notification_for_all_speaks_to_created_watches_only() -> None:
    """Watch id -1 reaches the watches that are created and not cancelled at that moment."""
    script = Script().create(b"a", b"", 2, wid=0).create(b"b", b"", 2, wid=1).cancel(1).canceled(1, 1).ask(b"c", b"", 2)
    script.progress(6, wid=-1).created(6, 2)
    first, second, third = watches(case_of(STORY, script))
    assert [m.message.watch_id for m in first.messages] == [-1]
    assert [m.message.canceled for m in second.messages] == [True]
    assert third.messages == ()


def test_a_refused_create_opens_nothing() -> None:
    """A created and cancelled reply answers the oldest create request and the next reply answers the next."""
    script = Script().ask(b"x", b"", 2).ask(b"a", b"", 2).refused(1).created(1, 0).say(*bare(STORY[2]))
    refused, granted = watches(case_of(STORY, script))
    assert refused.refused
    assert refused.messages == ()
    assert not granted.refused
    assert len(granted.messages) == 1


def test_fragments_are_put_together() -> None:
    """The pieces up to the first unmarked one are one message with the time of the last; pieces without a last stay apart."""
    one, other = bare(STORY[3])
    script = Script().create(start=2, fragment=True).say(one, fragment=True).say(other).say(one, fragment=True)
    (watch,) = watches(case_of(STORY, script))
    assert [m.message.events for m in watch.messages] == [(one, other)]
    assert watch.messages[0].time == script.messages[3].time
    assert len(watch.unfinished) == 1
    assert watched(case_of(STORY, script)).whole == {3}


def test_only_a_watch_of_everything_makes_a_revision_whole() -> None:
    """A filtered or narrower watch adds events and never completeness."""
    part = Script(1).create(b"b", b"", 2).say(*bare(STORY[3][:1]))
    known = watched(case_of(STORY, part))
    assert known.events == {3: bare(STORY[3][:1])}
    assert known.whole == set()
    both = watched(case_of(STORY, part, Script(2, "m2").create(start=3).say(*bare(STORY[3]))))
    assert both.events[3] == bare(STORY[3])
    assert both.whole == {3}


def test_a_revision_in_pieces_is_not_whole() -> None:
    """A server that splits a revision over messages leaves it unproven."""
    one, other = bare(STORY[3])
    known = watched(case_of(STORY, Script().create(start=2).say(one).say(other)))
    assert known.events[3] == (one, other)
    assert known.whole == set()


def test_a_revision_at_which_a_compaction_was_invoked_is_not_whole() -> None:
    """A watch that starts at the compaction revision may lack its deletions (#18089), one that was there before does not."""
    late = Script().create(start=5).say(*bare(STORY[5]))
    assert watched(case_of(STORY, late, operations=[compaction(1, 5, call=900)])).whole == set()
    assert watched(case_of(STORY, late, operations=[compaction(1, 5, call=9_000)])).whole == {5}
    assert watched(case_of(STORY, late, operations=[compaction(1, 4, call=900)])).whole == {5}


def test_prev_kv_is_taken_from_whoever_has_it() -> None:
    """The merged events carry the prev_kv that any watch received, and such a difference is no fork."""
    plain = Script(1, "m1").create(start=2).say(*bare(STORY[4]))
    asked = Script(2, "m2").create(start=2, prev_kv=True).say(*STORY[4])
    known = watched(case_of(STORY, plain, asked))
    assert known.events[4] == STORY[4]
    assert first_difference(known) is None


def test_the_first_difference_names_the_sides() -> None:
    """Where members told different stories, the lowest such revision is found, with every member on its side."""
    other = story(["a=1"], ["b=1", "c=1"], ["a=other"], ["-a"], ["b=3"])
    scripts = [
        Script(1, "m1").create(start=2).say(*bare(STORY[3])).say(*bare(STORY[4])).say(*bare(STORY[6])),
        Script(2, "m2", now=2_000).create(start=2).say(*bare(other[3])).say(*bare(other[4])).say(*bare(other[6])),
        Script(3, "m3", now=3_000).create(start=2).say(*bare(STORY[4])),
    ]
    difference = first_difference(watched(case_of(STORY, *scripts)))
    assert difference is not None
    assert difference.revision == 4
    assert difference.groups == (("m1", "m3"), ("m2",))
    assert difference.first.events == bare(STORY[4])
    assert difference.second.events == bare(other[4])


def test_a_member_that_changes_its_story_is_a_difference() -> None:
    """The same member telling another story on a later stream, as after a crash that lost writes, is found too."""
    other = story(["a=1"], ["b=9"])
    scripts = [
        Script(1, "m1").create(start=2).say(*bare(STORY[3])),
        Script(2, "m1", now=2_000).create(start=2).say(*bare(other[3])),
    ]
    difference = first_difference(watched(case_of(STORY, *scripts)))
    assert difference is not None
    assert difference.members == ("m1", "m1")


def test_what_a_stream_lacks_is_no_difference() -> None:
    """A stream that lags, ends or skips says nothing about what it did not deliver."""
    scripts = [
        Script(1, "m1").create(start=2).say(*bare(STORY[2])).say(*bare(STORY[3])).say(*bare(STORY[4])),
        Script(2, "m2").create(start=2).say(*bare(STORY[2])).say(*bare(STORY[4])),
    ]
    assert first_difference(watched(case_of(STORY, *scripts))) is None


def test_what_a_request_matches() -> None:
    """Empty key, empty range end and the zero byte mean what etcd's server makes of them; filters drop a type."""
    put, gone = STORY[2][0], STORY[5][0]
    assert bounds(WatchCreateRequest(b"a")) == (b"a", b"a\0")
    assert bounds(WatchCreateRequest(b"a", b"\0")) == (b"a", None)
    assert bounds(WatchCreateRequest(b"")) == (b"\0", b"\0\0")
    assert is_whole(WatchCreateRequest(b"\0", b"\0"))
    assert not is_whole(WatchCreateRequest(b"\0", b"\0", filters=(NOPUT,)))
    assert not is_whole(WatchCreateRequest(b"a", b"\0"))
    assert matches(WatchCreateRequest(b"a", b"b"), put)
    assert not matches(WatchCreateRequest(b"b", b"c"), put)
    assert not matches(WatchCreateRequest(b"a", b"b", filters=(NOPUT,)), put)
    assert matches(WatchCreateRequest(b"a", b"b", filters=(NOPUT,)), gone)
    assert not matches(WatchCreateRequest(b"a", b"b", filters=(NODELETE,)), gone)


def test_compactions_and_member_ids_are_listed() -> None:
    """Every compaction asked for is known with its outcome, and every member id that answered under a name."""
    case = case_of(STORY, Script().create(), operations=[compaction(1, 3, 900), compaction(2, 4, 910, "indefinite")])
    assert [(c.revision, c.call, c.ret, c.outcome) for c in compactions(case)] == [(3, 900, 905, "ok"), (4, 910, None, "indefinite")]
    assert member_ids(case) == {"m1": (1,)}
