"""`quotagate org`: organizations, through the control plane's admin API."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.options import DATA_DIR_DEFAULT, DataDir

if TYPE_CHECKING:
    from quotagate.admin import AdminApi

ControlUrl = Annotated[
    str | None,
    typer.Option(envvar="QUOTAGATE_CONTROL_URL", help="The control plane.  [default: that of `quotagate up`]"),
]
AdminTokenEnv = Annotated[
    str, typer.Option(metavar="NAME", help="Environment variable with the admin token; used with a control URL.")
]
TOKEN_ENV_DEFAULT = "QUOTAGATE_ADMIN_TOKEN"  # noqa: S105  # the name of a variable

app = typer.Typer(name="org", help="Organizations.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    org: Annotated[str, typer.Argument(help="Its id, as in the tokens' org claim.")],
    name: Annotated[str | None, typer.Option(help="What people call it.  [default: the id]")] = None,
    plan: Annotated[str | None, typer.Option(help="Code of the plan it gets.")] = None,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make an organization, or rename it, and give it a plan."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        answer = admin.put(f"/v1/organizations/{org}", {"name": name or org})
        if plan is not None:
            answer = admin.put(f"/v1/entitlements/{org}", {"plan": plan})
    _show(answer)


@app.command("list")
def list_(
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the organizations."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        _show(admin.get("/v1/organizations"))


@app.command()
def show(
    org: str,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Show an organization's plan, what is left of it, and when it is full again."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        _show(admin.get(f"/v1/entitlements/{org}"))


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)


def _show(answer: Any) -> None:
    typer.echo(json.dumps(answer, indent=2))
