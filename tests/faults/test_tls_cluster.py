"""A Redis Cluster that speaks TLS alone, within itself as well, asks each client for a certificate, and lets in one
user by a password: both planes work on it, and a primary that is killed gives nothing away."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from urllib.parse import quote
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from common.redis_keeping import refuse_losses
from quota import keys
from quota.keys import SHARDS_DEFAULT
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods
from quotagate.diagnosis.stores import Skews, of_redis
from tests import secured
from tests.authority import Authority
from tests.cluster import kill
from tests.faults.running import DEADLINE_SECONDS, Load, admitted_now, used, written
from tests.faults.secured import (
    gateway,
    planes,
    status_of,
    told_by_all,
    told_by_control_and_doctor,
)
from tests.secured import Door, SecuredNode

pytestmark = secured.NEEDED
PRIMARIES, ALLOWANCE, CLIENTS = 3, 80, 4
PASSWORD = "of@the:gate/ways"  # to be quoted in a URL


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[list[SecuredNode]]:
    door = Door("gate", PASSWORD, authority.issue("127.0.0.1"), authority.ca_file)
    with secured.cluster(tmp_path_factory.mktemp("cluster"), door, PRIMARIES) as started:
        yield started


@pytest.fixture(scope="module")
def url(nodes: list[SecuredNode], authority: Authority) -> str:
    own = authority.issue("gateway.internal")
    given = secured.options(ssl_ca_certs=authority.ca_file, ssl_certfile=own)
    return secured.cluster_url(nodes[:PRIMARIES], f"gate:{quote(PASSWORD, safe='')}", given)


@pytest.fixture
async def client(url: str) -> AsyncIterator[ClusterClient]:
    async with redis_connections.client(url, socket_timeout=DEADLINE_SECONDS) as made:
        assert isinstance(made, ClusterClient)
        yield made


async def owner(client: ClusterClient, org: str) -> Address | None:
    return (await client.ask_topology()).owner(slot_of(keys.org_key(org, SHARDS_DEFAULT)))


async def one_of_each(client: ClusterClient, make: Callable[[], Awaitable[str]]) -> dict[int, str]:
    """An organization of each primary, by its port."""
    orgs = dict[int, str]()
    while len(orgs) < PRIMARIES:
        org = await make()
        at = await owner(client, org)
        assert at is not None
        orgs.setdefault(at.port, org)
    return orgs


async def test_who_is_not_let_in_by_a_cluster_behind_tls_is_told_why(
    nodes: list[SecuredNode], authority: Authority, postgres_dsn: str, sample_upstream: str
) -> None:
    first, own = nodes[0].address, authority.issue("gateway.internal")
    of = partial(secured.cluster_url, nodes[:PRIMARIES])
    believed, credentials = {"ssl_ca_certs": authority.ca_file}, f"gate:{quote(PASSWORD, safe='')}"
    closed = f"{first} closed the connection at the first command: it is not ready, or"
    shown = secured.options(**believed, ssl_certfile=own)
    for url, told in {
        of("gate:wrong", shown): f"{first} does not let the user gate in",
        of(credentials, secured.options(**believed)): f"{closed} asks for a certificate (ssl_certfile)",
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

    async def published() -> str:
        meters, periods = (MeterLimit("api_calls", 10),), monthly_periods(CALENDAR_ANCHOR, time.time())
        org = f"org-{uuid4().hex[:12]}"
        await Ledger(client).publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=periods))
        return org

    orgs = await one_of_each(client, published)
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
    url: str, client: ClusterClient, nodes: list[SecuredNode]
) -> None:
    """It does not hold what each start asks for, so that the others go on without it."""
    one, told = nodes[2], "does not let the user gate in"
    assert (await client.ask_topology()).owner(slot_of(keys.LAYOUT)) != Address("127.0.0.1", one.port)
    with one.redis as redis, capture_logs() as logs:
        redis.execute_command("ACL SETUSER", "gate", "resetpass", ">other")
        try:
            async with redis_connections.client(url) as starting:
                await refuse_losses(starting, "required")
            found = {each.what: each for each in await asyncio.to_thread(of_redis, url, Skews())}
        finally:
            redis.execute_command("ACL SETUSER", "gate", "resetpass", f">{PASSWORD}")
    assert told in {entry["server"]: entry["reason"] for entry in logs if "server" in entry}[one.address]
    assert found["redis servers"].is_wrong
    assert f"{one.address}: {told}" in found["redis servers"].detail


async def test_a_cluster_behind_tls_is_served_to_the_last_unit_and_written_though_a_primary_is_killed(
    url: str, client: ClusterClient, nodes: list[SecuredNode], postgres_dsn: str, sample_upstream: str
) -> None:
    async with planes(url, postgres_dsn, sample_upstream) as stack:
        orgs = await one_of_each(client, partial(stack.entitle, ALLOWANCE))
        loads = {port: Load(stack, org, clients=CLIENTS) for port, org in orgs.items()}
        hit = loads.pop(nodes[0].port)

        async def killed() -> None:
            kill(nodes[0])
            await hit.admitted(hit.answers[200] + 20)

        await asyncio.gather(hit.run(20, killed), *(load.run(0, lambda: asyncio.sleep(0)) for load in loads.values()))
        org = orgs.pop(nodes[0].port)
        assert await owner(client, org) == Address("127.0.0.1", nodes[PRIMARIES].port), "its replica"
        assert [(load.answers[200], load.answers[503]) for load in loads.values()] == [(ALLOWANCE, 0)] * len(loads)
        admitted = hit.answers[200] + await admitted_now(stack, org)
        assert ALLOWANCE - CLIENTS <= admitted <= ALLOWANCE
        charged = await used(client, org)
        assert admitted <= charged <= ALLOWANCE
        assert await written(stack, org, charged) == charged
        for other in orgs.values():
            assert await written(stack, other, ALLOWANCE) == ALLOWANCE
