"""`pekan etcd`: list, install and locate etcd executables.

=========================  =============================================================
`pekan etcd list`          known releases, who could serve each here, what is cached
`pekan etcd install V...`  fetch or build, verify, keep
`pekan etcd path V`        print where the cached executable is; never downloads
=========================  =============================================================
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from pekan.cli.output import json_option, reports_errors

if TYPE_CHECKING:
    from pekan.etcd.binaries import Availability, Binary

# Without a terminal one line in this time keeps a log readable and shows a CI runner that work goes on.
QUIET_LINE_EVERY_S: Final = 20.0


@click.group()
def etcd() -> None:
    """List, install and locate etcd executables.

    \b
    Example:
      pekan etcd install 3.5.1
      pekan etcd path 3.5.1
    """


@etcd.command("list")
@json_option
@click.option("--offline", is_flag=True, help="Do not ask package indexes; use what was read before.")
@reports_errors
def list_(as_json: bool, offline: bool) -> int:
    """Show what is known, can be had here, and is cached.

    \b
    Example:
      pekan etcd list --offline
    """
    from pekan.etcd import binaries

    with binary_progress() as report:
        rows = binaries.survey(offline=offline, progress=report)
    cached = binaries.installed()
    if as_json:
        _print_json({"versions": [_row_json(row) for row in rows], "installed": [item.to_json() for item in cached]})
        return 0
    click.echo(f"{'release':<20} {'can be had here from':<28} cached")
    for group in _grouped(rows):
        first, last = group[0], group[-1]
        name = first.version if first is last else f"{first.version} to {last.version}"
        kept = f"{first.cached.provider}, {first.cached.size_bytes / 1e6:.0f} MB" if first.cached else "-"
        click.echo(f"{name:<20} {', '.join(first.providers) or 'nowhere':<28} {kept}")
    others = [item for item in cached if item not in [row.cached for row in rows]]
    for item in others:
        click.echo(f"{item.version:<20} {item.origin}")
    for provider, reasons in _silent_providers(rows).items():
        click.echo(f"{provider} serves nothing: {reasons}", err=True)
    return 0


@etcd.command()
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@json_option
@reports_errors
def install(versions: tuple[str, ...], as_json: bool) -> int:
    """Fetch or build releases into the cache.

    VERSION is 3.5.1, a minor (3.6: its newest patch), or a release archive (etcd-v3.5.1-linux-amd64.tar.gz).

    \b
    Example:
      pekan etcd install 3.5.1
    """
    from pekan.etcd import binaries

    results: list[dict[str, object]] = []
    for version in versions:
        started = time.monotonic()
        with binary_progress() as report:
            binary = binaries.find(version, progress=report)
        seconds = time.monotonic() - started
        results.append({"asked": version, "seconds": round(seconds, 3), **binary.to_json()})
        if not as_json:
            click.echo(f"etcd {binary.version} from {binary.origin} in {seconds:.1f} s: {binary.path}")
        if binaries.looks_like_version(version) and binary.version != (newest := binaries.resolve_version(version)):
            click.echo(f"etcd {newest} is known, but {binary.version} is the newest {version} to be had here", err=True)
    if as_json:
        _print_json({"installed": results})
    return 0


@etcd.command()
@click.argument("version")
@json_option
@reports_errors
def path(version: str, as_json: bool) -> int:
    """Print the path of an installed release.

    VERSION is exact, or a minor: its newest installed patch. Never downloads; exits 4 with the command to type when it is not there.

    \b
    Example:
      pekan etcd install 3.5.1 && "$(pekan etcd path 3.5.1)" --version
    """
    from pekan.etcd import binaries

    binary = binaries.find_installed(version)
    if as_json:
        _print_json(binary.to_json())
        return 0
    click.echo(binary.path)
    newest = binaries.resolve_version(version)
    if binary.version != newest:
        click.echo(f"etcd {newest} is known and not installed: pekan etcd install {newest}", err=True)
    return 0


def _print_json(document: dict[str, object]) -> None:
    click.echo(json.dumps(document, indent=2))


def _row_json(row: Availability) -> dict[str, object]:
    cached: Binary | None = row.cached
    return {
        "version": row.version,
        "providers": list(row.providers),
        "why_not": {name: reason for name, reason in row.why_not.items() if reason is not None},
        "cached": cached.to_json() if cached is not None else None,
    }


def _grouped(rows: Sequence[Availability]) -> Iterator[list[Availability]]:
    """Runs of neighbouring releases of one minor with the same providers; a cached release stands alone."""

    def group(row: Availability) -> tuple[str, tuple[str, ...], str]:
        return row.version.rpartition(".")[0], row.providers, row.version if row.cached else ""

    return (list(members) for _, members in itertools.groupby(rows, group))


def _silent_providers(rows: Sequence[Availability]) -> dict[str, str]:
    """Providers that can serve no release at all here, with what they say of the newest."""
    if not rows:
        return {}
    return {
        name: reason
        for name, reason in rows[-1].why_not.items()
        if reason is not None and all(row.why_not[name] is not None for row in rows)
    }


@contextmanager
def binary_progress() -> Iterator[Callable[[str], None]]:
    """Lines for a person on stderr: one that is rewritten on a terminal, else now and then a new one."""
    if sys.stderr.isatty():

        def live(line: str) -> None:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
            click.echo(f"\r\x1b[2K{line[:width]}", err=True, nl=False)

        try:
            yield live
        finally:
            click.echo("\r\x1b[2K", err=True, nl=False)
        return

    shown_at = float("-inf")

    def quiet(line: str) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= QUIET_LINE_EVERY_S:
            shown_at = time.monotonic()
            click.echo(line, err=True)

    yield quiet
