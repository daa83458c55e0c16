"""`quotagate usage`: moves old days of usage events into files, and back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, AsJson, OwnerDsn, PostgresDsn
from quotagate.output import note, show_item

ARCHIVED_AFTER_DAYS = 90

app = typer.Typer(name="usage", help="Usage events by days.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(dsn: PostgresDsn = NO_DSN, as_json: AsJson = False) -> None:
    """List the days, where each of them is, and how large it is."""
    for row in _run(dsn, "list", ()):
        show_item(row, as_json, _day_line)


@app.command()
def archive(
    dsn: OwnerDsn = NO_DSN,
    before: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help=f"Days before this one; today and yesterday always stay.  [default: {ARCHIVED_AFTER_DAYS} days ago]",
        ),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Directory of the files.")] = Path(
        "usage-archive"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print which days would be moved.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move old days into files. A file is written, synced and read back before its day leaves the database. Today and
    yesterday always stay, since more of their events may still arrive."""
    until = (before or datetime.now(UTC) - timedelta(days=ARCHIVED_AFTER_DAYS)).date()
    if dry_run:
        archived = _run(dsn, "due", (until,))
        for row in archived:
            show_item(row, as_json, lambda day: f"{day['day']}  would be moved, {day['bytes']:,} bytes")
    else:
        archived = _run(dsn, "archive", (until, directory))
        for row in archived:
            show_item(row, as_json, lambda day: f"{day['day']}  {day['events']:,} events in {day['file']}")
    stays = datetime.now(UTC).date() - timedelta(days=1)
    if until > stays:
        note(f"{stays} (yesterday) and later stay: more of their events may still arrive.", as_json)
    if not archived:
        note(f"No day before {min(until, stays)} is in the database.", as_json)


@app.command()
def restore(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Archives, `….csv.gz`.")],
    dsn: OwnerDsn = NO_DSN,
    as_json: AsJson = False,
) -> None:
    """Restore days from their files. Days that are already in the database stay as they are."""
    restored = _run(dsn, "restore", files)
    for row in restored:
        show_item(row, as_json, lambda day: f"{day['day']}  {day['events']:,} events restored")
    if len(restored) < len(files):
        note(f"Of the files, {len(files) - len(restored)} were of days that are already in the database.", as_json)


def _day_line(row: dict[str, Any]) -> str:
    if row["file"]:
        return f"{row['day']}  in {row['file']}, {row['events']:,} events"
    return f"{row['day']}  in the database, {row['bytes']:,} bytes"  # PostgreSQL only estimates the number of events


def _run(dsn: str, step: str, arguments: Any) -> list[dict[str, Any]]:
    from control.usage.archive import ArchiveRefused, run

    try:
        return run(dsn, step, arguments)
    except (ArchiveRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
