"""Plans go through JSON unchanged, and a wrong plan is refused by the name of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pekan.errors import UsageError
from pekan.plan import Fault, Plan, Schedule, Trigger

PLAN = Plan(
    etcd="3.5.1",
    seed=7,
    workloads=("kv", "auth"),
    flags=(("snapshot-count", "100"),),
    fault_classes=("kill",),
    schedule=Schedule(
        quiet_ms=3_000,
        heal_ms=50_000,
        end_ms=60_000,
        faults=(
            Fault("kill", "leader", Trigger(5_000), {"down_ms": 300}, fault_class="kill"),
            Fault("pause", "any", Trigger(9_000), {"hold_ms": 2_000}, required=True),
        ),
    ),
    allow=("REFUSED-BUT-APPLIED",),
    without=("kv:get", "watching"),
)


def test_round_trip() -> None:
    """plan.json gives back the plan that was written."""
    assert Plan.from_text(PLAN.to_text()) == PLAN


def _changed(**fields: Any) -> str:
    return json.dumps({**PLAN.to_json(), **fields})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        (_changed(format=99), "format is 99"),
        (_changed(seed="7"), "plan.seed"),
        (_changed(seed=True), "plan.seed"),
        (_changed(tls=1), "plan.tls"),
        (_changed(surprise=1), "surprise"),
        (_changed(workloads="kv"), "plan.workloads"),
        (_changed(schedule={"quiet_ms": 1, "heal_ms": 2, "end_ms": 3, "faults": [{"kind": "kill"}]}), "faults[0]"),
        (json.dumps({"format": 1, "schedule": {"quiet_ms": 1, "heal_ms": 2, "end_ms": 3}}), "missing etcd, seed"),
        (json.dumps({"format": 1, "etcd": "3.5.1", "seed": 1}), "missing quiet_ms"),
        (_changed(flags=[["a"]]), "plan.flags"),
        (_changed(allow=[1]), "plan.allow"),
        (_changed(without="kv"), "plan.without"),
    ],
)
def test_wrong_plan_is_named(text: str, named: str) -> None:
    """A plan that is none is refused with the field that is wrong."""
    with pytest.raises(UsageError) as error:
        Plan.from_text(text)
    assert named in str(error.value)
