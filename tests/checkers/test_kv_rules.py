"""Each rule of the key-value checker: a legal sample that passes, and a planted illegal one that gives exactly its code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.checkers.kv import check_kv
from pekan.history.types import FAILED, INDEFINITE, OK, Mark
from pekan.wire.errors import (
    COMPACTED,
    FAILED_PRECONDITION,
    FUTURE_REVISION,
    INVALID_ARGUMENT,
    KEY_NOT_FOUND,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    NOT_FOUND,
    OUT_OF_RANGE,
    WireError,
)
from pekan.wire.messages import (
    EQUAL,
    MOD,
    VALUE,
    VERSION,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
)

from .building import ALL, Story, everything, get, header


def _busy(watched: bool = False) -> Story:
    """Some of everything, all of it legal."""
    story = Story(watched=watched)
    story.put(b"a", b"1")
    story.put(b"b", b"2", prev_kv=True)
    story.put(b"a", b"3", prev_kv=True)
    story.get(b"a")
    story.do(everything())
    story.do(everything(revision=2, keys_only=True))
    story.do(everything(limit=1, sort_order=2, sort_target=3))
    story.delete(b"a", b"b", prev_kv=True)
    story.delete(b"a")
    story.do(TxnRequest((Compare(EQUAL, VERSION, b"a", 0),), (PutRequest(b"a", b"4"), get(b"a")), (get(b"b"),)))
    story.do(TxnRequest((Compare(EQUAL, MOD, b"a", 1),), (PutRequest(b"a", b"5"),), (get(b"a"), get(b"a", revision=2))))
    story.do(get(b"b", serializable=True))
    return story


@pytest.mark.parametrize("watched", [False, True])
def test_legal_history_holds(watched: bool) -> None:
    """A store that answers as etcd does gives no finding, and the whole order is established."""
    story = _busy(watched)
    case = story.case()
    report = check_kv(case)
    assert report.applicable
    assert report.findings == ()
    assert report.undecided == ()
    assert case.order is not None
    assert (case.order.first, case.order.last) == (2, story.state.revision)
    assert case.order.events[4][0].prev_kv is not None
    assert case.order.written_by[4] == 2
    assert case.fork is None


def test_nothing_to_judge_is_not_applicable() -> None:
    """A history without key-value requests is not applicable."""
    assert not Story().report().applicable


# ---- real time ----


def test_read_that_lags_behind_an_acknowledgement_is_a_real_time_finding() -> None:
    """A linearizable read, called after a write was acknowledged, that shows the state before it."""
    story = Story()
    story.put(b"a", b"1")
    old = story.get(b"a").output
    story.put(b"a", b"2")
    story.add(get(b"a"), OK, old, story.tick(), story.tick())
    assert story.codes() == ["KV-REAL-TIME"]


def test_read_that_overlaps_the_write_may_show_the_state_before_it() -> None:
    """The same old answer is legal where the read was called before the write was acknowledged."""
    story = Story()
    story.put(b"a", b"1")
    old = story.get(b"a").output
    write = story.put(b"a", b"2")
    assert write.ret is not None
    story.add(get(b"a"), OK, old, write.ret, story.tick(), process=1)
    assert story.codes() == []


def test_stale_reads_are_one_finding_each_kind_and_blame_the_reads() -> None:
    """Many stale reads of one kind are one finding with a count, and what was acknowledged is not blamed."""
    story = Story()
    story.put(b"a", b"1")
    old = story.get(b"a").output
    for value in range(20):
        story.put(b"a", b"%d" % value)
    for _ in range(5):
        story.add(get(b"a"), OK, old, story.tick(), story.tick())
    story.put(b"a", b"end")
    (finding,) = story.report().findings
    assert (finding.code, finding.count) == ("KV-REAL-TIME", 5)


def test_per_process_order_only_holds_a_process_against_itself() -> None:
    """Without a common clock a stale answer to another process is legal, to the same process it is not."""
    for process, expected in ((1, []), (0, ["KV-REAL-TIME"])):
        story = Story()
        story.put(b"a", b"1")
        old = story.get(b"a").output
        story.put(b"a", b"2")
        story.add(get(b"a"), OK, old, story.tick(), story.tick(), process=process)
        assert story.codes(order="per-process") == expected


# ---- contents ----


def test_value_that_was_never_written_is_a_content_finding() -> None:
    """A read shows a value that the write before its revision did not put."""
    story = Story()
    story.put(b"a", b"1")
    read = story.get(b"a")
    story.answer(read, kvs=(read.output.kvs[0]._replace(value=b"2"),))
    assert story.codes() == ["KV-CONTENT"]


@pytest.mark.parametrize("change", [{"count": 3}, {"more": True}, {"kvs": ()}])
def test_counts_and_more_are_part_of_the_answer(change: dict[str, object]) -> None:
    """A list with a wrong count, a wrong `more` or missing keys is a content finding."""
    story = _busy()
    read = story.do(everything())
    story.answer(read, **change)
    assert story.codes() == ["KV-CONTENT"]


def test_wrong_branch_of_a_transaction_is_a_content_finding() -> None:
    """A transaction that took the branch its guards forbid."""
    story = Story()
    story.put(b"a", b"1")
    txn = story.do(TxnRequest((Compare(EQUAL, VERSION, b"a", 1),), (PutRequest(b"a", b"2"),), ()))
    story.change(txn, input=txn.input._replace(compare=(Compare(EQUAL, VERSION, b"a", 7),)))
    assert story.codes() == ["KV-CONTENT"]


def test_wrong_prev_kv_is_a_content_finding() -> None:
    """A put that says it replaced something else than what was there."""
    story = Story()
    story.put(b"a", b"1")
    put = story.put(b"a", b"2", prev_kv=True)
    story.answer(put, prev_kv=put.output.prev_kv._replace(value=b"9"))
    assert story.codes() == ["KV-CONTENT"]


def test_old_read_is_held_against_its_own_revision() -> None:
    """A read at an old revision with the present content is a content finding."""
    story = Story()
    story.put(b"a", b"1")
    story.put(b"a", b"2")
    now = story.get(b"a").output
    story.add(get(b"a", revision=2), OK, now, story.tick(), story.tick())
    assert story.codes() == ["KV-CONTENT"]


def test_write_acknowledged_at_the_first_revision_is_a_finding() -> None:
    """An empty store stands at revision 1: no write can be answered with it."""
    story = Story()
    put = story.put(b"a", b"1")
    story.answer(put, header=put.output.header._replace(revision=1))
    assert story.codes() == ["KV-CONTENT"]


def test_equal_ranks_of_a_sort_may_come_in_any_order() -> None:
    """etcd's sort is not stable: two keys of one version are right either way, and wrong where one comes twice."""
    story = Story()
    for key in (b"a", b"b", b"c"):
        story.put(key, b"1")
    read = story.do(everything(sort_order=1, sort_target=1))
    a, b, c = read.output.kvs
    story.answer(read, kvs=(c, a, b))
    assert story.codes() == []
    story.answer(read, kvs=(c, a, a))
    assert story.codes() == ["KV-CONTENT"]


def test_keys_only_may_leave_out_the_lease() -> None:
    """etcd 3.7 leaves the lease out of keys_only answers, earlier releases do not: both are right, another lease is not."""
    story = Story()
    story.do(LeaseGrantRequest(60, 5))
    story.put(b"a", b"1", lease=5)
    read = story.do(get(b"a", keys_only=True))
    for lease, codes in ((5, []), (0, []), (6, ["KV-CONTENT"])):
        story.answer(read, kvs=(read.output.kvs[0]._replace(lease=lease),))
        assert story.codes() == codes


# ---- revisions ----


def test_two_writes_at_one_revision() -> None:
    """Two acknowledged writes with the same revision: what comes from there on is not judged as one order."""
    story = Story()
    story.put(b"a", b"1")
    put = story.put(b"a", b"2")
    story.put(b"a", b"3")
    story.add(PutRequest(b"b", b"x"), OK, put.output, story.tick(), story.tick(), member="m2")
    case = story.case()
    report = check_kv(case)
    assert [f.code for f in report.findings if f.status == "counts"] == ["KV-REVISION-REUSED"]
    assert case.fork is not None
    assert case.fork.revision == 3
    assert case.order is not None
    assert case.order.last == 2
    assert report.judged["after the fork"] == 3


def test_two_writes_at_one_revision_after_a_refused_one() -> None:
    """One of the two members had refused a writing transaction for a read in it: the root is that the other applied it (#18667)."""
    ranged = TxnRequest((), (PutRequest(b"z", b"1"), get(b"a", revision=999)))
    for member, version, code in (
        ("m2", "3.5.35", "REFUSED-BUT-APPLIED"),
        ("m3", "3.5.35", "KV-REVISION-REUSED"),
        ("m2", "3.7.0", "KV-REVISION-REUSED"),
    ):
        story = Story()
        story.put(b"a", b"1")
        story.add(ranged, FAILED, WireError(OUT_OF_RANGE, FUTURE_REVISION), story.tick(), story.tick(), member=member)
        put = story.put(b"a", b"2")
        story.add(PutRequest(b"b", b"x"), OK, put.output, story.tick(), story.tick(), member="m2")
        started = Mark(0, "start", "", {"start": "empty", "members": {"m1": {"version": version}}})
        report = story.report(marks=(started,))
        assert [f.code for f in report.findings if f.status == "counts"] == [code]


def test_revision_that_nobody_made() -> None:
    """A revision between two acknowledged writes, with no unanswered request to explain it."""
    for watched in (False, True):
        story = Story(watched=watched)
        story.put(b"a", b"1")
        lost = story.lost(PutRequest(b"a", b"2"))
        story.takes_effect(lost)
        story.put(b"a", b"3")
        assert story.codes() == []
        story.change(lost, call=story.tick(), gave_up=story.tick())
        assert story.codes() == ["KV-UNEXPLAINED"], "called after the revision had been shown"
        story.change(lost, input=PutRequest(b"b", b"2"), call=1)
        assert story.codes() == (["KV-UNEXPLAINED"] if watched else []), "only a watch tells which key it was"


def test_foreign_writers_explain_a_revision_where_they_are_declared() -> None:
    """With shared writers a revision that nobody recorded made is no finding."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    lost = story.lost(PutRequest(b"b", b"2"))
    story.takes_effect(lost)
    story.do(everything())
    story.operations = [op for op in story.operations if op.id != lost.id]
    assert story.codes() == ["KV-UNEXPLAINED"]
    assert story.codes(Options(writers="shared")) == []


def test_unanswered_write_explains_one_revision_only() -> None:
    """One unanswered request cannot be two revisions; two equal ones can."""
    for requests, codes in ((1, ["KV-UNEXPLAINED"]), (2, [])):
        story = Story(watched=True)
        losts = [story.lost(PutRequest(b"a", b"same")) for _ in range(requests)]
        story.takes_effect(losts[0])
        story.takes_effect(losts[0])
        story.get(b"a")
        assert story.codes() == codes


def test_acknowledged_write_that_shows_again_was_applied_twice() -> None:
    """A watch shows the effect of an acknowledged write at a second revision."""
    story = Story(watched=True)
    put = story.put(b"a", b"1")
    story.takes_effect(put)
    story.get(b"a")
    assert story.codes() == ["KV-APPLIED-TWICE"]


def test_acknowledged_write_that_a_watch_contradicts_is_lost() -> None:
    """A watch of everything delivers something else at the revision of an acknowledged write."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    put = story.put(b"a", b"2")
    story.change(put, input=PutRequest(b"b", b"2"))
    story.put(b"a", b"3")
    case = story.case()
    codes = [f.code for f in check_kv(case).findings if f.status == "counts"]
    assert codes == ["KV-LOST-WRITE"]
    assert case.fork is not None


# ---- leases ----


def test_lease_that_ends_by_itself_takes_its_keys_once() -> None:
    """An expiry explains one revision in which all keys of a lease go; the same again is unexplained, and so is a part of them."""
    for watched in (True, False):
        story = Story(watched=watched)
        story.do(LeaseGrantRequest(1, 5))
        story.put(b"a", b"1", lease=5)
        story.put(b"b", b"1", lease=5)
        story.expires(5)
        story.do(everything())
        assert story.codes() == []
    story = Story(watched=True)
    story.do(LeaseGrantRequest(1, 5))
    story.put(b"a", b"1", lease=5)
    story.put(b"b", b"1", lease=5)
    story.takes_effect(story.add(DeleteRangeRequest(b"a"), FAILED, WireError(7, "etcdserver: permission denied"), 1, 2))
    story.do(everything())
    assert story.codes() == ["REFUSED-BUT-APPLIED"]


@pytest.mark.parametrize("watched", [False, True])
def test_revoke_is_a_step_or_a_reader(watched: bool) -> None:
    """An acknowledged revoke is the step to its revision where keys were attached; it leaves none."""
    story = Story(watched=watched)
    story.do(LeaseGrantRequest(60, 5))
    story.do(LeaseGrantRequest(60, 6))
    story.put(b"a", b"1", lease=5)
    story.do(LeaseRevokeRequest(5))
    story.do(LeaseRevokeRequest(6))
    story.do(everything())
    assert story.codes() == []


def test_revoked_lease_did_not_run_out() -> None:
    """A lease that was granted once and whose revoke was acknowledged had not ended before that: it explains no revision."""
    story = Story(watched=True)
    story.do(LeaseGrantRequest(60, 5))
    story.put(b"k", b"v", lease=5)
    story.expires(5)
    assert story.codes() == []
    story.add(LeaseRevokeRequest(5), OK, LeaseRevokeResponse(header(3)), story.tick(), story.tick())
    assert story.codes() == ["KV-UNEXPLAINED"]
    story.lost(LeaseGrantRequest(60, 5))
    assert story.codes() == []  # Granted twice, it may have run out once.


@pytest.mark.parametrize("revoked", [False, True])
def test_lease_that_is_used_later_had_not_ended(revoked: bool) -> None:
    """A lease granted once to which a key is attached has ended at no revision before, neither by itself nor by an unanswered revoke."""
    story = Story(watched=True)
    story.do(LeaseGrantRequest(60, 5))
    if revoked:
        story.lost(LeaseRevokeRequest(5))
    story.put(b"k", b"v", lease=5)
    story.expires(5)
    assert story.codes() == []
    story.add(PutRequest(b"j", b"v", lease=5), OK, PutResponse(header(4), None), story.tick(), story.tick())
    assert story.codes() == ["KV-UNEXPLAINED"]
    story.lost(LeaseGrantRequest(60, 5))
    assert story.codes() == []


def test_lease_of_a_store_found_running_may_have_had_a_life_before() -> None:
    """Where the store did not begin empty, a lease that was granted once may have ended before that grant."""
    story = Story(start="unknown")
    story.do(LeaseGrantRequest(60, 5))
    story.put(b"k", b"v", lease=5)
    story.operations.clear()
    story.do(everything())
    story.expires(5)
    assert story.state.leases is not None
    del story.state.leases[5]
    story.do(LeaseGrantRequest(60, 5))
    story.put(b"j", b"v", lease=5)
    story.do(LeaseRevokeRequest(5))
    assert story.codes() == []


def test_revoke_that_leaves_keys_is_a_content_finding() -> None:
    """A key is still attached at the revision of an acknowledged revoke of its lease."""
    story = Story()
    story.do(LeaseGrantRequest(60, 5))
    story.do(LeaseGrantRequest(60, 6))
    story.put(b"a", b"1", lease=5)
    revoke = story.do(LeaseRevokeRequest(6))
    story.change(revoke, input=LeaseRevokeRequest(5))
    assert story.codes() == ["KV-CONTENT"]


# ---- local answers ----


def test_local_answer_may_be_old_but_not_wrong() -> None:
    """A serializable read may show an old revision; it must show the content of that revision, and one that existed."""
    story = Story()
    story.put(b"a", b"1")
    old = story.do(get(b"a", serializable=True)).output
    story.put(b"a", b"2")
    late = story.add(get(b"a", serializable=True), OK, old, story.tick(), story.tick())
    assert story.codes() == []
    story.answer(late, kvs=(old.kvs[0]._replace(value=b"9"),))
    assert story.codes() == ["LOCAL-CONTENT"]
    story.change(late, output=old)
    ahead = story.do(get(b"a", serializable=True))
    story.change(ahead, call=1, ret=2)
    assert story.codes() == ["LOCAL-CONTENT"]


def test_local_transaction_may_be_old() -> None:
    """A Txn whose every operation in both branches is a serializable Range may be old; with one that is not, it may not."""
    for serializable, codes in ((True, []), (False, ["KV-REAL-TIME"])):
        request = TxnRequest((), (get(b"a", serializable=True),), (get(b"b", serializable=serializable),))
        story = Story()
        story.put(b"a", b"1")
        old = story.do(request).output
        story.put(b"a", b"2")
        story.add(request, OK, old, story.tick(), story.tick())
        assert story.codes() == codes


def test_transaction_without_operations_may_be_stale_under_its_own_code() -> None:
    """Guards alone are answered from a member's own state: old is the known deviation, wrong for its revision is not."""
    request = TxnRequest((Compare(EQUAL, VERSION, b"a", 1),), (), ())
    story = Story()
    story.put(b"a", b"1")
    answer = story.do(request).output
    assert story.codes() == []
    story.put(b"a", b"2")
    story.add(request, OK, answer, story.tick(), story.tick())
    assert story.codes() == ["COMPARES-ONLY-STALE"]
    story = Story()
    story.put(b"a", b"1")
    story.answer(story.do(request), succeeded=False)
    assert story.codes() == ["KV-CONTENT"]


# ---- compaction ----


def test_transaction_without_operations_shows_that_its_revision_existed() -> None:
    """Guards answered at a revision prove that it was made by then: a request called later has not made it, and no later read is older."""
    story = Story()
    story.put(b"k", b"1")
    nobody = story.lost(PutRequest(b"k", b"2"))
    story.takes_effect(nobody)
    guards = story.do(TxnRequest((Compare(EQUAL, VERSION, b"k", 2),), (), ()))
    assert story.codes() == []
    story.change(nobody, call=guards.ret + 1, gave_up=guards.ret + 2)
    assert story.codes() == ["KV-UNEXPLAINED"]
    story.change(nobody, call=nobody.call, gave_up=nobody.gave_up)
    read = story.get(b"k")
    story.answer(read, header=read.output.header._replace(revision=2))
    assert "KV-REAL-TIME" in story.codes()


def test_compactions_hold() -> None:
    """Compactions one above the other, old reads before and refused after them, and a repeated one refused."""
    story = Story()
    for value in range(6):
        story.put(b"a", b"%d" % value)
    story.do(get(b"a", revision=2))
    story.do(CompactionRequest(4))
    story.do(get(b"a", revision=4))
    story.do(get(b"a", revision=3))
    story.do(CompactionRequest(4))
    story.do(CompactionRequest(6))
    story.do(CompactionRequest(99))
    assert [op.outcome for op in story.operations[-4:]] == [FAILED, FAILED, OK, FAILED]
    assert story.codes() == []


def test_compacted_answer_without_a_compaction() -> None:
    """A read is told that its revision is compacted though no compaction above it was asked for by then."""
    for revision, codes in ((3, []), (2, ["KV-COMPACTED"])):
        story = Story()
        for value in range(3):
            story.put(b"a", b"%d" % value)
        story.do(CompactionRequest(revision))
        story.refused(get(b"a", revision=2), COMPACTED)
        assert story.codes() == codes


def test_unanswered_compaction_explains_a_refusal() -> None:
    """A compaction without an answer may have happened, from its call on."""
    for call, codes in ((None, []), (10_000, ["KV-COMPACTED"])):
        story = Story()
        for value in range(3):
            story.put(b"a", b"%d" % value)
        story.add(CompactionRequest(3), INDEFINITE, WireError(14, "lost"), story.tick() if call is None else call, None)
        story.refused(get(b"a", revision=2), COMPACTED)
        assert story.codes() == codes


def test_unanswered_compaction_of_the_first_revision() -> None:
    """Revision 1 can be compacted before anything is written and without any answer that shows it; revision 2 cannot."""
    for revision, codes in ((1, []), (2, ["KV-COMPACTED"])):
        story = Story()
        story.add(CompactionRequest(revision), INDEFINITE, WireError(4, "lost"), story.tick(), None)
        story.refused(CompactionRequest(revision), COMPACTED)
        assert story.codes() == codes


def test_read_below_a_compaction() -> None:
    """A read below the compacted revision is answered after the compaction was acknowledged; a local one may be."""
    for serializable, codes in ((False, ["KV-COMPACTED"]), (True, [])):
        story = Story()
        for value in range(3):
            story.put(b"a", b"%d" % value)
        answer = story.do(get(b"a", revision=2)).output
        story.do(CompactionRequest(3))
        story.add(get(b"a", revision=2, serializable=serializable), OK, answer, story.tick(), story.tick())
        assert story.codes() == codes


def test_one_revision_compacted_twice() -> None:
    """Two compactions of one revision are both acknowledged."""
    story = Story()
    story.put(b"a", b"1")
    first = story.do(CompactionRequest(2))
    story.add(CompactionRequest(2), OK, first.output, story.tick(), story.tick())
    assert story.codes() == ["KV-COMPACTED"]


def test_future_revision_that_had_been_acknowledged() -> None:
    """A linearizable read is told "future" of a revision that a write had been answered with; to a local one it says nothing."""
    for serializable, codes in ((False, ["KV-FUTURE-REVISION"]), (True, [])):
        story = Story()
        story.put(b"a", b"1")
        story.put(b"a", b"2")
        story.refused(get(b"a", revision=3, serializable=serializable), FUTURE_REVISION)
        assert story.codes() == codes
        story.refused(get(b"a", revision=4), FUTURE_REVISION)
        assert story.codes() == codes


# ---- refusals that were applied ----


def _refused_txn() -> TxnRequest:
    return TxnRequest((), (PutRequest(b"z", b"phantom"), RangeRequest(b"a", revision=10_000)), ())


def test_refused_transaction_that_a_watch_shows() -> None:
    """Every watch shows what a refused transaction would have written: the finding names the request."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    refused = story.refused(_refused_txn(), FUTURE_REVISION)
    assert story.codes() == []
    story.takes_effect(refused)
    story.put(b"a", b"2")
    story.do(everything())
    (finding,) = story.report().findings
    assert finding.code == "REFUSED-BUT-APPLIED"
    assert finding.certificate[0].operation == refused.id


def test_refused_transaction_that_splits_the_members_is_the_root() -> None:
    """The receiving member refuses, the others apply: what contradicts from there on follows, and the order ends before it."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    refused = story.refused(_refused_txn(), FUTURE_REVISION)
    behind = story.state.revision
    # m1 refuses and goes on with revision 3; m2 and m3 make revision 3 of the refused transaction.
    story.put(b"a", b"2")
    events = story.delivered["m1"][0].message.events
    story.delivered["m2"] = list(story.delivered["m1"][:1])
    phantom = events[0]._replace(kv=events[0].kv._replace(key=b"z", value=b"phantom", create_revision=3, mod_revision=3, version=1))
    story.deliver("m2", 3, (phantom,))
    moved = story.delivered["m1"][1].message.events[0]
    story.deliver("m2", 4, (moved._replace(kv=moved.kv._replace(mod_revision=4)),))
    story.add(PutRequest(b"b", b"3"), OK, story.operations[-1].output, story.tick(), story.tick(), member="m2")
    case = story.case()
    report = check_kv(case)
    assert behind == 2
    assert [f.code for f in report.findings if f.status == "counts"] == ["REFUSED-BUT-APPLIED"]
    assert refused.id in {e.operation for e in report.findings[0].certificate}
    assert case.fork is not None
    assert (case.fork.revision, case.fork.code) == (3, "REFUSED-BUT-APPLIED")
    assert set(case.fork.groups) == {("m1",), ("m2",)}
    assert case.order is not None
    assert case.order.last == 2


@pytest.mark.parametrize(("lacks", "expected"), [(1, ["REFUSED-BUT-APPLIED"]), (2, ["REFUSED-BUT-APPLIED", "KV-REAL-TIME"])])
def test_read_of_the_member_that_refused_follows(lacks: int, expected: list[str]) -> None:
    """Who refused lacks the revision that the others made of it, and a read there is stale for that reason alone; one that lacks an earlier
    revision as well is stale for another."""
    story = Story()
    story.put(b"a", b"1")
    before = story.get(b"a").output
    story.put(b"a", b"2")
    after = story.get(b"a").output
    refused = story.refused(_refused_txn(), FUTURE_REVISION)
    story.takes_effect(refused)
    story.do(everything(), member="m2")
    story.add(get(b"a"), OK, before if lacks == 2 else after, story.tick(), story.tick())
    report = story.report()
    assert sorted(f.code for f in report.findings if f.status == "counts") == sorted(expected)
    (stale,) = [f for f in report.findings if f.code == "KV-REAL-TIME"]
    assert stale.status == ("follows" if lacks == 1 else "counts")


def test_members_that_differ_without_a_refusal_have_diverged() -> None:
    """Two members tell one revision differently and nothing that was refused explains it."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    event = story.delivered["m1"][0].message.events[0]
    story.deliver("m2", 2, (event._replace(kv=event.kv._replace(value=b"2")),))
    case = story.case()
    assert [f.code for f in check_kv(case).findings if f.status == "counts"] == ["MEMBER-DIVERGED"]
    assert case.fork is not None


# ---- where a history begins and ends ----


def test_unknown_start_is_judged_from_the_first_whole_read() -> None:
    """A store with unknown content is judged from the first answer that shows all of it."""
    story = Story(start="unknown")
    story.put(b"a", b"1")
    story.put(b"b", b"1")
    early = len(story.operations)
    story.do(everything())
    story.put(b"a", b"2", prev_kv=True)
    read = story.get(b"a")
    story.operations = story.operations[early:]
    assert story.codes() == []
    assert story.report().undecided == ()
    story.answer(read, kvs=(read.output.kvs[0]._replace(version=1),))
    assert story.codes() == ["KV-CONTENT"]


def test_unknown_start_without_a_whole_read_is_undecided() -> None:
    """Without such an answer contents are undecided, and time is still judged."""
    story = Story(start="unknown")
    story.put(b"a", b"1")
    old = story.get(b"a").output
    story.put(b"a", b"2")
    assert story.report().undecided != ()
    story.add(get(b"a"), OK, old, story.tick(), story.tick())
    assert story.codes() == ["KV-REAL-TIME"]


def test_only_the_first_epoch_is_judged() -> None:
    """What was answered after a restore is not held against the time before it."""
    story = Story()
    story.put(b"a", b"1")
    put = story.put(b"a", b"2")
    story.marks.append(Mark(story.tick(), "epoch", "", {}))
    story.add(PutRequest(b"b", b"x"), OK, put.output, story.tick(), story.tick())
    report = story.report()
    assert report.findings == ()
    assert report.undecided != ()


def test_cut_record_makes_an_unexplained_revision_undecided() -> None:
    """Where the record lost its tail, a revision that nobody made is no finding."""
    story = Story()
    lost = story.lost(PutRequest(b"a", b"1"))
    story.takes_effect(lost)
    story.get(b"a")
    story.operations = story.operations[1:]
    assert story.codes() == ["KV-UNEXPLAINED"]
    report = story.report(cut=7)
    assert report.findings == ()
    assert report.undecided != ()


def test_error_texts_are_those_that_the_checker_knows() -> None:
    """A refusal with another text says nothing about revisions."""
    story = Story()
    story.put(b"a", b"1")
    story.refused(RangeRequest(*ALL, revision=2), "etcdserver: something else", OUT_OF_RANGE)
    assert story.codes() == []


# ---- refusals ----


def test_key_not_found_must_have_been_true() -> None:
    """A Put that keeps the value is refused though the key was there all the time; where it may have been absent, that is right."""
    for delete, codes in ((True, []), (False, ["KV-WRONG-REFUSAL"])):
        story = Story()
        story.put(b"a", b"1")
        if delete:
            story.delete(b"a")
        story.refused(PutRequest(b"a", ignore_value=True), KEY_NOT_FOUND, INVALID_ARGUMENT)
        assert story.codes() == codes


def test_lease_not_found_must_have_been_possible() -> None:
    """A lease granted for a minute is not missing within it, unless somebody may have revoked it."""
    for revoke, codes in ((True, []), (False, ["KV-WRONG-REFUSAL"])):
        story = Story()
        story.do(LeaseGrantRequest(60, 5))
        if revoke:
            story.lost(LeaseRevokeRequest(5))
        story.refused(PutRequest(b"a", b"1", lease=5), LEASE_NOT_FOUND, NOT_FOUND)
        assert story.codes() == codes


def test_lease_exists_needs_a_grant() -> None:
    """A grant is refused because the lease exists, which nobody asked for."""
    for asked, codes in ((True, []), (False, ["KV-WRONG-REFUSAL"])):
        story = Story()
        if asked:
            story.lost(LeaseGrantRequest(60, 5))
        story.refused(LeaseGrantRequest(60, 5), LEASE_EXISTS, FAILED_PRECONDITION)
        assert story.codes() == codes


def test_transaction_that_names_no_revision_cannot_be_refused_for_one() -> None:
    """A refusal about a revision, to a transaction whose branch taken names none."""
    for text, code in ((FUTURE_REVISION, "KV-FUTURE-REVISION"), (COMPACTED, "KV-COMPACTED")):
        story = Story()
        story.put(b"a", b"1")
        story.do(CompactionRequest(2))
        story.refused(TxnRequest((), (PutRequest(b"a", b"2"),), ()), text)
        assert code in story.codes()


def test_first_revision_is_never_in_the_future() -> None:
    """Revision 1 is there before any request."""
    story = Story()
    story.refused(get(b"a", revision=1), FUTURE_REVISION)
    assert story.codes() == ["KV-FUTURE-REVISION"]


# ---- leases against the order ----


def test_write_with_a_lease_lies_between_grant_and_revoke() -> None:
    """A key attached before its lease was granted, or after it was revoked, by the revisions."""
    story = Story()
    story.do(LeaseGrantRequest(60, 5))
    story.put(b"a", b"1", lease=5)
    revoke = story.do(LeaseRevokeRequest(5))
    assert story.codes() == []
    story.state.leases = None
    late = story.put(b"b", b"1", lease=5)
    assert story.codes() == ["KV-CONTENT"]
    story.change(late, input=late.input._replace(lease=6))
    assert story.codes() == ["KV-CONTENT"], "nobody granted lease 6"
    story.operations.pop()
    story.add(revoke.input, OK, revoke.output, story.tick(), story.tick())
    assert story.codes() == ["KV-CONTENT"], "revoked twice"


# ---- what was shown bounds what comes after ----


@pytest.mark.parametrize("how", ["watch", "local", "compaction"])
def test_read_older_than_what_had_been_shown(how: str) -> None:
    """A watch, a local answer or a compaction shows that a revision exists; a linearizable read called later is not older."""
    story = Story(watched=how == "watch")
    story.put(b"a", b"1")
    old = story.get(b"a").output
    lost = story.lost(PutRequest(b"a", b"2"))
    story.takes_effect(lost)
    if how == "local":
        story.do(get(b"a", serializable=True))
    elif how == "compaction":
        story.do(CompactionRequest(3))
    assert story.codes() == []
    story.add(get(b"a"), OK, old, story.tick(), story.tick())
    assert story.codes() == ["KV-REAL-TIME"]


# ---- guessing ----


def test_search_finds_the_one_assignment_that_fits() -> None:
    """Gaps in a row with no reply between: versions and values shown later leave one way to fill them."""
    story = Story()
    story.put(b"a", b"0")
    story.put(b"b", b"0")
    never = [story.lost(PutRequest(key, b"n%d" % n)) for n, key in enumerate((b"a", b"b", b"c", b"a", b"b"))]
    for index in (3, 1, 2):
        story.takes_effect(never[index])
    story.do(everything())
    case = story.case()
    report = check_kv(case)
    assert report.findings == ()
    assert case.order is not None
    assert case.order.written_by[4] == never[3].id
    story.answer(
        story.operations[-1], kvs=tuple(kv._replace(version=9) if kv.key == b"a" else kv for kv in story.operations[-1].output.kvs)
    )
    assert len(story.codes()) == 1


@pytest.mark.parametrize("how", ["guard", "guard of a refusal", "prev_kv of a watch"])
def test_what_tells_two_values_apart_is_not_only_a_value_shown(how: str) -> None:
    """Two unanswered Puts of one key are no equals where a guard, also of a refused or a local Txn, or a prev_kv tells which it was."""
    story = Story(watched=how == "prev_kv of a watch")
    story.lost(PutRequest(b"k", b"x"))
    second = story.lost(PutRequest(b"k", b"y"))
    story.takes_effect(second)
    guard = (Compare(EQUAL, VALUE, b"k", b"y"),)
    if how == "guard":
        story.do(TxnRequest(guard, (), ()))
    elif how == "guard of a refusal":
        story.do(TxnRequest(guard, (PutRequest(b"absent", ignore_value=True),), ()))
        assert story.operations[-1].outcome == FAILED
        story.put(b"z", b"1")
    else:
        story.put(b"k", b"z")
    history = story.history()
    if history.streams:
        # The watch began after the revision that has to be guessed.
        (stream,) = history.streams
        asked, created, _, *rest = stream.messages
        asked = asked._replace(message=asked.message._replace(start_revision=3))
        history = replace(history, streams=(replace(stream, messages=(asked, created, *rest)),))
    assert judge(history, Options()).codes == ()


def test_guesses_between_equals_are_not_proven() -> None:
    """Where two unanswered writes fit and nothing tells them apart, the order calls the revision unknown."""
    story = Story()
    story.put(b"a", b"0")
    first = story.lost(PutRequest(b"a", b"x"))
    story.lost(PutRequest(b"b", b"y"))
    story.takes_effect(first)
    story.put(b"c", b"1")
    case = story.case()
    assert check_kv(case).findings == ()
    assert case.order is not None
    assert 3 in case.order.unknown
    assert 3 not in case.order.events


def test_spent_budget_is_undecided() -> None:
    """With no time to search, many gaps with many ways are undecided and not broken."""
    story = Story()
    losts = [story.lost(TxnRequest((), (PutRequest(b"k%d" % (n % 5), b"v%d" % n),), ())) for n in range(40)]
    for lost in losts[::2]:
        story.takes_effect(lost)
    read = story.do(everything())
    last = read.output.kvs[0]
    story.answer(read, kvs=(last._replace(version=last.version + 1), *read.output.kvs[1:]))
    report = story.report(Options(budget_s=0.0))
    assert report.findings == ()
    assert [reason for reason in report.undecided if "budget" in reason.reason]
