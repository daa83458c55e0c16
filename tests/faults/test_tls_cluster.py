"""A Redis Cluster that speaks TLS alone, within itself as well, asks each client for a certificate, and lets in one
user by a password: both planes work on it, and a primary that is killed gives nothing away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from urllib.parse import quote

import pytest

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from quota import keys
from quota.keys import SHARDS_DEFAULT
from tests import secured
from tests.authority import Authority
from tests.cluster import kill
from tests.faults.running import CLIENTS, DEADLINE_SECONDS, Load, admitted_now, used, written
from tests.faults.secured import (
    InLoop,
    gateway,
    planes,
    status_of,
    told_by_all,
    told_by_control_and_doctor,
)
from tests.secured import Door, SecuredNode

pytestmark = secured.NEEDED
ALLOWANCE = 60
PASSWORD = "of@the:gate/ways"  # to be quoted in a URL


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[list[SecuredNode]]:
    door = Door("gate", PASSWORD, authority.issue("127.0.0.1"), authority.ca_file)
    with secured.cluster(tmp_path_factory.mktemp("cluster"), door) as started:
        yield started


@pytest.fixture(scope="module")
def url(nodes: list[SecuredNode], authority: Authority) -> str:
    own = authority.issue("gateway.internal")
    given = secured.options(ssl_ca_certs=authority.ca_file, ssl_certfile=own)
    return secured.cluster_url(nodes[:3], f"gate:{quote(PASSWORD, safe='')}", given)


@pytest.fixture
async def client(url: str) -> AsyncIterator[ClusterClient]:
    async with redis_connections.client(url, socket_timeout=DEADLINE_SECONDS) as made:
        assert isinstance(made, ClusterClient)
        yield made


async def owner(client: ClusterClient, org: str) -> Address | None:
    return (await client.ask_topology()).owner(slot_of(keys.org_key(org, SHARDS_DEFAULT)))


async def one_of_each(stack: InLoop, client: ClusterClient, allowance: int) -> dict[int, str]:
    """An organization of each primary, by its port."""
    orgs = dict[int, str]()
    while len(orgs) < 3:
        org = await stack.entitle(allowance)
        at = await owner(client, org)
        assert at is not None
        orgs.setdefault(at.port, org)
    return orgs


async def test_a_cluster_behind_tls_with_a_user_of_its_own_is_served_to_the_last_unit_and_each_is_written(
    url: str, client: ClusterClient, postgres_dsn: str, sample_upstream: str
) -> None:
    async with planes(url, postgres_dsn, sample_upstream) as stack:
        for org in (await one_of_each(stack, client, ALLOWANCE)).values():
            load = Load(stack, org)
            await load.run(0, lambda: asyncio.sleep(0))
            assert (load.answers[200], load.answers[503]) == (ALLOWANCE, 0)
            assert await written(stack, org, ALLOWANCE) == ALLOWANCE


async def test_who_is_not_let_in_by_a_cluster_behind_tls_is_told_why(
    nodes: list[SecuredNode], authority: Authority, stranger: Authority, postgres_dsn: str, sample_upstream: str
) -> None:
    first, own = nodes[0].address, authority.issue("gateway.internal")
    of = partial(secured.cluster_url, nodes[:3])
    believed, credentials = {"ssl_ca_certs": authority.ca_file}, f"gate:{quote(PASSWORD, safe='')}"
    closed = f"{first} closed the connection at the first command: it is not ready, or"
    shown = secured.options(**believed, ssl_certfile=own)
    for url, told in {
        of("gate:wrong", shown): f"{first} does not let the user gate in",
        of(credentials, secured.options(**believed)): f"{closed} asks for a certificate (ssl_certfile)",
        of(credentials, secured.options(ssl_certfile=own, ssl_ca_certs=stranger.ca_file)): "certificate verify failed",
        of(credentials, "").replace("rediss+", "redis+"): f"{closed} speaks TLS alone (rediss://)",
    }.items():
        await told_by_all(url, postgres_dsn, sample_upstream, told)


async def test_a_server_of_a_cluster_that_shows_the_certificate_of_somebody_else_is_not_spoken_to(
    url: str,
    client: ClusterClient,
    nodes: list[SecuredNode],
    authority: Authority,
    postgres_dsn: str,
    sample_upstream: str,
) -> None:
    """Its authority is believed, and the others of the Cluster believe it. Only its name is another one."""
    async with planes(url, postgres_dsn, sample_upstream) as stack:
        orgs = await one_of_each(stack, client, ALLOWANCE)
    mismatch = "certificate is not valid for '127.0.0.1'"
    with nodes[1].redis as redis, secured.showing(redis, authority.issue("node.internal"), nodes[1].opened.shown):
        await told_by_control_and_doctor(url, postgres_dsn, mismatch)
        async with gateway(url, sample_upstream, start_seconds=0) as started:
            theirs = orgs.pop(nodes[1].port)
            async with asyncio.timeout(DEADLINE_SECONDS):
                for org in orgs.values():
                    while await status_of(started, org) != 200:  # noqa: ASYNC110 - it dials on its own
                        await asyncio.sleep(0.01)
            assert await status_of(started, theirs) == 503
            assert nodes[1].address in {
                entry["server"] for entry in started.logs if mismatch in str(entry.get("reason")) and "server" in entry
            }


async def test_a_server_of_a_cluster_with_another_password_is_told_by_its_address(
    url: str, nodes: list[SecuredNode], postgres_dsn: str
) -> None:
    with nodes[1].redis as redis:
        redis.execute_command("ACL SETUSER", "gate", "resetpass", ">other")
        try:
            await told_by_control_and_doctor(url, postgres_dsn, f"{nodes[1].address} does not let the user gate in")
        finally:
            redis.execute_command("ACL SETUSER", "gate", "resetpass", f">{PASSWORD}")


async def test_a_primary_behind_tls_that_is_killed_is_left_for_its_replica_and_nothing_is_given_away(
    url: str, client: ClusterClient, nodes: list[SecuredNode], postgres_dsn: str, sample_upstream: str
) -> None:
    async with planes(url, postgres_dsn, sample_upstream) as stack:
        org = (await one_of_each(stack, client, 200))[nodes[0].port]
        load = Load(stack, org)

        async def killed() -> None:
            kill(nodes[0])
            await load.admitted(load.answers[200] + 50)

        await load.run(50, killed)
        assert await owner(client, org) == Address("127.0.0.1", nodes[3].port)
        admitted = load.answers[200] + await admitted_now(stack, org)
        assert 200 - CLIENTS <= admitted <= 200
        charged = await used(client, org)
        assert admitted <= charged <= 200
        assert await written(stack, org, charged) == charged
