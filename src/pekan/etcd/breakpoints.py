"""One thread of a running member is stopped at a place of its program, by the processor's own breakpoints; nothing is written into it.

Loaded by the launcher, by its path and only when Pekan first asks for a breakpoint; the standard library only. A tracer is one thread, and
the parent may always trace its child: so the launcher does it. Nobody is traced before the arming, nor after the end::

    arm      every thread PTRACE_SEIZE, PTRACE_INTERRUPT ── first stop of each: its debug registers are set ──> report "armed"
    hit      SIGTRAP, taken by the tracer: counted, and the thread goes on (the kernel sees to it that it is not trapped again)
    nth hit  that thread stays where it is; all others go on ──> report "fired"; their debug registers are cleared
    end      of the hold, "release" or "disarm" ──> report "released"; SIGKILL, or every thread is stopped once more,
             its registers cleared, a trap that is on its way taken, and let go ──> report "disarmed"

While it is traced, the kernel tells its parent nothing of a group that stands still or runs again (wait(2) hides that behind the stops of
single threads), so that it is found out and reported here, in the same words. A dying tracer takes the member along (PTRACE_O_EXITKILL): a
debug register without anybody who takes the trap would end it with SIGTRAP and leave a false trace.

The dead leader of the threads is left to the launcher, unreaped. x86-64 only. Run as a program, it proves itself with a child of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

# linux/ptrace.h
PTRACE_PEEKUSER = 3
PTRACE_POKEUSER = 6
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_O_TRACECLONE = 1 << 3
PTRACE_O_EXITKILL = 1 << 20
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_STOP = 128
WALL = 0x40000000  # __WALL: threads are no children for wait(2) otherwise

# struct user (sys/user.h) on x86-64: offsets of the instruction pointer and of the debug registers.
RIP = 16 * 8
DEBUG = 848
DR6, DR7 = DEBUG + 6 * 8, DEBUG + 7 * 8
REGISTERS_MAX = 4
HIT_BITS = 0xF  # of DR6: which register it was

STOP_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
TRAP_PENDING = 1 << (signal.SIGTRAP - 1)

PROBE_SECONDS_MAX = 20.0
PROBE_PAUSE_SECONDS = 0.001

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

# What a thread does.
RUNS, ASKED, LISTENS, HELD = "runs", "asked to stop", "stands still with its group", "held"

# What the tracer is about.
IDLE, ARMING, ARMED, FIRED, KILLING, LEAVING = "idle", "arming", "armed", "fired", "killing", "leaving"


class Tracer:
    """The breakpoint of one process, a child of this one. All calls come from the thread that forked it."""

    def __init__(self, pid: int, report: Callable[..., None]) -> None:
        self.pid = pid
        self.report = report
        self.phase = IDLE
        self.threads: dict[int, str] = {}
        """Who is traced, and what it does."""
        self.set: set[int] = set()
        """Whose debug registers are set."""
        self.held: int | None = None
        self.paused = False
        self.hits = 0

    @property
    def active(self) -> bool:
        """Whether somebody is traced: then `pump` has the waiting, and nobody else waits for the child."""
        return self.phase != IDLE

    def timeout_ms(self) -> int | None:
        """In how many ms `pump` is due even if nothing happens; None for never."""
        if self.phase != FIRED:
            return None
        return max(0, -(-(self.deadline_ns - time.monotonic_ns()) // 1_000_000))

    def arm(self, addresses: Sequence[int], nth: int, hold_ms: int, kill: bool) -> None:
        """Stop at the `nth` passing of any of `addresses`. Reports "armed" or "refused" later on."""
        if self.active:
            self.report("refused", message="another breakpoint is in place", errno=errno.EBUSY)
            return
        self.addresses, self.nth, self.hold_ms, self.kill = tuple(addresses), nth, hold_ms, kill
        self.hits, self.paused, self.phase = 0, False, ARMING
        if not 0 < len(self.addresses) <= REGISTERS_MAX:
            self._refuse(OSError(errno.ENOSPC, f"{len(self.addresses)} places, and the processor has {REGISTERS_MAX} debug registers"))
            return
        try:
            while self._seize_new():
                pass
        except OSError as error:
            self._refuse(error)

    def release(self) -> None:
        """End the hold now; the rest of the action follows."""
        if self.phase == FIRED:
            self.deadline_ns = 0

    def disarm(self) -> None:
        """No firing any more; who is held goes on, and lives. Reports "disarmed" once nobody is traced."""
        if self.phase == FIRED:
            self._released()
        if self.phase in (ARMING, ARMED, FIRED):
            self._leave()

    def pump(self) -> None:
        """Take what the kernel has to tell of the traced threads, and do what is due."""
        while self.active:
            if self._take_leader():
                continue
            try:
                seen = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WEXITED | WALL | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                seen = None
            if seen is None:
                break
            self._take(seen.si_pid, seen.si_code)
        if self.phase == ARMING and ASKED not in self.threads.values():
            self.phase = ARMED
            self.report("armed", threads=len(self.threads))
        if self.phase == FIRED and time.monotonic_ns() >= self.deadline_ns:
            self._let_go()
        if self.phase == LEAVING and not self.threads:
            self.phase = IDLE
            self.report("disarmed", hits=self.hits)

    def bury(self) -> None:
        """After SIGKILL: reap the threads, without which their leader never comes to its end."""
        self.phase = KILLING if self.active else IDLE
        while self.active:
            os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WEXITED | WALL | os.WNOWAIT)
            self.pump()

    # ---- arming and letting go ----

    def _seize_new(self) -> bool:
        """Seize the threads that are not traced yet; whether there were any, which may have made others meanwhile."""
        found = False
        for tid in map(int, os.listdir(f"/proc/{self.pid}/task")):
            if tid in self.threads:
                continue
            try:
                _ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)
            except OSError as error:
                state, tracer = _status(tid, "State"), _status(tid, "TracerPid")
                if error.errno == errno.ESRCH or state[:1] in ("", "Z", "X"):
                    continue
                if error.errno != errno.EPERM or tracer != str(os.getpid()):
                    raise
                self.threads[tid] = ASKED  # made by a seized thread: seized with it, and stops by itself
                continue
            self.threads[tid] = ASKED
            found = True
            with contextlib.suppress(ProcessLookupError):
                _ptrace(PTRACE_INTERRUPT, tid)
        return found

    def _refuse(self, error: OSError) -> None:
        self.report("refused", message=error.strerror or str(error), errno=error.errno)
        self._leave()

    def _fire(self, tid: int) -> None:
        now = time.monotonic_ns()
        self.phase, self.held, self.deadline_ns = FIRED, tid, now + self.hold_ms * 1_000_000
        self.threads[tid] = HELD
        self.report("fired", hits=self.hits, tid=tid, time_ns=now)
        self._interrupt()

    def _released(self) -> None:
        self.report("released", time_ns=time.monotonic_ns())

    def _let_go(self) -> None:
        self._released()
        if self.kill:
            self.phase = KILLING
            os.kill(self.pid, signal.SIGKILL)
        else:
            self._leave()

    def _leave(self) -> None:
        self.phase = LEAVING
        if self.held is not None:
            held, self.held = self.held, None
            self._resume(held, 0)
        self._interrupt()

    def _interrupt(self) -> None:
        """Have every thread stop once, for what is to be changed in it."""
        for tid, does in list(self.threads.items()):
            if does in (RUNS, LISTENS):
                self.threads[tid] = ASKED
                with contextlib.suppress(ProcessLookupError):
                    _ptrace(PTRACE_INTERRUPT, tid)

    # ---- what the kernel tells ----

    def _take(self, tid: int, code: int) -> None:
        if code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
            if tid == self.pid:
                # Leaders are told of last. It is the launcher's to report and to reap.
                self.phase, self.held = IDLE, None
                self.threads.clear()
                self.set.clear()
                return
            os.waitid(os.P_PID, tid, os.WEXITED | WALL | os.WNOHANG)
            self._forget(tid)
            if tid == self.held:
                self.held = None
            return
        # One that has been killed since it was looked at is no child that could stop.
        with contextlib.suppress(ChildProcessError):
            stop = os.waitid(os.P_PID, tid, os.WSTOPPED | WALL | os.WNOHANG)
            if stop is not None:
                self._take_stop(tid, stop)

    def _take_stop(self, tid: int, stop: os.waitid_result) -> None:
        if stop.si_code == os.CLD_STOPPED:  # its leader is let go already: this is of the whole group
            self.paused = True
            self.report("stopped")
            return
        self._stopped(tid, stop.si_status & 0xFF, stop.si_status >> 8)

    def _take_leader(self) -> bool:
        """Take that the process runs again, or a stop of its leader, which wait(2) has a tracer told of even where it asks for the former
        only; whether there was something."""
        try:
            change = os.waitid(os.P_PID, self.pid, os.WCONTINUED | WALL | os.WNOHANG)
        except ChildProcessError:
            return False
        if change is None:
            return False
        if change.si_code == os.CLD_CONTINUED:
            self.paused = False
            self.threads = {tid: RUNS if does == LISTENS else does for tid, does in self.threads.items()}
            self.report("continued")
        else:
            self._take_stop(self.pid, change)
        return True

    def _stopped(self, tid: int, number: int, event: int) -> None:
        self.threads.setdefault(tid, RUNS)
        if event == PTRACE_EVENT_STOP and number in STOP_SIGNALS:
            self._stand(tid)
        elif event == PTRACE_EVENT_STOP:
            self._resume(tid, 0)
        elif event:
            if event == PTRACE_EVENT_CLONE:
                self._expect_new(tid)
            self._resume(tid, 0)
        elif number == signal.SIGTRAP and self._at_point(tid):
            if self.phase in (ARMING, ARMED):
                self.hits += 1
                if self.hits == self.nth:
                    self._fire(tid)
                    return
            self._resume(tid, 0)
        else:
            self._resume(tid, number)

    def _expect_new(self, maker: int) -> None:
        """The thread that `maker` has made is traced as well, and has perhaps not told of itself yet."""
        message = ctypes.c_ulong()
        try:
            _ptrace(PTRACE_GETEVENTMSG, maker, 0, ctypes.addressof(message))
        except ProcessLookupError:
            return
        # It may have told of itself first, and have been let go already; a dead one is traced until it is reaped here.
        if _status(message.value, "TracerPid") == str(os.getpid()):
            self.threads.setdefault(message.value, ASKED)

    def _at_point(self, tid: int) -> bool:
        """Whether the SIGTRAP that `tid` stands at is that of a debug register at one of the addresses."""
        try:
            if not _peek(tid, DR6) & HIT_BITS or _peek(tid, RIP) not in self.addresses:
                return False
            _ptrace(PTRACE_POKEUSER, tid, DR6, 0)
        except ProcessLookupError:
            return False
        return True

    def _stand(self, tid: int) -> None:
        """A thread whose whole group has been told to stand still."""
        with self._dying_is_told():
            if self._prepared(tid):
                self._detach(tid, 0)  # stays where it is
                return
            _ptrace(PTRACE_LISTEN, tid)
            self.threads[tid] = LISTENS
        if not self.paused and all(does in (LISTENS, HELD) for does in self.threads.values()):
            self.paused = True
            self.report("stopped")

    def _resume(self, tid: int, number: int) -> None:
        """Let a stopped thread go on with the signal `number`, with its registers as they have to be; for good, where the end has come."""
        with self._dying_is_told():
            if self._prepared(tid):
                self._detach(tid, number)
                return
            _ptrace(PTRACE_CONT, tid, 0, number)
            self.threads[tid] = RUNS

    def _prepared(self, tid: int) -> bool:
        """Set or clear the registers of a stopped thread; whether it can be let go for good."""
        if self.phase in (ARMING, ARMED):
            if tid not in self.set:
                enabled = 0
                for index, address in enumerate(self.addresses):
                    _ptrace(PTRACE_POKEUSER, tid, DEBUG + 8 * index, address)
                    enabled |= 1 << (2 * index)  # on execution, in this thread
                self.set.add(tid)
                _ptrace(PTRACE_POKEUSER, tid, DR7, enabled)
        elif tid in self.set:
            _ptrace(PTRACE_POKEUSER, tid, DR7, 0)
            self.set.discard(tid)
        # A trap that is on its way would end it with SIGTRAP if nobody was there to take it.
        return self.phase == LEAVING and not int(_status(tid, "SigPnd") or "0", 16) & TRAP_PENDING

    def _detach(self, tid: int, number: int) -> None:
        _ptrace(PTRACE_DETACH, tid, 0, number)
        self._forget(tid)

    def _forget(self, tid: int) -> None:
        self.threads.pop(tid, None)
        self.set.discard(tid)

    @contextlib.contextmanager
    def _dying_is_told(self) -> Iterator[None]:
        """A thread that is killed in the middle of this tells so by itself; what else fails ends the arming."""
        try:
            yield
        except ProcessLookupError:
            return
        except OSError as error:
            if self.phase not in (ARMING, ARMED):
                raise
            self._refuse(error)


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace(request {request:#x}): {os.strerror(code)}")


def _peek(tid: int, offset: int) -> int:
    # The C library's wrapper returns the word itself, so that an error is known by errno only.
    ctypes.set_errno(0)
    word: int = _libc.ptrace(PTRACE_PEEKUSER, tid, offset, None)
    if word == -1 and (code := ctypes.get_errno()):
        raise OSError(code, f"ptrace(PTRACE_PEEKUSER): {os.strerror(code)}")
    return word & ((1 << 64) - 1)


def _status(tid: int, name: str) -> str:
    """A line of the status of that thread (proc(5)), empty where it is gone."""
    try:
        with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(f"{name}:"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def prove() -> str:
    """Why it does not work here, "" where a child of this process was stopped at the second passing of a place, held, and let go."""
    place = ctypes.cast(_libc.getppid, ctypes.c_void_p).value
    assert place is not None
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        while _libc.getppid() == parent:
            time.sleep(PROBE_PAUSE_SECONDS)
        os._exit(0)
    told: dict[str, dict[str, object]] = {}
    tracer = Tracer(pid, lambda event, **details: told.update({event: details}))
    deadline = time.monotonic() + PROBE_SECONDS_MAX
    try:
        tracer.arm((place,), 2, 1, False)
        while tracer.active and time.monotonic() < deadline:
            time.sleep(PROBE_PAUSE_SECONDS)
            tracer.pump()
    finally:
        os.kill(pid, signal.SIGKILL)
        tracer.bury()
        _, status = os.waitpid(pid, 0)
    if refused := told.get("refused"):
        return str(refused["message"])
    if "fired" not in told or "disarmed" not in told:
        return f"a breakpoint was not hit within {PROBE_SECONDS_MAX:g} s"
    return "" if status == signal.SIGKILL else f"the program ended by itself (wait status {status:#x})"


if __name__ == "__main__":
    sys.stdout.write(prove())
