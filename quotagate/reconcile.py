"""`quotagate reconcile` and `quotagate recompute`: check that each counter is the sum of its events."""

import json
from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, ConfigFile, PostgresDsn

Org = Annotated[str | None, typer.Option(metavar="ID", help="Only this organization.  [default: all]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what differs, and change nothing.")]


def reconcile(config: ConfigFile = None, org: Org = None, dry_run: DryRun = False) -> None:
    """Compare the counters in Redis with the sums of their events, and repair what differs, while traffic flows.

    Prints one JSON line for each counter that differs, and a summary as the last line. Exits with 1 when a difference
    was not repaired."""
    from control.commands import reconcile
    from control.reconcile.scan import WriterBehind

    unrepaired = 0
    try:
        for drift, repaired in reconcile.reconcile(config, org, repair=not dry_run):
            typer.echo(json.dumps(drift | {"repaired": repaired}))
            unrepaired += not repaired
        typer.echo(reconcile.SUMMARY.format(left=unrepaired), err=True)
    except WriterBehind as e:
        raise CommandFailed(str(e)) from e
    if unrepaired:
        raise typer.Exit(1)


def recompute(dsn: PostgresDsn = NO_DSN, org: Org = None) -> None:
    """Prove from the tables alone that every counter is the sum of its events. Exits with 1 when one is not."""
    from control.commands import reconcile

    counters, differing = reconcile.recompute(dsn, org)
    for row in differing:
        typer.echo(json.dumps(row))
    typer.echo(f"{counters} counters, {len(differing)} are not the sum of their events", err=True)
    if differing:
        raise typer.Exit(1)
