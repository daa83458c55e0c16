"""`quotagate migrate`: the schema."""

from typing import Annotated

import typer

from quotagate.options import NO_DSN, AsJson, OwnerDsn
from quotagate.output import show
from quotagate.progress import Shown


def migrate(
    dsn: OwnerDsn = NO_DSN,
    app_role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="The application's role. It is created if it does not exist, and gets its rights. It cannot log in:"
            " make the control plane's login role a member of it.",
        ),
    ] = "quotagate_app",
    as_json: AsJson = False,
) -> None:
    """Migrate the control plane's database to the schema of this release, as the owner of its tables."""
    from control import db, schema

    added = schema.migrate(dsn, app_role, watch=Shown(as_json))
    newest = db.schema_versions()[-1]
    if added:
        done = f"The schema is {newest} now. {len(added)} migrations were applied, {added[0]} to {added[-1]}."
    else:
        done = f"The schema is already {newest}."
    content = {"schema": newest, "applied": added, "role": app_role}
    show(content, as_json, done, f"The role {app_role} has its rights.")
