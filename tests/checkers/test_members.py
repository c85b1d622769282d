"""Members: when two of them are comparable, and what is found when they differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.checkers.case import SUSPECTED_FORK, Case, Fork
from pekan.checkers.members import check_members
from pekan.history.types import Mark
from pekan.wire import pb
from pekan.wire.errors import FUTURE_REVISION, INVALID_ARGUMENT, OUT_OF_RANGE, UNIMPLEMENTED, WireError
from pekan.wire.messages import CompactionRequest, CompactionResponse, PutRequest, PutResponse, RangeRequest, TxnRequest

from .judging import DENIED, MS, Clock, case, codes, header, pb_header

REVISION = [("MEMBER-REVISION", "counts")]
HASH = [("MEMBER-HASH", "counts")]
AUTH = [("MEMBER-AUTH-REVISION", "counts")]


def cluster(*members: str) -> Clock:
    """Members that have been started."""
    clock = Clock()
    for member in members or ("m1", "m2"):
        clock.mark("member", member, state="started", incarnation=1, pid=1, asked=True)
    return clock.at(10)


def alarm(clock: Clock, member: str, *alarms: pb.AlarmMember) -> None:
    clock.op(member, pb.AlarmRequest(), pb.AlarmResponse(header=pb_header(1, member), alarms=alarms), client=f"admin-{member}")


def status(clock: Clock, member: str, index: int, revision: int, *, applied: int | None = None) -> None:
    answer = pb.StatusResponse(header=pb_header(revision, member), raftIndex=index, raftAppliedIndex=index if applied is None else applied)
    clock.op(member, pb.StatusRequest(), answer, client=f"admin-{member}")


def standing(clock: Clock, member: str, index: int, revision: int) -> None:
    """Alarm(GET), Status, Status: the member stands at (index, revision)."""
    alarm(clock, member)
    status(clock, member, index, revision)
    status(clock, member, index, revision)


def hash_kv(clock: Clock, member: str, asked: int, value: int, compact: int = 1, told: int = 0) -> None:
    answer = pb.HashKVResponse(header=pb_header(asked + 5, member), hash=value, compact_revision=compact, hash_revision=told)
    clock.op(member, pb.HashKVRequest(revision=asked), answer, client=f"admin-{member}")


def auth_status(clock: Clock, member: str, auth_revision: int) -> None:
    answer = pb.AuthStatusResponse(header=pb_header(1, member), enabled=True, authRevision=auth_revision)
    clock.op(member, pb.AuthStatusRequest(), answer, client=f"admin-{member}")


def found(clock: Clock) -> list[tuple[str, str]]:
    return codes(check_members(case(clock)))


# ---- revisions ----


@pytest.mark.parametrize(("other", "expected"), [(41, REVISION), (40, [])])
def test_revisions_at_one_index_must_agree(other: int, expected: Any) -> None:
    """Two members at raft index 90 and different revisions have diverged; at the same revision they have not."""
    clock = cluster()
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, other)
    report = check_members(case(clock))
    assert codes(report) == expected
    assert report.judged["indices_compared"] == 1


def test_revisions_at_different_indices_are_not_comparable() -> None:
    """A member that has applied more entries may stand at a higher revision."""
    clock = cluster()
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 95, 45)
    report = check_members(case(clock))
    assert codes(report) == []
    assert report.judged["indices_compared"] == 0


def test_a_member_in_motion_is_not_comparable() -> None:
    """Where anything was committed or applied between two Status answers, the revision belongs to no index."""
    for first, applied in ((89, 90), (90, 89)):
        clock = cluster()
        standing(clock, "m1", 90, 40)
        alarm(clock, "m2")
        status(clock, "m2", first, 39)
        status(clock, "m2", 90, 41, applied=applied)
        assert found(clock) == []


def test_a_member_that_has_not_answered_an_alarm_request_is_not_comparable() -> None:
    """A process fresh from a restart may hold a database ahead of the index it reports: Alarm(GET) has to be answered first."""
    clock = cluster()
    standing(clock, "m1", 90, 40)
    status(clock, "m2", 90, 41)
    status(clock, "m2", 90, 41)
    assert found(clock) == []
    clock = cluster()
    standing(clock, "m1", 90, 40)
    status(clock, "m2", 90, 41)
    alarm(clock, "m2")
    status(clock, "m2", 90, 41)
    assert found(clock) == []


def test_answers_of_two_processes_of_a_member_are_not_taken_together() -> None:
    """An Alarm or Status answered before a restart says nothing about the process after it."""
    clock = cluster()
    standing(clock, "m1", 90, 40)
    alarm(clock, "m2")
    clock.mark("member", "m2", state="exited", incarnation=1, pid=1, asked=True, wait_status=9)
    clock.at(clock.now + 10).mark("member", "m2", state="started", incarnation=2, pid=2, asked=True)
    status(clock.at(clock.now + 10), "m2", 90, 41)
    status(clock, "m2", 90, 41)
    assert found(clock) == []
    standing(clock, "m2", 90, 41)
    assert found(clock) == REVISION


def test_a_member_whose_processes_were_not_noted_is_not_comparable() -> None:
    """Without marks of starts and ends nobody knows which process answered; a start without the end before it is as bad."""
    clock = Clock()
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, 41)
    assert found(clock) == []
    clock = cluster()
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, 41)
    clock.mark("member", "m2", state="started", incarnation=2, pid=2, asked=True)
    assert found(clock) == []


def test_indices_apart_by_idle_entries_alone_are_compared() -> None:
    """Asking m2 for its alarms is the one entry between index 90 of m1 and index 91 of m2, and changes nothing."""
    for other, expected in ((41, REVISION), (40, [])):
        clock = cluster()
        alarm(clock, "m1")
        alarm(clock, "m2")
        status(clock, "m1", 90, 40)
        status(clock, "m1", 90, 40)
        alarm(clock, "m2")
        status(clock, "m2", 91, other)
        status(clock, "m2", 91, other)
        report = check_members(case(clock))
        assert codes(report) == expected
        assert report.judged["indices_compared"] == 1


def test_an_entry_that_no_idle_request_accounts_for_ends_the_comparison() -> None:
    """Between index 90 and 92 lies one entry more than was asked for idly: a write, so the revisions may differ."""
    clock = cluster()
    alarm(clock, "m1")
    status(clock, "m1", 90, 40)
    status(clock, "m1", 90, 40)
    alarm(clock, "m2")
    status(clock, "m2", 92, 41)
    status(clock, "m2", 92, 41)
    assert found(clock) == []


# ---- forks ----


def test_the_lowest_divergence_is_the_fork_and_the_others_follow() -> None:
    """Revisions part at 41 or before, a hash at 41 as well: one divergence. A hash at 35 puts it at 35 or before, and is the root."""
    for hashed, expected in (
        (41, [("MEMBER-HASH", "counts"), ("MEMBER-REVISION", "follows")]),
        (35, [("MEMBER-HASH", "counts"), ("MEMBER-REVISION", "follows")]),
        (45, [("MEMBER-REVISION", "counts"), ("MEMBER-HASH", "follows")]),
    ):
        clock = cluster()
        standing(clock, "m1", 90, 40)
        standing(clock, "m2", 90, 42)
        hash_kv(clock, "m1", hashed, 1)
        hash_kv(clock, "m2", hashed, 2)
        judged = case(clock)
        report = check_members(judged)
        assert codes(report) == expected
        assert judged.fork is not None
        assert (judged.fork.revision, judged.fork.code) == (min(hashed, 41), expected[0][0])
        assert judged.fork.groups == (("m1",), ("m2",))


def test_a_fork_found_before_explains_what_comes_at_or_after_it_only() -> None:
    """Revisions that part at 41 follow a fork at 30; a fork at 60 does not explain them."""
    for revision, status_ in ((30, "follows"), (41, "follows"), (60, "counts")):
        clock = cluster()
        standing(clock, "m1", 90, 40)
        standing(clock, "m2", 90, 42)
        judged = case(clock)
        judged.fork = Fork(revision, "REFUSED-BUT-APPLIED", "", ())
        report = check_members(judged)
        assert codes(report) == [("MEMBER-REVISION", status_)]
        assert judged.fork.code == ("MEMBER-REVISION" if status_ == "counts" else "REFUSED-BUT-APPLIED")


def test_members_that_differ_prove_a_suspected_fork() -> None:
    """A refused write found applied at 30 explains members that part at 41, and nothing that parted below 30."""
    for revision, status_ in ((30, "follows"), (60, "counts")):
        clock = cluster()
        standing(clock, "m1", 90, 40)
        standing(clock, "m2", 90, 42)
        judged = case(clock)
        judged.shared[SUSPECTED_FORK] = Fork(revision, "REFUSED-BUT-APPLIED", "", ())
        assert codes(check_members(judged)) == [("MEMBER-REVISION", status_)]
        assert judged.fork is not None
        assert judged.fork.revision == min(revision, 41)


def refused(clock: Clock, member: str, *, writes: bool = True, ranged: int = 999, answer: WireError | None = None) -> None:
    ops = (PutRequest(b"a"), RangeRequest(b"k", revision=ranged)) if writes else (RangeRequest(b"k", revision=ranged),)
    clock.op(member, TxnRequest((), ops), answer or WireError(OUT_OF_RANGE, FUTURE_REVISION))


@pytest.mark.parametrize("answer", [None, DENIED])
@pytest.mark.parametrize(("times", "expected"), [(2, "REFUSED-BUT-APPLIED"), (1, "MEMBER-REVISION")])
def test_refused_writes_are_the_root_where_there_are_enough_of_them(times: int, expected: str, answer: WireError | None) -> None:
    """m1 is two revisions behind after refusing two writing transactions for a read in them: the known deviation (#18667)."""
    clock = cluster()
    for _ in range(times):
        refused(clock, "m1", answer=answer)
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, 42)
    judged = case(clock)
    found_ = codes(check_members(judged))
    assert found_[0] == (expected, "counts")
    assert found_[1:] == ([("MEMBER-REVISION", "follows")] if times == 2 else [])
    assert judged.fork is not None
    assert judged.fork.code == expected


@pytest.mark.parametrize(("versions", "expected"), [(("3.7.0", "3.7.3"), "MEMBER-REVISION"), (("3.7.0", "3.6.16"), "REFUSED-BUT-APPLIED")])
def test_releases_with_the_deviation_mended_have_no_such_excuse(versions: tuple[str, ...], expected: str) -> None:
    """From 3.7.0 on a refused write explains nothing; one older member is enough for it to."""
    clock = cluster()
    clock.mark("start", members={f"m{number}": {"version": version} for number, version in enumerate(versions, start=1)})
    refused(clock, "m1")
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, 41)
    assert found(clock)[0] == (expected, "counts")


def test_refusals_that_cannot_be_applied_elsewhere_explain_nothing() -> None:
    """Refused by the member that is ahead, reading only, for another reason, after the difference was seen, or after its revision."""
    plain = WireError(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
    for make in (
        lambda clock: refused(clock, "m2"),
        lambda clock: refused(clock, "m1", writes=False),
        lambda clock: refused(clock, "m1", ranged=0),
        lambda clock: refused(clock, "m1", answer=plain),
        lambda clock: (clock.op("m1", PutRequest(b"z"), PutResponse(header(60), None)), refused(clock, "m1")),
    ):
        clock = cluster()
        make(clock)
        standing(clock, "m1", 90, 40)
        standing(clock, "m2", 90, 41)
        assert found(clock) == REVISION
    clock = cluster()
    standing(clock, "m1", 90, 40)
    standing(clock, "m2", 90, 41)
    refused(clock, "m1")
    assert found(clock) == REVISION


# ---- hashes ----


@pytest.mark.parametrize(("value", "expected"), [(2, HASH), (1, [])])
def test_hashes_of_one_revision_must_agree(value: int, expected: Any) -> None:
    """HashKV at the same revision above the same compact revision has one value."""
    clock = cluster()
    hash_kv(clock, "m1", 30, 1)
    hash_kv(clock, "m2", 30, value)
    report = check_members(case(clock))
    assert codes(report) == expected
    assert report.judged["hashes_compared"] == 1


def differing(*, asked: tuple[int, int] = (30, 30), compact: tuple[int, int] = (1, 1), told: tuple[int, int] = (0, 0)) -> Clock:
    clock = cluster()
    hash_kv(clock, "m1", asked[0], 1, compact[0], told[0])
    hash_kv(clock, "m2", asked[1], 2, compact[1], told[1])
    return clock


def test_hashes_that_say_different_things_are_not_comparable() -> None:
    """Other revisions, other compact revisions, unknown revisions, or a revision not above the compact one: no finding."""
    assert found(differing(told=(30, 30))) == HASH
    assert found(differing(asked=(0, 0), told=(30, 30))) == HASH
    for clock in (
        differing(asked=(30, 31)),
        differing(compact=(1, 10)),
        differing(asked=(0, 0)),
        differing(told=(30, 31)),
        differing(compact=(30, 30)),
    ):
        assert found(clock) == []


def test_hashes_at_a_compaction_revision_are_not_comparable() -> None:
    """At a revision that a compaction was asked for, some releases answer with a hash stored then."""
    clock = differing()
    clock.op("m1", CompactionRequest(30), CompactionResponse(header(40)))
    assert found(clock) == []


def test_hashes_of_one_member_under_two_names_are_not_compared() -> None:
    """Members are their ids: two addresses of one member are one member."""
    clock = cluster()
    hash_kv(clock, "m1", 30, 1)
    answer = pb.HashKVResponse(header=pb_header(35, "m1"), hash=2, compact_revision=1)
    clock.op("m2", pb.HashKVRequest(revision=30), answer)
    assert found(clock) == []


# ---- auth revisions ----


@pytest.mark.parametrize(("other", "expected"), [(9, AUTH), (8, [])])
def test_auth_revisions_at_one_index_must_agree(other: int, expected: Any) -> None:
    """Each AuthStatus is one entry; where these are all there is between the Status answers, auth revisions must agree (#11651)."""
    clock = cluster()
    status(clock, "m1", 90, 40)
    auth_status(clock, "m1", 8)
    auth_status(clock, "m2", other)
    status(clock, "m1", 92, 40)
    status(clock, "m2", 92, 40)
    report = check_members(case(clock))
    assert codes(report) == expected
    assert report.judged["auth_revisions_compared"] == 1


def test_auth_revisions_with_anything_else_in_between_are_not_comparable() -> None:
    """One more entry than was asked for may be a change of the auth store."""
    clock = cluster()
    status(clock, "m1", 90, 40)
    auth_status(clock, "m1", 8)
    auth_status(clock, "m2", 9)
    status(clock, "m1", 93, 40)
    status(clock, "m2", 93, 40)
    assert found(clock) == []


def test_a_release_without_auth_status_is_not_compared() -> None:
    """3.4 answers AuthStatus with UNIMPLEMENTED: nothing to compare, nothing found."""
    clock = cluster()
    status(clock, "m1", 90, 40)
    for member in ("m1", "m2"):
        clock.op(member, pb.AuthStatusRequest(), WireError(UNIMPLEMENTED, "unknown method AuthStatus"))
    status(clock, "m1", 90, 40)
    status(clock, "m2", 90, 40)
    assert found(clock) == []


def test_an_auth_difference_is_not_explained_by_a_fork_of_the_store() -> None:
    """The auth store is another store: its divergence is a cause and never follows."""
    clock = cluster()
    status(clock, "m1", 90, 40)
    auth_status(clock, "m1", 8)
    auth_status(clock, "m2", 9)
    status(clock, "m1", 92, 40)
    status(clock, "m2", 92, 40)
    judged: Case = case(clock)
    judged.fork = Fork(2, "KV-LOST-WRITE", "", ())
    assert codes(check_members(judged)) == AUTH


# ---- against a log that is known ----


class Machine:
    """Three members of one log, whose every step is chosen: what is committed where, what is applied, what is published.

    An entry is idle, a write of the store or a change of auth. Where `skips` is not 0, m3 does not execute the entry of that index.
    """

    def __init__(self, skips: int = 0) -> None:
        self.clock = cluster("m1", "m2", "m3")
        self.log: list[str] = []
        self.skips = skips
        self.known = {"m1": 0, "m2": 0, "m3": 0}
        self.applied = dict(self.known)
        self.executed = dict(self.known)

    def counted(self, member: str, kind: str, upto: int) -> int:
        skipped = self.skips if member == "m3" else 0
        return 1 + sum(1 for index, entry in enumerate(self.log[:upto], start=1) if entry == kind and index != skipped)

    def advance(self, member: str, steps: int) -> None:
        """Learn of a commit, execute, publish: one of them a step, in the order in which a member can."""
        for _ in range(steps):
            if self.applied[member] < self.executed[member]:
                self.applied[member] += 1
            elif self.executed[member] < self.known[member]:
                self.executed[member] += 1
            elif self.known[member] < len(self.log):
                self.known[member] += 1

    def status(self, member: str, steps: int) -> None:
        """Revision, committed and applied index are read one after the other, and the member goes on in between."""
        revision = self.counted(member, "write", self.executed[member])
        self.advance(member, steps)
        index = self.known[member]
        self.advance(member, steps)
        status(self.clock, member, index, revision, applied=self.applied[member])

    def ask(self, member: str, what: str) -> None:
        """A request that is an entry itself, answered when it has been executed there, published or not."""
        self.log.append("idle")
        while self.executed[member] < len(self.log):
            self.advance(member, 1)
        if what == "alarm":
            alarm(self.clock, member)
        else:
            auth_status(self.clock, member, self.counted(member, "auth", len(self.log)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["status", "status", "status", "alarm", "auth", "advance", "rest", "write", "change"]),
        st.sampled_from(["m1", "m2", "m3"]),
        st.integers(0, 4),
    ),
    min_size=5,
    max_size=60,
)


def played(steps: Any, skips: int = 0) -> Machine:
    machine = Machine(skips)
    for what, member, count in steps:
        if what == "status":
            machine.status(member, count)
        elif what in ("alarm", "auth"):
            machine.ask(member, what)
        elif what == "advance":
            machine.advance(member, count)
        elif what == "rest":
            for each in machine.known:
                machine.advance(each, 3 * len(machine.log))
        else:
            machine.log.append("write" if what == "write" else "auth")
    return machine


@settings(max_examples=300)
@given(STEPS)
def test_members_of_one_log_never_differ(steps: Any) -> None:
    """However members lag and are asked in mid-step, those that execute one log are never said to have parted."""
    assert found(played(steps).clock) == []


@settings(max_examples=300)
@given(STEPS, st.integers(1, 20))
def test_only_the_member_that_skipped_an_entry_is_said_to_differ(steps: Any, skips: int) -> None:
    """Where m3 leaves out one entry, each finding is about m3, and about the store that the entry was of."""
    machine = played(steps, skips)
    for finding in check_members(case(machine.clock)).findings:
        assert "m3" in (finding.subject["member"], finding.subject["other"])
        assert finding.code == {"write": "MEMBER-REVISION", "auth": "MEMBER-AUTH-REVISION"}[machine.log[skips - 1]]


def test_a_skipped_entry_shows_at_the_next_rest() -> None:
    """With the questions that a hunt asks, one skipped write and one skipped auth change are found."""
    asked = [
        (what, member, 0)
        for what in ("alarm", "rest", "status", "status", "auth", "rest", "status", "status")
        for member in ("m1", "m2", "m3")
    ]
    for what, expected in (("write", REVISION), ("change", AUTH)):
        assert expected[0] in found(played([(what, "m1", 0), *asked], skips=1).clock)
        assert found(played([(what, "m1", 0), *asked]).clock) == []


# ---- exits and alarms ----


def exited(asked: bool, wait_status: int) -> Clock:
    clock = cluster()
    detail = {"incarnation": 1, "pid": 1, "wait_status": wait_status, "log_tail": ["a", "panic: freepages: failed"]}
    clock.at(500).mark("member", "m1", state="exited", asked=asked, **detail)
    return clock


def test_the_words_of_a_crash_stand_before_the_end_of_its_trace() -> None:
    """Where a long trace follows a panic, the certificate has the panic's own line all the same, and once only."""
    clock = cluster()
    words = "panic: failed to open snapshot backend"
    for member, tail in (("m1", [words, *(f"\tserver.go:{number}" for number in range(20))]), ("m2", ["goroutine 1 [running]:", words])):
        clock.at(500).mark("member", member, state="exited", asked=False, pid=1, wait_status=512, log_tail=tail, crash=words)
    first, second = check_members(case(clock)).findings
    assert [exhibit.what for exhibit in first.certificate][1:] == [
        f"log: {words}",
        *(f"log: \tserver.go:{number}" for number in range(15, 20)),
    ]
    assert [exhibit.what for exhibit in second.certificate][1:] == ["log: goroutine 1 [running]:", f"log: {words}"]


def test_an_exit_that_nobody_asked_for_is_caught() -> None:
    """A panic is a finding with its wait status and last log lines; an exit that was asked for is none."""
    report = check_members(case(exited(False, 2 << 8)))
    assert codes(report) == [("MEMBER-EXIT", "counts")]
    assert "exited with code 2" in report.findings[0].summary
    assert any("panic: freepages" in exhibit.what for exhibit in report.findings[0].certificate)
    assert found(exited(True, 9)) == []


def test_a_crash_on_the_way_out_has_a_code_of_its_own() -> None:
    """A member that panics after its removal has begun is told from one that ends in the middle of its life, or that stays after all."""
    for parts, expected in (
        ((("leaving", 400),), "REMOVED-MEMBER-CRASH"),
        ((("leaving", 600),), "MEMBER-EXIT"),
        ((("leaving", 400), ("voter", 450)), "MEMBER-EXIT"),
    ):
        clock = exited(False, 2 << 8)
        clock.marks += [Mark(ms * MS, "part", "m1", {"part": part}) for part, ms in parts]
        assert found(clock) == [(expected, "counts")]


def test_a_fault_predicts_the_exits_it_causes_and_no_others() -> None:
    """A kill under way on that member predicts SIGKILL; not a panic, not on another member, not after it was healed."""
    for kind, target, healed, wait_status, expected in (
        ("kill", "m1", 900, 9, []),
        ("kill", "m1", 900, 2 << 8, [("MEMBER-EXIT", "counts")]),
        ("kill", "m2", 900, 9, [("MEMBER-EXIT", "counts")]),
        ("kill", "m1", 450, 9, [("MEMBER-EXIT", "counts")]),
        ("pause", "m1", 900, 9, [("MEMBER-EXIT", "counts")]),
    ):
        clock = exited(False, wait_status)
        clock.fault(kind, target, 400, 410, healed)
        assert found(clock) == expected


def test_a_corrupt_alarm_is_caught_once_a_member() -> None:
    """etcd's own CORRUPT alarm is a finding; NOSPACE is none, and each member's is reported once."""
    corrupt = pb.AlarmMember(memberID=2, alarm=pb.CORRUPT)
    clock = cluster()
    alarm(clock, "m1", corrupt, pb.AlarmMember(memberID=1, alarm=pb.NOSPACE))
    alarm(clock, "m2", corrupt)
    assert found(clock) == [("MEMBER-CORRUPT-ALARM", "counts")]
    clock = cluster()
    alarm(clock, "m1", pb.AlarmMember(memberID=1, alarm=pb.NOSPACE))
    assert found(clock) == []


def test_a_corrupt_alarm_that_a_client_raised_is_legal() -> None:
    """Somebody who activates the alarm gets it."""
    clock = cluster()
    raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=2, alarm=pb.CORRUPT)
    clock.op("m1", raised, None)
    alarm(clock, "m1", pb.AlarmMember(memberID=2, alarm=pb.CORRUPT))
    assert found(clock) == []


def test_a_corrupt_alarm_follows_a_known_fork() -> None:
    """Members that have parted raise it: a consequence."""
    clock = cluster()
    alarm(clock, "m1", pb.AlarmMember(memberID=2, alarm=pb.CORRUPT))
    judged = case(clock)
    judged.fork = Fork(9, "KV-LOST-WRITE", "", ())
    assert codes(check_members(judged)) == [("MEMBER-CORRUPT-ALARM", "follows")]


def test_not_applicable_without_members() -> None:
    """A history without maintenance requests and exits gives nothing to compare."""
    assert not check_members(case(Clock())).applicable
