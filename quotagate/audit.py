"""`quotagate audit`: whether the journal is what was written."""

from typing import Annotated

import typer

from quotagate.options import NO_DSN, PostgresDsn

EXIT_BROKEN = 1
EXIT_NOT_CHECKED = 2

app = typer.Typer(name="audit", help="The audit journal.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def audit() -> None:
    """The audit journal."""


@app.command()
def verify(
    dsn: PostgresDsn = NO_DSN,
    start: Annotated[
        int,
        typer.Option("--from", min=1, metavar="SEQ", help="Recompute from this seal on, and believe the one before."),
    ] = 1,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEQ:HASH", help="A head noted earlier: the chain must still hold it. As often as wanted."
        ),
    ] = None,
    unsealed_seconds: Annotated[
        float, typer.Option(min=0, help="An entry that waits for its seal for longer is told as broken.")
    ] = 60,
    late_seconds: Annotated[
        float, typer.Option(min=0, help="An entry sealed behind one that is so much later was inserted afterwards.")
    ] = 3600,
) -> None:
    """Recompute the journal's hash chain from the tables alone, and name the first entry that is broken: changed,
    missing, inserted afterwards, or not sealed.

    Prints the head of the chain. Keep it elsewhere: --expect finds by it that the end was cut off, or all was written
    anew. Exit code 0: whole, 1: broken, 2: not checked."""
    from control.audit.verify import Head, run
    from control.db import RightsMissing, StoreUnavailable

    try:
        noted = [Head.parse(each) for each in expect or ()]
    except ValueError:
        raise typer.BadParameter("must be SEQ:HASH, as this command prints it", param_hint="--expect") from None
    try:
        verdict = run(dsn, start, noted, unsealed_seconds, late_seconds)
    except (StoreUnavailable, RightsMissing, ValueError) as e:
        typer.echo(f"quotagate: not checked: {e}", err=True)
        raise typer.Exit(EXIT_NOT_CHECKED) from None
    typer.echo(f"head {verdict.head}")
    typer.echo(f"{verdict.verified} seals are good, {verdict.waiting} entries wait for theirs", err=True)
    if verdict.broken is not None:
        typer.echo(f"BROKEN  {verdict.broken}")
        raise typer.Exit(EXIT_BROKEN)
