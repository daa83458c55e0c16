"""`quotagate activation`: codes that activate sites, and the sites, through the control plane's admin API."""

import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir

if TYPE_CHECKING:
    from quotagate.admin import AdminApi

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SITE_PREFIX = "site_"
_CODE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Org = Annotated[str, typer.Argument(help="The organization's id.")]

app = typer.Typer(
    name="activation", help="Activation codes and activated sites.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def create(
    org: Annotated[str | None, typer.Argument(help="The organization of the sites.")] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="CODE", help="Instead of ORG: the first activation makes one with this plan.")
    ] = None,
    sites: Annotated[int, typer.Option(min=1, help="How many sites it activates.")] = 1,
    valid: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is good for: 30m, 12h or 3d.  [default: 3d]")
    ] = None,
    product: Annotated[str, typer.Option(help="Only for this product.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="Of the sites' access tokens. It may be repeated.")] = None,
    uncounted: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="A further domain that takes no seat, such as *.example.com."),
    ] = None,
    access: Annotated[
        str | None, typer.Option(metavar="TIME", help="The life of its sites' access tokens.  [default: 10m]")
    ] = None,
    note: Annotated[str | None, typer.Option(help="For admins.")] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make an activation code, and print it. It cannot be printed again."""
    if (org is None) == (plan is None):
        raise CommandFailed("name an organization, or a plan with --plan")
    content: dict[str, Any] = {
        "sites": sites,
        "product": product,
        "scopes": scope or [],
        "uncounted_domains": uncounted or [],
        "valid_seconds": _seconds(valid, "--valid"),
        "access_seconds": _seconds(access, "--access"),
        "note": note,
    }
    with _connected(control_url, admin_token_env, data_dir) as admin:
        if plan is not None:
            made = admin.post("/v1/activation-codes", content | {"plan": plan})
        else:
            made = admin.post(f"/v1/organizations/{org}/activation-codes", content)
    # Only the code, so that `code=$(quotagate activation create …)` is all of it.
    typer.echo(json.dumps(made) if as_json else made["code"])


@app.command("list")
def list_(
    org: Annotated[str | None, typer.Argument(help="Only of this organization.")] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List activation codes, the newest first."""
    path = "/v1/activation-codes" if org is None else f"/v1/organizations/{org}/activation-codes"
    with _connected(control_url, admin_token_env, data_dir) as admin:
        _print_all(admin, path, "activation_codes", None if as_json else code_line)


@app.command()
def sites(
    org: Org,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the sites of an organization, the newest first."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        _print_all(admin, f"/v1/organizations/{org}/sites", "sites", None if as_json else site_line)


@app.command()
def release(
    org: Org,
    site: Annotated[str, typer.Argument(help="The site's id, as `sites` prints it.")],
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Release a site: its seat is free again."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        typer.echo(site_line(admin.post(f"/v1/organizations/{org}/sites/{site}/release", {})))


@app.command()
def revoke(
    org: Org,
    which: Annotated[str, typer.Argument(metavar="ID", help="A site's id, or an activation code's.")],
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Revoke a site, whose tokens are refused at once; or a code, which activates nothing more."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        if which.startswith(SITE_PREFIX):
            typer.echo(site_line(admin.post(f"/v1/organizations/{org}/sites/{which}/revoke", {})))
        elif not _CODE_ID.fullmatch(which):
            raise CommandFailed(f"{which} is no id of a site ({SITE_PREFIX}…) and none of a code, as `list` prints it")
        else:
            admin.delete(f"/v1/activation-codes/{which}")
            typer.echo(f"{which} activates nothing more")


def code_line(code: dict[str, Any]) -> str:
    taken = f"{code['sites_taken']}/{code['sites']} sites"
    refused = f"  refused {code['refusals']} times, last: {code['refused_for']}" if code["refusals"] else ""
    note = f"  {code['note']}" if code["note"] else ""
    return (
        f"{code['id']}  {code['handle']}-…  {code['state']:<8} {taken:<12} until {code['expires_at']}  "
        f"{code['organization']}{note}{refused}"
    )


def site_line(site: dict[str, Any]) -> str:
    why = f" ({site['ended_by']})" if site["ended_by"] else ""
    copy = f"  copy of {site['clone_of']}" if site["clone_of"] else ""
    return f"{site['id']}  {site['kind']:<10} {site['state']}{why:<10}  {site['name'] or site['domain']}{copy}"


def _print_all(admin: "AdminApi", path: str, name: str, line: Any) -> None:
    before: str | None = ""
    while before is not None:
        page = admin.get(path, {"before": before, "limit": 500} if before else {"limit": 500})
        for each in page[name]:
            typer.echo(json.dumps(each) if line is None else line(each))
        before = page["next"]


def _seconds(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("must be a whole number and a unit: 90s, 30m, 12h or 3d", param_hint=option)
    return int(match[1]) * SECONDS[match[2]]


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
