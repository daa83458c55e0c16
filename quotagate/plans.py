"""`quotagate plans`: the catalogue."""

import typer

from quotagate.failure import CommandFailed
from quotagate.options import PlansFile, PostgresDsn

app = typer.Typer(name="plans", help="The plan catalogue.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def plans() -> None:
    """The plan catalogue."""


@app.command()
def apply(dsn: PostgresDsn, plans: PlansFile = None) -> None:
    """Make the database's plans those of the file, and say what changed."""
    from control.db import StoreUnavailable
    from control.entitlements import catalogue

    try:
        changes = catalogue.apply(dsn, plans)
    except StoreUnavailable as e:
        raise CommandFailed(str(e)) from e
    for line in changes or ["The plans are those of the file already."]:
        typer.echo(line)
