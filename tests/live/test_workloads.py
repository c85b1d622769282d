"""Workloads and faults against a real etcd: what was drawn was sent and answered, and the record tells it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pekan.etcd.binaries import find
from pekan.etcd.client import Client, Reply
from pekan.etcd.cluster import Cluster
from pekan.etcd.recorder import Recorder
from pekan.etcd.spec import ClusterSpec, MemberState
from pekan.faults import Context, inject, parse
from pekan.history.reading import load
from pekan.history.records import RecordWriter
from pekan.history.types import History, Operation
from pekan.plan import Fault, Plan, Schedule
from pekan.wire.messages import WATCH, Request, WatchCreateRequest, WatchResponse, pb
from pekan.workloads import COMPANIONS, Traffic, auth, kubernetes, kv, workload
from pekan.workloads.keys import meets_known_deviation, put_values
from pekan.workloads.traffic import LATE_FROM, masked

pytestmark = pytest.mark.live

VERSION = "3.5.1"
DEADLINE_S = 240.0
"""For one run; several times what it takes on two busy cores."""
FINISH_S = 60.0
FAULTS_MS = 120_000
"""By when every fault has had its life, whatever the machine does to it: a run in which they are over goes on no longer than it has to."""
END_SLACK_S = 10.0
"""By how much a machine that has other things to do may be late with the end of some forty clients."""
ANSWERED_MIN = 0.8
"""Of the operations; an election costs each client one or two."""
LONGER = 3
"""Runs, each twice as long as the one before, until one has seen everything: how much is sent in a time is the machine's affair."""
CHEAP_PASSWORDS = (("bcrypt-cost", "4"),)
"""A login costs a member some 100 ms of processor by default, which a short run has better uses for."""


async def nobody(member: str, request: Request, _timeout_s: float) -> Reply:
    """What faults ask with; those of these tests ask nothing."""
    raise AssertionError(f"{member} was asked {request}")


@dataclass
class Run:
    """What a small run left behind. `began`: when the clock of its traffic was started, ns of the record's clock."""

    plan: Plan
    began: int
    history: History
    counts: Counter[str]
    ended_within_s: float
    states: dict[str, MemberState] = field(default_factory=dict)

    def of(self, prefix: str) -> list[Operation]:
        """Operations of the clients whose name begins with `prefix`."""
        return [operation for operation in self.history.operations if operation.client.startswith(prefix)]


def conduct(plan: Plan, directory: Path, faults: tuple[Fault, ...] = ()) -> Run:
    """A hunt without its hunter: cluster, workloads of the plan with their companions, `faults`; nothing is judged."""

    async def go() -> Run:
        recorder = Recorder(RecordWriter(directory / "history.pb"))
        clients: list[Client] = []
        spec = ClusterSpec(find(VERSION), directory / "members", members=plan.members, options=dict(plan.flags))
        async with asyncio.timeout(DEADLINE_S), Cluster(spec) as cluster:

            def connect(name: str, member: str, *, metadata: tuple[tuple[str, str], ...] = (), slow: bool = False) -> Client:
                client = Client(
                    name=name,
                    member=member,
                    address=cluster.member(member).spec.advertise_client,
                    recorder=recorder,
                    timeout_s=plan.timeout_ms / 1000,
                    metadata=metadata,
                    slow=slow,
                )
                clients.append(client)
                return client

            traffic = Traffic(plan, tuple(member.name for member in cluster.members), connect)
            works = [workload(name) for name in plan.workloads] + [make() for make in COMPANIONS]
            for work in works:
                await work.prepare(traffic)
            began = time.monotonic_ns()
            traffic.begin()
            loop = asyncio.get_running_loop()
            async with asyncio.TaskGroup() as group:
                for work in works:
                    group.create_task(work.run(traffic))
                context = Context(cluster, recorder, traffic.elapsed_ms, FAULTS_MS, nobody, connect, directory)
                await inject(Schedule(0, FAULTS_MS, FAULTS_MS, faults), context)
                await asyncio.sleep(max(0, plan.time_ms - traffic.elapsed_ms()) / 1000)
                traffic.finished.set()
                finished = loop.time()
            ended_within_s = loop.time() - finished
            for work in works:
                async with asyncio.timeout(FINISH_S):
                    await work.finish(traffic)
            for client in clients:
                await client.close()
            states = {member.name: member.state for member in cluster.members}
        recorder.close()
        return Run(plan, began, load(directory / "history.pb"), traffic.counts, ended_within_s, states)

    return asyncio.run(go())


Look = Callable[[Run], dict[str, bool]]
"""What is looked for in a run, and whether it is there."""


def missing(look: Look, run: Run) -> list[str]:
    """What `look` does not find."""
    return [what for what, there in look(run).items() if not there]


def conduct_until(plan: Plan, directory: Path, *looks: Look) -> Run:
    """A run of `plan` in which all of `looks` find everything, the longest one where none does."""
    for number in range(LONGER):
        place = directory / str(number)
        place.mkdir()
        run = conduct(replace(plan, time_ms=plan.time_ms << number), place)
        if not any(missing(look, run) for look in looks):
            break
    return run


@pytest.fixture(scope="module")
def kv_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight seconds of `kv` on three members."""
    plan = Plan(etcd=VERSION, seed=5, time_ms=8_000, workloads=("kv",))
    return conduct_until(plan, tmp_path_factory.mktemp("kv"), traffic_of_kv, whole_watches, short_watches, leases, tombstones, deviations)


def messages(run: Run, client: str) -> Iterator[WatchResponse]:
    """What the watches of `client` were told."""
    for stream in run.history.streams:
        if stream.method == WATCH and stream.client == client:
            yield from (message.message for message in stream.messages if not message.sent)


def answered(run: Run) -> float:
    """The share of operations that etcd decided, refusals included."""
    decided = run.counts["ok"] + run.counts["refused"]
    return decided / (decided + run.counts["failed"] + run.counts["indefinite"])


def written(run: Run) -> list[bytes]:
    """Every value that the record sent, but for the decimal revisions of compact_rev_key."""
    return [
        value
        for operation in run.history.operations
        if operation.client.split("-")[0] != "compactor"
        for value in put_values(operation.input)
    ]


def traffic_of_kv(run: Run) -> dict[str, bool]:
    """Of the main traffic of `kv`."""
    return {
        "every kind of choice": all(run.counts[f"kv:{name}"] for name in kv.WEIGHTS),
        "answers": answered(run) > ANSWERED_MIN and run.counts["ok"] > 4 * run.counts["refused"],
        "values": len(written(run)) > 300,
    }


def test_kv_sends_and_etcd_answers(kv_run: Run) -> None:
    """Every kind of choice was made, nearly everything was decided, most of it well, and each value was written once."""
    assert missing(traffic_of_kv, kv_run) == []
    values = written(kv_run)
    assert len(set(values)) == len(values)


def test_a_workload_ends_when_it_is_told(kv_run: Run) -> None:
    """Soon after the request timeout everything has ended, and every call has its end in the record."""
    assert kv_run.ended_within_s < kv_run.plan.timeout_ms / 1000 + END_SLACK_S
    assert not [operation for operation in kv_run.history.operations if operation.output is None]


def whole_watches(run: Run) -> dict[str, bool]:
    """Of the watches on everything, by member."""
    told = {member: revisions(run, member) for member in ("m1", "m2", "m3")}
    return {member: len(each) > 0.9 * max(map(len, told.values())) > 300 for member, each in told.items()}


def revisions(run: Run, member: str) -> list[int]:
    """What the watch of everything on `member` was told of."""
    return [event.kv.mod_revision for message in messages(run, f"watch-{member}-all") for event in message.events]


def test_whole_keyspace_watchers_hear_of_everything(kv_run: Run) -> None:
    """On every member one watch on everything from revision 1 was told nearly all of what was written."""
    assert missing(whole_watches, kv_run) == []
    for member in ("m1", "m2", "m3"):
        told = revisions(kv_run, member)
        assert told == sorted(told)
    creates = [s.messages[0].message for s in kv_run.history.streams if s.client == "watch-m1-all"]
    assert creates[0] == WatchCreateRequest(b"\0", b"\0", 1, progress_notify=True, prev_kv=True)


def short_watches(run: Run) -> dict[str, bool]:
    """Of all other watches."""
    clients = {stream.client for stream in run.history.streams if stream.client.startswith(("watch-", "bulk"))}
    told = [message for client in clients for message in messages(run, client)]
    return {
        "created": any(message.created for message in told),
        "progress of all": any(message.watch_id == -1 for message in told),
        "cancelled for compaction": any(message.canceled and message.compact_revision for message in told),
        "fragments": any(message.fragment for message in told),
        "slow": any(message.events for message in messages(run, "watch-m1-slow")),
    }


def test_short_watchers_do_what_their_kinds_say(kv_run: Run) -> None:
    """Watches were created, progress was asked for and told, compaction cancelled some, and fragments came."""
    assert missing(short_watches, kv_run) == []


def tombstones(run: Run) -> dict[str, bool]:
    """Of compactions at a deletion."""
    admin = [operation for operation in run.of("admin-") if operation.outcome == "ok"]
    deleted = {operation.output.header.revision for operation in admin if operation.method.endswith("DeleteRange")}
    compacted = {operation.input.revision for operation in admin if operation.method.endswith("Compact")}
    sent = [message.message for s in run.history.streams if s.client.startswith("admin-") for message in s.messages if message.sent]
    watched = {request.start_revision for request in sent if isinstance(request, WatchCreateRequest)}
    return {"compacted and watched": bool(deleted & compacted & watched)}


def test_maintenance_compacts_and_watches_from_a_tombstone(kv_run: Run) -> None:
    """A compaction was accepted at exactly the revision of a deletion, and a watch began there."""
    assert missing(tombstones, kv_run) == []


def leases(run: Run) -> dict[str, bool]:
    """Of the leases of `kv`."""
    outcomes = Counter((o.method.rsplit("/", 1)[1], o.outcome) for o in run.of("kv-"))
    return {
        "kept alive": run.counts["keepalive"] > 0,
        "granted": outcomes["LeaseGrant", "ok"] > 3,
        "revoked": outcomes["LeaseRevoke", "ok"] > 0,
        "unknown": outcomes["LeaseRevoke", "failed"] > 0,
    }


def test_leases_are_kept_revoked_and_left_to_expire(kv_run: Run) -> None:
    """Leases were granted, renewed on a stream and revoked, keys vanished with an expiry, and unknown leases were refused."""
    assert missing(leases, kv_run) == []


def deviations(run: Run) -> dict[str, bool]:
    """Of what is known to be answered wrongly."""
    late = [operation for operation in run.of("late-") if meets_known_deviation(operation.input)]
    return {
        "asked": any(operation.client.startswith("late-ask-") for operation in late),
        "refused": any(operation.client.startswith("late-range-") and operation.outcome == "failed" for operation in late),
    }


def test_known_deviations_come_late_and_from_their_own_clients(kv_run: Run) -> None:
    """Both classes were sent, by late clients only, in the last fifth of the traffic only."""
    assert missing(deviations, kv_run) == []
    deviating = [operation for operation in kv_run.history.operations if meets_known_deviation(operation.input)]
    assert all(operation.client.startswith(("late-ask-", "late-range-")) for operation in deviating)
    assert min(operation.call for operation in deviating) - kv_run.began >= LATE_FROM * kv_run.plan.time_ms * 1_000_000


def traffic_of_kubernetes(run: Run) -> dict[str, bool]:
    """Of `kubernetes`."""
    pages = [operation for operation in run.of("kubernetes-") if operation.client.endswith("-pages")]
    streams = [stream for stream in run.history.streams if stream.client.startswith("kubernetes-")]
    claims = [operation for operation in run.of("compactor-") if operation.method.endswith("Txn") and operation.outcome == "ok"]
    return {
        "every kind of choice": all(run.counts[f"kubernetes:{name}"] for name in kubernetes.WEIGHTS),
        "answers": answered(run) > ANSWERED_MIN,
        "values": len(written(run)) > 300,
        "pages": any(operation.outcome == "ok" and operation.output.kvs for operation in pages),
        "events": any(message.message.events for stream in streams for message in stream.messages if not message.sent),
        "claims": any(operation.output.succeeded for operation in claims),
        "leases": any(operation.outcome == "ok" for operation in run.of("kubernetes-") if operation.method.endswith("LeaseGrant")),
    }


def test_kubernetes_on_one_member(tmp_path: Path) -> None:
    """An API server's shapes are answered, lists have pages, watches begin behind a list, compactors move their key, leases expire."""
    plan = Plan(etcd=VERSION, seed=6, members=1, time_ms=8_000, workloads=("kubernetes",))
    run = conduct_until(plan, tmp_path, traffic_of_kubernetes)
    assert missing(traffic_of_kubernetes, run) == []
    values = written(run)
    assert len(set(values)) == len(values)


def traffic_of_auth(run: Run) -> dict[str, bool]:
    """Of `auth`."""
    users = [operation for operation in run.of("auth-") if not operation.client.startswith(("auth-root", "auth-prepare", "auth-finish"))]
    outcomes = {(operation.method.rsplit("/", 1)[1], operation.outcome) for operation in users}
    methods = ("Put", "Range", "DeleteRange", "Txn")
    return {
        "every kind of choice": all(run.counts[f"auth:{name}"] for name in auth.WEIGHTS),
        "allowed": {(method, "ok") for method in methods} <= outcomes,
        "denied": {(method, "failed") for method in methods} <= outcomes,
        "users": {operation.user for operation in users} >= {"alice", "bob", "carol", "dave"},
        "root": {operation.member for operation in run.of("auth-root") if operation.outcome == "ok"} == {"m1", "m2", "m3"},
        "events": any(message.events for message in messages(run, "watch-m2-all")),
        "users' events": any(message.events for user in auth.USERS for message in messages(run, f"auth-watch-{user.name}")),
        "values": len(written(run)) > 100,
    }


def test_auth_allows_denies_and_changes(tmp_path: Path) -> None:
    """Requests of every kind are allowed and denied, root changes roles, watchers hear everything, and auth is off at the end."""
    plan = Plan(etcd=VERSION, seed=7, time_ms=8_000, workloads=("auth",), flags=CHEAP_PASSWORDS)
    run = conduct_until(plan, tmp_path, traffic_of_auth)
    assert missing(traffic_of_auth, run) == []
    last = run.of("auth-finish")[-1]
    # Refused because it is off: an earlier try, of which no answer came, did it.
    assert last.outcome == "ok" or last.output.message == "etcdserver: authentication is not enabled"
    values = written(run)
    assert len(set(values)) == len(values)


def requests(run: Run, client: str) -> list[Any]:
    """What `client` sent, in order, without what replies decided."""
    return [kept for operation in run.of(client) if operation.client == client and (kept := masked(operation.input)) is not None]


@pytest.mark.parametrize("name", ["kv", "kubernetes", "auth"])
def test_two_runs_of_a_plan_send_the_same(tmp_path: Path, name: str) -> None:
    """Two runs agree on every client's common prefix, with what depends on replies masked."""
    plan = Plan(etcd=VERSION, seed=8, members=1, time_ms=4_000, concurrency=4, workloads=(name,), flags=CHEAP_PASSWORDS)

    def enough(run: Run) -> dict[str, bool]:
        """Of the clients, who have sent something to compare."""
        return {f"{name}-{index}": len(requests(run, f"{name}-{index}")) > 70 for index in range(4)}

    runs = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        runs.append(conduct_until(plan, tmp_path / str(index), enough))
    compared = 0
    for client in (f"{name}-{index}" for index in range(4)):
        # A token is asked for again when a member has forgotten it, which time decides.
        first, second = ([r for r in requests(run, client) if not isinstance(r, pb.AuthenticateRequest)] for run in runs)
        common = min(len(first), len(second))
        compared += common
        assert first[:common] == second[:common]
    assert compared > 200


def test_faults_have_a_life_in_the_record(tmp_path: Path) -> None:
    """Kill, pause and restart fire on members of their role with the kernel's evidence, are healed, and traffic goes on around them."""
    names = ("m1", "m2", "m3")
    faults = tuple(parse(text, names) for text in ("kill leader 200ms at 1s", "pause follower 700ms at 1200ms", "restart any at 4s"))
    run = conduct(Plan(etcd=VERSION, seed=10, time_ms=9_000), tmp_path, faults)
    assert run.states == dict.fromkeys(names, MemberState.RUNNING)
    spans = {span.kind: span for span in run.history.faults}
    assert set(spans) == {"kill", "pause", "restart"}
    for span in spans.values():
        assert span.target in names
        assert span.required
        assert span.promise == "within"
        assert span.fired is not None
        assert span.healed is not None
        assert span.armed < span.fired < span.healed
        assert span.evidence["pid"] > 0
    assert spans["kill"].evidence["wait_status"] == 9
    assert spans["pause"].evidence["signal"] in ("SIGSTOP", "SIGCONT")
    assert (spans["pause"].healed or 0) - (spans["pause"].fired or 0) > 650e6
    assert run.counts["indefinite"] + run.counts["failed"] > 0
    assert answered(run) > 0.5
    assert len({stream.id for stream in run.history.streams if stream.client == f"watch-{spans['kill'].target}-all"}) > 1
