"""`quotagate console-link`: a link that opens the console once."""

from enum import Enum
from typing import Annotated

import typer

from quotagate.admin import connected
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import show


class Role(Enum):
    VIEWER = "viewer"
    SUPPORT = "support"
    BILLING = "billing"
    ADMIN = "admin"


def console_link(
    role: Annotated[Role, typer.Option(help="What whoever uses the link may do.")] = Role.ADMIN,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Print a link that signs in to the console once, within 15 minutes."""
    with connected(control_url, admin_token_env, data_dir) as admin:
        link = admin.post("/v1/console-links", {"role": role.value})
    show(link, as_json, link["url"])
