"""`quotagate service-tokens`: tokens of machines, through the control plane's admin API."""

from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.admin import connected
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import show, show_item
from quotagate.private_file import new_private_file
from quotagate.times import WHEN, moment

PATH = "/v1/service-tokens"

ToFile = Annotated[
    Path, typer.Option("--to-file", metavar="FILE", help="A new file, which only you can read: the token goes there.")
]
Role = Annotated[
    str | None,
    typer.Option(metavar="ROLE", help="viewer, support, billing or admin; with --org: member, admin or owner."),
]
GivenPermissions = Annotated[
    list[str] | None,
    typer.Option("--permission", metavar="PERMISSION", help="One permission, such as usage:write. Repeatable."),
]
OfOrg = Annotated[
    str | None, typer.Option("--org", metavar="ORG", help="The only organization that it reaches.  [default: all]")
]
Expires = Annotated[str | None, typer.Option(metavar=WHEN, help="When it expires.  [default: never]")]

app = typer.Typer(
    name="service-tokens",
    help="Tokens of machines that call the control API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the journal calls it.")],
    to_file: ToFile,
    role: Role = None,
    permission: GivenPermissions = None,
    org: OfOrg = None,
    expires: Expires = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Create a service token. It is written to a file, once, and printed nowhere."""
    content: dict[str, Any] = {"name": name, "role": role, "permissions": permission or None, "org": org}
    if expires is not None:
        content["expires_at"] = moment(expires, "--expires").isoformat()
    with new_private_file(to_file) as file, connected(control_url, admin_token_env, data_dir) as admin:
        created = admin.post(PATH, {key: value for key, value in content.items() if value is not None})
        file.write(created["token"] + "\n")
    content = {name: value for name, value in created.items() if name != "token"}
    show(content, as_json, line_of(created))


@app.command("list")
def list_(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List service tokens, the newest first."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.pages(PATH, "service_tokens"):
            show_item(each, as_json, line_of)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="NAME|ID", help="Its name, or its id.")],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Revoke a service token: from then on it opens nothing."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        tokens = list(admin.pages(PATH, "service_tokens"))
        live = [each["id"] for each in tokens if each["revoked_at"] is None and token in (each["name"], each["id"])]
        if not live:
            raise CommandFailed(f"no service token in use has the name or the id {token}")
        for each in live:
            admin.delete(f"{PATH}/{each}")
        for revoked in admin.pages(PATH, "service_tokens"):
            if revoked["id"] in live:
                show_item(revoked, as_json, lambda it: f"{it['name']} is revoked")


def line_of(token: dict[str, Any]) -> str:
    may = token["role"] or ",".join(token["permissions"])
    state = f"revoked {token['revoked_at']}" if token["revoked_at"] else f"expires {token['expires_at'] or 'never'}"
    used = f"used {token['last_used_at'] or 'never'}"
    return f"{token['id']}  {token['name']:<24} {token['org'] or 'all':<16} {may}  {state}  {used}"
