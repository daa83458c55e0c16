"""Who calls in a load test, and where: a file that each process of it reads, since they are on several machines."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

ZIPF_EXPONENT = 1.1  # of the organizations' shares: the first of 100 sends a quarter of all requests, the last 1/600


class CallersUnreadable(Exception):
    """What is wrong with the file of callers, in one line."""


@dataclass(frozen=True, slots=True)
class Caller:
    org: str
    credential: str
    """A token or an API key."""


@dataclass(frozen=True, slots=True)
class Paths:
    """What is called. None: there is no such thing behind this gateway."""

    calls: tuple[str, ...] = ("/anything/v1/things", "/anything/v1/projects")
    stream: str | None = "/sse?count=20&interval_ms=50"
    upload: str | None = "/anything/upload"
    websocket: str | None = "/ws"


@dataclass(frozen=True, slots=True)
class Callers:
    gateway: str
    ordinary: tuple[Caller, ...]
    """With units for any run, the busiest one first."""
    exhausted: tuple[Caller, ...] = ()
    """With `allowance` units each, which they soon have used up."""
    allowance: int = 0
    changing: Caller | None = None
    """Whose entitlement is changed while it is used."""
    plan: str = ""
    """The plan of those that were made for load tests."""
    control: str | None = None
    admin_token: str | None = None
    upstream: str | None = None
    """The sample upstream, which counts what reaches it."""
    metrics: str | None = None
    paths: Paths = field(default_factory=Paths)

    def write(self, file: Path) -> None:
        """For its owner only: it holds credentials."""
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            json.dump(asdict(self), opened, indent=1)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises CallersUnreadable."""
        content = _json_of(file)
        try:
            fields: dict[str, Any] = dict(content)
            paths = fields.pop("paths")
            fields["paths"] = Paths(**{**paths, "calls": tuple(paths["calls"])})
            for name in ("ordinary", "exhausted"):
                fields[name] = tuple(Caller(**each) for each in fields[name])
            fields["changing"] = Caller(**fields["changing"]) if fields["changing"] else None
            return cls(**fields)
        except (TypeError, KeyError, ValueError) as e:
            raise CallersUnreadable(f"{file} was not written by `python -m bench.loadtest --prepare`: {e}") from e


def from_tokens(file: Path, gateway: str, paths: Paths) -> Callers:
    """Of a gateway that we cannot administer: one token or API key a line, the busiest caller's first. Before it there
    may be the organization's name. Empty lines and those that begin with # are left out. Raises CallersUnreadable."""
    if urlsplit(gateway).scheme not in {"http", "https"}:
        raise CallersUnreadable(f"--host: {gateway!r} is no http:// or https:// address")
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise CallersUnreadable(f"{file} cannot be read: {e}") from e
    callers = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2 or not words[-1].isascii():
            raise CallersUnreadable(f"{file}:{number}: a line is a token or an API key, and before it at most one name")
        callers.append(Caller(words[0] if len(words) == 2 else f"caller-{number}", words[-1]))
    if not callers:
        raise CallersUnreadable(f"{file} has neither a token nor an API key in it")
    return Callers(gateway.rstrip("/"), tuple(callers), paths=paths)


def read_ready(file: Path) -> dict[str, Any]:
    """What `quotagate up` has written about itself. Raises CallersUnreadable."""
    content = _json_of(file)
    if missing := [name for name in ("gateway", "control", "admin_token") if not isinstance(content.get(name), str)]:
        raise CallersUnreadable(f"{file} is no ready.json of `quotagate up`: it has no {missing[0]}")
    return content


def zipf_shares(count: int, exponent: float = ZIPF_EXPONENT) -> list[float]:
    """Of each rank, the busiest first; their sum is 1."""
    weights = [rank**-exponent for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


class Crowd:
    """Chooses callers by Zipf's law: few organizations send most of the requests, and many send some."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = callers
        self._until = list(accumulate(zipf_shares(len(callers))))

    def any(self) -> Caller:
        return random.choices(self._callers, cum_weights=self._until)[0]  # noqa: S311 - traffic is no secret


def _json_of(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as e:
        raise CallersUnreadable(f"{file} cannot be read: {e}") from e
    if not isinstance(content, dict):
        raise CallersUnreadable(f"{file} holds no JSON object")
    return content
