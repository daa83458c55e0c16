"""`quotagate usage`: old days of usage events, into files and back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, OwnerDsn, PostgresDsn

KEPT_DAYS = 90

app = typer.Typer(name="usage", help="Usage events by days.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(dsn: PostgresDsn = NO_DSN) -> None:
    """List the days, where each is, and how large."""
    for row in _run(dsn, "list", ()):
        if row["file"]:
            typer.echo(f"{row['day']}  in {row['file']}, {row['events']:,} events")
        else:  # how many events, PostgreSQL only estimates
            typer.echo(f"{row['day']}  here, {row['bytes']:,} bytes")


@app.command()
def archive(
    dsn: OwnerDsn = NO_DSN,
    before: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help=f"Days before this one; today and yesterday always stay.  [default: {KEPT_DAYS} days ago]",
        ),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where the files go.")] = Path("usage-archive"),
) -> None:
    """Move old days into files. A file is written, synced and read back before its day leaves the database. Today and
    yesterday always stay, since events of theirs may still come."""
    until = (before or datetime.now(UTC) - timedelta(days=KEPT_DAYS)).date()
    done = _run(dsn, "archive", (until, directory))
    for row in done:
        typer.echo(f"{row['day']}  {row['events']:,} events in {row['file']}")
    stays = datetime.now(UTC).date() - timedelta(days=1)
    if until > stays:
        typer.echo(f"{stays} (yesterday) and later stay: events of theirs may still come.")
    if not done:
        typer.echo(f"No day before {min(until, stays)} is in the database.")


@app.command()
def restore(files: Annotated[list[Path], typer.Argument(help="Archives, `….csv.gz`.")], dsn: OwnerDsn = NO_DSN) -> None:
    """Bring days back from their files. Days that are there already stay as they are."""
    done = _run(dsn, "restore", files)
    for row in done:
        typer.echo(f"{row['day']}  {row['events']:,} events are back")
    if len(done) < len(files):
        typer.echo(f"{len(files) - len(done)} were there already.")


def _run(dsn: str, step: str, arguments: Any) -> list[dict[str, Any]]:
    from control.usage.archive import ArchiveRefused, run

    try:
        return run(dsn, step, arguments)
    except (ArchiveRefused, OSError) as e:
        raise CommandFailed(str(e)) from e
