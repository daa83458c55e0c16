"""`quotagate version`."""

from importlib import metadata

import typer


def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("quotagate"))


def shown(wanted: bool) -> None:
    """As the option --version: prints it, and ends."""
    if wanted:
        version()
        raise typer.Exit
