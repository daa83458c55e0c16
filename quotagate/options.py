"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DATA_DIR_DEFAULT = Path(".quotagate")

DataDir = Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Data directory of `quotagate up`.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file.  [default: the packaged one]")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: as in the settings]")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.  [default: as in the settings]")]


def _postgres_dsn(dsn: str) -> str:
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise typer.BadParameter("must begin with postgresql://")
    return dsn


PostgresDsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="QUOTAGATE_POSTGRES_DSN",
        show_envvar=True,
        callback=_postgres_dsn,
        help="Where the control plane's database is.",
    ),
]
OwnerDsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar=["QUOTAGATE_POSTGRES_OWNER_DSN", "QUOTAGATE_POSTGRES_DSN"],
        show_envvar=True,
        callback=_postgres_dsn,
        help="Where the control plane's database is, as the owner of its tables.",
    ),
]
PlansFile = Annotated[
    Path | None, typer.Option("--plans", metavar="FILE", help="Plan catalogue.  [default: the packaged one]")
]
