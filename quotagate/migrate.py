"""`quotagate migrate`: the schema."""

from quotagate.failure import CommandFailed
from quotagate.options import PostgresDsn


def migrate(dsn: PostgresDsn) -> None:
    """Bring the control plane's database to the schema of this release."""
    from control import db

    try:
        db.migrate(dsn)
    except db.StoreUnavailable as e:
        raise CommandFailed(str(e)) from e
