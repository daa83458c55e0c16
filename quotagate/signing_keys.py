"""`quotagate signing-keys`: the keys with which the control plane signs tokens, through its admin API."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

PATH = "/v1/signing-keys"

app = typer.Typer(
    name="signing-keys",
    help="Keys with which the control plane signs tokens.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """List the signing keys, the oldest first."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.get(PATH)["keys"]:
            typer.echo(json.dumps(each) if as_json else line_of(each))


@app.command()
def rotate(
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make a new signing key. It signs when nobody uses an older copy of the key set; the key before it verifies until
    its last token has expired."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        typer.echo(line_of(admin.post(PATH, {})))


@app.command()
def retire(
    key: Annotated[str, typer.Argument(help="Its id, as `list` prints it.")],
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Take a key out of the key set at once, as after a theft, and destroy its private part. Another one signs then.

    A gateway believes its tokens until it reads the key set again."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        typer.echo(line_of(admin.post(f"{PATH}/{key}/retire", {})))


@app.command()
def reencrypt(
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Seal private keys with the first master key of the control plane's settings. After it the second one is needed no
    more."""
    with _connected(control_url, admin_token_env, data_dir) as admin:
        resealed = admin.post(f"{PATH}/reencrypt", {})["resealed"]
        typer.echo(f"{len(resealed)} private keys are sealed with the first master key now")


def line_of(key: dict[str, Any]) -> str:
    until = f"  until {key['signs_until']}" if key["signs_until"] else ""
    leaves = f"  leaves {key['leaves_at']}" if key["leaves_at"] else ""
    return f"{key['id']}  {key['algorithm']:<5}  {key['state']:<9}  signs from {key['signs_from']}{until}{leaves}"


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
