"""Members started on crash images: each rule with a planted violation, and what must not be taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pekan.checkers.case import Options
from pekan.checkers.judge import judge
from pekan.history.reading import load
from pekan.history.run import RunDirectory
from pekan.history.types import FAILED, OK, Epoch, FaultSpan, History, Mark, Operation, Stream, StreamMessage
from pekan.models.etcd import apply
from pekan.plan import Plan
from pekan.verdict import Verdict
from pekan.wire.errors import FUTURE_REVISION, OUT_OF_RANGE, WireError
from pekan.wire.messages import (
    DELETE,
    PUT,
    RANGE,
    WATCH,
    CompactionRequest,
    Event,
    KeyValue,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
)
from simulator.recording import recordable, write_history

from .building import ALL, Story, header

END = 10_000
"""When the members are started on the image: after everything that happens in the run."""


class Imaged:
    """A run of five puts and a deletion, an image after revision `told`, and what members started on it answer: the truth at first."""

    def __init__(self, told: int = 0) -> None:
        story = self.story = Story(watched=True)
        for n in range(5):
            story.put(b"k%d" % (n % 3), b"v%d" % n)
        story.delete(b"k0")
        probe = story.get(b"pekan/probe", serializable=True)
        self.told = told or probe.output.header.revision
        self.probe = probe
        self.before = story.tick()
        self.done = story.tick()
        self.answers: dict[str, Any] = {"m1": self.everything()}
        self.events: list[tuple[int, tuple[Event, ...]]] = self.delivered()
        self.start = 1
        self.canceled = 0
        self.exits: list[str] = []
        self.attempts = 1
        self.version = "3.5.35"
        self.faults: tuple[FaultSpan, ...] = ()

    def everything(self) -> RangeResponse:
        answer = apply(self.story.state, RangeRequest(*ALL)).answer
        assert isinstance(answer, RangeResponse)
        return answer._replace(header=header(self.told))

    def delivered(self) -> list[tuple[int, tuple[Event, ...]]]:
        """What a watch of everything has to deliver, and a write of the epoch after it."""
        events = [(change.kv.mod_revision, (change,)) for message in self.story.delivered["m1"] for change in message.message.events]
        after = self.told + 1
        return [*events, (after, (Event(PUT, KeyValue(b"pekan/image", after, after, 1, b"", 0), None),))]

    def again(self, key: bytes, value: bytes) -> None:
        """A further event after the last one."""
        last = self.events[-1][0] + 1
        self.events.append((last, (Event(PUT, KeyValue(key, 2, last, 9, value, 0), None),)))

    def epoch(self, attempt: int) -> Epoch:
        operations = []
        for number, (member, output) in enumerate(self.answers.items(), 1):
            outcome = FAILED if isinstance(output, WireError) else OK
            request = RangeRequest(*ALL, revision=self.told)
            call = END + 10 * number
            operations.append(Operation(number, number, call, call + 5, outcome, request, output, RANGE, f"aside-{member}", member))
        messages = [
            StreamMessage(END + 100, True, WatchCreateRequest(*ALL, start_revision=self.start)),
            StreamMessage(END + 101, False, WatchResponse(header(self.told), 0, True, False, 0, "", False, ())),
        ]
        if self.canceled:
            cancel = WatchResponse(header(self.told), 0, False, True, self.canceled, "compacted", False, ())
            messages.append(StreamMessage(END + 102, False, cancel))
        else:
            for at, (revision, events) in enumerate(self.events):
                if revision >= self.start:
                    message = WatchResponse(header(self.told + 1), 0, False, False, 0, "", False, events)
                    messages.append(StreamMessage(END + 103 + at, False, message))
        stream = Stream(1, WATCH, "aside-m1", "m1", "", tuple(messages), None, 0, "", False)
        marks = [Mark(END, "start", "", {"start": "unknown"})]
        for crash in self.exits:
            detail = {"state": "exited", "incarnation": 1, "pid": 7, "asked": False, "wait_status": 512, "crash": crash, "log_tail": []}
            marks.append(Mark(END + 1, "member", "m1", detail))
        answered = tuple(operations) if not self.exits else ()
        streams = (stream,) if not self.exits else ()
        return Epoch(1, attempt, History(answered, streams, marks=(*marks, Mark(END + 200, "end", "", {"reason": "finished"}))))

    def history(self) -> History:
        detail = {
            "number": 1,
            "before_ns": self.before,
            "still_ns": self.before,
            "done_ns": self.done,
            "told": {"revision": self.told, "operation": self.probe.id, "member": "m1"},
            "members": {},
        }
        start = Mark(0, "start", "", {"start": "empty", "members": {"m1": {"version": self.version}}})
        image = Mark(self.done, "image", "", detail)
        epochs = tuple(self.epoch(attempt) for attempt in range(1, self.attempts + 1))
        return self.story.history(marks=(start, image), epochs=epochs, faults=self.faults)

    def judged(self) -> Verdict:
        return judge(self.history(), Options(), "reference")

    def codes(self) -> list[str]:
        return [finding.code for finding in self.judged().findings if finding.status == "counts"]


def counts(verdict: Verdict) -> dict[str, int]:
    """What the images checker did."""
    return next(report.judged for report in verdict.checkers if report.name == "images")


def test_what_was_told_is_there() -> None:
    """An image on which members hold what was told, and a watch delivers it, gives no finding, and is counted as judged."""
    verdict = Imaged().judged()
    assert not [finding for finding in verdict.findings if finding.code.startswith("IMAGE")]
    assert counts(verdict) == {"kept": 1, "started": 1, "parted": 0, "judged": 1, "answers": 1, "watches": 1, "events": 7}


def test_a_told_revision_in_the_future() -> None:
    """A member for which a revision is in the future that had been told before the image has lost it."""
    it = Imaged()
    it.answers["m2"] = WireError(OUT_OF_RANGE, FUTURE_REVISION)
    assert it.codes() == ["IMAGE-LOST-WRITE"]


def test_what_was_told_during_the_image_proves_nothing() -> None:
    """An answer that came when members stood still already is no promise about what their files held."""
    it = Imaged()
    it.answers["m1"] = WireError(OUT_OF_RANGE, FUTURE_REVISION)
    it.before = it.probe.ret or 0
    assert it.codes() == []


@pytest.mark.parametrize("how", ["older", "missing", "invented"])
def test_another_state_of_a_told_revision(how: str) -> None:
    """A key that is older, missing or invented at a told revision is another state than the run had."""
    it = Imaged()
    answer = it.everything()
    first, *rest = answer.kvs
    kvs = {
        "older": (first._replace(value=b"v0", version=1), *rest),
        "missing": tuple(rest),
        "invented": (*answer.kvs, first._replace(key=b"z")),
    }
    it.answers["m1"] = answer._replace(kvs=kvs[how])
    assert it.codes() == ["IMAGE-CONTENT"]


def test_an_effect_that_comes_a_second_time() -> None:
    """The value of an answered put again, above the told revision, is the same entry applied twice."""
    it = Imaged()
    it.again(b"k1", b"v4")
    assert it.codes() == ["IMAGE-APPLIED-TWICE"]


def test_a_request_under_way_may_write_the_same_again() -> None:
    """The same value again is legal where a request was open that asked for it."""
    it = Imaged()
    lost = it.story.lost(PutRequest(b"k1", b"v4"))
    it.story.change(lost, call=it.before - 1)
    it.again(b"k1", b"v4")
    assert it.codes() == []


def test_what_had_not_been_told_may_become_anything() -> None:
    """Above the told revision another order than the run's is legal."""
    it = Imaged()
    it.story.put(b"k2", b"later")
    it.again(b"k2", b"other")
    assert it.codes() == []


@pytest.mark.parametrize("how", ["missing", "content", "order"])
def test_a_watch_that_tells_another_story(how: str) -> None:
    """A watch that leaves out a deletion, tells another value or goes back in time is a finding."""
    it = Imaged()
    if how == "missing":
        assert it.events[5][1][0].type == DELETE
        del it.events[5]
    elif how == "content":
        revision, (change,) = it.events[3]
        it.events[3] = (revision, (change._replace(kv=change.kv._replace(value=b"wrong")),))
    else:
        it.events.append(it.events[1])
    assert it.codes() == ["IMAGE-WATCH"]


def test_a_watch_is_judged_as_far_as_it_came() -> None:
    """A watch that ends early has left nothing out."""
    it = Imaged()
    it.events = it.events[:3]
    assert it.codes() == []


def test_a_watch_is_cancelled_for_a_compaction_that_nobody_asked_for() -> None:
    """Cancelled as compacted, though no compaction was asked for: a finding; legal where one was."""
    it = Imaged()
    it.canceled = 4
    assert it.codes() == ["IMAGE-WATCH"]
    legal = Imaged()
    compaction = legal.story.lost(CompactionRequest(4))
    legal.story.change(compaction, call=legal.before - 1)
    legal.canceled = 4
    assert legal.codes() == []


def test_where_members_may_have_parted_nothing_is_judged() -> None:
    """After a refused transaction that other members may have applied (#18667) images are counted and not judged; from 3.7 on they are, and
    after one that was refused for what a nested one reads: that is left out by nobody."""
    plain = RangeRequest(b"k0", revision=1_000)
    nested = TxnRequest((), (plain,), ())
    for version, read, codes in (("3.5.35", plain, []), ("3.5.35", nested, ["IMAGE-LOST-WRITE"]), ("3.7.3", plain, ["IMAGE-LOST-WRITE"])):
        it = Imaged()
        it.answers["m1"] = WireError(OUT_OF_RANGE, FUTURE_REVISION)
        put = PutRequest(b"late", b"x")
        refused = it.story.refused(TxnRequest((), (put, read), ()), FUTURE_REVISION)
        it.story.change(refused, call=it.before - 1)
        it.version = version
        verdict = it.judged()
        assert [finding.code for finding in verdict.findings if finding.status == "counts" and finding.code.startswith("IMAGE")] == codes
        assert counts(verdict)["parted"] == (not codes)


def test_members_that_do_not_start() -> None:
    """The same panic at three starts is a finding; two starts, different ends, and a taken port are none."""
    it = Imaged()
    it.exits, it.attempts = ["panic: freepages: failed to get all reachable pages"], 3
    assert it.codes() == ["IMAGE-START"]
    it.attempts = 2
    assert it.codes() == []
    it.exits, it.attempts = ["listen tcp 127.0.0.1:12345: bind: address already in use"], 3
    assert it.codes() == []


def test_an_outside_fault_excuses() -> None:
    """After a fault outside etcd's promises a loss is told, and does not count."""
    it = Imaged()
    it.answers["m1"] = WireError(OUT_OF_RANGE, FUTURE_REVISION)
    it.faults = (FaultSpan(1, "flip-byte", "m1", {}, "outside", False, "", 1, 2, 3),)
    findings = it.judged().findings
    assert [(finding.code, finding.status) for finding in findings] == [("IMAGE-LOST-WRITE", "excused")]


@pytest.mark.parametrize("lost", [False, True])
def test_both_engines_judge_a_run_directory_the_same(tmp_path: Path, lost: bool) -> None:
    """The epochs are read from the run directory and judged the same whoever holds the run's own record."""
    it = Imaged()
    if lost:
        it.answers["m1"] = WireError(OUT_OF_RANGE, FUTURE_REVISION)
    history = it.history()
    run = RunDirectory.create(tmp_path / "run", Plan(etcd="3.5.1", seed=1))
    main, epoch = recordable(replace(history, epochs=())), recordable(history.epochs[0].history)
    assert main is not None
    assert epoch is not None
    write_history(main, run.history_path)
    (run.images_path / "1" / "1").mkdir(parents=True)
    write_history(epoch, run.images_path / "1" / "1" / "history.pb")
    verdicts = [judge(load(run.path, engine=engine), Options(), engine) for engine in ("reference", "auto")]
    for verdict in verdicts:
        assert [finding.code for finding in verdict.findings if finding.code.startswith("IMAGE")] == (["IMAGE-LOST-WRITE"] if lost else [])
        assert counts(verdict)["judged"] == 1
