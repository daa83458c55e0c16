"""`quotagate openapi`: the description of the control API, for programs and for generators of clients."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quotagate.failure import CommandFailed


def openapi(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where it is written to.  [default: stdout]")
    ] = None,
) -> None:
    """Write the control API's OpenAPI document. A file that is there is replaced only if clients that were written for
    it go on working, or if the API's version says that they do not."""
    from common.durable_files import replace_text
    from control.openapi import document
    from quotagate.compatibility import breaks, is_same_major

    content = document()
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError) as e:
        raise CommandFailed(f"{file} cannot be read: {e}") from e
    if before is not None and is_same_major(before, content) and (broken := list(breaks(before, content))):
        what = "\n  ".join(broken)
        raise CommandFailed(f"clients would break, so the API needs a new major version:\n  {what}")
    try:
        replace_text(file, text)
    except OSError as e:
        raise CommandFailed(f"{file} cannot be written: {e.strerror}") from e
    typer.echo(f"{file}: version {content['info']['version']}, {len(content['paths'])} paths")
