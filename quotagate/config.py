"""`quotagate config`: settings files."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

SettingsFile = Annotated[Path | None, typer.Option(metavar="FILE", help="[default: the packaged one]")]

app = typer.Typer(name="config", help="Settings files.", no_args_is_help=True, rich_markup_mode=None)


class Kind(StrEnum):
    GATEWAY = "gateway"
    CONTROL = "control"
    PLANS = "plans"


@app.command()
def check(gateway: SettingsFile = None, control: SettingsFile = None, plans: SettingsFile = None) -> None:
    """Read the files as a start would, and name file, line and field of what is wrong. Without a file: all the
    packaged ones."""
    from quota.settings import load

    files = {Kind.GATEWAY: gateway, Kind.CONTROL: control, Kind.PLANS: plans}
    asked_for = {kind: file for kind, file in files.items() if file is not None} or files
    for kind, file in asked_for.items():
        load(file, f"{kind}.yaml", _model(kind))
        typer.echo(f"{file or f'packaged config/{kind}.yaml'}: good")


@app.command()
def schema(kind: Kind) -> None:
    """Print the JSON Schema of a settings file, for editors."""
    from quota.settings import json_schema

    typer.echo(json.dumps(json_schema(_model(kind)), indent=2))


def _model(kind: Kind) -> "type[BaseModel]":
    match kind:
        case Kind.GATEWAY:
            from gateway.settings import GatewaySettings

            return GatewaySettings
        case Kind.CONTROL:
            from control.settings import Settings

            return Settings
        case Kind.PLANS:
            from control.entitlements.plans import PlansFile

            return PlansFile
