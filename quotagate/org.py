"""`quotagate org`: organizations, through the control plane's admin API."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir

if TYPE_CHECKING:
    from quotagate.admin import AdminApi

app = typer.Typer(name="org", help="Organizations.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    org: Annotated[str, typer.Argument(help="Its id, as in the org claim of its tokens.")],
    name: Annotated[str | None, typer.Option(help="Its name for people.  [default: the id]")] = None,
    plan: Annotated[str | None, typer.Option(metavar="CODE", help="The plan that it gets.")] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Create an organization, or rename it, and give it a plan."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        path = f"/v1/organizations/{org}"
        existing = admin.find(path) if name is None else None
        organization = existing or admin.put(path, {"name": name or org})
        if not as_json:
            typer.echo(organization_line(organization))
        entitlement = admin.put(f"/v1/entitlements/{org}", {"plan": plan}) if plan is not None else None
    if as_json:
        typer.echo(json.dumps({"organization": organization, "entitlement": entitlement}, indent=2))
        return
    for line in entitlement_lines(entitlement) if entitlement is not None else ():
        typer.echo(line)


@app.command("list")
def list_(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the organizations, in the order of their ids."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        after: str | None = ""
        while after is not None:
            page = admin.get("/v1/organizations", {"after": after, "limit": 1000} if after else {"limit": 1000})
            for each in page["organizations"]:
                typer.echo(json.dumps(each) if as_json else organization_line(each))
            after = page["next"]


@app.command()
def show(
    org: Annotated[str, typer.Argument(help="Its id.")],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Show an organization's plan, what is left of it, and when it renews."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        entitlement = admin.get(f"/v1/entitlements/{org}")
    if as_json:
        typer.echo(json.dumps(entitlement, indent=2))
        return
    for line in entitlement_lines(entitlement):
        typer.echo(line)


def organization_line(organization: dict[str, Any]) -> str:
    return f"{organization['id']:<24} {organization['name']}"


def entitlement_lines(entitlement: dict[str, Any]) -> list[str]:
    lines = [f"{'plan':<24} {entitlement['plan'] or 'none'} ({entitlement['status']}, {entitlement['policy']})"]
    for meter in entitlement["meters"]:
        overage = f", {meter['overage']:,} as overage" if meter["overage"] else ""
        lines.append(f"{meter['meter']:<24} {meter['remaining']:,} of {meter['limit']:,} left{overage}")
    if entitlement["reset"] is not None:
        lines.append(f"{'renews':<24} {entitlement['reset']['at']}")
    return lines


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
