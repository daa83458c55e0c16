"""`quotagate signing-keys`: the keys with which the control plane signs tokens, through its admin API."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from quotagate.admin import connected
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import show, show_item

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
    with connected(control_url, admin_token_env, data_dir) as admin:
        for each in admin.get(PATH)["keys"]:
            show_item(each, as_json, line_of)


@app.command()
def rotate(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make a new signing key. It signs when nobody uses an older copy of the key set; the key before it verifies until
    its last token has expired."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        made = admin.post(PATH, {})
    show(made, as_json, line_of(made))


@app.command()
def retire(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `list` prints it.")],
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Take a key out of the key set at once, as after a theft, and destroy its private part. Another one signs then.

    A gateway believes its tokens until it reads the key set again."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        retired = admin.post(f"{PATH}/{quote(key, safe='')}/retire", {})
    show(retired, as_json, line_of(retired))


@app.command()
def reencrypt(
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Seal private keys with the first master key of the control plane's settings. After it the second one is needed no
    more."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        answer = admin.post(f"{PATH}/reencrypt", {})
    show(answer, as_json, f"{len(answer['resealed'])} private keys are sealed with the first master key now")


def line_of(key: dict[str, Any]) -> str:
    until = f"  until {key['signs_until']}" if key["signs_until"] else ""
    leaves = f"  leaves {key['leaves_at']}" if key["leaves_at"] else ""
    return f"{key['id']}  {key['algorithm']:<5}  {key['state']:<9}  signs from {key['signs_from']}{until}{leaves}"
