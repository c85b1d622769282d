"""Scripts: what a plan may spell out, and what is refused before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pekan.errors import UsageError
from pekan.plan import Fault, Lane, Plan, Schedule, Step, Trigger
from pekan.wire.messages import called, encode, pb
from pekan.workloads import check_script, companions_of
from pekan.workloads.script import Script, _fill, _filled_in


def plan_of(*steps: Step, members: int = 1) -> Plan:
    return Plan(etcd="3.5.1", seed=1, members=members, workloads=("script",), script=(Lane("a", "m1", steps),))


def test_a_plan_with_a_script_is_the_same_after_json() -> None:
    """Lanes, steps and their triggers survive plan.json."""
    step = Step("Put", {"key": "k{n}"}, name="first", times=3, wait=Trigger(step="x", at_ms=5), until=Trigger(healed="kill#2"), answer="ok")
    plan = Plan(
        etcd="3.5.1",
        seed=1,
        workloads=("script",),
        schedule=Schedule(0, 1, 2, (Fault("kill", "m1", Trigger(step="first")),)),
        script=(Lane("a", "m1", (step,)), Lane("b", "leader", (Step("nothing", name="x"),))),
    )
    assert Plan.from_text(plan.to_text()) == plan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"name": "a", "member": "m1", "steps": [{"cal": "Put"}]}], r"plan\.script\[0\]\.steps\[0\]: unknown field 'cal'"),
        ([{"name": "a", "steps": []}], r"plan\.script\[0\]: missing member"),
        (
            [{"name": "a", "member": "m1", "steps": [{"call": "Put", "wait": {"stepp": "x"}}]}],
            r"plan\.script\[0\]\.steps\[0\]\.wait: unknown field 'stepp'",
        ),
        ([{"name": "a", "member": "m1", "steps": [{"call": "Put", "request": []}]}], r"steps\[0\]\.request: expected a JSON object"),
        ("Put", r"plan\.script: expected a JSON array"),
    ],
)
def test_what_is_no_script_is_refused_with_its_place(data: object, message: str) -> None:
    """A plan.json with a script that cannot be read says where."""
    with pytest.raises(UsageError, match=message):
        Plan.from_json({**Plan(etcd="3.5.1", seed=1).to_json(), "script": data})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("Putt"), "no request is called 'Putt'"),
        (Step("Put", {"kay": "k"}), "Put has no field 'kay'; it has key, value"),
        (Step("Put", {"key": "{m}"}), "nothing is called 'm'"),
        (Step("Put", {"key": "{"}), "braces that stand for themselves are doubled"),
        (Step("Put", {"lease": "many"}), r"Put\.lease:"),
        (Step("Txn", {"success": {"request_put": {}}}), r"Txn\.success: expected an array"),
        (Step("Txn", {"success": ["request_put"]}), r"Txn\.success: expected an object"),
        (Step("Range", {"key": "a", "sort_order": "UPWARDS"}), "is none of NONE, ASCEND, DESCEND"),
        (Step("Compact", {"revision": {"reply": "put.header.revision"}}), "refers to a reply of 'put'"),
        (Step("Put", member="m9"), "no member is called 'm9'; there are m1"),
        (Step("Put", answer="fine"), "answer 'fine': it may be any, ok, error"),
        (Step("Put", wait=Trigger(step="later")), "it waits for the step 'later'"),
        (Step("watch", {"key": "k"}), "give it a name"),
        (Step("watch", {"kay": "k"}, name="w"), "watch has no field 'kay'"),
        (Step("progress", {"stream": "w"}), "no watch step is called 'w'"),
        (Step("lead", {"key": "k"}), "it takes no 'key'; it takes nothing"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused_before_the_run(step: Step, message: str) -> None:
    """Every step is checked when the run is planned; the error names lane and step."""
    with pytest.raises(UsageError, match=message) as raised:
        check_script(plan_of(step))
    assert str(raised.value).startswith("plan.script: lane a, step ")


def test_the_plan_of_the_documentation_can_be_done() -> None:
    """The plan that docs/scripts.md shows is read, and its script is one that can be carried out."""
    page = (Path(__file__).parents[2] / "docs" / "scripts.md").read_text(encoding="utf-8")
    plan = Plan.from_text(page.split("```json\n")[1].split("```")[0])
    assert plan.script
    check_script(plan)


def test_a_script_and_its_workload_belong_together() -> None:
    """A script without the workload that does it is a mistake, and so is the workload without a script."""
    without_workload = Plan(etcd="3.5.1", seed=1, script=(Lane("a", "m1", (Step("nothing"),)),))
    for plan in (Plan(etcd="3.5.1", seed=1, workloads=("script",)), without_workload):
        with pytest.raises(UsageError, match="give both, or none"):
            check_script(plan)


def test_nothing_runs_beside_a_script_alone() -> None:
    """Companions would send what the script does not say; beside drawn traffic they run as ever."""
    assert companions_of(("script",)) == []
    assert companions_of(("script", "kv"))


def filled(call: str, asked: dict[str, Any], **names: Any) -> Any:
    message = called(call)[1]()
    _fill(message, _filled_in(asked, {"n": 0, "client": 0, "lane": "a", **names}, {}, {}), call)
    return message


def test_text_counts_and_lists_unfold() -> None:
    """{n} and {i} are numbers, with Python's format; {"times", "of"} is so many elements; text is bytes where etcd takes bytes."""
    asked = {
        "compare": [{"key": "k", "target": "VERSION", "result": "GREATER", "version": 3}],
        "success": [{"times": 2, "of": {"request_put": {"key": "{lane}{n:02}/{i}", "value": "{i:x>4}"}}}, {"request_range": {"key": "z"}}],
    }
    message = filled("Txn", asked, n=7)
    assert [encode(op) for op in message.success] == [
        encode(pb.RequestOp(request_put=pb.PutRequest(key=b"a07/0", value=b"xxx0"))),
        encode(pb.RequestOp(request_put=pb.PutRequest(key=b"a07/1", value=b"xxx1"))),
        encode(pb.RequestOp(request_range=pb.RangeRequest(key=b"z"))),
    ]
    (compare,) = message.compare
    assert (compare.target, compare.result, compare.version, compare.key) == (0, 1, 3, b"k")


def test_numbers_may_come_from_replies() -> None:
    """A reference is a field of the last reply to a step, with something added."""
    reply = pb.PutResponse(header=pb.ResponseHeader(revision=41))
    asked = {"revision": {"reply": "put.header.revision", "plus": 1}}
    assert _filled_in(asked, {"n": 0}, {"put": reply}, {}) == {"revision": 42}


def test_a_reply_may_go_into_any_field() -> None:
    """What only a reply will tell is left out while the plan is checked, whatever the field takes, and comes as it was answered."""
    asked = {"key": {"reply": "held.key"}}
    check_script(plan_of(Step("Lock", {"name": "n"}, name="held"), Step("Unlock", asked)))
    filled = _filled_in(asked, {"n": 0}, {"held": pb.LockResponse(key=b"n/1f")}, {})
    assert encode(Script().request(Step("Unlock"), filled)) == encode(pb.UnlockRequest(key=b"n/1f"))


def test_requests_are_those_that_clients_send() -> None:
    """What a step asks comes out as the value that the rest of the house knows the request by."""
    script = Script()
    request = script.request(Step("Put"), {"key": "k", "value": "v"})
    assert encode(request) == encode(pb.PutRequest(key=b"k", value=b"v"))
    assert script.request(Step("RoleGrantPermission"), {"name": "r", "perm": {"key": "a", "permType": "READWRITE"}}).perm.permType == 2
