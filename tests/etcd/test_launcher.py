"""The launcher with real processes: what it reports, and that nothing outlives its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pekan.errors import ClusterFailure
from pekan.etcd.log import LOG_TAIL_BYTES, LOG_TAIL_LINES, crash, log_tail
from pekan.etcd.process import END_SECONDS_MAX, Process
from pekan.etcd.spec import Attachment

SLEEP = "/bin/sleep"
SHELL = "/bin/sh"
DEADLINE_SECONDS = 60.0
FREEZER = Path("/sys/fs/cgroup/freezer")
"""What is frozen by the first version of control groups does not even end when it is killed, as one that waits for a disk."""

# Owns one launched `sleep` and tells of it until it is ended itself.
OWNER = """
import asyncio, sys
from pathlib import Path
from pekan.etcd.process import Process

async def own():
    async with asyncio.TaskGroup() as group:
        process = await Process.launch(["/bin/sleep", "600"], {}, (), Path(sys.argv[1]))
        group.create_task(process.follow(lambda: None))
        await process.started()
        if sys.argv[2] == "paused":
            await process.pause()
        print(process.launcher_pid, process.pid, flush=True)

asyncio.run(own())
"""


def lives(pid: int) -> bool:
    """Whether the process runs or could run again; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(true: Callable[[], bool]) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@asynccontextmanager
async def launched(log: Path, *arguments: str, attachments: tuple[Attachment, ...] = ()) -> AsyncIterator[Process]:
    """A launched process that is gone after the block."""
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        process = await Process.launch(arguments, {"PATH": "/usr/bin:/bin", "MARK": "here"}, attachments, log)
        group.create_task(process.follow(lambda: None))
        try:
            yield process
        finally:
            process.release()
            await process.gone(END_SECONDS_MAX)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7 << 8), ("kill -KILL $$", signal.SIGKILL), ("kill -TERM $$", signal.SIGTERM)]
)
def test_wait_status(log: Path, script: str, status: int) -> None:
    """The wait status is reported as wait(2) encodes it, exit codes and signals alike."""

    async def run() -> int | None:
        async with launched(log, SHELL, "-c", script) as process:
            await process.started()
            await process.wait_ended(DEADLINE_SECONDS)
            return process.wait_status

    assert asyncio.run(run()) == status


def test_output_goes_to_the_log(log: Path) -> None:
    """Both output streams are appended to the log, and each incarnation knows where its part begins."""

    async def run(text: str) -> tuple[str, ...]:
        async with launched(log, SHELL, "-c", f"echo {text}; echo {text} >&2") as process:
            await process.started()
            await process.wait_ended(DEADLINE_SECONDS)
            return log_tail(log, process.log_offset)

    assert asyncio.run(run("one")) == ("one", "one")
    assert asyncio.run(run("two")) == ("two", "two")
    assert log.read_text() == "one\none\ntwo\ntwo\n"


def test_the_program_starts_clean(log: Path) -> None:
    """It has the given environment only, no descriptor of Pekan's or the launcher's, and no signal ignored or blocked."""
    script = "env | sort; ls /proc/self/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status"

    async def run() -> list[str]:
        async with launched(log, SHELL, "-c", script) as process:
            await process.started()
            await process.wait_ended(DEADLINE_SECONDS)
        return log.read_text().split()

    careless = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(careless, True)
    try:
        words = asyncio.run(run())
    finally:
        os.close(careless)
    variables = {word.partition("=")[0] for word in words if "=" in word}
    # The shell makes the other four itself.
    assert variables - {"_", "PWD", "SHLVL", "OLDPWD"} == {"PATH", "MARK"}
    # 3 is the directory that ls reads.
    assert [word for word in words if word.isdigit() and len(word) < 4] == ["0", "1", "2", "3"]
    masks = {words[at]: int(words[at + 1], 16) for at in (len(words) - 4, len(words) - 2)}
    # 32 and 33 belong to the C library's threads: nobody can set them, and a parent may have handed them on ignored.
    reserved = 1 << 31 | 1 << 32
    assert {name: mask & ~reserved for name, mask in masks.items()} == {"SigBlk:": 0, "SigIgn:": 0}


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/nonexistent/etcd", "No such file or directory"), ("/etc/passwd", "Permission denied"), ("/etc", "Permission denied")],
)
def test_a_program_that_cannot_be_executed(log: Path, program: str, reason: str) -> None:
    """A failed exec is told apart from a program that ends: it has no process id and no wait status, but a reason."""

    async def run() -> Process:
        async with launched(log, program) as process:
            with pytest.raises(ClusterFailure, match=f"cannot execute it: {reason}"):
                await process.started()
            return process

    process = asyncio.run(run())
    assert process.pid is None
    assert process.wait_status is None


def test_an_unknown_attachment(log: Path) -> None:
    """An attachment that the launcher does not know keeps the program from starting."""

    async def run() -> None:
        async with launched(log, SHELL, "-c", "echo started", attachments=(Attachment("seccomp", {"deny": ["fsync"]}),)) as process:
            with pytest.raises(ClusterFailure, match="unknown attachment 'seccomp'"):
                await process.started()

    asyncio.run(run())
    assert log.read_text() == ""


def test_pause_and_resume_are_reported(log: Path) -> None:
    """After pause the kernel shows the process stopped, after resume it does not, however often they alternate."""

    def shown(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    async def run() -> None:
        async with launched(log, SLEEP, "600") as process:
            await process.started()
            assert process.pid is not None
            for _ in range(20):
                assert await process.pause()
                assert process.paused
                assert shown(process.pid) == "T"
                assert await process.resume()
                assert not process.paused
                assert shown(process.pid) in "RSD"

    asyncio.run(run())


def test_a_paused_process_can_be_killed(log: Path) -> None:
    """SIGKILL ends a paused process, and a pause that finds it dead says so."""

    async def run() -> None:
        async with launched(log, SLEEP, "600") as process:
            await process.started()
            assert await process.pause()
            assert process.signal(signal.SIGKILL)
            await process.wait_ended(DEADLINE_SECONDS)
            assert process.wait_status == signal.SIGKILL
            assert not await process.pause()
            assert not process.signal(signal.SIGTERM)

    asyncio.run(run())


def test_the_process_id_stays_its_own(log: Path) -> None:
    """A dead program is not reaped before Pekan has been told: its process id cannot be a stranger's meanwhile."""
    seen = []

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
            process = await Process.launch([SLEEP, "600"], {}, (), log)
            group.create_task(process.follow(lambda: seen.append(Path(f"/proc/{process.pid}/stat").read_text().split()[2])))
            await process.started()
            process.signal(signal.SIGKILL)
            await process.gone(END_SECONDS_MAX)
            assert process.pid is not None
            assert not Path(f"/proc/{process.pid}").exists()

    asyncio.run(run())
    assert seen == ["Z"]


def test_closing_the_lifeline_ends_it(log: Path) -> None:
    """Releasing a process kills it, with its wait status reported, even while it is paused."""

    async def run() -> Process:
        async with launched(log, SLEEP, "600") as process:
            await process.started()
            await process.pause()
            process.release()
            await process.wait_ended(DEADLINE_SECONDS)
        return process

    process = asyncio.run(run())
    assert process.wait_status == signal.SIGKILL
    assert process.pid is not None
    assert not lives(process.pid)
    assert not lives(process.launcher_pid)


def test_death_of_the_launcher_ends_the_program(log: Path) -> None:
    """SIGKILL of the launcher kills its program by the kernel; Pekan knows the end but no wait status."""
    ends = []

    async def run() -> Process:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
            process = await Process.launch([SLEEP, "600"], {}, (), log)
            group.create_task(process.follow(lambda: ends.append(process.wait_status)))
            await process.started()
            os.kill(process.launcher_pid, signal.SIGKILL)
            await process.wait_ended(DEADLINE_SECONDS)
            return process

    process = asyncio.run(run())
    assert ends == [None]
    assert process.pid is not None
    assert not lives(process.pid)


@pytest.mark.parametrize("state", ["running", "paused"])
def test_sigkill_of_the_owner_leaves_nothing(log: Path, state: str) -> None:
    """SIGKILL of the process that owns it ends launcher and program, paused or not."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log), state], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        launcher, program = (int(word) for word in owner.stdout.readline().split())
        assert lives(launcher)
        assert lives(program)
        owner.kill()
    assert until(lambda: not lives(program))
    assert until(lambda: not lives(launcher))


def test_sigkill_of_owner_and_launcher_at_once_leaves_nothing(log: Path) -> None:
    """With nobody left to clean up, the kernel's parent-death signal alone ends the program."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log), "running"], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        launcher, program = (int(word) for word in owner.stdout.readline().split())
        # The launcher stands still, so that it can neither read its lifeline nor clean up.
        os.kill(launcher, signal.SIGSTOP)
        owner.kill()
    assert until(lambda: not lives(program))
    assert until(lambda: not lives(launcher))


def test_an_interrupt_at_the_terminal_does_not_reach_it(log: Path) -> None:
    """Launcher and program are in a session of their own: Ctrl-C goes to Pekan, which decides what ends and when."""

    async def run() -> None:
        async with launched(log, SLEEP, "600") as process:
            await process.started()
            assert process.pid is not None
            assert os.getsid(process.pid) == os.getsid(process.launcher_pid) == process.launcher_pid != os.getsid(0)

    asyncio.run(run())


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """A log in a place that does not exist is an OSError that names it, and nothing is left open."""
    before = set(os.listdir("/proc/self/fd"))

    async def run() -> None:
        with pytest.raises(OSError, match="absent"):
            await Process.launch([SLEEP, "600"], {}, (), tmp_path / "absent" / "log")

    asyncio.run(run())
    # What others had open, gRPC of tests before this one, may be closed meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before


def test_nothing_stays_open(log: Path) -> None:
    """Twenty incarnations, half of which fail to start, leave no descriptor and no process, dead or alive."""
    launchers = []

    async def run() -> None:
        for number in range(20):
            async with launched(log, SLEEP if number % 2 else "/nonexistent", "600") as process:
                launchers.append(process.launcher_pid)
                if number % 2:
                    await process.started()

    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert set(os.listdir("/proc/self/fd")) <= before  # as above
    assert not [pid for pid in launchers if Path(f"/proc/{pid}").exists()]


def test_the_log_tail_is_bounded(log: Path) -> None:
    """However long the log, its tail has whole lines, bounded in number and bytes, and never one from before the offset."""
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(10_000)))
    tail = log_tail(log)
    assert len(tail) == LOG_TAIL_LINES
    assert tail[-1] == "line 9999"
    assert log_tail(log, log.stat().st_size - 20) == ("line 9998", "line 9999")
    log.write_bytes(b"x" * (3 * LOG_TAIL_BYTES) + b"\nlast \xff\n")
    assert log_tail(log) == ("last \ufffd",)
    assert log_tail(log.with_name("absent")) == ()


def test_the_words_of_a_crash(log: Path) -> None:
    """The runtime's own line is the crash even under a long trace; else the last entry on level panic or fatal; else nothing."""
    fatal = '{"level":"fatal","ts":"2026-01-01","caller":"etcdmain/etcd.go:204","msg":"discovery failed","error":"crc mismatch"}'
    log.write_text('{"level":"info","msg":"panic: no"}\n')
    assert crash(log) is None
    log.write_text(f"{fatal}\n")
    assert crash(log) == "discovery failed: crc mismatch"
    offset = log.stat().st_size
    log.write_text(f"{fatal}\npanic: tocommit(11) is out of range\n" + "goroutine 1 [running]:\n" * 10_000)
    assert crash(log, offset) == "panic: tocommit(11) is out of range"
    assert crash(log, offset + 40) is None


def test_a_real_panic_is_read(log: Path) -> None:
    """What a program writes to its error output when it gives up is found in the log of that incarnation only."""

    async def run(script: str) -> str | None:
        async with launched(log, SHELL, "-c", script) as process:
            await process.started()
            await process.wait_ended(DEADLINE_SECONDS)
            return crash(log, process.log_offset)

    assert asyncio.run(run("echo 'fatal error: concurrent map writes' >&2; exit 2")) == "fatal error: concurrent map writes"
    assert asyncio.run(run("exit 0")) is None


def test_a_killed_process_that_has_not_ended_dies(tmp_path: Path, log: Path) -> None:
    """A process that was killed and cannot come to its end is told from one that lives and from one that is stopped."""
    if not os.access(FREEZER / "cgroup.procs", os.W_OK):
        pytest.skip("a process is kept from its end by the freezer of control groups' first version, and by root")
    group = FREEZER / f"pekan-test-{os.getpid()}-{tmp_path.name}"

    def frozen(state: str) -> None:
        (group / "freezer.state").write_text(state)
        assert until(lambda: (group / "freezer.state").read_text().strip() == state)

    async def go() -> None:
        async with launched(log, SLEEP, "600") as process:
            await process.started()
            assert not process.dies()
            await process.pause()
            assert not process.dies()
            await process.resume()
            (group / "cgroup.procs").write_text(str(process.pid))
            frozen("FROZEN")
            try:
                assert not process.dies()
                process.signal(signal.SIGKILL)
                assert process.dies()
                assert not process.ended
            finally:
                frozen("THAWED")
            await process.wait_ended(DEADLINE_SECONDS)
            assert process.wait_status == signal.SIGKILL

    group.mkdir()
    try:
        asyncio.run(go())
    finally:
        group.rmdir()
