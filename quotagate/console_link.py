"""`quotagate console-link`: a link that opens the console once."""

from enum import Enum
from typing import Annotated

import typer

from quotagate.options import DATA_DIR_DEFAULT, DataDir

TOKEN_ENV_DEFAULT = "QUOTAGATE_ADMIN_TOKEN"  # noqa: S105  the name of a variable


class Role(Enum):
    VIEWER = "viewer"
    SUPPORT = "support"
    BILLING = "billing"
    ADMIN = "admin"


def console_link(
    role: Annotated[Role, typer.Option(help="What whoever uses the link may do.")] = Role.ADMIN,
    control_url: Annotated[
        str | None,
        typer.Option(envvar="QUOTAGATE_CONTROL_URL", help="The control plane.  [default: that of `quotagate up`]"),
    ] = None,
    admin_token_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the admin token; used with a control URL.")
    ] = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Print a link that signs in to the console once, within 15 minutes."""
    from quotagate.admin import connected

    with connected(control_url, admin_token_env, data_dir) as admin:
        typer.echo(admin.post("/v1/console-links", {"role": role.value})["url"])
