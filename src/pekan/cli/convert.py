"""`pekan convert`: a history in another format."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from pekan.cli.output import json_option, reports_errors
from pekan.errors import EnvironmentFailure, UsageError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "to", required=True, help="edn (Jepsen's), jsonl (Pekan's JSON Lines) or porcupine-viz (for Porcupine's viewer).")
@click.option("--format", "form", help="How FILE is written (pekan, edn, jsonl, ...: docs/histories.md); guessed where it tells.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="A new file to write; without it, standard output.")
@json_option
@reports_errors
def convert(file: Path, to: str, form: str | None, out: Path | None, as_json: bool) -> int:
    """Write the history in FILE in another format.

    \b
    Example:
      echo '{"process":0,"f":"write","value":1,"call":1,"return":2}' > h.jsonl; pekan convert h.jsonl --to edn
    """
    from pekan.checkers.objects.orders import orders
    from pekan.history.foreign import WRITERS, load_any
    from pekan.history.foreign.visualisation import visualisation

    if to not in WRITERS:
        raise UsageError(f"--to {to}: not known; choose from {', '.join(WRITERS)}")
    if as_json and out is None:
        raise UsageError("--json needs --out: the history itself would be on standard output too")
    # What keeps a keyword apart from a text is known to the readers in Python.
    history = load_any(file, form, engine="reference")
    if history.too_large:
        raise EnvironmentFailure(f"{file}: {history.too_large}")
    text = WRITERS[to](history)
    if to == "porcupine-viz":
        # With an order of every object, where a model is known: the viewer shows it, and where it gets stuck.
        text = [json.dumps(visualisation(history, orders(history)), indent=1) + "\n"]
    if out is None:
        sys.stdout.writelines(text)
    else:
        _write(out, text)
    if as_json:
        told = {"from": history.format, "to": to, "operations": len(history.operations), "out": str(out), "notes": list(history.notes)}
        click.echo(json.dumps(told, indent=2))
    else:
        for note in history.notes:
            click.echo(f"note: {note}", err=True)
    return 0


def _write(out: Path, text: Iterable[str]) -> None:
    """Writes `text` to the new file `out`. Nothing is left where the history cannot be told in that format."""
    try:
        with out.open("x", encoding="utf-8") as file:
            try:
                file.writelines(text)
            except BaseException:
                out.unlink()
                raise
    except FileExistsError:
        raise UsageError(f"--out {out}: exists already; name a new file") from None
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from None
