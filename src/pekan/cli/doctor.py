"""`pekan doctor`: what can be done on this machine, and why not the rest."""

from __future__ import annotations

import json
from itertools import groupby

import click

from pekan.cli.output import json_option, reports_errors


@click.command()
@json_option
@reports_errors
def doctor(as_json: bool) -> int:
    """Show which engine judges here, whether clusters can be driven, which etcd releases are there, which faults can be injected.

    \b
    Example:
      pekan doctor
    """
    from pekan.hunt.doctor import examine

    abilities = examine()
    if as_json:
        click.echo(json.dumps({"abilities": [ability.to_json() for ability in abilities]}, indent=2))
        return 0
    for area, members in groupby(abilities, key=lambda ability: ability.area):
        for number, ability in enumerate(members):
            told = ability.detail if ability.possible else "; ".join(filter(None, (ability.why_not, ability.detail)))
            line = f"{area if number == 0 else '':<9}{ability.name:<14}{'yes' if ability.possible else 'no'}"
            click.echo(f"{line}{f'  {told}' if told else ''}")
            if not ability.possible:
                click.echo(f"{'':<23}would help: {ability.remedy}")
    return 0
