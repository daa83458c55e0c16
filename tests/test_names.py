"""What documents, dashboards and manifests name is there: metrics, settings, commands with their options, variables of
the environment, and targets of make."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from common.settings_file import fields_at, load
from control.settings.control_plane import Settings
from gateway.settings.root import GatewaySettings
from quotagate.main import app
from quotagate.observability import rules
from quotagate.observability.catalogue import BY_NAME, BY_SAMPLE
from quotagate.observability.watched import Watched

ROOT = Path(__file__).parent.parent
PACKAGES = ("common", "compiled", "control", "devstack", "gateway", "identity", "quota", "quotagate")
READ = (*PACKAGES, "bench", "config", "tests")
DECISIONS = ROOT / "docs" / "decisions"  # they say what was so on their day
TEXTS = ("*.md", "*.yaml", "*.yml", "*.json", "*.service", "*.conf", "*.tpl", "*.txt", "Caddyfile")
DOCUMENTS = sorted(
    file
    for place in (
        "README.md",
        "SECURITY.md",
        "ARCHITECTURE.md",
        "bench/README.md",
        "docs",
        "config",
        "deploy",
        "compose.yaml",
        "Dockerfile",
    )
    for file in ([ROOT / place] if (ROOT / place).is_file() else [f for t in TEXTS for f in (ROOT / place).rglob(t)])
    if DECISIONS not in file.parents
)
NO_METRICS = {
    "quotagate_app": "a role of PostgreSQL",
    "quotagate_owner": "a role of PostgreSQL",
    "quotagate_connection": "a variable of nginx",
    "quotagate_plan": "metadata at Stripe",
}
SIGNED = ("quotagate activate", "quotagate refresh", "quotagate release")
"""The first line of what a site signs (docs/activation.md)."""
METRIC = re.compile(r"(?<![$\w./-])quotagate_[a-z0-9_]*[a-z0-9]\b(?!\.[a-z])")
RECORDED = re.compile(r"\bquotagate:slo[a-z0-9_]*(?::[a-z0-9_]+)*")
VARIABLE = re.compile(r"\bQUOTAGATE_[A-Z0-9_]*[A-Z0-9]\b")
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
COMMAND = re.compile(r"(?:^|^[#$] |/bin/|&& |; |\| |\()quotagate((?:[ \t]+[^\s`|;&()#]+)+)")
DOTTED = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)(?:[:= \[].*)?")
FILES = (
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".lua",
    ".sql",
    ".json",
    ".html",
    ".css",
    ".js",
    ".toml",
    ".txt",
    ".lock",
    ".sh",
    ".conf",
)
MAKE = re.compile(r"(?:^|[`#$] ?)make ([a-z][a-z-]*)\b")


@cache
def text(file: Path) -> str:
    return file.read_text()


def code(file: Path) -> Iterator[str]:
    """What stands in a document as code: blocks by their lines, and words within a sentence."""
    if file.suffix != ".md":
        yield from text(file).splitlines()
        return
    prose = FENCED.sub("", text(file))
    yield from (line for block in FENCED.findall(text(file)) for line in block.replace("\\\n", " ").splitlines())
    yield from (" ".join(words.split()) for words in INLINE.findall(prose))


@cache
def metrics() -> frozenset[str]:
    return frozenset({*BY_NAME, *BY_SAMPLE, *NO_METRICS, *rules.recorded(load(None, "observability.yaml", Watched))})


def metric_faults(file: Path) -> list[str]:
    return [name for pattern in (METRIC, RECORDED) for name in pattern.findall(text(file)) if name not in metrics()]


def command_faults(line: str) -> Iterator[str]:
    """In words behind `quotagate`, of which each must be a command, an option of it, or its argument."""
    for match in COMMAND.finditer(line):
        words = match[1].split()
        if words[0].startswith(('"', "$")) or match[0].strip().startswith(SIGNED):
            continue
        command: Any = commands()
        path = ["quotagate"]
        while words and hasattr(command, "commands") and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            if words[0] not in command.commands:
                yield f"{' '.join([*path, words[0]])}: no such command"
                return
            path.append(words.pop(0))
            command = command.commands[path[-1]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            option = word.partition("=")[0].rstrip(".,:")
            if re.fullmatch(r"--[a-z][a-z-]+", option) and option not in {*known, "--help"}:
                yield f"{' '.join(path)} {option}: no such option"


@cache
def commands() -> Any:
    return typer.main.get_command(app)


@cache
def is_setting(dotted: str) -> bool | None:
    """None: it does not begin like one."""
    steps = tuple(dotted.split("."))
    models = [model for model in (GatewaySettings, Settings) if steps[0] in fields_at(model, ())]
    if not models or all(not fields_at(model, steps[:1]) for model in models):
        return None
    return any(steps[-1] in fields_at(model, steps[:-1]) for model in models)


def setting_faults(file: Path) -> Iterator[str]:
    for words in code(file):
        match = DOTTED.fullmatch(words)
        if match is not None and not match[1].endswith(FILES) and is_setting(match[1]) is False:
            yield match[1]


@cache
def sources() -> str:
    """Where a variable of the environment is read."""
    files = [file for place in READ for kind in ("*.py", "*.yaml") for file in (ROOT / place).rglob(kind)]
    files += [ROOT / "Makefile", ROOT / "hatch_build.py"]
    return "\n".join(file.read_text() for file in files if file != Path(__file__))


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))


def made(file: Path) -> Iterator[str]:
    """What a document says that make makes. In comments of other files, "make" is a word."""
    if file.suffix == ".md":
        yield from (name for line in code(file) for name in MAKE.findall(line))


def test_there_are_documents_to_look_at() -> None:
    assert len(DOCUMENTS) > 25


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_name_in_a_document_is_there(file: Path) -> None:
    faults = [f"{name}: no such metric" for name in metric_faults(file)]
    faults += [fault for line in code(file) for fault in command_faults(line)]
    faults += [f"{name}: no such setting" for name in setting_faults(file)]
    faults += [f"{name}: no code reads it" for name in VARIABLE.findall(text(file)) if name not in sources()]
    faults += [f"make {name}: no such target" for name in sorted(set(made(file)) - targets())]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quotagate usage archiv --dir x", ["quotagate usage archiv: no such command"]),
        ("$ quotagate doctor --gatway URL", ["quotagate doctor --gatway: no such option"]),
        ("/opt/quotagate/bin/quotagate config check --control-config /etc/x.yaml", []),
        ("quotagate audit verify --expect 1", []),
    ],
)
def test_a_command_or_an_option_that_does_not_exist_is_found(line: str, said: list[str]) -> None:
    assert list(command_faults(line)) == said


def test_a_setting_that_does_not_exist_is_found() -> None:
    assert is_setting("redis.budget_ms")
    assert is_setting("drain.stop_secs") is False
    assert is_setting("ejection.seconds_max") is None, "it is a part of another block"


def test_a_metric_that_does_not_exist_is_found(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("`quotagate_workers`, quotagate_take_seconds_bucket, quotagate_worker, urn:quotagate:problem:x")
    assert metric_faults(file) == ["quotagate_worker"]
