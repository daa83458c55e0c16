"""The command line's reference is kept, and whatever it prints can be read by programs."""

from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from quotagate.main import app

KEPT = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_kept_reference_is_that_of_this_version() -> None:
    written = CliRunner().invoke(app, ["commands"]).stdout
    assert written == KEPT.read_text(encoding="utf-8"), "run `quotagate commands docs/commands.md`"


def test_every_command_has_help_and_so_has_each_of_its_options() -> None:
    bare: list[str] = []

    def look(path: str, command: Any) -> None:
        if not command.help:
            bare.append(path)
        for name, inner in getattr(command, "commands", {}).items():
            look(f"{path} {name}", inner)
        bare.extend(
            f"{path} {each.name}"
            for each in command.params
            if each.param_type_name == "option" and not each.hidden and not each.help
        )

    look("quotagate", typer.main.get_command(app))
    assert bare == []


def test_completion_can_be_installed() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "--install-completion" in shown
