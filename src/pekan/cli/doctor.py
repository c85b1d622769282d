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
    from pekan.hunt.doctor import MECHANISM, examine

    abilities = examine()
    if as_json:
        click.echo(json.dumps({"abilities": [ability.to_json() for ability in abilities]}, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for overflows in (False, False, False, True):
        table.add_column(no_wrap=not overflows, overflow="fold")
    told = {ability.why_not for ability in abilities if ability.area == MECHANISM and not ability.possible}
    for area, members in groupby(abilities, key=lambda ability: ability.area):
        for number, ability in enumerate(members):
            # What a mechanism lacks is told once, with what would help; the kinds that need it only say which it is.
            need, _, why = ability.why_not.partition(": ")
            missing = need if why in told else ability.why_not
            text = ability.detail if ability.possible else "; ".join(filter(None, (missing, ability.detail)))
            word = Text("yes", "green") if ability.possible else Text("no", "bold yellow")
            table.add_row(area if number == 0 else "", ability.name, word, Text(text))
            if not ability.possible and why not in told:
                table.add_row("", "", "", Text(f"would help: {ability.remedy}", "dim"))
    stdout().print(table)
    return 0
