"""`quotagate reconcile` and `quotagate recompute`: whether counters are what the events add up to."""

import json
from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, ConfigFile, PostgresDsn

Org = Annotated[str | None, typer.Option(metavar="ID", help="Only this organization.  [default: all]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what differs, and change nothing.")]


def reconcile(config: ConfigFile = None, org: Org = None, dry_run: DryRun = False) -> None:
    """Compare what Redis counts with what the events add up to, and repair what differs, while traffic flows.

    One JSON line for each counter that differs; the last line sums up. Exit code 1 when something differs that was not
    repaired."""
    from control.commands import reconcile
    from control.reconcile.scan import WriterBehind

    left = 0
    try:
        for told, repaired in reconcile.reconcile(config, org, repair=not dry_run):
            typer.echo(json.dumps(told | {"repaired": repaired}))
            left += not repaired
        typer.echo(reconcile.SUMMARY.format(left=left), err=True)
    except WriterBehind as e:
        raise CommandFailed(str(e)) from e
    if left:
        raise typer.Exit(1)


def recompute(dsn: PostgresDsn = NO_DSN, org: Org = None) -> None:
    """Prove from the table alone that every counter is the sum of its events. Exit code 1 where one is not."""
    from control.commands import reconcile

    counters, differing = reconcile.recompute(dsn, org)
    for row in differing:
        typer.echo(json.dumps(row))
    typer.echo(f"{counters} counters, {len(differing)} are not the sum of their events", err=True)
    if differing:
        raise typer.Exit(1)
