"""What has been altered is put back, and only where nobody has written since."""

from __future__ import annotations

import os
from pathlib import Path

from pekan.faults.corruption.altered import Edit, Rename, complaint, put_back


def test_an_edit_is_taken_back_only_where_nothing_has_changed_since(tmp_path: Path) -> None:
    """Bytes and cut-off ends are put back as long as the file is as it was left, and not over what somebody has written meanwhile."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    edit = Edit(path, 3, b"3", b"x")
    edit.do()
    assert path.read_bytes() == b"012x456789"
    assert edit.undo()
    assert path.read_bytes() == b"0123456789"
    edit.do()
    path.write_bytes(b"012y456789")
    assert not edit.undo()
    path.write_bytes(b"0123456789")
    cut = Edit(path, 6, b"6789", b"")
    cut.do()
    assert path.read_bytes() == b"012345"
    assert cut.undo()
    assert path.read_bytes() == b"0123456789"
    cut.do()
    os.truncate(path, 10)
    assert not cut.undo(), "it has grown again"
    path.unlink()
    assert not cut.undo()


def test_a_lost_rename_is_taken_back_only_where_there_is_no_other(tmp_path: Path) -> None:
    """A directory has its old name, and gets the new one again unless another has been made in its place."""
    new, old = tmp_path / "wal", tmp_path / "wal.tmp"
    new.mkdir()
    rename = Rename(new, old)
    rename.do()
    assert (new.exists(), old.exists()) == (False, True)
    assert rename.undo()
    assert (new.exists(), old.exists()) == (True, False)
    rename.do()
    new.mkdir()
    assert not rename.undo()


def test_a_member_that_lost_a_peer_has_noticed_nothing(tmp_path: Path) -> None:
    """A warning about the own log is a complaint, and so is its repair; the same words about a connection, a token or a stray file are not,
    nor is what was said before."""
    log = tmp_path / "etcd.log"
    repair = (
        '{"level":"warn","caller":"etcdserver/storage.go:110","msg":"failed to read WAL, cannot be repaired","error":"wal: crc mismatch"}\n'
    )
    elsewhere = (
        '{"level":"warn","caller":"rafthttp/stream.go:421","msg":"lost TCP streaming connection","error":"unexpected EOF"}\n'
        '{"level":"warn","caller":"auth/store.go:1011","msg":"invalid auth token","token-fingerprint":"1"}\n'
        '{"level":"warn","caller":"etcdmain/etcd.go:446","msg":"found invalid file under data directory","filename":"lost+found"}\n'
        '{"level":"info","caller":"etcdserver/server.go:1","msg":"repair"}\n'
        "panic: of Go's own, no entry: checksum\n"
    )
    log.write_text(repair + elsewhere)
    assert complaint(log, len(repair)) == ""
    assert complaint(log, 0) == "failed to read WAL, cannot be repaired: wal: crc mismatch"
    log.write_text(elsewhere + '{"level":"info","caller":"wal/repair.go:95","msg":"repaired","path":"0.wal","error":"unexpected EOF"}\n')
    assert complaint(log, 0) == "repaired: unexpected EOF"


def test_what_is_put_back_is_all_that_there_was(tmp_path: Path) -> None:
    """Files that were changed, made or removed since the copy was made are as they were then; the directory itself stays the same one."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    for directory in (data, copy):
        (directory / "member" / "snap").mkdir(parents=True)
        (directory / "member" / "snap" / "db").write_bytes(b"before")
    kept = data.stat().st_ino
    (data / "member" / "snap" / "db").write_bytes(b"written from what was misread")
    (data / "member" / "wal").mkdir()
    (data / "stray").touch()
    put_back(copy, data)
    assert [path.relative_to(data).as_posix() for path in sorted(data.rglob("*"))] == ["member", "member/snap", "member/snap/db"]
    assert (data / "member" / "snap" / "db").read_bytes() == b"before"
    assert data.stat().st_ino == kept
