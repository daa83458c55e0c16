"""`quotagate keys`: API keys of an organization, through the control plane's admin API."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from quotagate.admin import connected, path_of
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir, Org
from quotagate.output import note, show, show_item
from quotagate.progress import progress
from quotagate.times import DURATION, WHEN, duration, moment

IMPORTED_AT_ONCE = 1000
NO_TEXTS: list[str] = []

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The id of the key, not the key itself.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="What people call it.")]
User = Annotated[str | None, typer.Option(metavar="USER", help="The user that it belongs to.")]
Environment = Annotated[
    str | None, typer.Option(metavar="WORD", help="As in qg_live_….  [default: the settings' first]")
]
Scopes = Annotated[
    list[str], typer.Option("--scope", metavar="SCOPE", help="route:NAME, meter:NAME or method:NAME. Repeatable.")
]
Networks = Annotated[
    list[str], typer.Option("--network", metavar="NETWORK", help="Address or network that may use it. Repeatable.")
]
Quotas = Annotated[
    list[str],
    typer.Option("--quota", metavar="METER=UNITS[/SECONDS]", help="Units in each window, or period. Repeatable."),
]
Rate = Annotated[
    str | None,
    typer.Option(metavar="REQUESTS/SECONDS[/BURST]", help="A rate limit of its own.  [default of BURST: 1]"),
]
Expires = Annotated[str | None, typer.Option(metavar=WHEN, help="When it expires.  [default: never]")]
Grace = Annotated[
    str | None, typer.Option(metavar=DURATION, help="The old key works for so long; 0: not at all.  [default: 1d]")
]

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
    expires_at = None if expires is None else moment(expires, "--expires").isoformat()
    content: dict[str, Any] = {"name": name, "user": user, "environment": environment, "expires_at": expires_at}
    content = {field: value for field, value in content.items() if value is not None}
    content |= {"scopes": scopes, "networks": networks, "quotas": [quota(text) for text in quotas]}
    if rate is not None:
        content["rate"] = rate_of(rate)
    with connected(control_url, admin_token_env, data_dir) as admin:
        _show_new(admin.post(f"{path_of(org)}/keys", content), as_json)


@app.command("list")
def list_(
    org: Org,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the keys of an organization, the newest first. None of them is shown itself."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.pages(f"{path_of(org)}/keys", "keys"):
            show_item(each, as_json, key_line)


@app.command()
def roll(
    org: Org,
    key: KeyId,
    grace: Grace = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Replace a key by a new one that may do the same, and print that."""
    content: dict[str, int] = {}
    if grace is not None:
        content["grace_seconds"] = 0 if grace == "0" else int(duration(grace, "--grace").total_seconds())
    with connected(control_url, admin_token_env, data_dir) as admin:
        rolled = admin.post(f"{_path(org, key)}/roll", content)
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
    with connected(control_url, admin_token_env, data_dir) as admin:
        admin.delete(_path(org, key))
        revoked = admin.get(_path(org, key))
    show(revoked, as_json, f"{key} is revoked.")


@app.command("import")
def import_(
    org: Org,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV with a column `hash` (SHA-256, hex or base64), and name, user, expires_at if you like; -: stdin.",
        ),
    ],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Import keys that were given out elsewhere, by their hashes. Those that are there already stay as they are."""
    rows = list(_rows(file))
    taken: list[str] = []
    with (
        connected(control_url, admin_token_env, data_dir) as admin,
        progress("Importing keys", len(rows), as_json=as_json) as tick,
    ):
        for start in range(0, len(rows), IMPORTED_AT_ONCE):
            part = rows[start : start + IMPORTED_AT_ONCE]
            answer = admin.post(f"{path_of(org)}/keys/import", {"keys": part})
            taken += [each["hash"] for each in answer["keys"] if each["id"] is None]
            tick(len(part))
    owned = len(rows) - len(taken)
    show({"organization": org, "keys": owned, "taken": taken}, as_json, f"{owned:,} keys are {org}'s.")
    if taken:
        raise CommandFailed(f"{len(taken):,} hashes are keys of other organizations, and were left alone")


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
    used = f"used {key['last_used_at']}" if key["last_used_at"] else "never used"
    shown = f"{key['starts_with']}…{key['last_four'] or ''}"
    return f"{key['id']}  {key['state']:<8}  {shown:<20}  {used:<25}  {key['name']}"


def _show_new(key: dict[str, Any], as_json: bool) -> None:
    # Only the key, so that `KEY=$(quotagate keys create …)` is all of it.
    show(key, as_json, key["key"])
    note(f"Its id is {key['id']}. It is not shown again.", as_json)
    if not key["published"]:
        note("Redis could not be told yet: the key works as soon as it can be.", as_json)


def _path(org: str, key: str) -> str:
    return f"{path_of(org)}/keys/{quote(key, safe='')}"


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
