"""The command line: one module for each command.

A command imports what it needs when it runs: `--help` answers at once, and a gateway never loads the control plane.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from quotagate import (
    activation,
    audit,
    backup,
    commands,
    config,
    console_link,
    control,
    demo,
    doctor,
    gateway,
    health,
    keys,
    migrate,
    openapi,
    org,
    people,
    plans,
    reconcile,
    service_tokens,
    signing_keys,
    token,
    up,
    usage,
    version,
)
from quotagate.configuration import command as configuration
from quotagate.observability import command as observability

EXIT_FAILED = 1
EXIT_UNUSABLE_SETTINGS = 2  # as for a wrong flag


class PlainFailures(TyperGroup):
    """Prints a failure that an operator can fix in plain lines. Only a fault of the program shows a traceback."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer brings its own copy of click
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            failure = _plain_failure(error)
            if failure is None:
                raise
            exit_code, lines = failure
            for line in lines:
                typer.echo(line, err=True)
            raise typer.Exit(exit_code) from None


def _plain_failure(error: Exception) -> tuple[int, Sequence[str]] | None:
    """Exit code and lines; None for a fault of the program."""
    from common.settings_file import SettingsError
    from control.db import RightsMissing, StoreUnavailable
    from devstack.child import StackError
    from quota.ledger import LedgerError
    from quotagate.failure import CommandFailed

    if isinstance(error, SettingsError):
        return EXIT_UNUSABLE_SETTINGS, [str(error)]
    if isinstance(error, StackError):
        return EXIT_FAILED, [f"quotagate: {error}", *(f"  | {line}" for line in error.detail)]
    if isinstance(error, CommandFailed | StoreUnavailable | RightsMissing | LedgerError):
        return EXIT_FAILED, [f"quotagate: {error}"]
    return None


app = typer.Typer(
    name="quotagate",
    cls=PlainFailures,
    help="A quota gateway: checks the caller's token, charges the organization's plan, forwards or refuses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, secrets among them
    rich_markup_mode=None,
)


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=version.shown, help="Print the version, and exit.")
    ] = False,
) -> None:
    pass


app.command()(up.up)
app.command()(demo.demo)
app.command()(gateway.gateway)
app.command()(control.control)
app.command()(migrate.migrate)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(reconcile.reconcile)
app.command()(reconcile.recompute)
app.command()(configuration.export)
app.command()(configuration.diff)
app.command()(configuration.apply)
app.add_typer(plans.app)
app.add_typer(org.app)
app.add_typer(people.app)
app.add_typer(keys.app)
app.add_typer(token.app)
app.add_typer(activation.app)
app.add_typer(service_tokens.app)
app.add_typer(signing_keys.app)
app.add_typer(config.app)
app.add_typer(usage.app)
app.add_typer(audit.app)
app.add_typer(observability.app)
app.command()(console_link.console_link)
app.command()(doctor.doctor)
app.command()(health.health)
app.command()(openapi.openapi)
app.command()(commands.commands)
app.command()(version.version)
