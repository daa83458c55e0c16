"""A body of `POST /v1/usage` that cannot be meant, or who may not send it, is refused in time and charges nothing."""

import json
from datetime import timedelta

import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.http.envelope import BODY_BYTES_MAX_OF
from quota.model import COST_MAX
from tests.control.plane import Entitled, TokenOf
from tests.control.reporting import Post, record
from tests.control.usage import used

BAD_BODIES: list[tuple[bytes, int]] = [
    (b"", 422),
    (b"{", 422),
    (b"\xff\xfe", 422),
    (b'"text"', 422),
    (b"null", 422),
    (b"[" * 200_000, 422),
    (b'{"a":' * 80_000, 422),
    (b'[{"meter": "api_calls", "units": NaN, "idempotency_key": "a"}]', 422),
    (b'{"meter": "api_calls", "units": 1, "units": 2, "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1' + b"0" * 100_000 + b', "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1e999, "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1, "idempotency_key": "a\\u0000"}', 422),
    (b'{"meter": "api_calls", "units": 1, "idempotency_key": "a", "\\ud800": 1}', 422),
    (b'{"\\ud800": 1, "\\ud800": 2}', 422),
    (b"{" + b",".join(b'"f%d": 1' % n for n in range(20_000)) + b"}", 422),
    (b"[" + b",".join(b"{}" for _ in range(1000)) + b"]", 200),
    (b" " * (BODY_BYTES_MAX_OF["/v1/usage"] + 1), 413),
]


@pytest.mark.parametrize(("body", "status"), BAD_BODIES, ids=[repr(body[:40]) for body, _ in BAD_BODIES])
async def test_a_body_that_is_odd_nested_or_huge_is_refused_in_time_and_charges_nothing(
    context: Context, entitled: Entitled, admin: AsyncClient, body: bytes, status: int
) -> None:
    org = await entitled("tiny")
    headers = {"content-type": "application/json"}
    response = await admin.post(f"/v1/usage?org={org}", content=body, headers=headers)
    assert response.status_code == status, response.text[:500]
    if status == 200:
        assert response.json()["charged"] == 0
    else:
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 4096
    assert await used(context, org) == 0


async def test_a_thousand_records_as_long_as_they_may_be_fit_into_a_body(post: Post, entitled: Entitled) -> None:
    org = await entitled("bulk")
    at = "2026-11-23T05:00:00.000000+00:00"
    longest = [record(meter="m" * 63, units=COST_MAX, idempotency_key=f"{n:0>255}", timestamp=at) for n in range(1000)]
    assert (await post(org, longest)).status_code == 200
    assert len(json.dumps(longest)) > 64 * 1024


async def test_a_body_that_is_not_declared_as_json_is_415(admin: AsyncClient) -> None:
    for content_type in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "text/json"}):
        response = await admin.post("/v1/usage?org=acme", content=json.dumps(record()), headers=content_type)
        assert response.status_code == 415, response.text


async def test_an_organization_reports_and_reads_its_own_usage_only_and_an_admin_names_whose(
    context: Context, entitled: Entitled, nobody: AsyncClient, admin: AsyncClient, token_of: TokenOf
) -> None:
    own, other = await entitled("tiny"), await entitled("tiny")
    headers = {"authorization": f"Bearer {token_of(own)}"}
    for path, status in (("/v1/usage", 200), (f"/v1/usage?org={own}", 200), (f"/v1/usage?org={other}", 403)):
        assert (await nobody.post(path, json=record(), headers=headers)).status_code == status
        assert (await nobody.get(path, headers=headers)).status_code == status
    assert (await nobody.post("/v1/usage", json=record(org=other), headers=headers)).status_code == 422
    expired = {"authorization": f"Bearer {token_of(own, now=0.0, ttl=timedelta(hours=1))}"}
    for refused in ({}, expired, {"authorization": "Bearer wrong"}):
        assert (await nobody.post("/v1/usage", json=record(), headers=refused)).status_code == 401
        assert (await nobody.get("/v1/usage", headers=refused)).status_code == 401
    for method in ("GET", "POST"):
        assert (await admin.request(method, "/v1/usage", json=record())).status_code == 422
        assert (await admin.request(method, f"/v1/usage?org={other}", json=record())).status_code == 200
        assert (await admin.request(method, "/v1/usage?org=a%20b", json=record())).status_code == 422
    assert (await used(context, own), await used(context, other)) == (2, 1)
