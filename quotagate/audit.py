"""`quotagate audit`: checks that nobody changed the journal."""

from typing import Annotated

import typer

from quotagate.failure import EXIT_FAILED, EXIT_USAGE, CommandFailed
from quotagate.options import NO_DSN, AsJson, PostgresDsn
from quotagate.output import note, show
from quotagate.times import DURATION, duration

app = typer.Typer(name="audit", help="The audit journal.", no_args_is_help=True, rich_markup_mode=None)


class NotChecked(CommandFailed):
    """Whether the journal is whole is not known."""

    code = "not_checked"
    exit_code = EXIT_USAGE


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
            help="A head that was printed earlier: the chain must still contain it. Repeatable.",
        ),
    ] = None,
    unsealed: Annotated[
        str,
        typer.Option(metavar=DURATION, help="An entry that waits longer for its seal is reported as broken."),
    ] = "1m",
    late: Annotated[
        str,
        typer.Option(
            metavar=DURATION,
            help="An entry behind one that is later by more than this is reported as inserted afterwards.",
        ),
    ] = "1h",
    as_json: AsJson = False,
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
    unsealed_seconds = duration(unsealed, "--unsealed").total_seconds()
    late_seconds = duration(late, "--late").total_seconds()
    try:
        verdict = run(dsn, start, expected, unsealed_seconds, late_seconds)
    except (StoreUnavailable, RightsMissing, ValueError) as e:
        raise NotChecked(f"not checked: {e}") from None
    broken = None if verdict.broken is None else str(verdict.broken)
    content = {"head": str(verdict.head), "verified": verdict.verified, "waiting": verdict.waiting, "broken": broken}
    show(content, as_json, f"head {verdict.head}", *([] if broken is None else [f"BROKEN  {broken}"]))
    note(f"{verdict.verified} seals are valid, {verdict.waiting} entries are not sealed yet", as_json)
    if broken is not None:
        raise typer.Exit(EXIT_FAILED)
