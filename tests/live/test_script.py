"""A script against a real etcd: its steps in their order, its faults at its steps, and an end as soon as both are over."""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan.hunt.planning import make_plan
from pekan.hunt.series import Judged, hunt_once
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.wire.messages import CompactionRequest, DeleteRangeRequest, PutRequest
from stage.releases import provided

pytestmark = pytest.mark.live

OK = "ok"
TIME_MS = 120_000
"""A bound, which no run comes near that ends with its script."""


def play(directory: Path, *lanes: Lane, faults: tuple[str, ...] = ()) -> Judged:
    asked = Plan(etcd="3.5.16", seed=1, members=1, workloads=("script",), time_ms=TIME_MS, script=lanes)
    return hunt_once(make_plan(asked, (), faults), provided("3.5.16"), directory / "run", lambda live: None, budget_s=60)


def test_a_script_is_done_as_it_says(tmp_path: Path) -> None:
    """Steps follow each other, a fault comes at its step, a lane waits for the other, a number comes from a reply, and the run ends with
    the script, long before its time is over."""
    judged = play(
        tmp_path,
        Lane(
            "a",
            "m1",
            (
                Step("Put", {"key": "k", "value": "{n}"}, times=3, answer=OK),
                Step("DeleteRange", {"key": "k"}, name="deleted", answer=OK),
                Step("Put", {"key": "k", "value": "again"}, name="put", answer=OK),
                Step("nothing", wait=Trigger(healed="kill")),
                Step("ready", answer=OK),
                Step("Compact", {"revision": {"reply": "deleted.header.revision"}}, name="compacted", answer=OK),
            ),
        ),
        Lane(
            "b",
            "leader",
            (
                Step("watch", {"key": "k", "start_revision": {"reply": "deleted.header.revision"}}, "w", wait=Trigger(step="compacted")),
                Step("progress", {"stream": "w"}, answer=OK),
            ),
        ),
        faults=("kill m1 down_ms=50 on step put",),
    )
    history, verdict = judged.history, judged.verdict
    assert history is not None
    assert verdict is not None
    assert (verdict.verdict, verdict.undecided) == ("holds", ())
    asked = [op.input for op in history.operations if op.client.startswith("script-a")]
    assert [type(each) for each in asked] == [PutRequest] * 3 + [DeleteRangeRequest, PutRequest, CompactionRequest]
    assert asked[-1].revision == 5
    times = {mark.detail["step"]: mark.time for mark in history.marks if mark.kind == "step"}
    (kill,) = history.faults
    assert kill.fired is not None
    assert times["deleted"] < times["put"] < kill.armed < kill.fired < times["compacted"]
    (mark,) = [mark for mark in history.marks if mark.kind == "script"]
    assert mark.detail == {"done": True, "stopped": {}}
    assert verdict.checkers
    counts = next(report.judged for report in verdict.checkers if report.name == "run")
    assert (counts["watches"], counts["watch_events"]) == (1, 2), "the delete and the put after it, by a stream that is read to the head"
    assert judged.seconds < TIME_MS / 1000


def test_a_step_that_was_answered_otherwise_ends_its_lane(tmp_path: Path) -> None:
    """A run whose conditions were not met is undecided, and says which step was answered what."""
    judged = play(
        tmp_path,
        Lane("a", "m1", (Step("Compact", {"revision": 99}, name="compacted", answer=OK), Step("Put", {"key": "never"}))),
    )
    assert judged.verdict is not None
    assert judged.history is not None
    (reason,) = judged.verdict.undecided
    assert reason.reason.startswith("the script's lane a ended early: step compacted (Compact): ")
    assert "required revision is a future revision" in reason.reason
    assert not [op for op in judged.history.operations if isinstance(op.input, PutRequest)]


def test_clients_side_by_side_until_a_moment(tmp_path: Path) -> None:
    """Several clients go on, each as often as its pace allows, until a step of another lane is done; every value is another one."""
    judged = play(
        tmp_path,
        Lane("a", "m1", (Step("Put", {"key": "k{client}", "value": "{n}"}, clients=3, every_ms=10, until=Trigger(step="over")),)),
        Lane("b", "m1", (Step("Put", {"key": "b"}, times=20, every_ms=20), Step("nothing", wait=Trigger(revision=60), name="over"))),
    )
    assert judged.history is not None
    assert judged.verdict is not None
    assert judged.verdict.verdict == "holds"
    puts = [op.input for op in judged.history.operations if op.client.startswith("script-a")]
    assert {put.key for put in puts} == {b"k0", b"k1", b"k2"}
    assert len({put.value for put in puts}) == len(puts) > 20


def test_a_stream_is_heard_to_its_end(tmp_path: Path) -> None:
    """A member that stands still when the script ends delivers, once it goes on, what its watches have been owed."""
    judged = play(
        tmp_path,
        Lane(
            "a",
            "m1",
            (
                Step("Put", {"key": "k", "value": "{n}"}, times=3, answer=OK),
                # Watches of the past are served in rounds, every 100 ms.
                Step("watch", {"key": "k", "start_revision": 2}, "w", answer=OK),
                Step("Put", {"key": "k", "value": "last"}, timeout_ms=100, wait=Trigger(after="pause")),
            ),
        ),
        faults=("pause m1 2s on step w",),
    )
    assert judged.history is not None
    (stream,) = [stream for stream in judged.history.streams if stream.client.startswith("script-")]
    told = [event.kv.value for message in stream.messages if not message.sent for event in message.message.events]
    assert told[:3] == [b"0", b"1", b"2"]


def test_a_fault_that_is_due_is_waited_for(tmp_path: Path) -> None:
    """A run does not end while a fault whose moment came with the script's last step looks for its victim."""
    judged = play(
        tmp_path,
        Lane("a", "m1", (Step("Put", {"key": "k"}, name="put", answer=OK), Step("nothing", name="over", wait=Trigger(healed="kill")))),
        # The only member has just been started again: it takes an election until somebody leads.
        faults=("kill m1 down_ms=50 on step put", "pause leader 50ms on step over"),
    )
    assert judged.verdict is not None
    assert (judged.verdict.verdict, judged.verdict.undecided) == ("holds", ())
    assert judged.history is not None
    assert [fault.kind for fault in judged.history.faults if fault.fired is not None] == ["kill", "pause"]
