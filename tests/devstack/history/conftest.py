"""A short demo history, played twice."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from devstack import demo, postgres
from devstack.demo_history import PLANS
from devstack.history.build import build
from tests.devstack.history.played import EXTENT, Played


@pytest.fixture(scope="session")
def play(
    postgres_server: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Played]]:
    """The same history, twice."""
    played = []
    for _ in range(2):
        name = f"history_{uuid4().hex[:12]}"
        postgres.execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
        dsn, file = f"{postgres_server.rpartition('/')[0]}/{name}", tmp_path_factory.mktemp(name) / "stripe.json"
        told = asyncio.run(build(dsn, file, EXTENT, None, demo.PLANS, PLANS))
        played.append(Played(dsn, file, told))
    yield played
    for each in played:
        postgres.execute(postgres_server, f"DROP DATABASE {each.dsn.rpartition('/')[2]} WITH (FORCE)")


@pytest.fixture
def history(play: list[Played]) -> Played:
    return play[0]
