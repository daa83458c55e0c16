"""`quotagate reconcile` and `quotagate recompute`: check that each counter is the sum of its events."""

from typing import Annotated, Any

import typer

from quotagate.failure import EXIT_FAILED, CommandFailed
from quotagate.options import NO_DSN, AsJson, ConfigFile, OnlyOrg, PostgresDsn
from quotagate.output import note, show_item

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what differs, and change nothing.")]


def reconcile(config: ConfigFile = None, org: OnlyOrg = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Compare the counters in Redis with the sums of their events, and repair what differs, while traffic flows.

    Prints each counter that differs. Exits with 1 when a difference was not repaired."""
    from control.commands import reconcile
    from control.reconcile.scan import WriterBehind

    unrepaired = 0
    try:
        for drift, repaired in reconcile.reconcile(config, org, repair=not dry_run):
            show_item(drift | {"repaired": repaired}, as_json, _drift_line)
            unrepaired += not repaired
    except WriterBehind as e:
        raise CommandFailed(str(e)) from e
    note(reconcile.SUMMARY.format(left=unrepaired), as_json)
    if unrepaired:
        raise typer.Exit(EXIT_FAILED)


def recompute(dsn: PostgresDsn = NO_DSN, org: OnlyOrg = None, as_json: AsJson = False) -> None:
    """Prove from the tables alone that every counter is the sum of its events. Exits with 1 when one is not."""
    from control.commands import reconcile

    counters, differing = reconcile.recompute(dsn, org)
    for row in differing:
        show_item(row, as_json, _difference_line)
    note(f"{counters} counters, {len(differing)} are not the sum of their events", as_json)
    if differing:
        raise typer.Exit(EXIT_FAILED)


def _drift_line(drift: dict[str, Any]) -> str:
    done = "repaired" if drift["repaired"] else "not repaired"
    counts = f"{drift['counted']:,} counted, {drift['events']:,} by events"
    return f"{drift['org']:<24} {drift['counter']}  {counts}  ({drift['cause']}, {done})"


def _difference_line(row: dict[str, Any]) -> str:
    return f"{row['org']:<24} " + "  ".join(f"{name} {value}" for name, value in row.items() if name != "org")
