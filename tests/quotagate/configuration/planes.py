"""Control planes that the command line speaks to, each with stores of its own."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from typer.testing import CliRunner, Result

from control.settings.control_plane import Settings
from devstack import postgres
from devstack import valkey as valkey_wheel
from quotagate.main import app
from tests.control.plane import ADMIN_TOKEN, packaged_plans
from tests.control.running import started

SEEN_SECONDS = 60


@dataclass(frozen=True)
class Plane:
    client: httpx.Client

    def run(self, *arguments: str | Path, token: str = ADMIN_TOKEN) -> Result:
        where = ["--control-url", str(self.client.base_url)]
        environment = {"QUOTAGATE_ADMIN_TOKEN": token}
        return CliRunner().invoke(app, [*map(str, arguments), *where], env=environment)

    def done(self, *arguments: str | Path) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        answer = self.client.request(method, path, json=content)
        assert answer.is_success, (method, path, answer.text)
        return answer.json() if answer.content else None

    def export(self, orgs: int) -> Any:
        """What is exported as soon as it has so many organizations: lists are a moment behind."""
        deadline = time.monotonic() + SEEN_SECONDS
        while len(content := json.loads(self.done("export", "--json"))["organizations"]) != orgs:
            assert time.monotonic() < deadline, content.keys()
            time.sleep(0.1)
        return json.loads(self.done("export", "--json"))


def catalogue() -> dict[str, Any]:
    return {code: terms.model_dump(mode="json") for code, terms in packaged_plans().items()}


@contextmanager
def opened(server: str, template: str, login: str, directory: Path) -> Iterator[Plane]:
    """An empty one: a database of its own, and a Redis of its own."""
    name = f"test_{uuid4().hex[:12]}"
    postgres.execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    dsn = f"postgresql://{login}@{server.partition('@')[2].rpartition('/')[0]}/{name}"
    with valkey_wheel.running(directory / name) as redis_url:
        settings = Settings.model_validate(
            {
                "postgres": {"dsn": dsn},
                "redis": {"url": redis_url},
                "admin_token": ADMIN_TOKEN,
                "auth": {"algorithms": ["HS256"], "secret": "0" * 40, "issuer": "i"},
            }
        )
        with started(settings, directory / f"{name}.log") as (_, client):
            yield Plane(client)
    postgres.execute(server, f"DROP DATABASE {name} WITH (FORCE)")
