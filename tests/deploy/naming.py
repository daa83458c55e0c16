"""What manifests name of ours: commands with their options, variables, settings. Each must exist."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import typer.main
import yaml

from common.settings_file import SettingsError, parse
from quotagate.config import SettingsKind, model
from quotagate.main import app

ROOT: Final = Path(__file__).parent.parent.parent
REFERENCE: Final = re.compile(r"\$\{([A-Z0-9_]+)(?:(:-)[^}]*)?\}")
VARIABLE: Final = re.compile(r"\bQUOTAGATE_[A-Z0-9_]+\b")
MADE_UP: Final = "a-value-of-at-least-32-bytes-for-tests"
VALUES: Final = {
    "QUOTAGATE_REDIS_URL": "redis://redis:6379/0",
    "QUOTAGATE_POSTGRES_DSN": "postgresql://quotagate@postgres/quotagate",
}


def command_faults(words: list[str]) -> Iterator[str]:
    """`words`: what follows `quotagate`."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and not rest[0].startswith("-") and (commands := getattr(command, "commands", None)) is not None:
        name = rest.pop(0)
        if name not in commands:
            yield f"no command is called {name}"
            return
        command = commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    yield from (
        f"{command.name} has no option {word}"
        for word in (word.partition("=")[0] for word in rest if word.startswith("-"))
        if word not in {*options, "--help"}
    )


def setting_faults(name: str, text: str) -> Iterator[str]:
    """`name`: gateway.yaml, control.yaml or plans.yaml. Variables have made-up values."""
    environment = {each: VALUES.get(each, MADE_UP) for each in references(text)}
    try:
        parse(name, text, model(SettingsKind(name.removesuffix(".yaml"))), environment)
    except SettingsError as e:
        yield str(e)


def references(text: str) -> set[str]:
    """Variables that settings read, without those that have a default."""
    written = "\n".join(line.partition(" #")[0] for line in text.splitlines())
    return {match[1] for match in REFERENCE.finditer(written) if match[2] is None}


@cache
def variables() -> frozenset[str]:
    """That anything of ours reads."""
    packages = ("common", "compiled", "config", "control", "gateway", "quotagate")
    files = [file for package in packages for file in (ROOT / package).rglob("*") if file.suffix in (".py", ".yaml")]
    return frozenset(name for file in [*files, ROOT / "hatch_build.py"] for name in VARIABLE.findall(file.read_text()))


def documents(file: Path) -> list[Mapping[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]
