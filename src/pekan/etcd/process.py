"""One launched process: Pekan's end of the launcher's pipes.

::

    launch() ─> running <──signals──> paused ─> ended          follow() reads the reports and moves this along
                   └────────────────────────────┘

A `Process` is one incarnation and never starts again. It is owned by two things that the kernel keeps: the write end of
the lifeline, which closes with Pekan, and the parent-death signals of `pekan.etcd.launcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pekan.etcd.launcher
from pekan.errors import ClusterFailure
from pekan.etcd.log import log_tail
from pekan.etcd.spec import Attachment

# A launcher starts in some 40 ms; a machine that needs this long for it is not one to hunt on.
LAUNCH_SECONDS_MAX = 20.0

# After SIGKILL only a process in uninterruptible disk sleep stays; that lasts as long as the disk takes.
END_SECONDS_MAX = 30.0

# A launcher whose lifeline is closed has nothing left to do but kill, reap and end; then its own death has to do.
DESTROY_SECONDS_MAX = 5.0

# How long the kernel may take to stop or continue every thread of a process: one in an fsync first comes to its end, as for a death.
PAUSE_SECONDS_MAX = 30.0

# Reports are lines of under 2 kB (`launcher.FAILURE_BYTES_MAX`).
REPORT_LINE_BYTES_MAX = 64 * 1024

# fsync and fdatasync on x86-64, as /proc/PID/task/TID/syscall names them.
_SYNCS = (b"74", b"75")

# The status of a thread (proc(5)) is under 2 kB, with the affinity of a few thousand processors twice that.
STATUS_BYTES_MAX = 16 * 1024

# How often to look for the end of something that does not tell.
POLL_SECONDS = 0.005


class Process:
    """A launched process and what its launcher has reported of it. Made by `launch`; used in one event loop."""

    def __init__(
        self,
        launcher: subprocess.Popen[bytes],
        lifeline: int,
        reports: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
        log: Path,
        log_offset: int,
    ) -> None:
        self.log = log
        self.log_offset = log_offset
        """Where this incarnation's part of the log begins (bytes)."""
        self.pid: int | None = None
        """Process id of the launched program, once exec has succeeded."""
        self.paused = False
        self.continued = 0
        """How often the kernel has reported that it runs again after standing still."""
        self.ended = False
        self.wait_status: int | None = None
        """As wait(2) gives it, once `ended`; None where the launcher died before it could report."""
        self.failure: dict[str, Any] | None = None
        """The launcher's report that the program could not be started."""
        self.listener: Callable[[dict[str, Any]], None] | None = None
        """Is given what the launcher reports of a breakpoint, and {"event": "ended"} at the end of the reports."""
        self._launcher = launcher
        self._lifeline: int | None = lifeline
        self._reports = reports
        self._transport = transport
        self._changed = asyncio.Event()
        self._birth: str | None = None
        self._followed = True

    @property
    def launcher_pid(self) -> int:
        """Process id of the launcher."""
        return self._launcher.pid

    @classmethod
    async def launch(
        cls, arguments: Sequence[str], environment: Mapping[str, str], attachments: Sequence[Attachment], log: Path
    ) -> Process:
        """Fork the launcher; its output, and the program's, is appended to `log`.

        The caller runs `follow` in a task of its own from now on, and then waits for `started`. This must be called in
        a thread that lives as long as the process shall: the parent-death signal comes with the end of the thread.
        Raises `OSError`.
        """
        spec = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "attachments": [{"kind": each.kind, "parameters": dict(each.parameters)} for each in attachments],
        }
        command = [sys.executable, "-I", "-S", pekan.etcd.launcher.__file__, json.dumps(spec), str(os.getpid())]
        with contextlib.ExitStack() as always, contextlib.ExitStack() as on_failure:
            log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            always.callback(os.close, log_fd)
            log_offset = os.fstat(log_fd).st_size
            lifeline_read, lifeline = os.pipe2(os.O_CLOEXEC)
            always.callback(os.close, lifeline_read)
            on_failure.callback(os.close, lifeline)
            report_read, report_write = os.pipe2(os.O_CLOEXEC)
            always.callback(os.close, report_write)
            reader = asyncio.StreamReader(limit=REPORT_LINE_BYTES_MAX)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(report_read, "rb", buffering=0)
            )
            on_failure.callback(transport.close)
            # Nothing is awaited from here to the return: either the process is owned, or it does not exist.
            launcher = subprocess.Popen(
                command,
                stdin=lifeline_read,
                stdout=report_write,
                stderr=log_fd,
                pass_fds=sorted({fd for each in attachments for fd in each.fds}),
                # Ctrl-C at the terminal goes to the foreground's process group: Pekan decides what ends, and in what order.
                start_new_session=True,
            )
            on_failure.pop_all()
            return cls(launcher, lifeline, reader, transport, log, log_offset)

    async def follow(self, on_end: Callable[[], None]) -> None:
        """Read reports until the launcher is gone; `on_end` is called once, when the end of the program is known."""
        try:
            while line := await self._reports.readline():
                self._take(json.loads(line))
                if self.ended:
                    if self.pid is not None:
                        on_end()
                    self.release()
                self._wake()
            await self._reaped()
            if not self.ended:
                await self._orphan_gone()
                self.ended = True
                if self.pid is not None:
                    on_end()
        finally:
            self._followed = False
            if self.listener is not None:
                self.listener({"event": "ended"})
            self.release()
            self._transport.close()
            self._wake()

    async def started(self) -> None:
        """Wait for exec. Raises `ClusterFailure` with the launcher's reason."""
        await self._until(lambda: self.pid is not None or self.failure is not None, LAUNCH_SECONDS_MAX, "start")
        if self.failure is not None:
            raise ClusterFailure(_failure_text(self.failure))
        if self.pid is None:
            tail = "\n".join(log_tail(self.log, self.log_offset)[-5:])
            raise ClusterFailure(f"the launcher (pid {self.launcher_pid}) ended before it had started anything\n{tail}")

    async def wait_ended(self, timeout_s: float | None) -> None:
        """Wait for the end of the program, as reported. Raises `TimeoutError`; None waits for ever."""
        async with asyncio.timeout(timeout_s):
            while not self.ended:
                await self._changed.wait()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the program; False when it has ended. Its process id is not reaped yet, so it hits no stranger."""
        if self.ended or self.pid is None:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    async def pause(self) -> bool:
        """SIGSTOP; True once the kernel has reported that it stands still, False when it has ended instead."""
        self.signal(signal.SIGSTOP)
        deadline_ns = now_ns() + int(PAUSE_SECONDS_MAX * 1e9)
        while True:
            await self._until(lambda: self.paused, PAUSE_SECONDS_MAX, "stand still after SIGSTOP")
            if self.ended or self.stands_still() or now_ns() > deadline_ns:
                return not self.ended
            # A late report, of a stop that was taken back before all members stood still: that of this one follows.
            await asyncio.sleep(POLL_SECONDS)

    async def resume(self) -> bool:
        """SIGCONT; True once the kernel has reported that it runs, False when it has ended instead."""
        self.signal(signal.SIGCONT)
        await self._until(lambda: not self.paused, PAUSE_SECONDS_MAX, "run after SIGCONT")
        return not self.ended

    def stands_still(self) -> bool:
        """Whether no thread of it does anything at this moment: each is stopped, traced to a stop, dead, or waits for the disk in a sync,
        which changes nothing and after which it stops (proc(5), stat and syscall).

        The main thread's state alone does not show that of the others, and a thread that sleeps in another system call may still write.
        """
        try:
            tasks = f"/proc/{self.pid}/task"
            return all(_is_still(f"{tasks}/{thread}") for thread in os.listdir(tasks))
        except FileNotFoundError:
            return True

    def dies(self) -> bool:
        """Whether it has been killed and only has to come to its end, which a thread in an uninterruptible sleep for the disk puts off: a
        thread of it has ended, or is to by SIGKILL (proc(5), status)."""
        tasks = f"/proc/{self.pid}/task"
        try:
            return any(_is_dying(_of_task(f"{tasks}/{thread}", "status", STATUS_BYTES_MAX)) for thread in os.listdir(tasks))
        except FileNotFoundError:
            return True

    async def until_continued(self, times: int, timeout_s: float) -> None:
        """Wait until the kernel has reported `continued` more than `times` times, or its end. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            while self.continued <= times and not self.ended:
                await self._changed.wait()

    def command(self, **command: Any) -> bool:
        """Have the launcher do something (`pekan.etcd.launcher`); False when it has nobody left to do it to."""
        if self._lifeline is None or self.ended:
            return False
        try:
            # A pipe takes that in one piece (PIPE_BUF), and the launcher reads whatever else it does.
            os.write(self._lifeline, json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def release(self) -> None:
        """Close the lifeline: the launcher kills the program if it lives, reaps it and ends. Never waits, never fails."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    async def gone(self, timeout_s: float) -> None:
        """Wait until launcher and program have been reaped. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            while self._launcher.poll() is None or (self._followed and not self.ended):
                await asyncio.sleep(POLL_SECONDS)

    def destroy(self) -> None:
        """The last resort, without an event loop: the lifeline is closed, and the launcher gets a moment before SIGKILL."""
        self.release()
        try:
            self._launcher.wait(DESTROY_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()

    def _take(self, report: dict[str, Any]) -> None:
        match report["event"]:
            case "started":
                self.pid = report["pid"]
                self._birth = _birth(report["pid"])
            case "failed":
                self.failure = report
                self.ended = True
            case "stopped":
                self.paused = True
            case "continued":
                self.paused = False
                self.continued += 1
            case "exited":
                self.wait_status = report["status"]
                self.paused = False
                self.ended = True
            case _:
                if self.listener is not None:
                    self.listener(report)

    def _wake(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not (done() or self.ended):
                    await self._changed.wait()
        except TimeoutError as error:
            raise ClusterFailure(
                f"process {self.pid or self.launcher_pid} did not {what} within {timeout_s:g} s (is the machine overloaded?)"
            ) from error

    async def _reaped(self) -> None:
        """Reap the launcher. Its report has ended, so that it is ending itself."""
        await _poll_until(lambda: self._launcher.poll() is not None, f"launcher {self.launcher_pid}")

    async def _orphan_gone(self) -> None:
        """After a launcher was killed: wait until its child, which the kernel kills, has let go of data and ports."""
        if (pid := self.pid) is not None and self._birth is not None:
            await _poll_until(lambda: _birth(pid) != self._birth, f"process {pid}, whose launcher is dead,")


async def _poll_until(done: Callable[[], bool], who: str) -> None:
    try:
        async with asyncio.timeout(END_SECONDS_MAX):
            while not done():
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise ClusterFailure(f"{who} did not end within {END_SECONDS_MAX:g} s") from error


def now_ns() -> int:
    """CLOCK_MONOTONIC in ns, the clock of the record."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _birth(pid: int) -> str | None:
    """The start time of a live process in clock ticks since boot; with `pid` it names one process for ever (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _is_still(task: str) -> bool:
    state = _of_task(task, "stat").rpartition(b") ")[2][:1]
    return state in (b"T", b"t", b"Z", b"X", b"") or (state == b"D" and _of_task(task, "syscall").split(b" ")[0] in _SYNCS)


def _is_dying(status: bytes) -> bool:
    fields = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
    pending = int(fields.get(b"SigPnd", b"0"), 16) | int(fields.get(b"ShdPnd", b"0"), 16)
    return fields.get(b"State", b"")[:1] in (b"Z", b"X") or bool(pending >> (signal.SIGKILL - 1) & 1)


def _of_task(task: str, name: str, size: int = 256) -> bytes:
    """The beginning of a file of that thread; nothing where it has just gone, or may not be looked at."""
    try:
        fd = os.open(f"{task}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, size)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _failure_text(failure: Mapping[str, Any]) -> str:
    match failure["stage"]:
        case "exec":
            return f"cannot execute it: {failure['message']}"
        case "attachment":
            return f"cannot attach {failure['message']}"
        case stage:
            return f"the launcher failed at {stage}: {failure['message']}"
