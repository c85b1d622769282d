"""What every verb shares: consoles, the `--json` promise, exit codes for errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from pekan.errors import PekanError

if TYPE_CHECKING:
    from pekan.history.types import History
    from pekan.report import Hints
    from pekan.verdict import Finding

ALLOW = "Finding codes that are notes here; known: those that releases are known for (docs/known-deviations.md)."
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")


def stdout() -> Console:
    """The console of answers. Wide where it is no terminal, so that pipes and logs get whole lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def stderr() -> Console:
    """The console of progress and logs."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 140)


def program() -> str:
    """How the user called Pekan, so that a suggested line works as pasted."""
    called = sys.argv[0]
    if os.sep not in called:
        return "pekan"
    if Path(called).name != "pekan":
        return f"{Path(sys.executable).name} -m pekan"
    try:
        relative = os.path.relpath(called)
    except ValueError:  # no common root
        return called
    return relative if not relative.startswith("..") else called


def hints_of(findings: Iterable[Finding], history: History) -> Hints:
    """What each finding that counts looks like, of the historical issues, on the releases that `history` is of."""
    from pekan.issues import like
    from pekan.report import versions

    counting = [finding for finding in findings if finding.status == "counts"]
    found = {finding.signature: [each.to_json() for each in like(finding, versions(history))] for finding in counting}
    return {signature: hints for signature, hints in found.items() if hints}


def reports_errors(verb: Callable[..., int]) -> Callable[..., None]:
    """Turn the verb's int into the exit code, and a PekanError into its message and code (JSON too, where asked for)."""

    @wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            status = verb(*args, **kwargs)
        except PekanError as error:
            click.echo(f"pekan: {error}", err=True)
            if kwargs.get("as_json"):
                click.echo(json.dumps({"error": str(error), "exit_code": error.exit_code}, indent=2))
            status = error.exit_code
        except BrokenPipeError:
            # The reader of our stdout has gone (a pager, head). Nothing is left to say, and flushing at exit must not say it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        sys.exit(status)

    return run
