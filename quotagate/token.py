"""`quotagate token`: access tokens for trials, and for machines without an identity provider."""

import os
import re
import time
from datetime import timedelta
from typing import Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, ControlUrl, DataDir

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(name="token", help="Access tokens.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def token() -> None:
    """Access tokens."""


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `1h` or `7d`."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("must be a whole number and a unit: 90s, 30m, 1h or 7d", param_hint="--ttl")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@app.command()
def mint(
    org: Annotated[str, typer.Option(help="Organization that the token names.")],
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90s, 30m, 1h or 7d.")] = "1h",
    secret_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the secret.  [default: the secret of DIR]"),
    ] = None,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Print one token, signed (HS256) with the secret of `quotagate up`, or of an environment variable."""
    from devstack import token_mint
    from devstack.datadir import read_secrets

    lifetime = duration(ttl)
    if secret_env is None:
        secret = read_secrets(data_dir).jwt_secret
    elif not (secret := os.environ.get(secret_env, "")):
        raise CommandFailed(f"the environment variable {secret_env} is not set")
    typer.echo(token_mint.mint(org, secret, now=time.time(), ttl=lifetime))


@app.command()
def issue(
    org: Annotated[str, typer.Option(help="Organization that the token names.")],
    user: Annotated[str | None, typer.Option(help="Its user, by whom usage is counted.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role that routes may require. Repeatable.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope that routes may require. Repeatable.")] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long it is valid: 90s or 10m.  [default: the settings' longest]"),
    ] = None,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Have the control plane issue one short-lived token, and print it. Gateways that trust the control plane as an
    issuer believe it; the journal says who asked."""
    from quotagate.admin import connected

    content: dict[str, Any] = {"user": user, "roles": role or [], "scopes": scope or []}
    content |= {} if ttl is None else {"seconds": int(duration(ttl).total_seconds())}
    with connected(control_url, admin_token_env, data_dir) as admin:
        typer.echo(admin.post(f"/v1/organizations/{org}/tokens", content)["token"])
