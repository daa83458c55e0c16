"""`quotagate plans`: the catalogue."""

from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import PlansFile, PostgresDsn

app = typer.Typer(name="plans", help="The plan catalogue.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def plans() -> None:
    """The plan catalogue."""


Stripe = Annotated[bool, typer.Option("--stripe", help="Make products, prices and meters at Stripe follow.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what --stripe would change there.")]
StripeKey = Annotated[str, typer.Option(envvar="QUOTAGATE_STRIPE_SECRET_KEY", show_envvar=True, hidden=True)]
StripeUrl = Annotated[str, typer.Option(envvar="QUOTAGATE_STRIPE_API_URL", show_envvar=True, hidden=True)]


@app.command()
def apply(
    dsn: PostgresDsn,
    plans: PlansFile = None,
    stripe: Stripe = False,
    dry_run: DryRun = False,
    stripe_key: StripeKey = "",
    stripe_url: StripeUrl = "",
) -> None:
    """Make the database's plans those of the file, and say what changed. With --stripe (its key in
    QUOTAGATE_STRIPE_SECRET_KEY) also what is sold at Stripe."""
    from control.db import StoreUnavailable
    from control.entitlements import catalogue

    if dry_run and not stripe:
        raise CommandFailed("--dry-run is for --stripe")
    if stripe:
        _check_key(stripe_key)

    try:
        changes = catalogue.apply(dsn, plans)
    except StoreUnavailable as e:
        raise CommandFailed(str(e)) from e
    for line in changes or ["The plans are those of the file already."]:
        typer.echo(line)
    if stripe:
        _apply_to_stripe(dsn, stripe_key, stripe_url, dry_run=dry_run)


def _check_key(key: str) -> None:
    if not key:
        raise CommandFailed("--stripe needs a key: set QUOTAGATE_STRIPE_SECRET_KEY")


def _apply_to_stripe(dsn: str, key: str, url: str, *, dry_run: bool) -> None:
    from control.billing import command
    from control.billing.failures import StripeAway, StripeRefused
    from control.db import StoreUnavailable

    try:
        changes = command.apply_catalogue(dsn, key, url, dry_run=dry_run)
    except (StripeAway, StripeRefused, StoreUnavailable) as e:
        raise CommandFailed(str(e)) from e
    for line in changes or ["Stripe has the catalogue already."]:
        typer.echo(f"{'would make: ' if dry_run else ''}{line}" if changes else line)
