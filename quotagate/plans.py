"""`quotagate plans`: the catalogue."""

from collections.abc import Sequence
from typing import Annotated

import typer

from quotagate.failure import CommandFailed, Unreachable
from quotagate.options import NO_DSN, AsJson, PlansFile, PostgresDsn
from quotagate.output import show

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
    as_json: AsJson = False,
) -> None:
    """Bring the plans in the database into line with the file, and print what changed. With --stripe (and its key in
    QUOTAGATE_STRIPE_SECRET_KEY) do the same for what is sold at Stripe."""
    from control.entitlements import catalogue

    if stripe and not stripe_key:
        raise typer.BadParameter("needs a key: set QUOTAGATE_STRIPE_SECRET_KEY", param_hint="--stripe")

    changes = catalogue.apply(dsn, plans, dry_run=dry_run)
    if not as_json:  # they are made, whatever becomes of Stripe
        for line in changes or ["The plans are already those of the file."]:
            typer.echo(f"would change: {line}" if dry_run and changes else line)
        if stripe and dry_run and changes:
            typer.echo("Stripe is compared with the plans that are in the database now, without these changes:")
    at_stripe = _at_stripe(dsn, stripe_key, stripe_url, dry_run=dry_run) if stripe else None
    lines = _stripe_lines(at_stripe, dry_run=dry_run) if at_stripe is not None else []
    show({"changes": list(changes), "stripe": at_stripe, "dry_run": dry_run}, as_json, *lines)


def _at_stripe(dsn: str, key: str, url: str, *, dry_run: bool) -> list[str]:
    from control.billing.failures import StripeAway, StripeRefused
    from control.commands import plans

    try:
        return list(plans.apply_catalogue(dsn, key, url, dry_run=dry_run))
    except StripeAway as e:
        raise Unreachable(str(e)) from e
    except StripeRefused as e:
        raise CommandFailed(str(e)) from e


def _stripe_lines(changes: Sequence[str], *, dry_run: bool) -> list[str]:
    return [f"would create: {line}" if dry_run else line for line in changes] or ["Stripe already has the catalogue."]
