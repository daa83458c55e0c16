"""A Redis Cluster of three primaries, and the control plane on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from control.app import opened
from control.http.context import Context
from control.settings.control_plane import Settings
from devstack import valkey_cluster
from devstack.valkey_cluster import ClusterNode
from tests.cluster import SETTINGS
from tests.control.plane import MovedClock


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    with valkey_cluster.running(tmp_path_factory.mktemp("cluster"), settings=SETTINGS) as started:
        yield started


@pytest.fixture
def redis_url(nodes: list[ClusterNode]) -> str:
    return valkey_cluster.url(nodes)


@pytest.fixture
async def cluster(redis_url: str) -> AsyncIterator[ClusterClient]:
    client = redis_connections.client(redis_url, socket_timeout=60)
    assert isinstance(client, ClusterClient)
    yield client
    await client.aclose()


@pytest.fixture
async def context(settings: Settings, clock: MovedClock) -> AsyncIterator[Context]:
    async with opened(settings, clock) as opened_context:
        await opened_context.recovery.round()
        yield opened_context
