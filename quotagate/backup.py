"""`quotagate backup` and `quotagate restore`: both stores of one moment in a directory, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, AsJson, ConfigFile, OwnerDsn
from quotagate.output import show
from quotagate.progress import Shown

if TYPE_CHECKING:
    from control.backup.files import Manifest

BAR_LENGTH = 100_000  # rows or bytes; less is done at once


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The backup's directory, which must not exist.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Back up PostgreSQL and Redis as of one moment, while everything goes on.

    The directory has its name only when the backup is complete. It holds customers' data: encrypt it where you store
    it. The settings files, the environment's secrets and archived usage days are not in it."""
    from control.backup.files import BackupRefused
    from control.commands import backup

    try:
        manifest = backup.take(config, directory, Shown(as_json, BAR_LENGTH))
    except (BackupRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
    content = {"directory": str(directory), **_facts(manifest)}
    done = f"{directory} has everything up to {manifest.taken_at}"
    show(content, as_json, done, f"head {manifest.journal_head}")


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
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty database, as the owner of its tables, and into an empty Redis.

    Nothing else may use the two meanwhile. A backup that is damaged is refused whole. The schema becomes that of this
    release. Afterwards, start the control plane: it loads Redis."""
    from control.backup.files import BackupRefused
    from control.commands import backup

    try:
        manifest = backup.restore(config, dsn, app_role, directory, Shown(as_json, BAR_LENGTH), keep_redis=keep_redis)
    except (BackupRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
    check = f"check: quotagate recompute && quotagate audit verify --expect {manifest.journal_head}"
    show(_facts(manifest), as_json, f"restored as of {manifest.taken_at}", check)


def _facts(manifest: "Manifest") -> dict[str, object]:
    rows = {name: each.rows for name, each in manifest.tables.items()}
    return {"taken_at": manifest.taken_at, "head": manifest.journal_head, "rows": rows, "events": manifest.events}
