"""The command line's reference is kept, and whatever it prints can be read by programs."""

import re
from pathlib import Path
from typing import Any

import pytest
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


def test_options_and_arguments_say_what_they_take_in_words() -> None:
    shown = KEPT.read_text(encoding="utf-8")
    found = re.findall(r"`([^`]*) <(?:str|int|float|path|list|%)[^`]*`", shown)
    assert set(found) == set()


@pytest.mark.parametrize(
    ("shell", "environment"),
    [
        ("bash", {"COMP_WORDS": "quotagate org l", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "quotagate org l"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "quotagate org l", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_a_shell_completes_commands(shell: str, environment: dict[str, str]) -> None:
    asked = {**environment, "_QUOTAGATE_COMPLETE": f"complete_{shell}"}
    result = CliRunner().invoke(app, [], env=asked, prog_name="quotagate")
    assert "list" in result.stdout
    assert "show" not in result.stdout
