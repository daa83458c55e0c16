"""`quotagate migrate`: the schema."""

from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import OwnerDsn


def migrate(
    dsn: OwnerDsn,
    app_role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="The application's role, which is made where it is missing and given its rights. It cannot log in:"
            " let the control plane's login role be a member of it.",
        ),
    ] = "quotagate_app",
) -> None:
    """Bring the control plane's database to the schema of this release, as the owner of its tables."""
    from control import db

    try:
        db.migrate(dsn, app_role)
    except (db.StoreUnavailable, db.RightsMissing) as e:
        raise CommandFailed(str(e)) from e
