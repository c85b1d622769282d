"""Running other people's tools (pip, apt, go, etcd itself): bounded, killable, and never failing without saying why.

::

    run_tool ──fork──> tool (a session of its own: nothing it starts outlives a timeout or Ctrl-C)
       │                 stdin  /dev/null: a tool that asks a question fails instead of hanging
       ├── stdout ───────┘      collected up to a bound
       └── stderr: each line to `on_line` (progress); the last lines of both go into the error
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, cast

from pekan.errors import BinaryUnavailable

STDOUT_BYTES_MAX: Final = 16 << 20  # apt-cache and `go list -deps` print tens of kilobytes
TAIL_LINES: Final = 12  # enough for a compiler's or apt's complaint, few enough to read at a glance
LINE_BYTES_MAX: Final = 4096  # progress bars without a newline must not grow a buffer
KILL_WAIT_S: Final = 10.0  # after SIGKILL only a process stuck in the kernel is still there


class ToolFailure(BinaryUnavailable):
    """A tool could not be started, failed, took too long or said too much; the message ends with its last lines."""


def run_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Runs a tool to its end and returns its standard output.

    `env` is the whole environment (the caller's when None). `on_line` gets each line of standard error as it comes.
    Raises `ToolFailure`. Whatever leaves this function, an exception of `on_line` and Ctrl-C included, the tool and
    everything it started have been killed and waited for.
    """
    command = shlex.join(os.fspath(word) for word in argv)
    deadline = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            [os.fspath(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise ToolFailure(f"cannot run `{command}`: {error.strerror or error}") from error
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with process:  # closes both pipes
        try:
            stdout = _collect(process, command, deadline, timeout_s, tail, on_line)
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise _took_too_long(command, timeout_s, tail) from None
        except BaseException:
            _kill_session(process)
            raise
    if code != 0:
        ended = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        raise ToolFailure(f"`{command}` ended with {ended}{_said(tail)}")
    return stdout


def _collect(
    process: subprocess.Popen[bytes],
    command: str,
    deadline: float,
    timeout_s: float,
    tail: deque[str],
    on_line: Callable[[str], None] | None,
) -> str:
    """Reads both pipes until the tool has closed them; keeps the tail of both, returns standard output."""
    stdout = bytearray()
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(cast("IO[bytes]", process.stdout), selectors.EVENT_READ, "stdout")
        selector.register(cast("IO[bytes]", process.stderr), selectors.EVENT_READ, "stderr")
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                raise _took_too_long(command, timeout_s, tail)
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data == "stdout":
                    stdout += chunk
                    if len(stdout) > STDOUT_BYTES_MAX:
                        raise ToolFailure(f"`{command}` printed more than {STDOUT_BYTES_MAX >> 20} MiB")
                else:
                    *lines, pending = (pending + chunk).split(b"\n")
                    pending = pending[-LINE_BYTES_MAX:]
                    for line in lines:
                        _take_line(line, tail, on_line)
    _take_line(pending, tail, on_line)
    text = stdout.decode("utf-8", "replace")
    tail.extend(line for line in text.splitlines()[-TAIL_LINES:] if line.strip() and len(tail) < TAIL_LINES)
    return text


def _take_line(line: bytes, tail: deque[str], on_line: Callable[[str], None] | None) -> None:
    """One line of standard error: remembered for an error message, handed on as progress."""
    text = line[-LINE_BYTES_MAX:].decode("utf-8", "replace").rstrip()
    if text:
        tail.append(text)
        if on_line is not None:
            on_line(text)


def _took_too_long(command: str, timeout_s: float, tail: deque[str]) -> ToolFailure:
    return ToolFailure(f"`{command}` was stopped after {timeout_s:g} s{_said(tail)}")


def _said(tail: deque[str]) -> str:
    """The tail as an indented block under the message."""
    return ", without a word" if not tail else "; it said:\n" + "\n".join(f"    {line}" for line in tail)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills the tool and its children. The session's id is the tool's pid, which stays ours until it is waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(KILL_WAIT_S)
