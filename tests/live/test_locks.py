"""etcd's lock and election services on real members: what they write is explained, and what they promise is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pekan.checkers.run import unmet
from pekan.hunt.planning import make_plan
from pekan.hunt.series import Judged, hunt_once
from pekan.issues import ISSUES
from pekan.native import core
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.wire import pb
from stage.releases import provided

pytestmark = pytest.mark.live

OK = "ok"
EVERYTHING = Step("watch", {"key": "\0", "range_end": "\0", "start_revision": 1}, "all", answer=OK)


ATTEMPTS = 5
"""Runs of a script until one has met its conditions: a member whose disk stalls keeps a client waiting for longer than a lease lasts."""


def met(judged: Judged) -> bool:
    """Whether every step of the script was done and answered as it says."""
    return judged.conducted.failure is None and judged.history is not None and not unmet(judged.history)


def play(directory: Path, release: str, *plans: Plan, until: Callable[[Judged], bool] = met) -> Judged:
    """Runs of the plans in turn: the first one of which `until` is true, or the last one."""
    for seed, plan in enumerate(plans, 1):
        asked = make_plan(replace(plan, etcd=release, seed=seed), (), ())
        judged = hunt_once(asked, provided(release), directory / f"run-{seed}", lambda live: None, budget_s=60)
        if until(judged):
            break
    return judged


def script(*lanes: Lane) -> Plan:
    return Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=30_000, script=lanes)


def services(wait_ms: int) -> Plan:
    """Locks and elections by one client; it waits for a lock in vain for `wait_ms`."""
    leader = {"name": "e", "key": {"reply": "leads.leader.key"}, "rev": {"reply": "leads.leader.rev"}, "lease": {"reply": "a.id"}}
    lane = Lane(
        "a",
        "m1",
        (
            EVERYTHING,
            Step("LeaseGrant", {"TTL": 60}, "a", answer=OK),
            Step("LeaseGrant", {"TTL": 60}, "b", answer=OK),
            Step("Lock", {"name": "n", "lease": {"reply": "a.id"}}, "held", answer=OK),
            # Its key is put, and deleted when the caller is gone.
            Step("Lock", {"name": "n", "lease": {"reply": "b.id"}}, "waits", timeout_ms=wait_ms, answer="error"),
            Step("nothing", wait=Trigger(revision=4)),
            Step("Unlock", {"key": {"reply": "held.key"}}, answer=OK),
            Step("Lock", {"name": "n"}, "own", answer=OK),
            Step("Campaign", {"name": "e", "lease": {"reply": "a.id"}, "value": "1"}, "leads", answer=OK),
            Step("Campaign", {"name": "e", "lease": {"reply": "a.id"}, "value": "2"}, answer=OK),
            Step("Proclaim", {"leader": leader, "value": "3"}, answer=OK),
            Step("Leader", {"name": "e"}, "led", answer=OK),
            Step("Resign", {"leader": leader}, answer=OK),
            Step("Leader", {"name": "e"}, answer="error"),
            Step("Range", {"key": "\0", "range_end": "\0"}, answer=OK),
        ),
    )
    return script(lane)


def test_what_the_services_write_is_explained(tmp_path: Path) -> None:
    """Locks granted, waited for in vain and let go, and an election from campaign to resignation: every revision has its writer."""
    # Where the disk stalls for longer than the client waits, his key is not there yet when he gives up.
    judged = play(tmp_path, "3.5.16", *(services(wait_ms) for wait_ms in (500, 500, 2_000, 8_000, 16_000)))
    assert judged.verdict is not None
    assert judged.history is not None
    assert (judged.verdict.verdict, judged.verdict.undecided) == ("holds", ())
    assert core is None or "on their callers' behalf" in judged.history.declined
    (led,) = [op for op in judged.history.of(pb.LeaderRequest) if op.outcome == OK]
    assert led.output.kv.value == b"3"
    counts = next(report.judged for report in judged.verdict.checkers if report.name == "locks")
    assert counts == {"granted": 4, "placed": 2}, "a campaign is placed once its key is gone, and only where it was put by one call"


@pytest.mark.parametrize(("release", "codes"), [("3.4.23", {"LOCK-WITHOUT-KEY"}), ("3.5.16", set())])
def test_a_lock_is_granted_without_its_key_where_members_do_not_look_again(tmp_path: Path, release: str, codes: set[str]) -> None:
    """The recipe of #11456 shows it on the last line of releases that has it, and on no later one."""
    issue = ISSUES["11456"]

    def shown(judged: Judged) -> bool:
        """Whether the run shows the issue."""
        return judged.verdict is not None and any(map(issue.expects, judged.verdict.findings))

    judged = play(tmp_path, release, *[issue.run(release).plan] * ATTEMPTS, until=shown if codes else met)
    assert judged.verdict is not None
    assert judged.verdict.undecided == ()
    assert {finding.code for finding in judged.verdict.findings if finding.status == "counts"} == codes
    assert any(issue.expects(finding) for finding in judged.verdict.findings) == bool(codes)


def test_an_election_is_won_without_a_key_in_every_release(tmp_path: Path) -> None:
    """Members do not look again for elections: a candidate whose lease was revoked is told to lead when the leader resigns."""
    leader = {"name": "e", "key": {"reply": "leads.leader.key"}, "rev": {"reply": "leads.leader.rev"}, "lease": {"reply": "a.id"}}
    first = Lane(
        "first",
        "m1",
        (
            EVERYTHING,
            Step("LeaseGrant", {"TTL": 60}, "a", answer=OK),
            Step("LeaseGrant", {"TTL": 60}, "b", answer=OK),
            Step("Campaign", {"name": "e", "lease": {"reply": "a.id"}, "value": "1"}, "leads", answer=OK),
            Step("LeaseRevoke", {"ID": {"reply": "b.id"}}, wait=Trigger(revision=3), answer=OK),
            Step("Resign", {"leader": leader}, answer=OK),
        ),
    )
    second = Lane(
        "second",
        "m1",
        (
            Step(
                "Campaign",
                {"name": "e", "lease": {"reply": "b.id"}, "value": "2"},
                wait=Trigger(step="leads"),
                timeout_ms=10_000,
                answer=OK,
            ),
            Step("Range", {"key": "\0", "range_end": "\0"}, answer=OK),
        ),
    )
    judged = play(tmp_path, "3.5.16", *[script(first, second)] * ATTEMPTS)
    assert judged.verdict is not None
    assert [finding.code for finding in judged.verdict.findings if finding.status == "counts"] == ["LOCK-WITHOUT-KEY"]
