"""`pekan doctor`: what can be done on this machine, and why not the rest."""

from __future__ import annotations

import json
from itertools import groupby

import click
from rich.table import Table
from rich.text import Text

from pekan.cli.output import json_option, reports_errors, stdout


@click.command()
@json_option
@reports_errors
def doctor(as_json: bool) -> int:
    """Show which engine judges here, whether clusters can be driven, which etcd releases are there, which faults can be injected, and what
    would make the rest possible.

    \b
    Example:
      pekan doctor
    """
    from pekan.hunt.doctor import examine

    abilities = examine()
    if as_json:
        click.echo(json.dumps({"abilities": [ability.to_json() for ability in abilities]}, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for overflows in (False, False, False, True):
        table.add_column(no_wrap=not overflows, overflow="fold")
    for area, members in groupby(abilities, key=lambda ability: ability.area):
        for number, ability in enumerate(members):
            told = ability.detail if ability.possible else "; ".join(filter(None, (ability.why_not, ability.detail)))
            word = Text("yes", "green") if ability.possible else Text("no", "bold yellow")
            table.add_row(area if number == 0 else "", ability.name, word, Text(told))
            if not ability.possible:
                table.add_row("", "", "", Text(f"would help: {ability.remedy}", "dim"))
    stdout().print(table)
    return 0
