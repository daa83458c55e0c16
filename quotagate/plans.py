"""`quotagate plans`: the catalogue."""

from typing import Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import NO_DSN, PlansFile, PostgresDsn

app = typer.Typer(name="plans", help="The plan catalogue.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def plans() -> None:
    """The plan catalogue."""


Stripe = Annotated[bool, typer.Option("--stripe", help="Also update products, prices and meters at Stripe.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would change: in the database and, with --stripe, at Stripe.")
]
StripeKey = Annotated[str, typer.Option(envvar="QUOTAGATE_STRIPE_SECRET_KEY", show_envvar=True, hidden=True)]
StripeUrl = Annotated[str, typer.Option(envvar="QUOTAGATE_STRIPE_API_URL", show_envvar=True, hidden=True)]


@app.command()
def apply(
    dsn: PostgresDsn = NO_DSN,
    plans: PlansFile = None,
    stripe: Stripe = False,
    dry_run: DryRun = False,
    stripe_key: StripeKey = "",
    stripe_url: StripeUrl = "",
) -> None:
    """Bring the plans in the database into line with the file, and print what changed. With --stripe (and its key in
    QUOTAGATE_STRIPE_SECRET_KEY) do the same for what is sold at Stripe."""
    from control.entitlements import catalogue

    if stripe:
        _check_key(stripe_key)

    changes = catalogue.apply(dsn, plans, dry_run=dry_run)
    for line in changes:
        typer.echo(f"would change: {line}" if dry_run else line)
    if not changes:
        typer.echo("The plans are already those of the file.")
    if stripe:
        if dry_run and changes:
            typer.echo("Stripe is compared with the plans that are in the database now, without these changes:")
        _apply_to_stripe(dsn, stripe_key, stripe_url, dry_run=dry_run)


def _check_key(key: str) -> None:
    if not key:
        raise CommandFailed("--stripe needs a key: set QUOTAGATE_STRIPE_SECRET_KEY")


def _apply_to_stripe(dsn: str, key: str, url: str, *, dry_run: bool) -> None:
    from control.billing.failures import StripeAway, StripeRefused
    from control.commands import plans

    try:
        changes = plans.apply_catalogue(dsn, key, url, dry_run=dry_run)
    except (StripeAway, StripeRefused) as e:
        raise CommandFailed(str(e)) from e
    for line in changes or ["Stripe already has the catalogue."]:
        typer.echo(f"{'would create: ' if dry_run else ''}{line}" if changes else line)
