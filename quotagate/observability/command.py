"""The commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from quotagate.failure import CommandFailed

app = typer.Typer(
    name="observability",
    help="Alerts and dashboards, made of one file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[Path | None, typer.Option(metavar="FILE", help="What is watched.  [default: the packaged one]")]
Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Directory of the files that are made.")]
Table = Annotated[Path | None, typer.Option(metavar="FILE", help="The table of all metrics, as Markdown.")]


@app.command()
def render(directory: Directory = Path("observability"), file: File = None, table: Table = None) -> None:
    """Write Prometheus' rules, Grafana's dashboards, and examples for Prometheus and Alertmanager. Replaces what is
    there."""
    from common.durable_files import replace_text

    made = _made(file)
    files = {directory / name: content for name, content in made.items()}
    files |= {table: _table()} if table is not None else {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            replace_text(path, content)
    except OSError as e:
        raise CommandFailed(f"{e.filename or directory} cannot be written: {e.strerror}") from e
    typer.echo(f"{directory}: {len(made)} files")


@app.command()
def check(
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Also compare the files that were made there.")
    ] = None,
    file: File = None,
    table: Table = None,
) -> None:
    """Refuse a metric, a label, a verdict or a bucket that does not exist, and files that are not what would be made
    now. Exits with 1 when files are not."""
    made = {} if directory is None else {directory / name: content for name, content in _made(file).items()}
    if directory is None:
        _made(file)
    if table is not None:
        made[table] = _table()
    stale = [str(path) for path, content in made.items() if not path.is_file() or path.read_text() != content]
    if stale:
        raise CommandFailed(f"not what would be made now: {', '.join(stale)}; run `quotagate observability render`")
    typer.echo("all names exist" + (f", {len(made)} files are up to date" if made else ""))


def _made(file: Path | None) -> Mapping[str, str]:
    """Raises SettingsError."""
    from common.settings_file import SettingsError, load
    from quotagate.observability import rendering
    from quotagate.observability.watched import Watched

    name = str(file or "packaged config/observability.yaml")
    watched = load(file, "observability.yaml", Watched)
    if faults := list(rendering.faults(watched)):
        raise SettingsError("\n".join(f"{name}: {fault}" for fault in faults))
    return rendering.rendered(watched)


def _table() -> str:
    from quotagate.observability.catalogue import PLANES
    from quotagate.observability.table import table_of

    return table_of(PLANES)
