"""What keeps the search for unseen revisions small: each rule by a story that takes as many tries as there are gaps, in both engines.

`Story.report` holds the core against the reference, tries included; what is asserted here is how many there are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan import native
from pekan.checkers.case import Case, Options
from pekan.checkers.kv import check_kv
from pekan.history.reading import load
from pekan.history.recorded import in_memory
from pekan.wire.messages import EQUAL, MOD, Compare, DeleteRangeRequest, PutRequest, TxnRequest
from simulator.recording import recordable, write_history

from .building import Story, everything


def tries(story: Story) -> tuple[int, int]:
    """(revisions that had to be guessed, tries it took) of a story that holds."""
    report = story.report()
    assert (report.findings, report.undecided) == ((), ())
    return report.judged["gaps searched"], report.judged["search nodes"]


def test_a_value_that_is_shown_names_its_writer() -> None:
    """Of many unanswered Puts of one key, a reply that shows the value put at the revision leaves one."""
    story = Story()
    lost = [story.lost(PutRequest(b"k", b"v%d" % n)) for n in range(20)]
    story.takes_effect(lost[13])
    story.get(b"k")
    assert tries(story) == (1, 1)


def test_the_next_fact_about_a_key_refutes_its_writers() -> None:
    """Keys that a later reply shows as they were, gone, or put by an acknowledged write alone were not put in between."""
    story = Story()
    for key in (b"a", b"b", b"c"):
        story.put(key, b"0")
    lost = {key: story.lost(PutRequest(key, b"unseen")) for key in (b"a", b"b", b"c", b"d")}
    story.takes_effect(lost[b"c"])
    story.get(b"a")  # Its mod_revision is below the gap.
    story.put(b"b", b"1", prev_kv=True)  # It replaced version 1.
    story.do(TxnRequest((Compare(EQUAL, MOD, b"d", 0),), (PutRequest(b"d", b"1"),)))  # It was absent.
    assert tries(story) == (1, 1)


def test_equals_are_tried_once() -> None:
    """Unanswered Puts that differ in values that nothing shows fill three gaps in three tries, and nothing about them is a guess."""
    story = Story()
    lost = [story.lost(PutRequest(b"k", b"unseen %d" % n)) for n in range(20)]
    for writer in (lost[3], lost[8], lost[1]):
        story.takes_effect(writer)
    story.put(b"z", b"1")
    case = story.case()
    assert check_kv(case).judged["search nodes"] == 3
    assert case.order is not None
    assert not case.order.unknown
    assert tries(story) == (3, 3)


def test_what_is_due_first_is_tried_first() -> None:
    """Of Puts of many keys, those whose effect a later reply needs come first, in the order in which it is needed."""
    story = Story()
    keys = [b"k%d" % n for n in range(8)]
    lost = {key: story.lost(PutRequest(key, b"of %s" % key)) for key in keys}
    for key in (b"k6", b"k2", b"k4"):
        story.takes_effect(lost[key])
    story.put(b"z", b"1")
    for key in (b"k6", b"k2", b"k4"):
        story.put(key, b"later", prev_kv=True)
    assert tries(story) == (3, 3)


def test_what_may_have_been_deleted_is_no_fact() -> None:
    """A key that is absent later may have been put in between where something unacknowledged can delete it."""
    story = Story()
    put = story.lost(PutRequest(b"k", b"1"))
    delete = story.lost(DeleteRangeRequest(b"k"))
    story.takes_effect(put)
    story.takes_effect(delete)
    story.do(everything())
    assert tries(story) == (2, 2)


@pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")
def test_a_spent_budget_is_told_alike(tmp_path: Path) -> None:
    """With no time at all both engines give up at the first contradiction, after as many tries, in the same words."""
    from pekan.checkers.native.kv import check_kv as check_kv_natively

    story = Story()
    lost = [story.lost(TxnRequest((), (PutRequest(b"k%d" % (n % 5), b"v%d" % n),), ())) for n in range(40)]
    for each in lost[::2]:
        story.takes_effect(each)
    read = story.do(everything())
    last = read.output.kvs[0]
    story.answer(read, kvs=(last._replace(version=last.version + 1), *read.output.kvs[1:]))
    history = recordable(story.history())
    assert history is not None
    write_history(history, tmp_path / "history.pb")
    held = load(tmp_path / "history.pb")
    options = Options(budget_s=0.0)
    reference, core = check_kv(Case(in_memory(held), options)), check_kv_natively(Case(held, options))
    assert reference.undecided == core.undecided
    assert "search budget" in reference.undecided[0].reason
    assert reference.judged == core.judged
    assert reference.findings == core.findings == ()
