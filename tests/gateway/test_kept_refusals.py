"""Refused requests are kept in Redis, so many of each second, for those who ask why."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.access import Quota
from quota.kept_refusals import FIELD, Batch, Refused, decision_of, decode
from quota.model import Exhausted, Level, MeterLimit, NotEntitled, NotInPlan, RateLimit, RateLimited, Status
from tests.gateway.rig import PATIENCE_SECONDS, Gateway, MakeOrganization, Organization, StartGateway, Upstream, get
from tests.gateway.rig.keys import Keyring, complete_index
from tests.gateway.tunnels import MESSAGE, closed_with, frame, opened, route
from tests.replies import as_entries

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(intervals: dict[str, Any]) -> None:
    intervals["refusals_seconds"] = 0.05


class Kept(Protocol):
    async def __call__(self, count: int) -> list[Refused]: ...


@pytest.fixture
def batches() -> list[Batch]:
    """Filled by `kept`."""
    return []


@pytest.fixture
async def kept(redis_url: str, batches: list[Batch]) -> AsyncIterator[Kept]:
    """The refusals, as soon as there are so many."""
    async with Redis.from_url(redis_url) as redis:

        async def read(count: int) -> list[Refused]:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    entries = as_entries(await redis.xrange(keys.REFUSALS))
                    batches[:] = [decode(fields[FIELD]) for _, fields in entries]
                    refusals = [refused for batch in batches for refused in batch.refusals]
                    if len(refusals) >= count:
                        return refusals
                    await asyncio.sleep(0.02)

        yield read


async def test_a_quota_refusal_keeps_what_the_ledger_said_and_the_id_that_the_client_reads(
    start: StartGateway, organization: MakeOrganization, kept: Kept
) -> None:
    acme = await organization("acme", 2)
    gateway = await start(routes=[{"path": "/", "upstream": "api", "name": "all", "meters": {"api_calls": 3}}])
    answer = await gateway.get("/v1/x?secret=1", acme)
    [refused] = await kept(1)
    assert answer.status == refused.status == 429
    assert refused.request_id == answer["x-request-id"] == answer.problem["correlation_id"]
    assert refused.correlation is None
    assert (refused.org, refused.route, refused.method, refused.verdict) == ("acme", "all", "GET", "cost_above_limit")
    assert refused.detail == answer.problem["detail"]
    assert refused.charges == {"api_calls": 3}
    decision = decision_of(refused.said)
    assert isinstance(decision, Exhausted)
    assert (decision.balance.limit, decision.balance.remaining, decision.level) == (2, 2, Level.ORGANIZATION)
    assert refused.at_us == decision.now_us
    assert refused.version is not None
    assert "secret" not in json.dumps(refused)


async def test_a_client_s_own_request_id_is_kept_beside_ours(
    start: StartGateway, organization: MakeOrganization, kept: Kept
) -> None:
    gateway, acme = await start(), await organization("acme", 0)
    answer = await gateway.get("/", acme, b"X-Request-Id: order-7\r\n")
    [refused] = await kept(1)
    assert answer["x-request-id"] == refused.correlation == "order-7"
    assert len(refused.request_id) == 20


async def test_a_refused_token_keeps_the_reason_and_never_the_secret(
    gateway: Gateway, kept: Kept, batches: list[Batch]
) -> None:
    answer = await gateway.ask(get("/", None, b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.hunter2.x\r\n"))
    [refused] = await kept(1)
    assert answer.status == refused.status == 401
    assert refused.verdict.startswith("token_")
    assert (refused.org, refused.key_id, refused.user, refused.said) == (None, None, None, {})
    assert "hunter2" not in repr(batches)


async def test_a_key_that_is_revoked_is_named_and_one_that_has_a_quota_keeps_its_limits(
    start: StartGateway, organization: MakeOrganization, kept: Kept, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await complete_index(redis)
    acme, keyring = await organization("acme", 100), Keyring()
    key = await keyring.make(acme, user="ada", quotas=(Quota("api_calls", 1, 3600),))
    gateway = await start()
    assert (await gateway.ask(get("/", None, key.auth))).status == 200
    assert (await gateway.ask(get("/", None, key.auth))).status == 429
    [quota] = await kept(1)
    assert (quota.org, quota.key_id, quota.user) == ("acme", key.id, "ada")
    assert quota.limits == key.record.limits
    decision = decision_of(quota.said)
    assert isinstance(decision, Exhausted)
    assert decision.level is Level.KEY
    await key.revoke()
    assert (await gateway.ask(get("/", None, key.auth))).status == 401
    [_, revoked] = await kept(2)
    assert (revoked.org, revoked.key_id, revoked.verdict) == ("acme", key.id, "token_key_revoked")


async def test_each_kind_of_refusal_is_kept_with_the_ledger_s_words(
    start: StartGateway, organization: MakeOrganization, kept: Kept
) -> None:
    gateway = await start(
        routes=[{"path": "/", "upstream": "api"}, {"path": "/t", "upstream": "api", "meters": {"t": 1}}]
    )
    slow = await organization("slow", 100, rate=RateLimit(1, 3600, 1))
    ended = await organization("ended", 100, status=Status.SUSPENDED)
    assert [(await gateway.get("/", slow)).status for _ in range(2)] == [200, 429]
    assert (await gateway.get("/", ended)).status == 402
    assert (await gateway.get("/t", slow)).status == 403
    told = {refused.verdict: decision_of(refused.said) for refused in await kept(3)}
    assert isinstance(told["rate_limited"], RateLimited)
    assert told["not_entitled"] == NotEntitled(Status.SUSPENDED)
    assert told["not_in_plan"] == NotInPlan("t")


async def test_in_shadow_mode_what_would_have_been_refused_is_kept(
    start: StartGateway, organization: MakeOrganization, kept: Kept
) -> None:
    gateway, acme = await start(shadow={"organizations": ["acme"]}), await organization("acme", 0)
    assert (await gateway.get("/", acme)).status == 200
    [refused] = await kept(1)
    assert refused.shadow
    assert refused.status == 429


async def test_what_is_refused_within_a_tunnel_is_kept_once_under_the_id_that_its_client_reads(
    start: StartGateway, upstream: Upstream, organization: MakeOrganization, kept: Kept
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("api_calls", 100), MeterLimit("messages", 5)))
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, _, answer = await opened(gateway, acme, upstream)
    client.send(15 * frame(b"m"))  # in one read: the ledger is asked for 15, 7, 3, and so on
    assert closed_with(1008, await client.gone())
    [refused] = await kept(1)
    assert b"X-Request-Id: %b\r\n" % refused.request_id.encode() in answer
    assert (refused.org, refused.status, refused.verdict, refused.shadow) == ("acme", 429, "exhausted", False)
    assert refused.detail.endswith("The tunnel is closed.")
    assert refused.charges == {"messages": 1}
    decision = decision_of(refused.said)
    assert isinstance(decision, Exhausted)
    assert (decision.balance.meter, decision.balance.remaining) == ("messages", 0)
    assert gateway.worker.refused.refused == 1


async def test_what_would_be_refused_within_a_tunnel_in_shadow_mode_is_kept(
    start: StartGateway, upstream: Upstream, organization: MakeOrganization, kept: Kept
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("api_calls", 100), MeterLimit("messages", 5)))
    gateway = await start(routes=route(tunnel=MESSAGE, shadow=True))
    client, far, _ = await opened(gateway, acme, upstream)
    client.send(7 * frame(b"m"))
    await far.exactly(7 * len(frame(b"m")))
    for refused in await kept(2):
        assert (refused.shadow, refused.verdict, refused.charges) == (True, "exhausted", {"messages": 1})
        assert refused.detail.endswith("The tunnel goes on, in shadow mode.")


async def test_an_admitted_request_is_not_kept(gateway: Gateway, acme: Organization) -> None:
    assert (await gateway.get("/", acme)).status == 200
    assert gateway.worker.refused.refused == 0


async def test_beyond_the_bounds_of_a_second_refusals_are_counted_by_organization_and_not_kept(
    start: StartGateway, organization: MakeOrganization, kept: Kept, batches: list[Batch], intervals: dict[str, Any]
) -> None:
    intervals["refusals_seconds"] = 0.5
    gateway = await start(refusals={"per_second": 5, "per_organization": 3})
    loud, quiet = await organization("loud", 0), await organization("quiet", 0)
    client = await gateway.connect()
    for asker in [loud] * 10 + [quiet]:
        assert (await client.ask(get("/", asker))).status == 429
    refused = await kept(4)
    if len(batches) == 1:  # the machine was not so slow that it took more than a second
        assert [each.org for each in refused] == ["loud"] * 3 + ["quiet"]
        assert batches[0].of_organizations == {"loud": 10, "quiet": 1}
    log = gateway.worker.refused
    assert batches[-1].refused == log.refused == 11
    assert log.refused == log.skipped + len(refused)


async def test_what_redis_does_not_take_is_dropped_and_counted_and_told_with_the_next_batch(
    start: StartGateway, organization: MakeOrganization, kept: Kept, batches: list[Batch], redis_url: str
) -> None:
    gateway, acme = await start(), await organization("acme", 0)
    log = gateway.worker.refused
    async with Redis.from_url(redis_url) as redis:
        await redis.set(keys.REFUSALS, "no stream")
        gateway.expected_errors.add("take failed")
        assert (await gateway.get("/", acme)).status == 429
        log.flush()
        while not log.lost:
            assert (await gateway.get("/", acme)).status == 429
        lost = log.refused
        await redis.delete(keys.REFUSALS)
        assert (await gateway.get("/", acme)).status == 429
        await kept(1)
    assert batches[-1].refused == lost + 1
    assert sum(batch.of_organizations["acme"] for batch in batches) == lost + 1
