"""`quotagate org`: organizations, through the control plane's admin API."""

from typing import Annotated, Any

import typer

from quotagate.admin import AdminApi, connected, entitlement_path, path_of
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir, Org
from quotagate.output import show, show_item

app = typer.Typer(name="org", help="Organizations.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    org: Annotated[str, typer.Argument(metavar="ORG", help="Its id, as in the org claim of its tokens.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name for people.  [default: the id]")] = None,
    plan: Annotated[str | None, typer.Option(metavar="CODE", help="The plan that it gets.")] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Create an organization, or rename it, and give it a plan."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        if plan is not None:
            _check_plan(admin, plan)
        existing = admin.find(path_of(org)) if name is None else None
        organization = existing or admin.put(path_of(org), {"name": name or org})
        if not as_json:  # it is there, whatever becomes of the plan
            typer.echo(organization_line(organization))
        entitlement = admin.put(entitlement_path(org), {"plan": plan}) if plan is not None else None
    lines = entitlement_lines(entitlement) if entitlement is not None else ()
    show({"organization": organization, "entitlement": entitlement}, as_json, *lines)


def _check_plan(admin: AdminApi, plan: str) -> None:
    """Raises CommandFailed for a plan that is not sold, before anything is made."""
    sold = [each["code"] for each in admin.get("/v1/plans")["plans"] if not each["archived"]]
    if plan not in sold:
        raise CommandFailed(
            f"No available plan has the code {plan} (there are: {', '.join(sold)}). Nothing was changed."
        )


@app.command("list")
def list_(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the organizations, in the order of their ids."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.pages("/v1/organizations", "organizations", "after"):
            show_item(each, as_json, organization_line)


@app.command(name="show")
def show_(
    org: Org,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Show an organization's plan, what is left of it, and when it renews."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        entitlement = admin.get(entitlement_path(org))
    show(entitlement, as_json, *entitlement_lines(entitlement))


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
