"""Shadow mode: decide, charge, record and count, and refuse nothing."""

# ruff: noqa: ASYNC240 - a small local file is read at once

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.process.metrics import MetricsPublisher
from gateway.process.metrics_aggregator import MetricsAggregator
from gateway.settings.route import RouteSettings
from tests.gateway.rig import Gateway, MakeOrganization, Organization, StartGateway, Until, Upstream

SHADOW = {"routes": [{"path": "/", "upstream": "api", "shadow": True}]}
ACME_ONLY = {"shadow": {"organizations": ["acme"]}}
BAD_TOKEN = b"Authorization: Bearer x.y.z\r\n"


def records(gateway: Gateway, directory: Path) -> str:
    MetricsPublisher(gateway.worker, directory).publish()
    return MetricsAggregator(directory).collect({os.getpid()})


async def logged(file: Path, count: int, until: Until) -> list[dict[str, Any]]:
    await until(lambda: file.exists() and len(file.read_bytes().splitlines()) >= count)
    return [json.loads(line) for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize("settings", [SHADOW, ACME_ONLY], ids=["route", "organization"])
async def test_an_exhausted_organization_in_shadow_is_forwarded_recorded_and_not_charged(
    start: StartGateway,
    organization: MakeOrganization,
    upstream: Upstream,
    tmp_path: Path,
    until: Until,
    settings: dict[str, Any],
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(access_log={"path": str(file)}, **settings)
    acme = await organization("acme", 1)
    answers = [await gateway.get("/", acme) for _ in range(3)]
    assert [(a.status, a.body) for a in answers] == [(200, b"ok")] * 3
    assert [a["ratelimit"] is not None for a in answers] == [True, False, False]
    assert [a["retry-after"] for a in answers] == [None] * 3
    assert all(b"X-Quota-Org: acme\r\n" in request for request in upstream.requests)
    assert await acme.used() == 1
    lines = await logged(file, 3, until)
    assert [(line["verdict"], line.get("shadow"), line.get("meters")) for line in lines] == [
        ("admitted", None, {"api_calls": 1}),
        ("exhausted", True, None),
        ("refused_from_memory", True, None),
    ]
    page = records(gateway, tmp_path)
    for verdict in ("admitted", "shadow_exhausted", "shadow_refused_from_memory"):
        assert f'quotagate_decisions_total{{route="/",verdict="{verdict}"}} 1.0\n' in page
    assert 'verdict="exhausted"' not in page


async def test_shadow_of_one_organization_or_route_refuses_all_others_as_ever(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    routes = [{"path": "/", "upstream": "api"}, {"path": "/new", "upstream": "api", "shadow": True}]
    gateway = await start(routes=routes, **ACME_ONLY)
    unpaid, acme = await organization("unpaid", None), await organization("acme", None)
    assert (await gateway.get("/", unpaid)).status == 403
    assert not upstream.requests
    assert (await gateway.get("/", acme)).status == 200
    assert (await gateway.get("/new", unpaid)).status == 200
    assert len(upstream.requests) == 2


async def test_tokens_that_are_refused_are_forwarded_by_a_shadow_route_only_and_name_no_organization(
    start: StartGateway, upstream: Upstream, tmp_path: Path
) -> None:
    routes = [{"path": "/", "upstream": "api"}, {"path": "/new", "upstream": "api", "shadow": True}]
    gateway = await start(routes=routes, **ACME_ONLY)
    assert (await gateway.get("/", None, BAD_TOKEN)).status == 401
    assert not upstream.requests
    for fields in (b"", BAD_TOKEN, b"X-Quota-Org: acme\r\n"):
        answer = await gateway.get("/new", None, fields)
        assert (answer.status, answer["www-authenticate"]) == (200, None)
    assert len(upstream.requests) == 3
    assert not [request for request in upstream.requests if b"x-quota-org" in request.lower()]
    page = records(gateway, tmp_path)
    assert 'quotagate_decisions_total{route="/new",verdict="shadow_token_missing"} 2.0\n' in page
    assert 'quotagate_decisions_total{route="/new",verdict="shadow_token_malformed"} 1.0\n' in page


async def test_with_the_ledger_away_shadow_forwards_and_counts(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until
) -> None:
    gateway = await start(**SHADOW)
    assert (await gateway.get("/", acme)).status == 200
    await gateway.worker.link.close()
    answer = await gateway.get("/", acme)
    assert (answer.status, answer["ratelimit"]) == (200, None)
    assert len(upstream.requests) == 2
    assert await acme.used() == 1
    assert 'verdict="shadow_ledger_unavailable"} 1.0\n' in records(gateway, tmp_path)


async def test_shadow_refuses_what_cannot_be_forwarded(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [{"path": "/v1", "upstream": "api", "shadow": True, "body_bytes_max": 1}]
    gateway = await start(routes=routes)
    assert (await gateway.get("/v2", acme)).status == 404
    long = b"POST /v1 HTTP/1.1\r\nHost: a\r\n%bContent-Length: 2\r\n\r\nok" % acme.auth
    assert (await gateway.ask(long)).status == 413
    assert not upstream.requests


def test_an_exempt_route_in_shadow_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="an exempt route refuses nothing"):
        RouteSettings(path="/", upstream="api", exempt=True, shadow=True)
