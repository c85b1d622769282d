"""The supervisors of a run: one process a member, that answers for the kernel the calls which the plan's disk faults are about.

::

    plan ── calls_of ──> filter (BPF) ──> attachment "seccomp-notify" of each member ── listener ──> supervisor (`supervisor.py`)
                                                                                                        ▲
    injector ── arm(member, kind, ...) ──> Rule ──────────────── commands, events ──────────────────────┘
                                             fired, until_fired, settle, disarm

The filter is no wider than the plan asks for. Syncs alone cost nothing that can be measured; write(2) is what sockets are written with
too, so that it is watched only for errors of writes to WAL or snapshots.

Needs Linux 5.0 (listeners of seccomp) on x86-64 and no privileges.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pekan.etcd.launcher
import pekan.faults.disk.supervisor
from pekan.errors import EnvironmentFailure
from pekan.etcd.spec import Attachment
from pekan.faults.ability import Ability, able, unable
from pekan.faults.disk.supervisor import SYNCS, X86_64
from pekan.faults.equipment import Equipment

if TYPE_CHECKING:
    from pekan.etcd.ports import PortLease
    from pekan.etcd.spec import MemberSpec
    from pekan.faults.equipment import Site
    from pekan.plan import Fault

ANSWER_S = 10.0
"""How long a supervisor may take to answer a command: it answers within a millisecond, and rolls back 64 MiB within a second."""
EVENT_BYTES_MAX = 64 * 1024
"""What is read of the events at once: the size of a pipe."""
PROBE_S = 10.0
LOG_CHARACTERS = 500

FILES = ("wal", "db", "snapshot", "any")
"""What a fault may be about: the log, the database, snapshots, or all of them."""
ACCOUNT = frozenset({"pwrite64", "ftruncate"})
"""What has to be seen, besides syncs, to know what is unsynced."""

# linux/audit.h and linux/seccomp.h
AUDIT_ARCH_X86_64 = 0xC000003E
ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
ARCHITECTURE_OFFSET = 4  # in struct seccomp_data
ARGUMENT_OFFSET = 16
STANDARD_FDS = 3
"""The log goes to descriptors 1 and 2."""


def calls_of(fault: Fault) -> frozenset[str]:
    """The system calls that have to be watched for `fault`; none for one that is no fault of the disk."""
    match fault.kind:
        case "disk-error" | "disk-slow":
            return file_calls(str(fault.parameters.get("file", "any")), str(fault.parameters.get("call", "sync")))
        case "disk-full":
            return SYNCS | {"pwrite64", "fallocate"}
        case "torn-write":
            return SYNCS
        case "power-loss" | "sync-lies":
            return SYNCS | ACCOUNT
        case _:
            return frozenset()


def file_calls(file: str, call: str) -> frozenset[str]:
    """What etcd syncs files with, or (`call` write) writes that class of file with: bbolt by pwrite64, all else by write."""
    if call != "write":
        return SYNCS
    return frozenset({"pwrite64"} if file == "db" else {"write", "pwrite64"} if file == "any" else {"write"})


def filter_program(calls: Iterable[str]) -> bytes:
    """Classic BPF that notifies of `calls` and lets everything else through, writes to the log included."""

    def instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("<HBBI", code, then, otherwise, value)

    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: LD W ABS, JMP JEQ K, JMP JGE K, RET K
    names = sorted(set(calls))
    program = [instruction(load, ARCHITECTURE_OFFSET), instruction(equal, AUDIT_ARCH_X86_64, 1, 0), instruction(give, ALLOW)]
    program.append(instruction(load, 0))
    for name in names:
        if name == "write":
            # Skip its five instructions where it is another call: the accumulator still holds the number then.
            program += [
                instruction(equal, X86_64[name], 0, 4),
                instruction(load, ARGUMENT_OFFSET),
                instruction(at_least, STANDARD_FDS, 0, 1),
                instruction(give, NOTIFY),
                instruction(give, ALLOW),
            ]
        else:
            program += [instruction(equal, X86_64[name], 0, 1), instruction(give, NOTIFY)]
    return b"".join([*program, instruction(give, ALLOW)])


class Rule:
    """What one fault has armed at one member's supervisor. `evidence` is what was reported when it fired first."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.number = number
        self.evidence: dict[str, Any] = {}
        self.bug = ""
        self._supervisor = supervisor
        self._fired = asyncio.Event()

    async def arm(self, kind: str, calls: Iterable[str], file: str, **settings: Any) -> None:
        """Arm the supervisor's rule of that kind; it replaces the one before. Has taken effect when this returns, and may have when it is
        cancelled: whoever calls it disarms on every path out."""
        await self._supervisor.command("arm", self.number, "armed", kind=kind, calls=sorted(calls), file=file, **settings)

    @property
    def has_fired(self) -> bool:
        """As far as the supervisor has told by now; it tells before it lets the member go on."""
        self._supervisor.drain()
        return self._fired.is_set()

    def predicts(self, *statuses: int) -> Callable[[int | None], bool]:
        """For `Member.expect_exit`: these wait statuses, once it has fired."""
        return lambda status: status in statuses and self.has_fired

    async def until_fired(self) -> None:
        """The caller bounds the wait. Raises `EnvironmentFailure` where the supervisor has ended or the rule was faulty."""
        while True:
            self._supervisor.check()  # takes what has been told: look only after it
            if self._fired.is_set():
                return
            await self._supervisor.changed()

    async def settle(self) -> list[dict[str, Any]]:
        """The process has ended: do to its files what the rule is about; a list of what was done to which."""
        return list((await self._supervisor.command("settle", self.number, "settled"))["files"])

    async def disarm(self) -> dict[str, Any]:
        """Undo it: every call runs from now on, those that waited too. Returns {"met": calls that it was about, "did": how often it acted,
        by "call class-of-file"}."""
        answer = await self._supervisor.command("disarm", self.number, "disarmed")
        return {key: answer[key] for key in ("met", "did")}

    def take(self, event: dict[str, Any]) -> None:
        """An event of this rule."""
        if event["event"] == "fired":
            self.evidence = {key: value for key, value in event.items() if key not in ("event", "rule")}
            self._fired.set()
        elif event["event"] == "bug":
            self.bug = event["text"]


class Supervisor:
    """Pekan's end of one supervisor. Used in one event loop."""

    def __init__(self, member: str, data: Path, wal: Path, log: Path) -> None:
        """Starts the process. Raises `OSError`."""
        self.member = member
        self.counts: dict[str, int] = {}
        """Calls seen so far, by "call class-of-file"; as of the last disarming."""
        self._log = log
        self._rules: dict[int, Rule] = {}
        self._answers: dict[tuple[int, str], dict[str, Any]] = {}
        self._pending = b""
        self._ended = False
        self._changed = asyncio.Event()
        self._closed = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as on_failure:
            mine, theirs = socket.socketpair()
            on_failure.callback(mine.close)
            with theirs, log.open("ab") as errors:
                settings = json.dumps({"data": str(data), "wal": str(wal), "handover": theirs.fileno()})
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", pekan.faults.disk.supervisor.__file__, settings],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    bufsize=0,
                )
            on_failure.pop_all()
        self.handover = mine
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._commands, self._events = self.process.stdin, self.process.stdout
        os.set_blocking(self._events.fileno(), False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._events.fileno(), self.drain)

    def attachment(self, program: bytes) -> Attachment:
        """What makes the member's process hand its listener over at each start."""
        fd = self.handover.fileno()
        return Attachment("seccomp-notify", {"filter": program.hex(), "socket": fd}, (fd,))

    @property
    def failure(self) -> str:
        """Why it can no longer be relied on; empty while it can."""
        if self._closed:
            return ""
        self.drain()
        for rule in self._rules.values():
            if rule.bug:
                return f"the supervisor of {self.member}'s disk had a faulty rule: {rule.bug}"
        if not self._ended and self.process.poll() is None and not _exiting(self.process.pid):
            return ""
        tail = self._log.read_text(errors="replace")[-LOG_CHARACTERS:].strip() if self._log.exists() else ""
        how = f"status {self.process.poll()}"
        return f"the supervisor of {self.member}'s disk (pid {self.process.pid}) ended by itself ({how}){': ' + tail if tail else ''}"

    def check(self) -> None:
        """Raise `EnvironmentFailure` where there is a `failure`."""
        if self.failure:
            raise EnvironmentFailure(self.failure)

    def rule(self, number: int) -> Rule:
        """A rule that is not armed yet."""
        rule = self._rules[number] = Rule(self, number)
        return rule

    async def command(self, do: str, rule: int, answer: str, **details: Any) -> dict[str, Any]:
        """Send a command and return its answer. Raises `EnvironmentFailure` where none comes."""
        self.check()
        try:
            os.write(self._commands.fileno(), json.dumps({"do": do, "rule": rule, **details}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_S):
                while True:
                    self.check()  # takes what has been told: look only after it
                    if (found := self._answers.pop((rule, answer), None)) is not None:
                        break
                    await self.changed()
        except (BrokenPipeError, TimeoutError) as error:
            self.check()
            raise EnvironmentFailure(
                f"the supervisor of {self.member}'s disk did not answer {do!r} within {ANSWER_S:g} s; is the machine overloaded?"
            ) from error
        self.counts = found.get("counts", self.counts)
        return found

    async def changed(self) -> None:
        """Return when something new may be known."""
        await self._changed.wait()

    def drain(self) -> None:
        """Take what the supervisor has told, without waiting."""
        if self._closed or self._ended:
            return
        while True:
            try:
                data = os.read(self._events.fileno(), EVENT_BYTES_MAX)
            except BlockingIOError:
                return
            if not data:
                self._ended = True
                self._loop.remove_reader(self._events.fileno())
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            self._changed.set()
            self._changed = asyncio.Event()
            if not data:
                return

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] in ("fired", "bug"):
            if event["rule"] in self._rules:
                self._rules[event["rule"]].take(event)
        else:
            self._answers[event["rule"], event["event"]] = event

    async def close(self) -> None:
        """End it: its commands are closed, and it has nothing to wait for. Idempotent."""
        if self._closed:
            return
        if not self._ended:
            self._loop.remove_reader(self._events.fileno())
        self._closed = True
        self._commands.close()
        try:
            await asyncio.to_thread(self.process.wait, ANSWER_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        finally:
            self._events.close()
            self.handover.close()


class Supervision(Equipment):
    """A supervisor for each member."""

    name: ClassVar[str] = "disk-supervisor"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.calls = SYNCS.union(*(calls_of(fault) for fault in site.plan.schedule.faults))
        self._supervisors: dict[str, Supervisor] = {}

    @classmethod
    def probe(cls) -> Ability:
        """A launched child's fsync is refused by a supervisor, and the child says so."""
        with tempfile.TemporaryDirectory(prefix="pekan-probe-") as directory:
            try:
                why_not = _try_supervisor(Path(directory))
            except (OSError, subprocess.SubprocessError) as error:
                why_not = str(error)
        if not why_not:
            return able(cls.name, "system calls of members are answered by a supervisor; no privileges needed")
        return unable(
            cls.name,
            why_not,
            "needs Linux 5.0 or newer on x86-64, and a profile that allows seccomp(2) with a listener (the default one of Docker does; "
            "a runtime that has its own listener, gVisor and some sandboxes do not)",
        )

    def of(self, member: str) -> Supervisor:
        """The supervisor of that member."""
        return self._supervisors[member]

    async def surround(self, members: tuple[MemberSpec, ...], ports: PortLease) -> tuple[MemberSpec, ...]:
        program = filter_program(self.calls)
        surrounded = []
        for member in members:
            data = member.data_dir
            try:
                supervisor = Supervisor(
                    member.name,
                    data,
                    member.wal_dir or data / "member" / "wal",
                    self.site.directory / "scratch" / f"{member.name}-disk.log",
                )
            except OSError as error:
                raise EnvironmentFailure(f"the supervisor of {member.name}'s disk cannot be started: {error}") from error
            self._supervisors[member.name] = supervisor
            surrounded.append(replace(member, attachments=(*member.attachments, supervisor.attachment(program))))
        return tuple(surrounded)

    def failure(self) -> str:
        return next((each.failure for each in self._supervisors.values() if each.failure), "")

    async def close(self) -> None:
        for supervisor in self._supervisors.values():
            await supervisor.close()


PF_EXITING = 0x4
"""linux/sched.h; set before the kernel closes what a process has open, so before the member can notice."""


def _exiting(pid: int) -> bool:
    """Whether a process is on its way out: not reaped, not even a zombie yet (proc(5), stat: flags)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[6]) & PF_EXITING)


_SYNC_ONCE = """
import os, sys
try:
    os.fsync(os.open(sys.argv[1], os.O_RDWR))
except OSError as error:
    os._exit(error.errno)
"""


def _try_supervisor(directory: Path) -> str:
    """Why a launched child cannot be supervised; empty where it can."""
    target = directory / "member" / "snap" / "db"
    target.parent.mkdir(parents=True)
    target.touch()
    mine, theirs = socket.socketpair()
    with mine, theirs:
        settings = json.dumps({"data": str(directory), "wal": str(directory / "member" / "wal"), "handover": theirs.fileno()})
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", pekan.faults.disk.supervisor.__file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        with supervisor:
            assert supervisor.stdin is not None
            arm = {"do": "arm", "rule": 1, "kind": "errors", "calls": ["fsync"], "file": "any", "nth": 1, "times": 1, "errno": 5}
            supervisor.stdin.write(json.dumps(arm).encode() + b"\n")
            supervisor.stdin.flush()
            spec = {
                "arguments": [sys.executable, "-I", "-S", "-c", _SYNC_ONCE, str(target)],
                "environment": {},
                "attachments": [
                    {"kind": "seccomp-notify", "parameters": {"filter": filter_program({"fsync"}).hex(), "socket": mine.fileno()}}
                ],
            }
            try:
                reports = _launch(spec, mine.fileno())
            finally:
                supervisor.stdin.close()
                supervisor.wait(PROBE_S)
    for report in reports:
        if report["event"] == "failed":
            return str(report["message"])
        if report["event"] == "exited":
            return "" if report["status"] == 5 << 8 else f"a supervised fsync ended with status {report['status']} instead of EIO"
    return "the launcher said nothing"


def _launch(spec: dict[str, Any], handover: int) -> list[dict[str, Any]]:
    """Launch `spec` and return the launcher's reports."""
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", pekan.etcd.launcher.__file__, json.dumps(spec), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[handover],
    )
    reports: list[dict[str, Any]] = []
    with launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        for line in launcher.stdout:
            reports.append(json.loads(line))
            if reports[-1]["event"] in ("exited", "failed"):
                break
        launcher.stdin.close()
        launcher.wait(PROBE_S)
    return reports
