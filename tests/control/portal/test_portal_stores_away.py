"""The portal while a store is away: pages open and say what they do not know; without PostgreSQL they say so."""

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
from httpx import AsyncClient
from pydantic import SecretStr

from control.app import opened
from control.http.context import Context
from control.settings.control_plane import Settings
from tests.browser.gate import Gate, Way, gate_to
from tests.control.plane import Entitled
from tests.control.portal.customers import customer, pages_of_portal

NOT_KNOWN = ("As it was written down; what is newer is not known now.", "This took too long.")  # on a loaded machine


def through(gate: Gate, url: SecretStr) -> SecretStr:
    """The same store, by the gate."""
    parts = urlsplit(url.get_secret_value())
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return SecretStr(parts._replace(netloc=f"{user}127.0.0.1:{gate.port}").geturl())


def port_of(url: SecretStr) -> int:
    return urlsplit(url.get_secret_value()).port or 0


@pytest.fixture
def redis_gate(settings: Settings) -> Iterator[Gate]:
    with gate_to(port_of(settings.redis.url)) as gate:
        yield gate


@pytest.fixture
def postgres_gate(settings: Settings) -> Iterator[Gate]:
    with gate_to(port_of(settings.postgres.dsn)) as gate:
        yield gate


@pytest.fixture
async def gated(settings: Settings, redis_gate: Gate, postgres_gate: Gate) -> AsyncIterator[Context]:
    redis = settings.redis.model_copy(update={"url": through(redis_gate, settings.redis.url), "timeout_seconds": 1})
    postgres = settings.postgres.model_copy(update={"dsn": through(postgres_gate, settings.postgres.dsn)})
    async with opened(settings.model_copy(update={"redis": redis, "postgres": postgres})) as context:
        yield context


async def test_each_page_opens_while_redis_is_away_and_what_is_chosen_then_holds_afterwards(
    gated: Context, redis_gate: Gate, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("growth")
    async with customer(gated, admin, org, role="owner") as owner:
        for way, paths, was, units in (
            (Way.CUT, pages_of_portal(gated), "", "7"),
            (Way.SILENT, ["/portal", "/portal/caps"], "7", "8"),
        ):
            with redis_gate.set(way):
                shown = {path: await owner.open(path) for path in paths}
                assert any(said in shown["/portal"] for said in NOT_KNOWN)
                await owner.send("/portal/caps/api_calls", 303, units=units, was=was)
                await owner.send("/portal/alerts", 303, percents=units)
    assert await gated.publisher.install(org)
    snapshot = await gated.ledger.peek(org)
    assert snapshot is not None
    assert {limit.meter: limit.overage_max for limit in snapshot.meters}["api_calls"] == 8


async def test_without_the_database_each_page_of_the_portal_says_so_and_opens_again_afterwards(
    gated: Context, postgres_gate: Gate, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("growth")
    async with customer(gated, admin, org, role="owner") as owner:
        with postgres_gate.set(Way.CUT):
            for path in pages_of_portal(gated):
                page = await owner.open(path, 503)
                assert "The database does not answer." in page, path
                assert "brand.css" in page, "it is a page of the portal"
            await owner.send("/portal/alerts", 503, percents="50")
            assert "Sign in at" in await owner.open("/portal/sign-in", 401), "which needs no store"
        for path in pages_of_portal(gated):
            await owner.open(path)
    assert (await admin.get(f"/v1/organizations/{org}/alerts")).json()["percents"] == []


async def test_a_database_that_is_slow_costs_the_time_and_no_page(
    gated: Context, postgres_gate: Gate, admin: AsyncClient, entitled: Entitled
) -> None:
    async with customer(gated, admin, await entitled("growth"), role="owner") as owner:
        with postgres_gate.set(delay_seconds=0.05):
            for path in pages_of_portal(gated):
                await owner.open(path)
