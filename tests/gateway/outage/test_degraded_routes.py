"""Redis is away: what a route allows is forwarded within its budget, and charged to the unit when Redis is back."""

import os
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from common.settings_file import SettingsConflict
from gateway.process.metrics import MetricsPublisher
from gateway.process.metrics_aggregator import MetricsAggregator
from gateway.settings.root import GatewaySettings
from quota.access import Mark, MarkKind
from quota.model import MeterLimit
from tests.gateway.access.tokens import bearer
from tests.gateway.outage.degraded import ROUTES, StartDegraded, back, emptied, entries, journaled, killed
from tests.gateway.rig import (
    MakeOrganization,
    Organization,
    Until,
    Upstream,
    request,
)
from tests.gateway.rig.keys import revoke
from tests.gateway.store import Store


async def test_without_redis_a_route_that_allows_it_is_forwarded_and_others_are_refused_and_all_is_charged_once(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    directory: Path,
    until: Until,
) -> None:
    await acme.publish(100)
    gateway = await allow()
    assert (await gateway.get("/", acme)).status == (await gateway.get("/strict", acme)).status == 200
    await killed(gateway, store, until)
    answers = [await gateway.get("/", acme) for _ in range(5)]
    assert [answer.status for answer in answers] == 5 * [200]
    assert answers[0]["ratelimit"] is None  # nobody knows
    refused = await gateway.get("/strict", acme)
    assert (refused.status, refused["retry-after"]) == (503, "1")
    assert len(upstream.requests) == 7
    assert len(set(journaled(directory))) == 5
    await back(store, running)
    await acme.comes_to(7)
    await emptied(until, directory)
    assert await acme.events() == 7 * ["t"]
    assert (await gateway.get("/", acme)).remaining == 92


async def test_a_redis_that_loads_its_data_leaves_the_decision_to_the_route_and_all_is_charged_once(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, directory: Path, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    assert (await gateway.get("/", acme)).status == 200
    async with store.loading():
        assert [(await gateway.get("/", acme)).status for _ in range(5)] == 5 * [200]
        assert (await gateway.get("/strict", acme)).status == 503
        assert gateway.worker.link.open
        assert len(set(journaled(directory))) == 5
    await acme.comes_to(6)
    await emptied(until, directory)
    assert len(upstream.requests) == 6
    assert await acme.events() == 6 * ["t"]


async def test_only_who_was_admitted_lately_and_not_refused_since_is_forwarded(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    organization: MakeOrganization,
    upstream: Upstream,
    until: Until,
) -> None:
    async def published(org: str, **terms: Any) -> Organization:
        made = await organization(org, 1)
        made._redis = made.ledger.redis = running
        made.version = 0
        await made.publish(**terms)
        return made

    fresh, spent, changed = [await published(org) for org in ("fresh", "spent", "changed")]
    await spent.publish(1)
    await acme.publish(100)
    gateway = await allow()
    for each in (acme, spent, changed):
        assert (await gateway.get("/", each)).status == 200
    assert (await gateway.get("/", spent)).status == 429
    [route] = [r for r in gateway.worker.destinations.routes() if r.admitted_at]
    admitted_at = route.admitted_at
    assert admitted_at is not None
    await changed.publish(50)
    await until(lambda: "changed" not in admitted_at)
    await killed(gateway, store, until)
    gateway.worker.exhausted.forget("spent")
    statuses = [(await gateway.get("/", each)).status for each in (acme, fresh, spent, changed)]
    assert statuses == [200, 503, 503, 503]
    assert len(upstream.requests) == 4


async def test_a_request_with_an_idempotency_key_waits_for_redis(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme, b"Idempotency-Key: a\r\n")).status == 503
    assert (await gateway.get("/", acme)).status == 200
    assert len(upstream.requests) == 2


async def test_the_budget_bounds_an_outage_for_each_organization_and_in_total(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    organization: MakeOrganization,
    directory: Path,
    until: Until,
) -> None:
    other = await organization("other", 1)
    other._redis = other.ledger.redis = running
    other.version = 0
    await other.publish(100)
    await acme.publish(100)
    gateway = await allow(budget={"units_per_org": 3, "units_total": 5})
    for each in (acme, other):
        await gateway.get("/", each)

    async def outage() -> list[int]:
        await killed(gateway, store, until)
        return [(await gateway.get("/", each)).status for each in (*5 * [acme], *3 * [other])]

    expected = [200, 200, 200, 503, 503, 200, 200, 503]
    assert await outage() == expected
    await back(store, running)
    await acme.comes_to(4)
    await other.comes_to(3)
    await emptied(until, directory)
    await until(lambda: gateway.degraded._outage_since is None)
    [route] = gateway.worker.destinations.routes()
    await until(lambda: not route.admitted_at)  # what was announced meanwhile was missed
    for each in (acme, other):
        assert (await gateway.get("/", each)).status == 200
    assert await outage() == expected  # the next outage has its own


async def test_an_outage_that_is_too_long_is_refused(
    allow: StartDegraded, acme: Organization, store: Store, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow(max_seconds=600)
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme)).status == 200
    began = gateway.degraded._outage_since
    assert began is not None
    gateway.degraded._outage_since = began - 600
    since = gateway.worker.deadlines.now
    await until(lambda: gateway.worker.deadlines.now > since)
    assert (await gateway.get("/", acme)).status == 503


async def test_what_was_used_beyond_the_limit_is_charged_and_the_organization_exhausted(
    allow: StartDegraded, acme: Organization, store: Store, running: Redis, until: Until, directory: Path
) -> None:
    await acme.publish(3)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    for _ in range(5):
        assert (await gateway.get("/", acme)).status == 200
    await back(store, running)
    await acme.comes_to(6)
    refused = await gateway.get("/", acme)
    assert (refused.status, refused.remaining) == (429, 0)


async def test_degraded_decisions_are_counted_and_logged(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    tmp_path: Path,
    until: Until,
    directory: Path,
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    await gateway.get("/", acme)
    await until(lambda: gateway.worker.recorder.finished_count == 2)

    def records() -> str:
        MetricsPublisher(gateway.worker, tmp_path).publish()
        return MetricsAggregator(tmp_path).collect(frozenset({os.getpid()}))

    assert 'quotagate_decisions_total{route="/",verdict="degraded"} 1.0\n' in records()
    assert "quotagate_journal_open 1.0\n" in records()
    [tally] = [t for t in gateway.worker.recorder.tallies() if t.verdict == "degraded"]
    assert tally.fields == b'"route":"/","status":200,"verdict":"degraded","meters":{"api_calls": 1}'
    await back(store, running)
    await acme.comes_to(2)
    await emptied(until, directory)
    await until(lambda: "quotagate_journal_replayed_total 1.0\n" in records())
    assert "quotagate_journal_open 0.0\n" in records()


async def test_several_meters_are_charged_together_afterwards(
    allow: StartDegraded,
    acme: Organization,
    store: Store,
    running: Redis,
    until: Until,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ROUTES[0], "meters", {"api_calls": 1, "tokens": 20})
    await acme.publish(meters=(MeterLimit("api_calls", 100), MeterLimit("tokens", 1000)))
    gateway = await allow()
    await gateway.get("/", acme)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme)).status == 200
    await back(store, running)
    await acme.comes_to(2)
    assert await acme.used("tokens") == 40
    assert await acme.events() == 2 * ["t"]


@pytest.mark.parametrize(
    ("route", "fault"),
    [({"degraded": "allow"}, "allow needs a directory"), ({"exempt": True, "degraded": "deny"}, "exempt route")],
)
def test_a_route_that_cannot_be_degraded_is_refused_in_the_settings(route: dict[str, Any], fault: str) -> None:
    settings = {
        "redis": {"url": "redis://localhost"},
        "auth": {"algorithms": ["HS256"], "secret": 32 * "s", "issuer": "i"},
        "upstreams": {"api": {"url": "http://localhost"}},
        "routes": [{"path": "/", "upstream": "api", **route}],
    }
    with pytest.raises((SettingsConflict, ValueError), match=fault):
        GatewaySettings.model_validate(settings)


async def test_a_principal_that_was_revoked_or_is_met_first_is_not_forwarded_in_an_outage(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, until: Until, directory: Path
) -> None:
    """This gateway has had no request of the revoked one since, and was told nothing: its subscription is dead. Another
    user of the organization shows it that the version has changed."""
    await acme.publish(100)
    gateway = await allow()
    assert gateway.worker.hydrator._listener is not None
    gateway.worker.hydrator._listener.cancel()
    revoked, other, new = (bearer(sub=sub) for sub in ("revoked", "other", "new"))
    for auth in (revoked, other):
        assert (await gateway.ask(request(auth))).status == 200
    await revoke(acme, Mark(MarkKind.USER, "revoked"))
    assert (await gateway.ask(request(other))).status == 200
    await killed(gateway, store, until)
    assert [(await gateway.ask(request(auth))).status for auth in (revoked, other, new)] == [503, 200, 503]
    assert [entry.path for entry in entries(directory)] == ["acme/u:other"]


async def test_after_a_subscription_that_broke_all_must_be_admitted_again_before_an_outage_forwards_them(
    allow: StartDegraded, acme: Organization, store: Store, running: Redis, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    assert (await gateway.get("/", acme)).status == 200
    [route] = [r for r in gateway.worker.destinations.routes() if r.admitted_at]
    await running.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: not route.admitted_at)
    await killed(gateway, store, until)
    assert (await gateway.get("/", acme)).status == 503
