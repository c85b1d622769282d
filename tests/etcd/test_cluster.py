"""What a cluster concludes from members' words and logs; the clusters themselves are in tests/live."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.etcd.cluster import Cluster, elected, plan_members
from pekan.etcd.log import diagnose
from pekan.etcd.ports import PortLease
from pekan.etcd.spec import Address, ClusterSpec, MemberExit, MemberSpec, MemberStatus


@dataclass(frozen=True)
class Executable:
    path: str = "/opt/etcd"
    version: str = "3.5.1"


ADDRESS = Address("127.0.0.1", 20001)
MEMBER = MemberSpec("m1", Executable(), Path("/run/m1/data"), Path("/run/m1/etcd.log"), ADDRESS, ADDRESS, ADDRESS, ADDRESS)


def status(member_id: int, leader: int, term: int = 2) -> MemberStatus:
    return MemberStatus(member_id, 7, leader, term, raft_index=10, raft_applied_index=10, revision=1, version="3.5.1")


@pytest.mark.parametrize(
    ("answers", "members", "leader"),
    [
        ({"a": status(1, 1)}, 1, "a"),
        ({"a": status(1, 2), "b": status(2, 2), "c": status(3, 2)}, 3, "b"),
        ({"a": status(1, 2), "b": status(2, 2)}, 3, "b"),
        # A majority does not know of the leader, or nobody leads, or it does not answer itself.
        ({"b": status(2, 2)}, 3, None),
        ({"a": status(1, 0), "b": status(2, 2), "c": status(3, 0)}, 3, None),
        ({"a": status(1, 3), "b": status(2, 3)}, 3, None),
        ({}, 3, None),
        # One that was cut off still believes in its old term; the majority's word counts.
        ({"a": status(1, 1, term=2), "b": status(2, 2, term=3), "c": status(3, 2, term=3)}, 3, "b"),
        # The same name in different terms is no agreement.
        ({"a": status(1, 1, term=2), "b": status(2, 1, term=3), "c": status(3, 0, term=3)}, 3, None),
    ],
)
def test_elected(answers: dict[str, MemberStatus], members: int, leader: str | None) -> None:
    """The leader is whom a majority of all members names in one term, itself included; anything less is no leader."""
    assert elected(answers, members) == leader


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('{"level":"fatal","msg":"x","error":"listen tcp 127.0.0.1:20001: bind: address already in use"}', "127.0.0.1:20001 is taken"),
        ('{"level":"fatal","error":"listen tcp [::1]:20001: bind: address already in use"}', "[::1]:20001 is taken"),
        ("flag provided but not defined: -nonsense", "etcd 3.5.1 has no flag --nonsense"),
        ('invalid value "many" for flag -snapshot-count: parse error', '(invalid value "many" for flag -snapshot-count)'),
        (
            '{"level":"warn","msg":"failed to start","error":"open /run/m1/data/member: permission denied"}',
            "its data directory /run/m1/data cannot be used (open /run/m1/data/member: permission denied)",
        ),
        (
            '{"level":"info","msg":"db file is flocked by another process, or taking too long","path":"/run/m1/data"}',
            "another etcd uses its data directory /run/m1/data (db file is flocked by another process)",
        ),
        ('{"level":"fatal","msg":"discovery failed","error":"walpb: crc mismatch"}', "etcd says: discovery failed: walpb: crc mismatch"),
    ],
)
def test_diagnose(line: str, cause: str) -> None:
    """What etcd writes when it does not start is told in the words of the person who has to act, wherever it stands in the log."""
    noise = '{"level":"info","msg":"starting an etcd server"}'
    found = diagnose(MEMBER, [noise, line, noise])
    assert found is not None
    assert cause in found


def test_a_log_that_tells_nothing() -> None:
    """Without a known cause, a warning or an error there is no diagnosis, however odd the log."""
    assert diagnose(MEMBER, ['{"level":"info","msg":"ready"}', "[1, 2]", "{", ""]) is None


def test_diagnosis_takes_linear_time() -> None:
    """A megabyte of goroutine traces, which no pattern matches, takes far less of the processor than a quadratic search would."""
    began = time.process_time()
    assert diagnose(MEMBER, ["x" * 1_000_000]) is None
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("wait_status", "words", "code", "number"),
    [
        (9, "was ended by SIGKILL", None, 9),
        (0, "exited with status 0", 0, None),
        (2 << 8, "exited with status 2", 2, None),
        (None, "unknown status", None, None),
        (6 | 0x80, "was ended by SIGABRT", None, 6),
    ],
)
def test_an_exit_in_words(wait_status: int | None, words: str, code: int | None, number: int | None) -> None:
    """An exit tells exit codes, signals and an unknown end apart, a dumped core notwithstanding."""
    end = MemberExit("m1", 1, 4711, wait_status, asked=False, time_ns=0, log_tail=())
    assert words in str(end)
    assert "member m1 (incarnation 1, pid 4711)" in str(end)
    assert (end.exit_code, end.signal) == (code, number)


def test_planned_members(tmp_path: Path) -> None:
    """Members get names, places and addresses of their own, and a binary by name where one is given."""
    other = Executable("/opt/newer", "3.6.16")
    with PortLease() as ports:
        members = plan_members(ClusterSpec(Executable(), tmp_path, 5, binaries={"m3": other}), ports)
        assert [member.name for member in members] == ["m1", "m2", "m3", "m4", "m5"]
        assert [member.binary.version for member in members] == ["3.5.1", "3.5.1", "3.6.16", "3.5.1", "3.5.1"]
        addresses = {address for member in members for address in (member.listen_client, member.listen_peer)}
        assert len(addresses) == 10
        assert {address.port for address in addresses} == set(ports.ports)
        assert all(member.advertise_client == member.listen_client for member in members)
        assert {member.data_dir for member in members} == {tmp_path / f"m{number}" / "data" for number in range(1, 6)}
    assert not list(tmp_path.iterdir())


def test_no_member_of_that_name(tmp_path: Path) -> None:
    """A name that no member has is a usage error."""
    with pytest.raises(UsageError, match="no member is called 'm9'"):
        Cluster(ClusterSpec(Executable(), tmp_path)).member("m9")
