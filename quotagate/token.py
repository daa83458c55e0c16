"""`quotagate token`: access tokens for trials, and for machines without an identity provider."""

import os
import re
import time
from datetime import timedelta
from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, DataDir

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
