"""What gateways leave out is an incident, for as long as one of them says so."""

import asyncio
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.attention.kinds import KINDS, Tile
from control.attention.upstreams import EJECTED, SEEN_SECONDS, UNAVAILABLE, UpstreamWatch
from control.http.context import Context
from devstack import postgres
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.upstream_faults import EJECTED as IS_EJECTED
from quota.upstream_faults import FIELD, SILENT_SECONDS, UNHEALTHY, Fault, Outage, Report, encode
from tests.control.plane import MovedClock

SINCE_MS = 1_795_391_049_000
FIRST, SECOND = "http://10.0.0.1:8080", "http://10.0.0.2:8080"


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, "TRUNCATE incident CASCADE")


def fault(target: str = FIRST, state: str = IS_EJECTED, since_ms: int = SINCE_MS, until_ms: int | None = None) -> Fault:
    return Fault("api", target, state, since_ms, until_ms, f"why of {since_ms % 1000}")


class Gateways:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def tell(self, source: str, *faults: Fault, outages: tuple[Outage, ...] = (), gateway: str = "gw1") -> None:
        text = encode(Report(source, gateway, faults, outages))
        await self._redis.xadd(keys.UPSTREAM_FAULTS, {FIELD: text.encode()})


@pytest.fixture
def gateways(redis: Redis) -> Gateways:
    return Gateways(redis)


@pytest.fixture
def time() -> MovedClock:
    """Of the watch: seconds that only pass."""
    return MovedClock()


@pytest.fixture
async def watch(context: Context, redis: Redis, clock: MovedClock, time: MovedClock) -> UpstreamWatch:
    """One that has listened for long enough to know what is not said."""
    await redis.delete(keys.UPSTREAM_FAULTS)
    made = UpstreamWatch(context.db, redis, clock, time)
    await listen(made, time, SILENT_SECONDS)
    return made


async def listen(watch: UpstreamWatch, time: MovedClock, seconds: float) -> None:
    for _ in range(int(seconds) + 1):
        time.move(seconds=1)
        await watch.look()


async def shown(admin: AsyncClient, status: str = "open") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await admin.get("/v1/incidents", params={"status": status})).json()["incidents"]
    return listed


async def test_a_target_is_one_incident_over_all_gateways_until_none_of_them_says_so(
    admin: AsyncClient, gateways: Gateways, watch: UpstreamWatch
) -> None:
    await gateways.tell("a", fault(since_ms=SINCE_MS + 1, until_ms=SINCE_MS + 9_000))
    await watch.look()
    await gateways.tell("b", fault(until_ms=SINCE_MS + 5_000), fault(SECOND, UNHEALTHY), gateway="gw2")
    await watch.look()
    second, first = await shown(admin)
    assert (first["kind"], first["key"], first["org"], first["count"]) == (EJECTED, f"api {FIRST}", None, 1)
    assert first["content"] == {
        "upstream": "api",
        "target": FIRST,
        "state": "ejected",
        "why": "why of 0",
        "since": "2026-11-22T23:44:09Z",
        "until": "2026-11-22T23:44:14Z",
        "gateways": ["gw1", "gw2"],
        "workers": 2,
    }
    assert second["content"] | {"state": "unhealthy", "until": None, "gateways": ["gw2"]} == second["content"]
    tile = (await admin.get("/v1/incidents/tiles")).json()["tiles"]["upstream_faults"]
    assert (tile["number"], tile["needs_attention"], tile["figures"]) == (2, True, {EJECTED: 2})
    await gateways.tell("b", gateway="gw2")
    await watch.look()
    [left] = await shown(admin)
    assert (left["id"], left["content"]["gateways"]) == (first["id"], ["gw1"])
    await gateways.tell("a")
    await watch.look()
    assert not await shown(admin)
    assert (await admin.get("/v1/incidents/tiles")).json()["tiles"]["upstream_faults"]["number"] == 0


async def test_an_upstream_without_a_target_is_an_incident_of_its_own_and_says_what_its_requests_are_answered(
    admin: AsyncClient, gateways: Gateways, watch: UpstreamWatch
) -> None:
    await gateways.tell("a", fault(), outages=(Outage("api", SINCE_MS, refused=True),))
    await watch.look()
    [of_upstream] = [each for each in await shown(admin) if each["kind"] == UNAVAILABLE]
    assert of_upstream["key"] == "api"
    assert of_upstream["content"]["requests"] == "refused with 503"
    await gateways.tell("a", fault())
    await watch.look()
    assert [each["kind"] for each in await shown(admin)] == [EJECTED]


async def test_a_gateway_that_ends_without_a_word_is_believed_for_some_seconds_only(
    admin: AsyncClient, gateways: Gateways, watch: UpstreamWatch, time: MovedClock
) -> None:
    await gateways.tell("a", fault())
    await watch.look()
    await listen(watch, time, SILENT_SECONDS - 2)
    assert len(await shown(admin)) == 1
    await listen(watch, time, 2)
    assert not await shown(admin)


async def test_while_redis_is_away_and_until_gateways_have_spoken_again_nothing_is_closed(
    admin: AsyncClient, context: Context, gateways: Gateways, redis: Redis, clock: MovedClock, time: MovedClock
) -> None:
    watch = UpstreamWatch(context.db, redis, clock, time)
    await gateways.tell("a", fault())
    await watch.look()
    [incident] = await shown(admin)
    await redis.set(keys.UPSTREAM_FAULTS, "no stream")
    for _ in range(20):
        time.move(seconds=1)
        with pytest.raises(LedgerUnavailable):
            await watch.look()
    await redis.delete(keys.UPSTREAM_FAULTS)
    await listen(watch, time, SILENT_SECONDS - 2)
    await gateways.tell("a", fault())
    await listen(watch, time, SILENT_SECONDS - 2)
    assert [each["id"] for each in await shown(admin)] == [incident["id"]]
    # Nor does a control plane close what it finds when it starts, before it has listened for as long.
    started = UpstreamWatch(context.db, redis, clock, time)
    await redis.delete(keys.UPSTREAM_FAULTS)
    await listen(started, time, SILENT_SECONDS - 2)
    assert len(await shown(admin)) == 1
    await listen(started, time, 2)
    assert not await shown(admin)


async def test_several_control_planes_open_and_close_one_incident(
    admin: AsyncClient, context: Context, gateways: Gateways, redis: Redis, clock: MovedClock, time: MovedClock
) -> None:
    watches = [UpstreamWatch(context.db, redis, clock, time) for _ in range(5)]
    for _ in range(int(SILENT_SECONDS) + 1):
        time.move(seconds=1)
        await asyncio.gather(*(watch.look() for watch in watches))
    await gateways.tell("a", fault())
    await asyncio.gather(*(watch.look() for watch in watches))
    [incident] = await shown(admin)
    assert incident["count"] == 1
    await gateways.tell("a")
    await asyncio.gather(*(watch.look() for watch in watches))
    assert [each["id"] for each in await shown(admin, "closed")] == [incident["id"]]


async def test_what_lasts_is_seen_again_and_an_admin_s_resolution_holds_only_if_it_is_over(
    admin: AsyncClient, gateways: Gateways, watch: UpstreamWatch, clock: MovedClock
) -> None:
    await gateways.tell("a", fault())
    await watch.look()
    [before] = await shown(admin)
    clock.move(seconds=SEEN_SECONDS + 1)
    await watch.look()
    [after] = await shown(admin)
    assert after["last_seen_at"] > before["last_seen_at"]
    assert (after["count"], after["opened_at"]) == (1, before["opened_at"])
    await admin.post(f"/v1/incidents/{before['id']}/resolve")
    await watch.look()
    [again] = await shown(admin)
    assert again["id"] != before["id"]


async def test_what_is_no_report_is_left_out(
    admin: AsyncClient, redis: Redis, gateways: Gateways, watch: UpstreamWatch
) -> None:
    await redis.xadd(keys.UPSTREAM_FAULTS, {FIELD: b"{"})
    await gateways.tell("a", fault(since_ms=10**18))
    await redis.xadd(keys.UPSTREAM_FAULTS, {b"other": b"x"})
    await watch.look()
    [incident] = await shown(admin)
    assert incident["content"]["since"] is None, "a clock may say anything"


def test_both_kinds_are_on_the_tile_and_close_by_themselves() -> None:
    for kind in (EJECTED, UNAVAILABLE):
        assert KINDS[kind].tile is Tile.UPSTREAM_FAULTS
        assert KINDS[kind].closes_by_itself
