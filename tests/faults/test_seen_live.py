"""Which live test shows the effect of each kind of fault from outside, and beside which control: a table that is kept honest."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from pekan.faults import INJECTORS

LIVE = Path(__file__).parents[1] / "live" / "faults"


class Seen(NamedTuple):
    """One kind: the test, what is seen that Pekan does not say of itself, and what is seen without the fault (or of others). Each sees
    besides that the cluster serves afterwards."""

    test: str
    effect: str
    control: str


SEEN = {
    "kill": Seen("process::stopped_ended_and_killed", "wait status 9, no last word in the log", "a restart has its last word"),
    "pause": Seen("process::stopped_ended_and_killed", "state T in /proc, no answer", "another state, an answer"),
    "restart": Seen("process::stopped_ended_and_killed", "another process, the log closed", "the same process before"),
    "cpu-starve": Seen("resources::a_starved_member", "ticks of /proc/PID/stat", "its former control group"),
    "memory-limit": Seen("resources::a_member_without_memory", "killed by the kernel; Go's last words", "a limit far away ends nobody"),
    "descriptor-limit": Seen("resources::a_member_without_descriptors", "a connection is not accepted", "one before, those that are there"),
    "clock-skew": Seen("clock::clocks_of_one_member", "the log's time, two hours off", "the log's time before; leases live on"),
    "clock-jump": Seen("clock::clocks_of_one_member", "a lease ends early", "a lease under a skew does not"),
    "failpoint": Seen("hooks::count_hold_release_and_kill", "exact counts, a put that waits, a kill", "a thread not armed runs on"),
    "disk-slow": Seen("disk::a_slow_disk", "a put takes as long as its sync", "a serializable read does not"),
    "disk-error": Seen("disk::errors_end_a_member", "etcd's fatal words, status 1", "a call that never comes"),
    "disk-full": Seen("disk::errors_end_a_member", "no space left on device", "the member before it"),
    "torn-write": Seen("disk::power_losses", "etcd repairs its log", "kills that tear nothing"),
    "power-loss": Seen("disk::power_losses", "bytes gone, no acknowledged write", "syncs that lie lose acknowledged writes"),
    "sync-lies": Seen("disk::syncs_that_lie", "acknowledged writes are gone", "an honest power loss"),
    "filesystem-shutdown": Seen("disk::a_file_system_loses_power", "an unsynced file is gone", "a kill leaves it"),
    "cut": Seen("network::cut_links", "one follower does not learn of a write", "the other one does"),
    "isolate": Seen("network::cut_links", "the leader is another", "the same leader before"),
    "partition": Seen("network::groups_that_do_not_hear", "who leads, who is served, who learns", "all five learn before"),
    "hold": Seen("network::slow_links", "a put is answered late, by all that waited", "puts before it"),
    "delay": Seen("network::slow_links", "a put waits for two ways", "puts before it"),
    "rate": Seen("network::slow_links", "50 kB take seconds", "puts before it"),
    "reset": Seen("network::slow_links", "connections are lost", "the next put"),
    "messages": Seen("network::messages_by_kind", "a read waits for its kind alone", "appends overtake"),
    "client-cut": Seen("network::between_clients", "a write without an answer, done or not", "the write before"),
    "client-delay": Seen("network::between_clients", "a put waits for both ways", "the write before"),
    "client-reset": Seen("network::between_clients", "connections are lost", "the next put"),
    "corrupt": Seen("network::snapshots_lost", "one byte of a value on one member", "the value elsewhere, and one before"),
    "packet-loss": Seen("packets::members_kernels_see", "segments sent again", "a loss of 0 percent"),
    "packet-duplicate": Seen("packets::members_kernels_see", "duplicates in netstat", "a loss of 0 percent"),
    "packet-reorder": Seen("packets::members_kernels_see", "segments out of order", "a loss of 0 percent"),
    "packet-delay": Seen("packets::what_does_not_arrive", "no answer within the deadline", "another member answers"),
    "member-add": Seen("membership::a_change_that_etcd_refuses", "four members in etcd's list", "three before and after"),
    "learner": Seen("membership::members_come_and_go", "reads through it, promoted, gone", "promotion is refused before"),
    "member-remove": Seen("membership::a_leader_is_removed", "two members in etcd's list", "a lone member is not removed"),
    "member-replace": Seen("membership::members_come_and_go", "another name in etcd's list", "three names before"),
    "move-leader": Seen("membership::a_leader_is_removed", "another leader, by request", "the leader before"),
    "compact": Seen("maintenance::a_compaction_at_a_tombstone", "reads below are refused", "reads at it are not"),
    "defragment": Seen("maintenance::a_database_is_streamed", "the file is a tenth", "compacted, it was not smaller"),
    "snapshot-save": Seen("maintenance::a_database_is_streamed", "the stream is the file", "the digest that the stream ends with"),
    "snapshot-restore": Seen("maintenance::a_snapshot_is_restored", "a cluster of one has what was told", "an older one lacks it"),
    "alarm": Seen("maintenance::space_runs_out", "writes refused by every member", "reads are not; no alarm before"),
    "quota": Seen("maintenance::space_runs_out", "writes refused, a smaller file", "a large write afterwards"),
    "auth-toggle": Seen("maintenance::auth_is_turned_on", "refused without a token", "served before and after"),
    "crash-image": Seen("images::images_are_what", "members start on them", "an older one is found out; another fault leaves none"),
    "flip-byte": Seen("corruption::a_member_refuses", "the byte in the file, etcd's words", "the byte put back"),
    "truncate-wal": Seen("corruption::a_member_without_the_end", "the file is shorter", "the members that hold everything"),
    "lost-rename": Seen("corruption::a_member_without_the_end", "the directory's old name", "a log of one segment has lost none"),
    "consistent-index": Seen("corruption::a_member_serves_on", "an entry left out in silence", "the members that hold everything"),
}


def test_every_kind_is_seen_by_a_live_test() -> None:
    """The table has every kind; the test that it names is there, and names the kind as it is carried out."""
    assert set(SEEN) == set(INJECTORS)
    for kind, seen in SEEN.items():
        file, _, start = seen.test.partition("::")
        module = ast.parse((LIVE / f"test_{file}.py").read_text(encoding="utf-8"))
        found = [each for each in module.body if isinstance(each, ast.FunctionDef) and each.name.startswith(f"test_{start}")]
        assert len(found) == 1, seen.test
        # Some have what they carry out in a constant of the module.
        names = {each.id for each in ast.walk(found[0]) if isinstance(each, ast.Name)}
        constants = [
            each for each in module.body if isinstance(each, ast.Assign) and {getattr(to, "id", "") for to in each.targets} & names
        ]
        texts = [
            str(each.value)
            for root in (*found, *constants)
            for each in ast.walk(root)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        assert any(text.startswith(f"{kind} ") for text in texts), seen.test
