"""`quotagate service-tokens`: tokens of machines, through the control plane's admin API."""

import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir

if TYPE_CHECKING:
    from quotagate.admin import AdminApi

PATH = "/v1/service-tokens"

ToFile = Annotated[
    Path, typer.Option("--to-file", metavar="FILE", help="A new file, which only you can read: the token goes there.")
]
Role = Annotated[
    str | None, typer.Option(help="viewer, support, billing or admin; with --org: member, admin or owner.")
]
GivenPermissions = Annotated[
    list[str] | None, typer.Option("--permission", help="One permission, such as usage:write. Repeatable.")
]
Org = Annotated[str | None, typer.Option(help="The only organization that it reaches.  [default: all]")]
ExpiresDays = Annotated[
    float | None, typer.Option(min=0.001, max=36_500, help="It expires after so many days.  [default: never]")
]

app = typer.Typer(
    name="service-tokens",
    help="Tokens of machines that call the control API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the journal calls it.")],
    to_file: ToFile,
    role: Role = None,
    permission: GivenPermissions = None,
    org: Org = None,
    expires_days: ExpiresDays = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Create a service token. It is written to a file, once, and printed nowhere."""
    from quotagate.private_file import new_private_file

    content: dict[str, Any] = {"name": name, "role": role, "permissions": permission or None, "org": org}
    if expires_days is not None:
        content["expires_at"] = (datetime.now(UTC) + timedelta(days=expires_days)).isoformat()
    with new_private_file(to_file) as file:
        with _connected(control_url, admin_token_env, data_dir) as admin:
            created = admin.post(PATH, {key: value for key, value in content.items() if value is not None})
        file.write(created["token"] + "\n")
    told = {name: value for name, value in created.items() if name != "token"}
    typer.echo(json.dumps(told, indent=2) if as_json else line_of(created))


@app.command("list")
def list_(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List service tokens, the newest first."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        for each in _all(admin):
            typer.echo(json.dumps(each) if as_json else line_of(each))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="NAME|ID", help="Its name, or its id.")],
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Revoke a service token: from then on it opens nothing."""
    from quotagate.failure import CommandFailed

    with _connected(control_url, admin_token_env, data_dir) as admin:
        live = [each for each in _all(admin) if each["revoked_at"] is None and token in (each["name"], each["id"])]
        if not live:
            raise CommandFailed(f"no service token in use has the name or the id {token}")
        for each in live:
            admin.delete(f"{PATH}/{each['id']}")
            typer.echo(f"{each['name']} is revoked")


def line_of(token: dict[str, Any]) -> str:
    may = token["role"] or ",".join(token["permissions"])
    state = f"revoked {token['revoked_at']}" if token["revoked_at"] else f"expires {token['expires_at'] or 'never'}"
    used = f"used {token['last_used_at'] or 'never'}"
    return f"{token['id']}  {token['name']:<24} {token['org'] or 'all':<16} {may}  {state}  {used}"


def _all(admin: "AdminApi") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before: str | None = ""
    while before is not None:
        page = admin.get(PATH, {"limit": 500, **({"before": before} if before else {})})
        found += page["service_tokens"]
        before = page["next"]
    return found


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
