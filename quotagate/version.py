"""`quotagate version`."""

from importlib import metadata

import typer

from quotagate.options import AsJson
from quotagate.output import show


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    installed = metadata.version("quotagate")
    show({"version": installed}, as_json, installed)


def shown(wanted: bool) -> None:
    """As the option --version: prints it, and ends."""
    if wanted:
        version()
        raise typer.Exit
