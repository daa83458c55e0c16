"""`quotagate backup` and `quotagate restore`: both stores of one moment in a directory, and back."""

from pathlib import Path
from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, ConfigFile, OwnerDsn


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The backup's directory, which must not exist.")],
    config: ConfigFile = None,
) -> None:
    """Back up PostgreSQL and Redis as of one moment, while everything goes on.

    The directory has its name only when the backup is complete. It holds customers' data: encrypt it where you store
    it. The settings files, the environment's secrets and archived usage days are not in it."""
    from control.backup.files import BackupRefused
    from control.commands import backup

    try:
        manifest = backup.take(config, directory, lambda step: typer.echo(step, err=True))
    except (BackupRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
    typer.echo(f"{directory} has everything up to {manifest.taken_at}")
    typer.echo(f"head {manifest.journal_head}")


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A backup's directory.")],
    config: ConfigFile = None,
    dsn: OwnerDsn = NO_DSN,
    app_role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", help="The application's role, as for `quotagate migrate`.  [default: quotagate_app]"
        ),
    ] = None,
    keep_redis: Annotated[
        bool,
        typer.Option(
            "--keep-redis",
            help="Redis is the one of this installation, and only PostgreSQL was lost: events that wait in it are kept,"
            " and what it counted is loaded anew.",
        ),
    ] = False,
) -> None:
    """Restore a backup into an empty database, as the owner of its tables, and into an empty Redis.

    Nothing else may use the two meanwhile. A backup that is damaged is refused whole. The schema becomes that of this
    release. Afterwards, start the control plane: it loads Redis."""
    from control.backup.files import BackupRefused
    from control.commands import backup

    try:
        manifest = backup.restore(
            config, dsn, app_role, directory, lambda step: typer.echo(step, err=True), keep_redis=keep_redis
        )
    except (BackupRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
    typer.echo(f"restored as of {manifest.taken_at}")
    typer.echo(f"check: quotagate recompute && quotagate audit verify --expect {manifest.journal_head}")
