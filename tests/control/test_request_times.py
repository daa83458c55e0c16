"""What the metrics say of requests: how long they took, by what was asked, and how they were answered."""

import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.http.request_times import Group, RequestTimes, group_of


@pytest.mark.parametrize(
    ("method", "path", "group"),
    [
        ("POST", "/v1/usage", Group.INGEST),
        ("GET", "/v1/usage", Group.API),
        ("POST", "/v1/activations", Group.AUTHENTICATION),
        ("POST", "/v1/activations/refresh", Group.AUTHENTICATION),
        ("POST", "/v1/organizations/acme/tokens", Group.AUTHENTICATION),
        ("POST", "/v1/organizations/acme/keys", Group.API),
        ("POST", "/api/webhooks/stripe", Group.WEBHOOK),
        ("GET", "/console/organizations", Group.CONSOLE),
        ("GET", "/portal", Group.PORTAL),
    ],
)
def test_a_request_is_of_one_group(method: str, path: str, group: Group) -> None:
    assert group_of(method, path) is group


async def test_requests_are_counted_by_their_answers_and_those_of_the_port_itself_are_not(
    nobody: AsyncClient, admin: AsyncClient
) -> None:
    assert (await nobody.get("/v1/organizations")).status_code == 401
    assert (await nobody.get("/-/health")).status_code == 200
    text = (await nobody.get("/-/metrics")).text
    assert 'quotagate_control_responses_total{class="4xx",group="api"} 1.0\n' in text
    assert 'quotagate_control_request_seconds_count{group="api"} 1.0\n' in text
    assert 'quotagate_control_request_seconds_count{group="console"} 0.0\n' in text


async def test_stores_incidents_and_redis_are_told_of(nobody: AsyncClient, context: Context) -> None:
    text = (await nobody.get("/-/metrics")).text
    assert 'quotagate_control_store_up{store="postgres"} 1.0\n' in text
    assert 'quotagate_control_store_up{store="redis"} 1.0\n' in text
    assert 'quotagate_control_incidents_open{kind="drift"} 0.0\n' in text
    assert "quotagate_control_redis_evicts 0.0\n" in text
    assert "quotagate_control_redis_replicas 0.0\n" in text


def test_a_clock_that_was_set_back_makes_no_negative_duration() -> None:
    times = RequestTimes()
    times.add("GET", "/v1/plans", 200, -0.5)
    assert times.durations[Group.API].seconds == 0
