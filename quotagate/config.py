"""`quotagate config`: settings files."""

import asyncio
import difflib
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.options import AsJson, ControlFile, GatewayFile, PlansFile
from quotagate.output import show_item

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(name="config", help="Settings files.", no_args_is_help=True, rich_markup_mode=None)


class SettingsKind(StrEnum):
    GATEWAY = "gateway"
    CONTROL = "control"
    PLANS = "plans"


@app.command()
def check(
    gateway: GatewayFile = None, control: ControlFile = None, plans: PlansFile = None, as_json: AsJson = False
) -> None:
    """Read the files as a start does, and print the file, line and field of each fault. Without a file, check all
    packaged ones. With both --gateway-config and --plans, also check that each meter that a route charges is in a plan.
    Key files of issuers are read; key sets elsewhere are not asked for: `quotagate doctor` does that."""
    from common.settings_file import load

    files = {SettingsKind.GATEWAY: gateway, SettingsKind.CONTROL: control, SettingsKind.PLANS: plans}
    named = {kind: file for kind, file in files.items() if file is not None} or files
    loaded = {kind: load(file, f"{kind}.yaml", model(kind)) for kind, file in named.items()}
    if SettingsKind.GATEWAY in loaded and SettingsKind.PLANS in loaded:
        _check_meters(
            loaded[SettingsKind.GATEWAY], loaded[SettingsKind.PLANS], str(gateway or "packaged config/gateway.yaml")
        )
    for kind in loaded.keys() - {SettingsKind.PLANS}:
        _check_key_files(loaded[kind], str(named[kind] or f"packaged config/{kind}.yaml"))
    for kind, file in named.items():
        valid = {"kind": kind.value, "file": str(file or f"packaged config/{kind}.yaml"), "valid": True}
        show_item(valid, as_json, lambda it: f"{it['file']}: valid")


def _check_key_files(settings: Any, name: str) -> None:
    """Each must have a key that verifies something: no token of its issuer would be believed. Raises SettingsError."""
    from common.settings_file import SettingsError, spell
    from identity.keysets.jwk import KeySetUnavailable
    from identity.keysets.keyset import look

    faults = []
    auth = settings.auth  # the control plane may have none
    for index, issuer in enumerate(auth.trusted if auth is not None else ()):
        if issuer.jwks is not None and "://" not in issuer.jwks:
            try:
                asyncio.run(look(issuer))
            except KeySetUnavailable as e:
                at = ("auth", "issuers", index, "jwks") if auth.issuers else ("auth", "jwks")
                faults.append(f"{name}: {spell(at)}{e}")
    if faults:
        raise SettingsError("\n".join(faults))


def _check_meters(gateway: Any, plans: Any, name: str) -> None:
    """Each meter that a route charges must be in some plan: every call that charges another one is refused (403).

    Raises SettingsError."""
    from common.settings_file import SettingsError

    plan_meters = sorted({meter for plan in plans.plans.values() for meter in plan.meters})
    faults = []
    for index, route in enumerate(gateway.routes):
        if route.exempt:
            continue
        for field, meters in (("meters", route.meters), ("tunnel.charge", route.tunnel.charge if route.tunnel else {})):
            for meter in sorted(set(meters) - set(plan_meters)):
                close = difflib.get_close_matches(meter, plan_meters, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(plan_meters)}"
                faults.append(f"{name}: routes[{index}].{field}: no plan has the meter {meter} ({hint})")
    if faults:
        raise SettingsError("\n".join(faults))


@app.command()
def schema(
    kind: Annotated[SettingsKind, typer.Argument(metavar="gateway|control|plans", help="Which file's.")],
) -> None:
    """Print the JSON Schema of a settings file, for editors."""
    from common.settings_schema import json_schema

    typer.echo(json.dumps(json_schema(model(kind)), indent=2))


def model(kind: SettingsKind) -> "type[BaseModel]":
    """The model of its settings file."""
    match kind:
        case SettingsKind.GATEWAY:
            from gateway.settings.root import GatewaySettings

            return GatewaySettings
        case SettingsKind.CONTROL:
            from control.settings.control_plane import Settings

            return Settings
        case SettingsKind.PLANS:
            from control.entitlements.plans import PlansFile

            return PlansFile
