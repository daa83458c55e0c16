"""`quotagate commands`: the command line's reference, made of the commands themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.failure import CODES, CommandFailed

HEAD = """# Commands

Made by `quotagate commands docs/commands.md` of the commands themselves.

| exit code | |
|---|---|
| 0 | It is done; of a command that looks at something: all is well, or nothing differs. |
| 1 | It failed, or what it looked at is not well. The reason is on stderr. |
| 2 | An option or an argument is wrong, or a variable of the environment that stands for one is missing; or a file of \
settings or of configuration is wrong or lacks something. Nothing was done. Of `quotagate audit verify`: nothing \
was checked, whatever the reason. Of `quotagate control`: a store is away or is another installation's, or a signing \
key does not open. |
| 3 | Of `quotagate diff`, and of `quotagate apply` with `--dry-run`: something differs. |
| 130 | It was interrupted (Ctrl-C). |

Data is on stdout; what is said about it, and the progress of long work (on a terminal only), on stderr.

How things are written is the same everywhere: a duration is `90s`, `30m`, `12h` or `7d` (`36500d` at most), a day
`2026-12-31`, of which the last second is meant (UTC), a time `2027-01-01T00:00:00Z`. An option that says “Repeatable.”
is given once for each value, and `--org` is only about one organization what would be about all.

## With --json

Each command that comes to something has `--json`. On stdout then is a list as one JSON object a line, as it becomes
known, and anything else as one JSON object. What comes from the control API has the members that
[openapi.json](openapi.json) gives it. There is no question, no bar and no remark.

A failure is one JSON object on stderr, beside the exit code: `{"error": {"code": "refused", "message": "…"}}`. The text
is for people and may change; the code stays as it is.

| code | |
|---|---|
"""
COMPLETION = """
## Completion in the shell

`quotagate --install-completion` adds completion of commands, options and their words to the shell that it is called
from: bash, zsh, fish or PowerShell; a new shell has it. For all users, the script that it would add is printed:

```console
# _QUOTAGATE_COMPLETE=source_bash quotagate > /etc/bash_completion.d/quotagate
# _QUOTAGATE_COMPLETE=source_zsh quotagate > /usr/local/share/zsh/site-functions/_quotagate
# _QUOTAGATE_COMPLETE=source_fish quotagate > /etc/fish/completions/quotagate.fish
```

"""


def commands(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where it is written to.  [default: stdout]")
    ] = None,
) -> None:
    """Write the reference of all commands and their options, as Markdown."""
    from common.durable_files import replace_text

    text = reference(ctx.find_root())
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        replace_text(file, text)
    except OSError as e:
        raise CommandFailed(f"{file} cannot be written: {e.strerror}") from e


def reference(ctx: Any) -> str:  # Any: typer brings its own copy of click
    codes = "".join(f"| `{code}` | {about} |\n" for code, about in CODES.items())
    return HEAD + codes + COMPLETION + "".join(_leaves("quotagate", ctx.command, ctx)).removeprefix("\n")


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
    records = [(each, record) for each in command.params if (record := each.get_help_record(ctx)) is not None]
    if records:
        lines += ["\n| | |\n|---|---|\n"]
        for each, (name, about) in records:
            # Of an argument, typer shows its type in Python, too.
            shown = name.partition(" <")[0] if each.param_type_name == "argument" else name
            lines.append(f"| `{_words(shown)}` | {_words(about)} |\n")
    return "".join(lines)


def _words(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
