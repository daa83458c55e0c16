"""A Dockerfile's instructions, and which files .dockerignore lets in: as far as ours use them, and no further."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KNOWN: Final = frozenset(
    {"FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
)


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the form that engines run without a shell."""
        words: list[str] = json.loads(self.text)
        return words


@dataclass(frozen=True)
class Stage:
    base: str
    name: str | None
    instructions: Sequence[Instruction]

    def last(self, name: str) -> Instruction:
        return next(each for each in reversed(self.instructions) if each.name == name)


def stages(file: Path) -> list[Stage]:
    """Raises ValueError for an instruction that this does not know, and so would leave out."""
    found: list[Stage] = []
    for instruction in _instructions(file.read_text()):
        if instruction.name not in KNOWN:
            raise ValueError(f"{file}: {instruction.name}")
        if instruction.name == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found.append(Stage(base, name or None, []))
        else:
            last = found[-1]
            found[-1] = Stage(last.base, last.name, [*last.instructions, instruction])
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield Instruction(name, rest.strip())


class Ignored:
    """Of several patterns that fit a path or a folder around it, the last one decides."""

    def __init__(self, file: Path) -> None:
        lines = [line.strip() for line in file.read_text().splitlines()]
        self._rules = [
            (re.compile(_pattern(line.removeprefix("!"))), not line.startswith("!"))
            for line in lines
            if line and not line.startswith("#")
        ]

    def __call__(self, path: str) -> bool:
        around = [path[: match.start()] for match in re.finditer("/", path)] + [path]
        ignored = False
        for pattern, ignores in self._rules:
            if any(pattern.fullmatch(each) for each in around):
                ignored = ignores
        return ignored


def _pattern(line: str) -> str:
    return "".join(
        {"**/": "(?:.*/)?", "*": "[^/]*"}.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*)", line)
    )
