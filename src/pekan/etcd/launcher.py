"""The small process between Pekan and one etcd: it starts the member, watches over it and reports how it ended.

This file is a program. It is run as `python -I -S launcher.py SPEC PARENT` and imports the standard library only, so
that it starts in a few hundredths of a second and stays single-threaded: the kernel's parent-death signal belongs to
the *thread* that forked, and in a process with one thread that is the process.

::

    Pekan ──fork, exec──> launcher ──fork, attachments, exec──> etcd
      │   lifeline (fd 0)  ▲  │                                  │
      └────────────────────┘  └── report (fd 1): JSON lines      └── output, error (fd 2): the member's log

    dies                     who notices                              what follows
    Pekan, in any way        launcher: end of file on the lifeline,   etcd is killed by the launcher, or with it by its
                             or the kernel, by parent-death signal    own parent-death signal
    launcher, in any way     etcd: parent-death signal                etcd is killed; Pekan reads the end of the report
    etcd                     launcher: SIGCHLD                        its wait status is reported

The reports, in order::

    {"event": "started", "pid": 123}                              exec(2) has succeeded
    {"event": "failed", "stage": "...", "errno": 2, ...}          it has not; stage is fork, attachment, death-signal or exec
    {"event": "stopped"} / {"event": "continued"}                 every thread of etcd stands still / runs again
    {"event": "exited", "status": 9}                              as wait(2) encodes it

The lifeline also brings commands, JSON lines: {"command": "arm", "addresses", "nth", "hold_ms", "kill"}, {"command": "release"} and
{"command": "disarm"}. `breakpoints.py` beside this file says what they do, and what it reports of that.

The dead etcd is not reaped before Pekan has closed the lifeline. Until then its process id stays its own, so that a
signal from Pekan can never hit a stranger.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h

CORE_DUMPED = 0x80  # the flag beside the signal's number in a wait status (wait(2), WCOREDUMP)

LIFELINE_FD = 0
REPORT_FD = 1
LOG_FD = 2

# The largest failure text that the child sends before exec; pipes take 4096 bytes in one piece (PIPE_BUF, pipe(7)).
FAILURE_BYTES_MAX = 4096

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
SYS_SECCOMP = 317  # arch/x86/entry/syscalls/syscall_64.tbl
SECCOMP_SET_MODE_FILTER = 1  # linux/seccomp.h, as the flags
SECCOMP_NEW_LISTENER = 8
SECCOMP_WAIT_KILLABLE = 32  # Linux 5.19: no signal but a fatal one interrupts a call that has been received


def enter_namespaces(parameters: Mapping[str, Any]) -> None:
    """Enter the namespaces behind the inherited descriptors `namespaces`, in that order: one of users comes before those that it owns."""
    libc = ctypes.CDLL(None, use_errno=True)
    for fd in parameters["namespaces"]:
        if libc.setns(fd, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"setns: {os.strerror(code)}")


def notify_seccomp(parameters: Mapping[str, Any]) -> None:
    """Install {"filter": BPF as hex, "socket": fd} in this process and send the listener of its notifications over the socket.

    Without privileges a filter asks for no_new_privs, which etcd does not miss. The listener travels as a message: taking it out of the
    process from outside (pidfd_getfd(2)) is refused in a default container.
    """
    import socket  # a tenth of the launcher's start, which only this needs

    libc = ctypes.CDLL(None, use_errno=True)
    code = bytes.fromhex(parameters["filter"])
    instructions = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    for flags in (SECCOMP_NEW_LISTENER | SECCOMP_WAIT_KILLABLE, SECCOMP_NEW_LISTENER):
        listener = libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, program)
        if listener >= 0:
            break
    else:
        raise OSError(ctypes.get_errno(), f"seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER): {os.strerror(ctypes.get_errno())}")
    with socket.socket(fileno=parameters["socket"]) as handover:
        socket.send_fds(handover, [b"listener"], [listener])
    os.close(listener)


ATTACHMENTS: dict[str, Callable[[Mapping[str, Any]], None]] = {"namespaces": enter_namespaces, "seccomp-notify": notify_seccomp}
"""What is done in the member's process between fork and exec, by kind: resource limits, namespaces, seccomp.

Each is called with the attachment's parameters, in the order of the spec, and raises OSError or ValueError to refuse.
What cannot survive exec(2) does not belong here.
"""

AT_EXEC_STOP = frozenset({"patches"})
"""What the launcher does to the member once exec has succeeded and before the member runs an instruction: `exec_stop.py` beside this file.
It is loaded only where an attachment asks for it; then ptrace(2) of the own child must be allowed."""


class StageFailure(Exception):
    """The member could not be started; `stage` says how far it came."""

    def __init__(self, stage: str, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = errno


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when the thread that forked it ends; at once if `parent` is gone already.

    The request is forgotten on fork, and by exec of a set-user-id or capability binary (prctl(2)); it is made last
    before exec.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise StageFailure("death-signal", f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}", code)
    if os.getppid() != parent:
        # The parent died between fork and prctl: no signal will come any more.
        os.kill(os.getpid(), signal.SIGKILL)


def report(event: str, **details: object) -> None:
    """One line to Pekan. A Pekan that is gone reads nothing; the lifeline tells of that."""
    line = json.dumps({"event": event, **details}).encode() + b"\n"
    try:
        os.write(REPORT_FD, line)
    except BrokenPipeError:
        return


def attach(attachments: list[dict[str, Any]]) -> None:
    """Run the attachments of the spec in order; those of the exec stop come later."""
    for attachment in attachments:
        kind = attachment["kind"]
        if kind in AT_EXEC_STOP:
            continue
        apply = ATTACHMENTS.get(kind)
        if apply is None:
            known = ", ".join(sorted({*ATTACHMENTS, *AT_EXEC_STOP}))
            raise StageFailure("attachment", f"unknown attachment {kind!r} (known: {known})")
        try:
            apply(attachment["parameters"])
        except (OSError, ValueError) as error:
            raise StageFailure("attachment", f"{kind}: {error}", getattr(error, "errno", None)) from error


def become(spec: dict[str, Any], launcher: int, failure_fd: int) -> NoReturn:
    """In the child: turn into the member, or tell on `failure_fd` why not. Never returns."""
    try:
        # Ignored signals stay ignored over exec: Python ignores SIGPIPE and SIGXFSZ, nohup SIGHUP, a shell SIGINT of background jobs.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, LIFELINE_FD)
        os.dup2(LOG_FD, REPORT_FD)
        attach(spec["attachments"])
        die_with_parent(launcher)
        if any(attachment["kind"] in AT_EXEC_STOP for attachment in spec["attachments"]):
            try:
                beside("exec_stop").trace_me()
            except OSError as error:
                raise StageFailure("attachment", f"patches: {error.strerror}", error.errno) from error
        try:
            os.execve(spec["arguments"][0], spec["arguments"], spec["environment"])
        except OSError as error:
            raise StageFailure("exec", error.strerror or str(error), error.errno) from error
    except StageFailure as failure:
        tell(failure_fd, failure)
    except BaseException as error:  # the child of a fork must not return into the launcher's own code
        tell(failure_fd, StageFailure("fork", f"{type(error).__name__}: {error}"))
    os._exit(127)


def beside(name: str) -> ModuleType:
    """The module in the file of that name beside this one, by its path: nothing else of Pekan can be imported here."""
    # This import takes as long as all others together, and most members need nothing of it.
    from importlib.util import module_from_spec, spec_from_file_location

    if name not in sys.modules:
        location = spec_from_file_location(name, os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py"))
        assert location is not None
        assert location.loader is not None
        module = module_from_spec(location)
        location.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def tell(failure_fd: int, failure: StageFailure) -> None:
    """Hand the failure from the child to the launcher."""
    text = json.dumps({"stage": failure.stage, "message": str(failure)[:1024], "errno": failure.errno})
    os.write(failure_fd, text.encode()[:FAILURE_BYTES_MAX])


def start(spec: dict[str, Any]) -> int | None:
    """Fork and exec the member; its process id, or None after a failure has been reported."""
    launcher = os.getpid()
    planting = [attachment["parameters"] for attachment in spec["attachments"] if attachment["kind"] in AT_EXEC_STOP]
    if planting:
        beside("exec_stop")  # loaded before the fork, so that the child has it
    failure_read, failure_write = os.pipe()  # both close on exec: an end of file says that exec succeeded
    pid = os.fork()
    if pid == 0:
        become(spec, launcher, failure_write)
    os.close(failure_write)
    failure = b""
    while chunk := os.read(failure_read, FAILURE_BYTES_MAX):
        failure += chunk
    os.close(failure_read)
    if failure:
        os.waitpid(pid, 0)
        report("failed", **json.loads(failure))
        return None
    if planting:
        try:
            beside("exec_stop").plant(pid, planting)
        except (OSError, ValueError) as error:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            report("failed", stage="attachment", message=f"patches: {reason}"[:1024], errno=getattr(error, "errno", None))
            return None
    report("started", pid=pid)
    return pid


def report_changes(pid: int) -> bool:
    """Report what the kernel tells of the member; True once it has ended (it stays unreaped)."""
    every = os.WEXITED | os.WSTOPPED | os.WCONTINUED
    while change := os.waitid(os.P_PID, pid, every | os.WNOHANG | os.WNOWAIT):
        if change.si_code == os.CLD_EXITED:
            report("exited", status=change.si_status << 8)
            return True
        if change.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            report("exited", status=change.si_status | (CORE_DUMPED if change.si_code == os.CLD_DUMPED else 0))
            return True
        try:
            # Take it off the list; it may be a later one than was looked at, or gone with the process.
            change = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
        except ChildProcessError:
            continue
        if change is not None:
            report("continued" if change.si_code == os.CLD_CONTINUED else "stopped")
    return False


def obey(line: bytes, tracer: Any) -> None:
    """Do what Pekan asks for."""
    wanted = json.loads(line)
    match wanted["command"]:
        case "arm":
            tracer.arm(wanted["addresses"], wanted["nth"], wanted["hold_ms"], wanted["kill"])
        case "release":
            tracer.release()
        case "disarm":
            tracer.disarm()


def watch(pid: int, child_changed: int) -> None:
    """Report and obey until the lifeline ends; then the member is killed if it lives still, and reaped."""
    poll = select.poll()
    poll.register(LIFELINE_FD, select.POLLIN)
    poll.register(child_changed, select.POLLIN)
    ended = report_changes(pid)
    tracer: Any = None
    commands = b""
    while True:
        ready = {fd for fd, _ in poll.poll(tracer.timeout_ms() if tracer is not None else None)}
        if LIFELINE_FD in ready:
            received = os.read(LIFELINE_FD, 4096)
            if not received:
                break
            *lines, commands = (commands + received).split(b"\n")
            if not ended:
                tracer = tracer or beside("breakpoints").Tracer(pid, report)
                for line in lines:
                    obey(line, tracer)
        if child_changed in ready:
            os.read(child_changed, 4096)
        if tracer is not None:
            tracer.pump()
        # While it traces, it reports stops itself; an end it leaves to us.
        if tracer is None or not tracer.active:
            ended = ended or report_changes(pid)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        if tracer is not None:
            tracer.bury()
    _, status = os.waitpid(pid, 0)
    if not ended:
        report("exited", status=status)


def main(arguments: list[str]) -> int:
    """`arguments` are the spec as JSON {"arguments", "environment", "attachments"} and the process id of Pekan."""
    spec = json.loads(arguments[0])
    child_changed, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    die_with_parent(int(arguments[1]))
    pid = start(spec)
    if pid is None:
        return 1
    watch(pid, child_changed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
