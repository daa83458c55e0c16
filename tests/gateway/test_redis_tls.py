"""Redis behind TLS: the options of its URL mean for both planes what they mean for redis-py. TLS ends in the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common import certificates, redis_connections, redis_tls
from tests.authority import Authority
from tests.gateway.address import Address, leading_to
from tests.gateway.rig import Organization, StartGateway, Until
from tests.gateway.store import Store

PATIENCE_SECONDS = 60
NOT_TRIED = "not connected yet"  # what a link says that has dialed nobody


@pytest.fixture
async def running(store: Store) -> AsyncIterator[Redis]:
    store.start()
    async with Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture
def acme(running: Redis, acme: Organization) -> Organization:
    acme._redis = acme.ledger.redis = running
    return acme


@pytest.fixture
def start(running: Redis, start: StartGateway) -> StartGateway:
    """Gateways end before the store does."""
    return start


@asynccontextmanager
async def secured(store: Store, authority: Authority, name: str = "127.0.0.1", *, mutual: bool) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(name))
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
    async with leading_to(store.port, context) as address:
        yield url_of(address)


def url_of(address: Address) -> str:
    return f"rediss://127.0.0.1:{address.port}/0"


async def answers(url: str) -> bool:
    """Whether the control plane's connections are made."""
    async with redis_connections.client(url, socket_timeout=30, socket_connect_timeout=30) as client:
        try:
            return bool(await client.ping())
        except (OSError, RedisError):
            return False


async def test_a_redis_that_asks_for_a_clients_certificate_is_used_with_the_one_of_its_url(
    start: StartGateway,
    acme: Organization,
    store: Store,
    authority: Authority,
    until: Until,
    intervals: dict[str, Any],
) -> None:
    await acme.publish(100)
    own = authority.issue("gateway.internal")
    async with secured(store, authority, mutual=True) as url:
        trusting = f"{url}?ssl_ca_certs={authority.ca_file}"
        for with_key in ("", f"&ssl_keyfile={own}"):
            believed = f"{trusting}&ssl_certfile={own}{with_key}"
            gateway = await start(redis={"url": believed})
            assert (await gateway.get("/", acme)).status == 200
            assert await answers(believed)
        intervals["start_seconds"] = 0
        gateway = await start(redis={"url": trusting})
        await until(lambda: gateway.worker.link.down_reason != NOT_TRIED)
        assert (await gateway.get("/", acme)).status == 503
        assert not await answers(trusting)


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ("ssl_ca_certs={ca}", False),  # for its name
        ("ssl_ca_certs={ca}&ssl_check_hostname=true", False),
        ("ssl_ca_certs={ca}&ssl_check_hostname=false", True),
        ("ssl_ca_certs={ca}&ssl_check_hostname=false&ssl_min_version=772", True),
        ("ssl_ca_certs={other}&ssl_check_hostname=false", False),
        ("ssl_cert_reqs=required", False),
        ("ssl_cert_reqs=none", True),
        ("", False),
    ],
)
async def test_a_redis_is_believed_as_the_options_of_its_url_say(
    start: StartGateway,
    acme: Organization,
    store: Store,
    authority: Authority,
    stranger: Authority,
    until: Until,
    intervals: dict[str, Any],
    options: str,
    used: bool,
) -> None:
    if not used:
        intervals["start_seconds"] = 0
    await acme.publish(100)
    async with secured(store, authority, "redis.internal", mutual=False) as url:
        url = f"{url}?{options.format(ca=authority.ca_file, other=stranger.ca_file)}"
        gateway = await start(redis={"url": url})
        await until(lambda: used or gateway.worker.link.down_reason != NOT_TRIED)
        assert (await gateway.get("/", acme)).status == (200 if used else 503)
        assert await answers(url) is used


async def refusal(url: str) -> str:
    """Why the control plane's connections are not made."""
    async with redis_connections.client(url, socket_timeout=30, socket_connect_timeout=1) as client:
        with pytest.raises(RedisError) as refused:
            await client.ping()
    return str(refused.value)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (None, "speaks TLS alone (rediss://)"),
        ("?ssl_ca_certs={ca}", "asks for a certificate (ssl_certfile)"),
        ("?ssl_ca_certs={ca}&ssl_certfile={other}", "does not believe the certificate of ssl_certfile"),
    ],
)
async def test_a_server_that_closes_a_connection_at_the_first_command_is_told_with_what_it_may_want(
    start: StartGateway,
    store: Store,
    authority: Authority,
    stranger: Authority,
    until: Until,
    intervals: dict[str, Any],
    options: str | None,
    wanted: str,
) -> None:
    intervals["start_seconds"] = 0
    told = f"closed the connection at the first command: it is not ready, or {wanted}"
    async with secured(store, authority, mutual=True) as url:
        if options is None:
            url = url.replace("rediss://", "redis://")
        else:
            url += options.format(ca=authority.ca_file, other=stranger.issue("gateway.internal"))
        server = urlsplit(url).netloc
        gateway = await start(redis={"url": url})
        await until(lambda: gateway.worker.link.down_reason == f"Redis {told}")
        assert {entry["server"] for entry in gateway.logs if entry["event"] == "redis is away"} == {server}
        assert await refusal(url) == f"{server} {told}"


async def test_tls_that_is_asked_of_a_port_without_is_told_by_both_planes(
    start: StartGateway, running: Redis, store: Store, authority: Authority, until: Until, intervals: dict[str, Any]
) -> None:
    intervals["start_seconds"] = 0
    url = f"rediss://127.0.0.1:{store.port}?ssl_ca_certs={authority.ca_file}"
    gateway = await start(redis={"url": url})
    assert redis_tls.NO_HANDSHAKE in await refusal(url)
    await until(lambda: gateway.worker.link.down_reason == redis_tls.NO_HANDSHAKE)


async def test_a_certificate_that_was_replaced_is_used_by_the_next_connection(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    authority: Authority,
    stranger: Authority,
    until: Until,
    intervals: dict[str, Any],
) -> None:
    await acme.publish(100)
    own = authority.issue("replaced.internal")
    good = own.read_bytes()
    own.write_bytes(stranger.issue("replaced.internal").read_bytes())
    async with secured(store, authority, mutual=True) as url:
        url = f"{url}?ssl_ca_certs={authority.ca_file}&ssl_certfile={own}"
        intervals["start_seconds"] = 0
        gateway = await start(redis={"url": url})
        await until(lambda: gateway.worker.link.down_reason != NOT_TRIED)
        assert (await gateway.get("/", acme)).status == 503
        own.write_bytes(good)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await gateway.get("/", acme)).status != 200:  # noqa: ASYNC110 - it dials on its own
                await asyncio.sleep(0.01)


@pytest.fixture
def looked_at_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0)


async def test_connections_that_a_client_keeps_are_made_again_with_the_certificate_that_is_there_by_then(
    running: Redis, store: Store, authority: Authority, stranger: Authority, looked_at_each_dial: None
) -> None:
    own = authority.issue("kept.internal")
    good = own.read_bytes()
    own.write_bytes(stranger.issue("kept.internal").read_bytes())
    async with secured(store, authority, mutual=True) as url:
        url = f"{url}?ssl_ca_certs={authority.ca_file}&ssl_certfile={own}"
        async with redis_connections.client(
            url, socket_timeout=30, socket_connect_timeout=30, max_connections=1
        ) as client:
            with pytest.raises((OSError, RedisError)):
                await client.ping()
            own.write_bytes(good)
            assert await client.ping()
            for broken in (b"junk", None):
                own.unlink() if broken is None else own.write_bytes(broken)
                await client.connection_pool.disconnect()
                assert await client.ping(), "with the one before"


def refused(logs: list[Any]) -> bool:
    return any(entry["event"].startswith("certificates not") for entry in logs)


async def test_a_certificate_that_is_half_written_leaves_the_one_before_to_the_hot_path(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    authority: Authority,
    looked_at_each_dial: None,
) -> None:
    await acme.publish(100)
    own = authority.issue("half.internal")
    async with secured(store, authority, mutual=True) as url:
        url = f"{url}?ssl_ca_certs={authority.ca_file}&ssl_certfile={own}"
        gateway = await start(redis={"url": url})
        gateway.expected_errors.add("certificates not read again, those before serve on")
        assert (await gateway.get("/", acme)).status == 200
        for broken in (own.read_bytes()[:100], None):
            own.unlink() if broken is None else own.write_bytes(broken)
            said = len(gateway.logs)
            await running.client_kill_filter(skipme=True)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not refused(gateway.logs[said:]):  # noqa: ASYNC110 - it calls nobody back
                    await asyncio.sleep(0.01)  # it dials on its own
                while (await gateway.get("/", acme)).status != 200:  # noqa: ASYNC110 - it calls nobody back
                    await asyncio.sleep(0.01)
