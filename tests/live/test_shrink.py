"""Plans made smaller on real clusters, and what smaller plans leave out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.history.reading import load
from pekan.history.run import RunDirectory, read_plan
from pekan.hunt.planning import make_plan
from pekan.hunt.series import Judged, hunt_once
from pekan.plan import Lane, Plan, Step
from pekan.report import keep_verdict
from pekan.shrink import Sought, Trials, sought_in
from pekan.wire.messages import PutRequest, RangeRequest
from pekan.workloads import kinds_of, kv
from stage.releases import provided

pytestmark = pytest.mark.live

REFUSED = "REFUSED-BUT-APPLIED"
BESIDE = ("KV-REAL-TIME", "KV-UNEXPLAINED")
"""What else may count where no watch shows what the revision that one member refused holds."""
PUT = {"request_put": {"key": "k", "value": "v"}}
FUTURE = {"request_range": {"key": "k", "revision": 1_000_000}}
ASKED = Plan(
    etcd="3.5.1",
    seed=1,
    workloads=("script",),
    time_ms=30_000,
    # The member that is asked refuses, the others apply: mended in 3.7.0, and shown by every run of two members or more.
    script=(Lane("a", "m3", (Step("Put", {"key": "noise", "value": "1"}), Step("Txn", {"success": [PUT, FUTURE]}, answer="error"))),),
)
DEADLINE_S = 600
"""For a search, twenty times what it takes on an idle machine."""
ATTEMPTS = 5
"""At a run that shows it, or a search all of whose runs do: an election between the request and its answer is an answer of its own."""


def pekan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pekan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def broken_run(directory: Path, *faults: str) -> Judged:
    """A run of what is asked for that shows it; the last one where none does."""
    for number in range(ATTEMPTS):
        judged = hunt_once(make_plan(ASKED, (), faults), provided("3.5.1"), directory / f"run-{number}", lambda live: None, budget_s=60)
        if judged.verdict is not None and REFUSED in judged.verdict.codes:
            break
    return judged


def test_a_fault_and_a_step_that_are_not_needed_go(tmp_path: Path) -> None:
    """From a broken run with a useless pause and a useless put, `--shrink` makes a plan of one transaction, with a broken run of it, and
    leaves nothing else behind; a run that holds cannot be made smaller."""
    broken = broken_run(tmp_path / "runs", "pause m2 20ms at 0s")
    assert broken.verdict is not None
    assert REFUSED in broken.verdict.codes
    smaller = {"faults": {"was": 1, "is": 0}, "script": {"was": 2, "is": 1}}
    for number in range(ATTEMPTS):
        out = tmp_path / f"search-{number}" / "smaller"
        out.parent.mkdir()
        ended = pekan("hunt", "--shrink", str(broken.path), "--runs", "1", "--allow", ",".join(BESIDE), "--out", str(out), "--json")
        assert ended.returncode == 1, ended.stderr
        said = json.loads(ended.stdout)
        found = said["shrink"]
        assert (said["verdict"], found["code"]) == ("broken", REFUSED)
        if (found["smaller"], found["last"]["hits"]) == (smaller, 2):
            break
    assert (found["first"]["hits"], found["last"]["hits"], found["last"]["runs"]) == (1, 2, 2)
    assert found["smaller"] == smaller
    assert said["shrink"]["ended"] == ""
    plan = read_plan(out / "plan.json")
    assert plan.schedule.faults == ()
    assert [step.call for lane in plan.script for step in lane.steps] == ["Txn"]
    assert replace(plan, script=ASKED.script, schedule=ASKED.schedule) == replace(ASKED, etcd=plan.etcd, allow=BESIDE)
    assert "0 of 1 faults left, candidate 1, 1/1 hit" in ended.stderr
    assert ended.stderr.rstrip().endswith(f"hunt --plan {out / 'plan.json'}")
    assert [path.name for path in out.parent.iterdir()] == ["smaller"]
    assert sought_in(RunDirectory.open(out), BESIDE)[0].code == REFUSED, "what is left is a run that can be shrunk again"
    assert "verdict.json" in {path.name for path in out.iterdir()}
    with pytest.raises(UsageError, match=f"is allowed: .*{REFUSED}"):
        sought_in(RunDirectory.open(out), (REFUSED, *BESIDE))


def test_interrupted_the_best_plan_so_far_is_there(tmp_path: Path) -> None:
    """Ctrl-C ends a search with 130; what lies at --out is a plan that has shown the finding, with a run of it, and nothing goes on."""
    broken = broken_run(tmp_path / "runs")
    out = tmp_path / "smaller"
    command = [sys.executable, "-m", "pekan", "hunt", "--shrink", str(broken.path), "--runs", "1", "--out", str(out), "--json"]
    command += ["--allow", ",".join(BESIDE)]
    searching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert searching.stderr is not None
    for line in searching.stderr:
        if line.startswith("measuring the first plan: 1/"):
            searching.send_signal(signal.SIGINT)
            break
    said, _ = searching.communicate(timeout=DEADLINE_S)
    assert searching.returncode == 130
    assert (json.loads(said)["verdict"], json.loads(said)["shrink"]["ended"]) == ("broken", "stopped")
    # The search may have come a little further before it heard of the end.
    assert read_plan(out / "plan.json").script[0].steps[-1] == ASKED.script[0].steps[-1]
    assert sought_in(RunDirectory.open(out), BESIDE)[0].code == REFUSED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "smaller"]


def test_kinds_that_are_left_out_are_not_sent_and_the_others_stay(tmp_path: Path) -> None:
    """A client sends exactly those of its choices that the plan does not leave out, in their order; who has none left sends nothing."""
    left = ("put", "get")
    gone = tuple(f"kv:{kind}" for kind in kv.KINDS if kind not in left)
    plan = Plan(etcd="3.5.1", seed=4, members=1, time_ms=1_500, concurrency=1, rate=200)
    plan = replace(plan, without=(*gone, *(name for name in kinds_of(plan) if name not in ("kv", "maintenance")), "maintenance:tombstone"))
    plan = replace(plan, schedule=replace(plan.schedule, end_ms=plan.time_ms))
    history = load(hunt_once(plan, provided("3.5.1"), tmp_path / "run", lambda live: None, budget_s=60).path)
    sent = [op.input for op in history.operations if op.client == "kv-0"]
    drawn = [choice for choice in (kv.choose(plan.seed, "kv-0", n) for n in range(4 * len(sent) + 100)) if choice.kind in left]
    assert sent == [choice.template for choice in drawn[: len(sent)]]
    assert sent
    assert {type(each) for each in sent} <= {PutRequest, RangeRequest}
    assert not [op for op in history.operations if op.client.startswith(("late", "watch", "bulk"))]
    assert not history.streams


def test_what_a_trial_leaves_is_its_last_hit(tmp_path: Path) -> None:
    """Runs that do not hit are removed, one that hits is delivered once and replaced by that of the next plan, and an occupied place is
    refused."""
    binary = provided("3.5.1")
    sought = Sought(REFUSED, f"{REFUSED}/0", "")
    first = make_plan(ASKED, (), ())
    second = replace(first, script=(replace(first.script[0], steps=first.script[0].steps[1:]),))
    neither = replace(first, script=(replace(first.script[0], steps=first.script[0].steps[:1]),))
    out = tmp_path / "out"
    with Trials(binary, sought, out, lambda judged: None, lambda live: None, 60) as trials:
        assert any(trials(first) for _ in range(ATTEMPTS))
        assert trials.deliver(second) is None
        assert trials.deliver(first) is not None
        assert read_plan(out / "plan.json") == first
        assert not trials(neither)
        assert any(trials(second) for _ in range(ATTEMPTS))
        assert trials.deliver(second) is not None
        assert read_plan(out / "plan.json") == second
        assert trials.deliver(first) is not None, "the first plan's run is kept to go back to"
        assert trials.settle(first) == out
        assert trials.same_signature(first) == (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read_plan(out / "plan.json") == first
    assert load(out).complete
    with pytest.raises(UsageError, match="not an empty directory"):
        Trials(binary, sought, out, lambda judged: None, lambda live: None)


def test_what_is_sought_is_read_from_the_verdict_that_is_there(tmp_path: Path) -> None:
    """A verdict.json that says broken is taken at its word; without one, or with one that does not, the run is judged anew."""
    judged = broken_run(tmp_path)
    assert judged.verdict is not None
    run = RunDirectory.open(judged.path)
    anew = sought_in(run, ())
    keep_verdict(run.path, judged.verdict)
    assert sought_in(run, ()) == anew
    assert anew[0].signature == judged.verdict.findings[0].signature
    keep_verdict(run.path, replace(judged.verdict, findings=()))
    assert sought_in(run, ()) == anew
