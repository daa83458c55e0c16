"""`quotagate audit`: checks that nobody changed the journal."""

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
        typer.Option("--from", min=1, metavar="SEQ", help="Recompute from this seal on, and trust the one before it."),
    ] = 1,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEQ:HASH",
            help="A head that was printed earlier: the chain must still contain it. May be repeated.",
        ),
    ] = None,
    unsealed_seconds: Annotated[
        float, typer.Option(min=0, help="An entry that waits longer for its seal is reported as broken.")
    ] = 60,
    late_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="An entry behind one that is later by more than this is reported as inserted afterwards."
        ),
    ] = 3600,
) -> None:
    """Recompute the journal's hash chain from the tables alone, and name the first entry that is broken: changed,
    missing, inserted afterwards, or not sealed.

    Prints the head of the chain. Store it elsewhere: with --expect this command detects that the end was cut off, or
    that the whole journal was rewritten. Exit code 0: intact, 1: broken, 2: not checked."""
    from control.audit.verify import Head, run
    from control.db import RightsMissing, StoreUnavailable

    try:
        expected = [Head.parse(each) for each in expect or ()]
    except ValueError:
        raise typer.BadParameter("must be SEQ:HASH, as this command prints it", param_hint="--expect") from None
    try:
        verdict = run(dsn, start, expected, unsealed_seconds, late_seconds)
    except (StoreUnavailable, RightsMissing, ValueError) as e:
        typer.echo(f"quotagate: not checked: {e}", err=True)
        raise typer.Exit(EXIT_NOT_CHECKED) from None
    typer.echo(f"head {verdict.head}")
    typer.echo(f"{verdict.verified} seals are valid, {verdict.waiting} entries are not sealed yet", err=True)
    if verdict.broken is not None:
        typer.echo(f"BROKEN  {verdict.broken}")
        raise typer.Exit(EXIT_BROKEN)
