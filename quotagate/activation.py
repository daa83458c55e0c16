"""`quotagate activation`: codes that activate sites, and the sites, through the control plane's admin API."""

import re
from typing import Annotated, Any
from urllib.parse import quote

import typer

from quotagate.admin import connected, path_of
from quotagate.options import (
    DATA_DIR_DEFAULT,
    TOKEN_ENV_DEFAULT,
    AdminTokenEnv,
    AsJson,
    ControlUrl,
    DataDir,
    OnlyOrg,
    Org,
)
from quotagate.output import show, show_item
from quotagate.times import DURATION, duration

SITE_PREFIX = "site_"
_CODE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

app = typer.Typer(
    name="activation", help="Activation codes and activated sites.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def create(
    org: Annotated[str | None, typer.Argument(metavar="ORG", help="The organization of the sites.")] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="CODE", help="Instead of ORG: the first activation makes one with this plan.")
    ] = None,
    sites: Annotated[int, typer.Option(min=1, metavar="N", help="How many sites it activates.")] = 1,
    valid: Annotated[str | None, typer.Option(metavar=DURATION, help="How long it is good for.  [default: 3d]")] = None,
    product: Annotated[str, typer.Option(metavar="PRODUCT", help="Only for this product.  [default: any]")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope of the sites' access tokens. Repeatable.")
    ] = None,
    uncounted: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="A domain that takes no seat, such as *.example.com. Repeatable."),
    ] = None,
    access: Annotated[
        str | None, typer.Option(metavar=DURATION, help="The life of its sites' access tokens.  [default: 10m]")
    ] = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="For admins.")] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make an activation code, and print it. It cannot be printed again."""
    if (org is None) == (plan is None):
        raise typer.BadParameter("name an organization, or a plan with --plan", param_hint="ORG")
    content: dict[str, Any] = {
        "sites": sites,
        "product": product,
        "scopes": scope or [],
        "uncounted_domains": uncounted or [],
        "valid_seconds": _seconds(valid, "--valid"),
        "access_seconds": _seconds(access, "--access"),
        "note": note,
    }
    with connected(control_url, admin_token_env, data_dir) as admin:
        if org is None:
            made = admin.post("/v1/activation-codes", content | {"plan": plan})
        else:
            made = admin.post(f"{path_of(org)}/activation-codes", content)
    # Only the code, so that `code=$(quotagate activation create …)` is all of it.
    show(made, as_json, made["code"])


@app.command("list")
def list_(
    org: OnlyOrg = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List activation codes, the newest first."""
    path = "/v1/activation-codes" if org is None else f"{path_of(org)}/activation-codes"
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.pages(path, "activation_codes"):
            show_item(each, as_json, code_line)


@app.command()
def sites(
    org: Org,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the sites of an organization, the newest first."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.pages(f"{path_of(org)}/sites", "sites"):
            show_item(each, as_json, site_line)


@app.command()
def release(
    org: Org,
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site's id, as `sites` prints it.")],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Release a site: its seat is free again."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        released = admin.post(f"{path_of(org)}/sites/{quote(site, safe='')}/release", {})
    show(released, as_json, site_line(released))


@app.command()
def revoke(
    org: Org,
    which: Annotated[str, typer.Argument(metavar="ID", help="A site's id, or an activation code's.")],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Revoke a site, whose tokens are refused at once; or a code, which activates nothing more."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        if which.startswith(SITE_PREFIX):
            revoked = admin.post(f"{path_of(org)}/sites/{quote(which, safe='')}/revoke", {})
            show(revoked, as_json, site_line(revoked))
        elif not _CODE_ID.fullmatch(which):
            wrong = f"{which} is no id of a site ({SITE_PREFIX}…) and none of a code, as `list` prints it"
            raise typer.BadParameter(wrong, param_hint="ID")
        else:
            admin.delete(f"/v1/activation-codes/{which}")
            show({"id": which, "state": "revoked"}, as_json, f"{which} activates nothing more")


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


def _seconds(text: str | None, option: str) -> int | None:
    return None if text is None else int(duration(text, option).total_seconds())
