"""The commands."""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quotagate.admin import connected
from quotagate.failure import EXIT_DIFFERENT, EXIT_FAILED, CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import note, show_item
from quotagate.progress import progress

if TYPE_CHECKING:
    from quotagate.admin import AdminApi
    from quotagate.configuration.applying import Result
    from quotagate.configuration.comparison import Comparison
    from quotagate.configuration.forms import Form
    from quotagate.configuration.planning import Change

Source = Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A file, or a directory of files; YAML or JSON.")]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Also remove what is only on the server, of each kind that the files speak of."),
]


def export(
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE|DIR", help="A file, or a directory that is there.  [default: stdout]")
    ] = None,
    org: Annotated[
        str | None, typer.Option("--org", metavar="ORG", help="Only this organization, without the plans.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of YAML.")] = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Write what the control API holds as configuration: plans, and organizations with their entitlements, grants,
    caps, alerts, shadow mode, and keys without the keys themselves. No secret is in it."""
    to_directory = target is not None and target.is_dir()
    if to_directory and as_json:
        raise typer.BadParameter("a directory is written as YAML", param_hint="--json")
    began = time.monotonic()
    try:
        with connected(control_url, admin_token_env, data_dir) as api:
            plans = _plans(api) if org is None else None
            if target is not None and to_directory:
                written = _write_directory(api, target, plans, org, as_json)
            else:
                written = _write_file(api, target, plans, org, as_json)
    except OSError as e:
        raise CommandFailed(f"{target or 'stdout'} cannot be written: {e.strerror}") from e
    if target is not None:
        note(f"{target}: {written}, in {time.monotonic() - began:.1f} s", as_json)


def _plans(api: "AdminApi") -> "Mapping[str, Form]":
    from quotagate.configuration import server

    return {code: plan.form for code, plan in server.read_plans(api).items() if not plan.archived}


def _organizations(api: "AdminApi", org: str | None, as_json: bool) -> "Iterator[tuple[str, Form]]":
    """Those that are there. Raises CommandFailed where the only one is not."""
    from datetime import UTC, datetime

    from quotagate.configuration import server

    now = datetime.now(UTC)
    if org is not None:
        held = server.read_organization(api, org)
        if held is None or held.deleted:
            raise CommandFailed(f"there is no organization {org}")
        yield org, server.exported(held, now)
        return
    with progress("Reading organizations", server.count_organizations(api), as_json=as_json) as tick:
        for held in server.all_organizations(api):
            yield held.org, server.exported(held, now)
            tick(1)


def _write_directory(
    api: "AdminApi", directory: Path, plans: "Mapping[str, Form] | None", org: str | None, as_json: bool
) -> str:
    """A file for each organization, and what was written. Raises OSError."""
    from quotagate.configuration import writing

    files = {writing.write_organization(directory, each, form) for each, form in _organizations(api, org, as_json)}
    if plans is not None:
        writing.write_plans(directory, plans)
        writing.forget_others(directory, files)
    return f"{len(files) + (plans is not None):,} files"


def _write_file(
    api: "AdminApi", target: Path | None, plans: "Mapping[str, Form] | None", org: str | None, as_json: bool
) -> str:
    """All of it in one, when all of it was read; a file that is there stays until then. Raises OSError."""
    from common.durable_files import replacing
    from quotagate.configuration import writing

    json_wanted = as_json or (target is not None and target.suffix == ".json")
    with TemporaryFile() as file:
        spool = writing.Spool(file, json_wanted=json_wanted)
        for each, form in _organizations(api, org, as_json):
            spool.add(each, form)
        if target is None:
            sys.stdout.writelines(spool.texts(plans))
        else:
            with replacing(target) as out:
                out.writelines(spool.texts(plans))
    return f"{len(plans or ()):,} plans, {len(spool):,} organizations"


def diff(
    source: Source,
    prune: Prune = False,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Show how the server differs from the files: what `quotagate apply` would do. Exits with 3 if anything differs."""
    from quotagate.configuration import comparison

    with connected(control_url, admin_token_env, data_dir) as api:
        found = comparison.compare(api, source, prune, as_json=as_json)
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

    began = time.monotonic()
    with connected(control_url, admin_token_env, data_dir) as api:
        found = comparison.compare(api, source, prune, as_json=as_json)
        if dry_run:
            _show(found, as_json)
            return
        if not yes and sys.stdin.isatty() and any(each.verb is Verb.REMOVE for each in found.changes()):
            if as_json:
                raise typer.BadParameter("asks nothing, and something is to be removed: add --yes", param_hint="--json")
            _show_changes(found, as_json=False)
            typer.confirm("Apply these changes, and remove what is marked with -?", abort=True, err=True)
        shown_at_end: list[Result] = []
        applied = total = 0
        beside_bar = sys.stdout.isatty() and sys.stderr.isatty()  # lines would tear the bar
        with progress("Applying", len(found.organizations), as_json=as_json) as tick:
            for result in applying.apply(api, found.plans, found.organizations, tick):
                total += 1
                applied += result.outcome is applying.Outcome.APPLIED
                if beside_bar and not as_json:
                    shown_at_end.append(result)
                else:
                    _show_result(result, as_json)
        for result in shown_at_end:
            _show_result(result, as_json)
    if not as_json:
        typer.echo(_summary(applied, total, time.monotonic() - began))
    if applied < total:
        raise typer.Exit(EXIT_FAILED)


def _show(found: "Comparison", as_json: bool) -> None:
    _show_changes(found, as_json)
    if any(True for _ in found.changes()):
        raise typer.Exit(EXIT_DIFFERENT)


def _show_changes(found: "Comparison", as_json: bool) -> None:
    from quotagate.configuration.planning import Verb

    counted = dict.fromkeys(Verb, 0)
    for each in found.changes():
        show_item(_change(each), as_json, _line)
        counted[each.verb] += 1
    if as_json:
        return
    words = {"to add": Verb.ADD, "to change": Verb.CHANGE, "to remove": Verb.REMOVE, "impossible": Verb.IMPOSSIBLE}
    counts = ", ".join(f"{counted[verb]:,} {word}" for word, verb in words.items() if counted[verb])
    typer.echo(f"{counts}." if counts else "Nothing differs.")


def _show_result(result: "Result", as_json: bool) -> None:
    """For people, what was not applied is on stderr, with the reason."""
    from quotagate.configuration.applying import Outcome

    if as_json or result.outcome is Outcome.APPLIED:
        outcome = {"outcome": result.outcome.value, "detail": result.detail}
        show_item(_change(result.change) | outcome, as_json, _line)
    else:
        detail = f": {result.detail}" if result.detail else ""
        note(f"{_line(_change(result.change))}\n    {result.outcome.value}{detail}", as_json)


def _line(change: Mapping[str, Any]) -> str:
    from quotagate.configuration.planning import SIGNS, Verb

    return f"{SIGNS[Verb(change['verb'])]} {change['what']}: {'; '.join(change['about'])}"


def _change(change: "Change") -> dict[str, object]:
    return {"verb": change.verb.value, "what": change.what, "about": list(change.about)}


def _summary(applied: int, total: int, seconds: float) -> str:
    if not total:
        return "Nothing differs: nothing was done."
    left = f", {total - applied:,} were not" if applied < total else ""
    return f"{applied:,} of {total:,} changes were applied{left}, in {seconds:.1f} s."
