"""`quotagate config`: settings files."""

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[Path | None, typer.Option(metavar="FILE", help="[default: the packaged one]")]

app = typer.Typer(name="config", help="Settings files.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """Settings files."""


@app.command()
def check(gateway: SettingsFile = None, control: SettingsFile = None) -> None:
    """Read the settings as a start would; name file, line and field of what is wrong."""
    from control.settings import Settings as ControlSettings

    from gateway.settings import GatewaySettings
    from quota.settings import load

    load(gateway, "gateway.yaml", GatewaySettings)
    typer.echo(f"gateway: {gateway or 'the packaged settings'}: good")
    load(control, "control.yaml", ControlSettings)
    typer.echo(f"control: {control or 'the packaged settings'}: good")
