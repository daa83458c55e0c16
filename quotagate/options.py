"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

DATA_DIR_DEFAULT = Path(".quotagate")

DataDir = Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Data directory of `quotagate up`.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file.  [default: the packaged one]")
]
Host = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.  [default: as in the settings]")
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on.  [default: as in the settings]"),
]
Org = Annotated[str, typer.Argument(metavar="ORG", help="The organization's id.")]
OnlyOrg = Annotated[str | None, typer.Option("--org", metavar="ORG", help="Only this organization.  [default: all]")]


OWNER_DSN_ENV, POSTGRES_DSN_ENV = "QUOTAGATE_POSTGRES_OWNER_DSN", "QUOTAGATE_POSTGRES_DSN"


def _judged_dsn(dsn: str, variables: str) -> str:
    if not dsn:
        raise typer.BadParameter(f"is missing: pass it, or set {variables}")
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise typer.BadParameter("must begin with postgresql://")
    return dsn


def _postgres_dsn(dsn: str) -> str:
    return _judged_dsn(dsn, POSTGRES_DSN_ENV)


def _owner_dsn(dsn: str) -> str:
    return _judged_dsn(dsn or os.environ.get(POSTGRES_DSN_ENV, ""), f"{OWNER_DSN_ENV} or {POSTGRES_DSN_ENV}")


PostgresDsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        metavar="DSN",
        envvar=POSTGRES_DSN_ENV,
        show_envvar=True,
        show_default=False,
        callback=_postgres_dsn,
        help="Address of the control plane's database.",
    ),
]
OwnerDsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        metavar="DSN",
        envvar=OWNER_DSN_ENV,
        show_envvar=True,
        show_default=False,
        callback=_owner_dsn,
        help=f"Address of the control plane's database, as the owner of its tables.  [default: {POSTGRES_DSN_ENV}]",
    ),
]
NO_DSN = ""
"""No DSN was passed: the callback reads the environment, or says what is missing."""
GatewayFile = Annotated[
    Path | None, typer.Option("--gateway-config", metavar="FILE", help="The gateway's.  [default: the packaged one]")
]
ControlFile = Annotated[
    Path | None,
    typer.Option("--control-config", metavar="FILE", help="The control plane's.  [default: the packaged one]"),
]
PlansFile = Annotated[
    Path | None, typer.Option("--plans", metavar="FILE", help="Plan catalogue.  [default: the packaged one]")
]
TOKEN_ENV_DEFAULT = "QUOTAGATE_ADMIN_TOKEN"  # noqa: S105  # the name of a variable
ControlUrl = Annotated[
    str | None,
    typer.Option(
        envvar="QUOTAGATE_CONTROL_URL", metavar="URL", help="The control plane.  [default: that of `quotagate up`]"
    ),
]
AdminTokenEnv = Annotated[
    str, typer.Option(metavar="NAME", help="Environment variable with the admin token; used with a control URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
