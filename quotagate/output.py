"""What commands print: lines for people, or JSON for programs (docs/commands.md)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import typer


def show(content: Mapping[str, Any], as_json: bool, *lines: str) -> None:
    """What a command came to: one JSON object, or lines."""
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        for line in lines:
            typer.echo(line)


def show_item(item: Mapping[str, Any], as_json: bool, line_of: Callable[[dict[str, Any]], str]) -> None:
    """One of a list: one JSON object, or its line."""
    typer.echo(json.dumps(item) if as_json else line_of(dict(item)))


def note(text: str, as_json: bool) -> None:
    """What is said about a result. Programs read it in the result."""
    if not as_json:
        typer.echo(text, err=True)
