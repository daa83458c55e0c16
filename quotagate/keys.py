"""`quotagate keys`: API keys of an organization, through the control plane's admin API."""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import (
    DATA_DIR_DEFAULT,
    TOKEN_ENV_DEFAULT,
    AdminTokenEnv,
    AsJson,
    ControlUrl,
    DataDir,
)

if TYPE_CHECKING:
    from quotagate.admin import AdminApi

IMPORTED_AT_ONCE = 1000
NO_TEXTS: list[str] = []

Org = Annotated[str, typer.Argument(help="The organization's id.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The id of the key, not the key itself.")]
Name = Annotated[str | None, typer.Option(help="What people call it.")]
User = Annotated[str | None, typer.Option(help="The user that it belongs to.")]
Environment = Annotated[str | None, typer.Option(help="As in qg_live_….  [default: the settings' first]")]
Scopes = Annotated[list[str], typer.Option("--scope", help="route:NAME, meter:NAME or method:NAME; repeatable.")]
Networks = Annotated[list[str], typer.Option("--network", help="Address or network that may use it; repeatable.")]
Quotas = Annotated[
    list[str],
    typer.Option("--quota", metavar="METER=UNITS[/SECONDS]", help="Units in each window, or period; repeatable."),
]
Rate = Annotated[
    str | None,
    typer.Option(metavar="REQUESTS/SECONDS[/BURST]", help="A rate limit of its own.  [default of BURST: 1]"),
]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="When it expires: 2027-01-01T00:00:00Z.")]

app = typer.Typer(name="keys", help="API keys of an organization.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    org: Org,
    name: Name = None,
    user: User = None,
    environment: Environment = None,
    scopes: Scopes = NO_TEXTS,
    networks: Networks = NO_TEXTS,
    quotas: Quotas = NO_TEXTS,
    rate: Rate = None,
    expires: Expires = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Create a key and print it. It is shown this once."""
    content: dict[str, Any] = {"name": name, "user": user, "environment": environment, "expires_at": expires}
    content = {field: value for field, value in content.items() if value is not None}
    content |= {"scopes": scopes, "networks": networks, "quotas": [quota(text) for text in quotas]}
    if rate is not None:
        content["rate"] = rate_of(rate)
    with _connected(control_url, admin_token_env, data_dir) as admin:
        _show_new(admin.post(f"/v1/organizations/{org}/keys", content), as_json)


@app.command("list")
def list_(
    org: Org,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the keys of an organization, the newest first. None of them is shown itself."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        before: str | None = ""
        while before is not None:
            query = {"limit": 500} | ({"before": before} if before else {})
            page = admin.get(f"/v1/organizations/{org}/keys", query)
            for each in page["keys"]:
                typer.echo(json.dumps(each) if as_json else key_line(each))
            before = page["next"]


@app.command()
def roll(
    org: Org,
    key: KeyId,
    grace_seconds: Annotated[
        int, typer.Option(min=0, max=30 * 86_400, help="The old key works for so long; 0: it is revoked at once.")
    ] = 86_400,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Replace a key by a new one that may do the same, and print that."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        rolled = admin.post(f"/v1/organizations/{org}/keys/{key}/roll", {"grace_seconds": grace_seconds})
    _show_new(rolled["new"], as_json)


@app.command()
def revoke(
    org: Org,
    key: KeyId,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Revoke a key for good. When the command ends, every gateway refuses it."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        admin.delete(f"/v1/organizations/{org}/keys/{key}")
        revoked = admin.get(f"/v1/organizations/{org}/keys/{key}") if as_json else None
    typer.echo(f"{key} is revoked." if revoked is None else json.dumps(revoked, indent=2))


@app.command("import")
def import_(
    org: Org,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with a column `hash` (SHA-256, hex or base64), and name, user, expires_at if you like."
        ),
    ],
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Import keys that were given out elsewhere, by their hashes. Those that are there already stay as they are."""
    rows = list(_rows(file))
    taken = 0
    with _connected(control_url, admin_token_env, data_dir) as admin:
        for start in range(0, len(rows), IMPORTED_AT_ONCE):
            content = {"keys": rows[start : start + IMPORTED_AT_ONCE]}
            answer = admin.post(f"/v1/organizations/{org}/keys/import", content)
            taken += sum(each["id"] is None for each in answer["keys"])
    typer.echo(f"{len(rows) - taken:,} keys are {org}'s.")
    if taken:
        raise CommandFailed(f"{taken:,} hashes are keys of other organizations, and were left alone")


def quota(text: str) -> dict[str, Any]:
    """`api_calls=100` or `api_calls=100/3600`."""
    meter, _, rest = text.partition("=")
    units, _, seconds = rest.partition("/")
    if not meter or not units.isdecimal() or (seconds and not seconds.isdecimal()):
        raise typer.BadParameter("must be METER=UNITS or METER=UNITS/SECONDS", param_hint="--quota")
    return {"meter": meter, "units": int(units), "window_seconds": int(seconds) if seconds else None}


def rate_of(text: str) -> dict[str, Any]:
    """`100/60` or `100/60/20`."""
    numbers = text.split("/")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter("must be REQUESTS/SECONDS or REQUESTS/SECONDS/BURST", param_hint="--rate")
    return dict(zip(("requests", "seconds", "burst"), map(int, numbers), strict=False))


def key_line(key: dict[str, Any]) -> str:
    used = key["last_used_at"] or "never used"
    shown = f"{key['starts_with']}…{key['last_four'] or ''}"
    return f"{key['id']}  {key['state']:<8}  {shown:<20}  {used:<20}  {key['name']}"


def _show_new(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(key, indent=2))
        return
    # Only the key, so that `KEY=$(quotagate keys create …)` is all of it.
    typer.echo(key["key"])
    typer.echo(f"Its id is {key['id']}. It is not shown again.", err=True)
    if not key["published"]:
        typer.echo("Redis could not be told yet: the key works as soon as it can be.", err=True)


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(newline="") if str(file) != "-" else sys.stdin as opened:
            reader = csv.DictReader(opened)
            if "hash" not in (reader.fieldnames or ()):
                raise CommandFailed(f"{file} has no column `hash`")
            for row in reader:
                yield {name: value for name, value in row.items() if name and value}
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise CommandFailed(f"{file} cannot be read: {e}") from e


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
