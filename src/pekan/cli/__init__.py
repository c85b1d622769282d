"""The command line: one file a verb, each parses, calls one function of a room, prints.

Exit codes are the same everywhere: 0 holds or done, 1 broken, 2 usage or unreadable input, 3 undecided, 4 the environment could not do it,
130 interrupted.
"""

from __future__ import annotations

import sys
import traceback

import click

from pekan import __version__
from pekan.cli.check import check
from pekan.cli.convert import convert
from pekan.cli.doctor import doctor
from pekan.cli.etcd import etcd
from pekan.cli.hunt import hunt
from pekan.cli.reproduce import reproduce
from pekan.errors import PekanError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pekan")
def pekan() -> None:
    """Hunt data inconsistencies in etcd.

    \b
    Example:
      pekan hunt --etcd 3.5.1 --time 60s
    """


for verb in (hunt, check, reproduce, convert, etcd, doctor):
    pekan.add_command(verb)


def main() -> None:
    """Entry point of the `pekan` command."""
    try:
        pekan(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PekanError as error:
        click.echo(f"pekan: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        # Python would end with 1, which means "broken" here: a bug of ours must never look like a verdict.
        traceback.print_exc()
        click.echo("pekan: this is a bug in Pekan, not a finding about etcd; please report it with the lines above", err=True)
        sys.exit(4)
