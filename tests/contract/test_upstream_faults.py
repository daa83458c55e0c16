"""What a gateway finds out about its upstreams is what the control plane shows."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.attention.upstreams import UpstreamWatch
from control.http.context import Context
from devstack.token_mint import AUDIENCE, ISSUER
from gateway.settings.intervals import Intervals
from gateway.settings.root import GatewaySettings
from quota import keys
from tests.control.plane import MovedClock
from tests.gateway.rig import PATIENCE_SECONDS, PATIENT, SECRET, Peer, Upstream, listening, running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with listening(Upstream()) as scripted:
        yield scripted


async def ends(peer: Peer) -> None:
    """Takes a request and ends the connection without a byte."""
    await peer.request()


async def test_an_upstream_that_fails_is_on_the_tile_with_what_its_clients_are_answered_until_it_answers_again(
    context: Context, admin: AsyncClient, redis: Redis, redis_url: str, clock: MovedClock, upstream: Upstream
) -> None:
    await redis.delete(keys.UPSTREAM_FAULTS)
    settings = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {
            "api": {
                "url": upstream.url,
                "ejection": {"consecutive_failures": 1, "seconds": 0.05, "seconds_max": 0.05},
            }
        },
        "routes": [{"path": "/", "upstream": "api", "exempt": True}],
    }
    watch = UpstreamWatch(context.db, redis, clock)

    async def tile(number: int) -> dict[str, int]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await watch.look()
                shown = (await admin.get("/v1/incidents/tiles")).json()["tiles"]["upstream_faults"]
                if shown["number"] == number:
                    return dict(shown["figures"])
                await asyncio.sleep(0.02)

    async with running(GatewaySettings.model_validate(settings), Intervals(start_seconds=PATIENCE_SECONDS)) as gateway:
        gateway.expected_errors.add("an upstream fails")  # the control plane's, in the same process
        upstream.serve = ends
        assert (await gateway.get("/")).status == 502
        assert await tile(2) == {"upstream_ejected": 1, "upstream_unavailable": 1}
        listed = (await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]
        told = {each["kind"]: each["content"] for each in listed}
        assert told["upstream_ejected"]["target"] == upstream.url
        assert told["upstream_ejected"]["why"] == "the upstream closed the connection"
        assert told["upstream_unavailable"]["requests"] == "refused with 503"
        upstream.serve = upstream._serve
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await gateway.get("/")).status != 200:  # noqa: ASYNC110 - the ejection's end calls nobody back
                await asyncio.sleep(0.01)
        assert await tile(0) == {}
