"""`quotagate migrate`: the schema."""

from quotagate.options import PostgresDsn


def migrate(dsn: PostgresDsn) -> None:
    """Bring the control plane's database to the schema of this release."""
    from control import db

    db.migrate(dsn)
