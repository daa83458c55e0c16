"""The commands."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, ControlUrl, DataDir
from quotagate.progress import progress

if TYPE_CHECKING:
    from quotagate.admin import AdminApi
    from quotagate.configuration.applying import Result
    from quotagate.configuration.comparison import Comparison
    from quotagate.configuration.planning import Change

EXIT_DIFFERENT = 2

Source = Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A file, or a directory of files; YAML or JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Also remove what is only on the server, of each kind that the files speak of."),
]


def export(
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE|DIR", help="A file, or a directory that is there.  [default: stdout]")
    ] = None,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Write what the control API holds as configuration: plans, and organizations with their entitlements, grants,
    caps, alerts, shadow mode, and keys without the keys themselves. No secret is in it."""
    from datetime import UTC, datetime

    from quotagate.configuration import server, writing

    if target is not None and target.is_dir() and as_json:
        raise typer.BadParameter("a directory is written as YAML", param_hint="--json")
    with _connected(control_url, admin_token_env, data_dir) as api:
        plans = {code: plan.form for code, plan in server.read_plans(api).items() if not plan.archived}
        listed = {each.org: each for each in server.list_organizations(api)}
        with progress("Reading organizations", len(listed)) as tick:
            held = server.read_organizations(api, list(listed), tick)
    now = datetime.now(UTC)
    organizations = {
        org: server.exported(each, listed[org], now) for org, each in sorted(held.items()) if not each.deleted
    }
    try:
        if target is not None and target.is_dir():
            count = writing.write_directory(target, plans, organizations)
            typer.echo(f"{target}: {count:,} files", err=True)
            return
        content = writing.whole(plans, organizations)
        json_wanted = as_json or (target is not None and target.suffix == ".json")
        text = writing.as_json(content) if json_wanted else writing.as_yaml(content)
        if target is None:
            sys.stdout.write(text)
        else:
            target.write_text(text, encoding="utf-8")
            typer.echo(f"{target}: {len(plans):,} plans, {len(organizations):,} organizations", err=True)
    except OSError as e:
        raise CommandFailed(f"{target} cannot be written: {e.strerror}") from e


def diff(
    source: Source,
    prune: Prune = False,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Show how the server differs from the files: what `quotagate apply` would do. Exits with 2 if anything differs."""
    from quotagate.configuration import comparison

    with _connected(control_url, admin_token_env, data_dir) as api:
        found = comparison.compare(api, source, prune)
    _show(found, as_json)


def apply(
    source: Source,
    prune: Prune = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: the same as `quotagate diff`.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking, on a terminal, too.")] = False,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Make the server as the files say, and print what was done. What they do not speak of is left alone. Exits with 1
    if anything is not as they say afterwards."""
    from quotagate.configuration import applying, comparison
    from quotagate.configuration.planning import Verb

    with _connected(control_url, admin_token_env, data_dir) as api:
        found = comparison.compare(api, source, prune)
        if dry_run:
            _show(found, as_json)
            return
        if not yes and sys.stdin.isatty() and any(each.verb is Verb.REMOVE for each in found.changes()):
            _print(found.changes(), as_json=False)
            typer.confirm("Apply these changes, and remove what is marked with -?", abort=True, err=True)
        results: list[Result] = []
        with progress("Applying", len(found.organizations)) as tick:
            for result in applying.apply(api, found.plans, found.organizations, tick):
                results.append(result)
                if not as_json and not sys.stderr.isatty():
                    _print_result(result)
    if as_json:
        typer.echo(json.dumps({"results": [_result(each) for each in results], **_counts(results)}, indent=2))
    else:
        if sys.stderr.isatty():
            for result in results:
                _print_result(result)
        typer.echo(_summary(results))
    if any(each.outcome is not applying.Outcome.APPLIED for each in results):
        raise typer.Exit(1)


def _show(found: "Comparison", as_json: bool) -> None:
    changes = list(found.changes())
    _print(changes, as_json)
    if changes:
        raise typer.Exit(EXIT_DIFFERENT)


def _print(changes: "Iterator[Change] | Sequence[Change]", as_json: bool) -> None:
    changes = list(changes)
    if as_json:
        typer.echo(json.dumps({"changes": [_change(each) for each in changes]}, indent=2))
        return
    for each in changes:
        typer.echo(_line(each))
    if not changes:
        typer.echo("Nothing differs.")
        return
    from quotagate.configuration.planning import Verb

    counted = {verb: sum(each.verb is verb for each in changes) for verb in Verb}
    words = {"to add": Verb.ADD, "to change": Verb.CHANGE, "to remove": Verb.REMOVE, "impossible": Verb.IMPOSSIBLE}
    typer.echo(", ".join(f"{counted[verb]:,} {word}" for word, verb in words.items() if counted[verb]) + ".")


def _print_result(result: "Result") -> None:
    from quotagate.configuration.applying import Outcome

    if result.outcome is Outcome.APPLIED:
        typer.echo(_line(result.change))
    else:
        detail = f": {result.detail}" if result.detail else ""
        typer.echo(f"{_line(result.change)}\n    {result.outcome.value}{detail}", err=True)


def _line(change: "Change") -> str:
    from quotagate.configuration.planning import SIGNS

    return f"{SIGNS[change.verb]} {change.what}: {'; '.join(change.about)}"


def _change(change: "Change") -> dict[str, object]:
    return {"verb": change.verb.value, "what": change.what, "about": list(change.about)}


def _result(result: "Result") -> dict[str, object]:
    return {**_change(result.change), "outcome": result.outcome.value, "detail": result.detail}


def _counts(results: "Sequence[Result]") -> dict[str, int]:
    from quotagate.configuration.applying import Outcome

    applied = sum(each.outcome is Outcome.APPLIED for each in results)
    return {"applied": applied, "not_applied": len(results) - applied}


def _summary(results: "Sequence[Result]") -> str:
    if not results:
        return "Nothing differs: nothing was done."
    counts = _counts(results)
    left = f", {counts['not_applied']:,} were not" if counts["not_applied"] else ""
    return f"{counts['applied']:,} of {len(results):,} changes were applied{left}."


def _connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> "AbstractContextManager[AdminApi]":
    from quotagate.admin import connected

    return connected(control_url, admin_token_env, data_dir)
