"""`quotagate commands`: the command line's reference, made of the commands themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.failure import CommandFailed

HEAD = """# Commands

Made by `quotagate commands docs/commands.md` of the commands themselves. `quotagate --install-completion` completes
commands and options in bash, zsh, fish and PowerShell.

| exit code | |
|---|---|
| 0 | It is done; of a command that compares: all is well, or nothing differs. |
| 1 | It failed, or what it looked at is not well. The reason is on stderr. |
| 2 | An option or an argument is wrong, or a settings file is. Of `quotagate diff`, and of `quotagate apply` with \
`--dry-run`: something differs. Of `quotagate control`: a store is away or is another installation's, or a signing key \
does not open. |

Data is on stdout; what is said about it, and the progress of long work (on a terminal only), on stderr. With `--json`,
a list is one JSON object a line, and anything else is one JSON object.
"""


def commands(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where it is written to.  [default: stdout]")
    ] = None,
) -> None:
    """Write the reference of all commands and their options, as Markdown."""
    text = reference(ctx.find_root())
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        raise CommandFailed(f"{file} cannot be written: {e.strerror}") from e


def reference(ctx: Any) -> str:  # Any: typer brings its own copy of click
    return HEAD + "".join(_leaves("quotagate", ctx.command, ctx))


def _leaves(path: str, command: Any, ctx: Any) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield _section(path, command, type(ctx)(command, info_name=path))
        return
    for name in sorted(command.commands):
        if not command.commands[name].hidden:
            yield from _leaves(f"{path} {name}", command.commands[name], ctx)


def _section(path: str, command: Any, ctx: Any) -> str:
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    lines = [f"\n## {path}\n", f"\n    {usage}\n", f"\n{_words(command.help)}\n"]
    records = [record for each in command.params if (record := each.get_help_record(ctx)) is not None]
    if records:
        lines += ["\n| | |\n|---|---|\n", *(f"| `{_words(name)}` | {_words(about)} |\n" for name, about in records)]
    return "".join(lines)


def _words(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
