"""Sentinels behind TLS, with certificates, a user and a password of their own, and servers behind TLS with others: both
planes find the primary, follow a failover, and give nothing away."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import quote, quote_plus

import pytest

from common import redis_connections
from devstack.sentinels import NAME
from quotagate.diagnosis.stores import Skews, of_redis
from tests import secured
from tests.authority import Authority
from tests.faults.running import CLIENTS, DEADLINE_SECONDS, Load, admitted_now, used, written
from tests.faults.secured import gateway, planes, told_by_all, told_by_control_and_doctor
from tests.gateway.address import Address, leading_to
from tests.gateway.rig import until
from tests.secured import Door, Watched

pytestmark = secured.NEEDED
ALLOWANCE = 80
MISMATCH = "certificate is not valid for '127.0.0.1'"
PASSWORD, OF_SENTINELS = "of@the:gate/ways", "of&the?watch#ers"  # to be quoted in a URL


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, authority: Authority, stranger: Authority) -> Iterator[Watched]:
    """Those who sign for the Sentinels are strangers to clients of the servers, and the other way round."""
    both = tmp_path_factory.mktemp("authorities") / "both.pem"
    both.write_bytes(authority.ca_file.read_bytes() + stranger.ca_file.read_bytes())
    door = Door("gate", PASSWORD, authority.issue("127.0.0.1"), both)
    watchers = Door("watcher", OF_SENTINELS, stranger.issue("127.0.0.1"), both)
    with secured.watched(tmp_path_factory.mktemp("sentinels"), door, watchers) as started:
        yield started


@dataclass(frozen=True)
class Given:
    """What the address of both planes is made of, each of which a test may replace."""

    of_servers: str
    of_sentinels: str
    credentials: str = f"gate:{quote(PASSWORD, safe='')}"

    def at(self, servers: Watched) -> str:
        return servers.url(self.credentials, f"{self.of_servers}&{self.of_sentinels}")


WATCHER = secured.options("sentinel_", username="watcher", password=OF_SENTINELS)


@pytest.fixture(scope="module")
def given(authority: Authority, stranger: Authority) -> Given:
    own, among_watchers = authority.issue("gateway.internal"), stranger.issue("gateway.internal")
    of_sentinels = secured.options("sentinel_", ssl_ca_certs=stranger.ca_file, ssl_certfile=among_watchers)
    of_servers = secured.options(ssl_ca_certs=authority.ca_file, ssl_certfile=own)
    return Given(of_servers, f"{WATCHER}&{of_sentinels}")


@pytest.fixture(scope="module")
def url(servers: Watched, given: Given) -> str:
    return given.at(servers)


async def test_who_is_not_let_in_by_sentinels_or_servers_behind_tls_is_told_why(
    servers: Watched, given: Given, authority: Authority, postgres_dsn: str, sample_upstream: str
) -> None:
    first = min(f"127.0.0.1:{port}" for port in servers.sentinels)
    none, closed = f"0 of 3 Sentinels name the primary {NAME}, and 2 must", "closed the connection at the first command"
    primary = f"127.0.0.1:{servers.primary()}"
    own_password = given.of_sentinels.replace(quote_plus(OF_SENTINELS), "wrong")
    trusting = secured.options(ssl_ca_certs=authority.ca_file)
    for changed, told in {
        replace(given, of_sentinels=own_password): f"{none} ({first}: invalid username-password pair",
        replace(given, of_sentinels=WATCHER): "certificate verify failed",  # by those who sign for the servers
        replace(given, of_servers=trusting): f"{primary} {closed}: it is not ready, or asks for a certificate",
    }.items():
        await told_by_control_and_doctor(changed.at(servers), postgres_dsn, told)
    wrong = replace(given, of_sentinels=own_password).at(servers)
    async with gateway(wrong, sample_upstream, start_seconds=0) as started:
        await until(lambda: any(none in str(each.get("reason")) for each in started.logs))
        await until(lambda: started.link.fault == "too few sentinels of redis answer")


async def test_a_primary_that_shows_the_certificate_of_somebody_else_is_not_spoken_to(
    url: str, servers: Watched, authority: Authority, postgres_dsn: str, sample_upstream: str
) -> None:
    other, door = authority.issue("server.internal"), servers.door
    with door.client(servers.primary()) as redis, secured.showing(redis, other, door.shown):
        await told_by_all(url, postgres_dsn, sample_upstream, MISMATCH)


@asynccontextmanager
async def with_an_impostor(servers: Watched, url: str, stranger: Authority) -> AsyncIterator[tuple[str, Address]]:
    """The address has somebody else in place of one Sentinel. The other two are enough to name the primary."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(stranger.issue("sentinel.internal"))
    first, *_ = servers.sentinels
    async with leading_to(first, context) as impostor:
        yield url.replace(f"127.0.0.1:{first}", f"127.0.0.1:{impostor.port}", 1), impostor


async def test_a_primary_behind_tls_that_is_killed_is_left_for_the_one_that_sentinels_name_who_are_who_they_say(
    url: str, servers: Watched, stranger: Authority, postgres_dsn: str, sample_upstream: str
) -> None:
    async with (
        with_an_impostor(servers, url, stranger) as (url, impostor),
        planes(url, postgres_dsn, sample_upstream) as stack,
    ):
        org = await stack.entitle(ALLOWANCE)
        load = Load(stack, org)

        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await asyncio.to_thread(servers.is_whole):  # noqa: ASYNC110 - servers ring no bell
                await asyncio.sleep(0.05)

        async def killed() -> None:
            secured.kill(servers.servers[servers.primary()])
            await load.admitted(load.answers[200] + 20)

        await load.run(20, killed)
        admitted = load.answers[200] + await admitted_now(stack, org)
        assert ALLOWANCE - CLIENTS <= admitted <= ALLOWANCE
        async with redis_connections.client(url, socket_timeout=DEADLINE_SECONDS) as redis:
            charged = await used(redis, org)
        assert admitted <= charged <= ALLOWANCE
        assert await written(stack, org, charged) == charged
        told = {"event": "a sentinel does not tell the primary", "sentinel": f"127.0.0.1:{impostor.port}"}
        logs = stack.started.logs
        await until(lambda: any(told.items() <= each.items() and MISMATCH in each["reason"] for each in logs))
        [found] = [each for each in await asyncio.to_thread(of_redis, url, Skews()) if each.what == "sentinels"]
        assert found.is_wrong
        assert MISMATCH in found.detail.partition(f"127.0.0.1:{impostor.port}: ")[2]
        assert impostor.sent == b""
