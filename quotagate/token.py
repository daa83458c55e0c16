"""`quotagate token`: access tokens for trials, and for machines without an identity provider."""

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from quotagate.admin import connected, path_of
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import show
from quotagate.times import DURATION, duration

TTL_DEFAULT = timedelta(hours=1)
Org = Annotated[str, typer.Argument(metavar="ORG", help="The organization that the token names.")]

app = typer.Typer(name="token", help="Access tokens.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def token() -> None:
    """Access tokens."""


@app.command()
def mint(
    org: Org,
    ttl: Annotated[str | None, typer.Option(metavar=DURATION, help="How long it is valid.  [default: 1h]")] = None,
    secret_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the secret.  [default: the secret of DIR]"),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Print one token, signed (HS256) with the secret of `quotagate up`, or of an environment variable."""
    from devstack import token_mint
    from devstack.datadir import read_secrets

    lifetime = TTL_DEFAULT if ttl is None else duration(ttl, "--ttl")
    if secret_env is None:
        secret = read_secrets(data_dir).jwt_secret
    elif not (secret := os.environ.get(secret_env, "")):
        raise typer.BadParameter(f"the environment variable {secret_env} is not set", param_hint="--secret-env")
    now = time.time()
    minted = token_mint.mint(org, secret, now=now, ttl=lifetime)
    ends = datetime.fromtimestamp(int(now), UTC) + lifetime
    show({"token": minted, "organization": org, "expires_at": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}, as_json, minted)


@app.command()
def issue(
    org: Org,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Its user, by whom usage is counted.")] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="A role that routes may require. Repeatable.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope that routes may require. Repeatable.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar=DURATION, help="How long it is valid.  [default: the settings' longest]")
    ] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Have the control plane issue one short-lived token, and print it. Gateways that trust the control plane as an
    issuer believe it; the journal says who asked."""
    content: dict[str, Any] = {"user": user, "roles": role or [], "scopes": scope or []}
    content |= {} if ttl is None else {"seconds": int(duration(ttl, "--ttl").total_seconds())}
    with connected(control_url, admin_token_env, data_dir) as admin:
        issued = admin.post(f"{path_of(org)}/tokens", content)
    show(issued, as_json, issued["token"])
