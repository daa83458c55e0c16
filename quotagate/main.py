"""The command line: one module for each command.

A command imports what it needs when it runs: `--help` answers at once, and a gateway never loads the control plane.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
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
from quotagate.failure import EXIT_FAILED, EXIT_USAGE, CommandFailed
from quotagate.observability import command as observability


@dataclass(frozen=True, slots=True)
class _Failure:
    """A failure that an operator can mend."""

    exit_code: int
    code: str
    """A key of `CODES`."""
    message: str
    detail: Sequence[str] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = "quotagate: "

    def as_json(self) -> str:
        members = {"code": self.code, "message": "\n".join((self.message, *self.detail)), **self.members}
        return json.dumps({"error": members})


class PlainFailures(TyperGroup):
    """Prints a failure that an operator can mend in plain lines; with --json, as one JSON object on stderr. Only a
    fault of the program shows a traceback."""

    _as_json = False

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        self._as_json = "--json" in takewhile(lambda argument: argument != "--", list(args))
        with self._reported():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:  # Any: typer brings its own copy of click
        with self._reported():
            return super().invoke(ctx)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except typer.Exit:
            raise
        except Exception as error:
            failure = _failure(error)
            if failure is None or (not self._as_json and isinstance(error, typer.Abort | typer.TyperException)):
                raise  # typer prints its own
            if self._as_json:
                typer.echo(failure.as_json(), err=True)
            else:
                for line in (f"{failure.prefix}{failure.message}", *(f"  | {line}" for line in failure.detail)):
                    typer.echo(line, err=True)
            raise typer.Exit(failure.exit_code) from None


def _failure(error: Exception) -> _Failure | None:
    """None for a fault of the program."""
    if isinstance(error, typer.TyperException):
        return _Failure(error.exit_code, "usage", error.format_message())
    if isinstance(error, typer.Abort):
        return _Failure(EXIT_FAILED, "aborted", "nothing was done")
    if isinstance(error, CommandFailed):
        return _Failure(error.exit_code, error.code, str(error), members=error.members)

    from common.settings_file import SettingsError
    from control.db import RightsMissing, StoreUnavailable
    from devstack.child import StackError
    from quota.ledger import LedgerError

    if isinstance(error, SettingsError):
        return _Failure(EXIT_USAGE, "settings", str(error), prefix="")
    if isinstance(error, StackError):
        return _Failure(EXIT_FAILED, "failed", str(error), error.detail)
    if isinstance(error, RightsMissing):
        return _Failure(EXIT_FAILED, "rights", str(error))
    if isinstance(error, StoreUnavailable | LedgerError):
        return _Failure(EXIT_FAILED, "unreachable", str(error))
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
