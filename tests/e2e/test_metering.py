"""One request, metered end to end: the gateway in front of the sample upstream, the control plane behind."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from devstack import postgres, sample_process
from tests.e2e.running import Eventually, Up


def events(stack: Up, org: str) -> int:
    return int(postgres.execute(stack.ready["postgres"], f"SELECT count(*) FROM usage_event WHERE org = '{org}'"))


def test_an_admitted_call_reaches_the_upstream_and_tells_what_is_left(stack: Up) -> None:
    with stack.client("acme") as client:
        response = client.post("/anything/orders?id=7", json={"amount": 1})
    assert response.status_code == 200
    echoed = response.json()
    assert (echoed["method"], echoed["json"], echoed["args"]) == ("POST", {"amount": 1}, {"id": "7"})
    assert echoed["headers"]["X-Quota-Org"] == "acme"
    assert response.headers["RateLimit"].startswith('"api_calls";r=')


def test_the_101st_call_of_a_plan_of_100_is_refused(stack: Up) -> None:
    org = stack.organization_with_100_calls()
    with stack.client(org) as client:
        statuses = [client.get("/get").status_code for _ in range(100)]
        refused = client.get("/get")
    assert statuses == [200] * 100
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["status"] == 429
    assert sample_process.hits(stack.ready["upstream"])["by_org"][org] == 100


def test_clients_that_race_for_the_last_units_get_exactly_those(stack: Up) -> None:
    org = stack.organization_with_100_calls()
    with stack.client(org) as client, ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: client.get("/get").status_code, range(300)))
    assert (statuses.count(200), statuses.count(429)) == (100, 200)
    assert sample_process.hits(stack.ready["upstream"])["by_org"][org] == 100


def test_each_admitted_call_is_one_usage_event_and_a_refusal_is_none(stack: Up, eventually: Eventually) -> None:
    org = stack.organization_with_100_calls()
    with stack.client(org) as client:
        for _ in range(103):
            client.get("/get")
    assert eventually(lambda: events(stack, org) == 100)
    other = stack.organization_with_100_calls()
    with stack.client(other) as client:
        client.get("/get")
    assert eventually(lambda: events(stack, other) == 1)  # what came later has been written, so nothing is on its way
    assert events(stack, org) == 100


def test_an_organization_without_entitlement_is_asked_to_pay(stack: Up) -> None:
    with stack.client("unpaid") as client:
        response = client.get("/get")
    assert response.status_code == 402
    assert response.headers["content-type"] == "application/problem+json"


def test_a_metered_organization_has_a_plan_that_goes_on_beyond_its_allowance(stack: Up) -> None:
    assert "METERED" in str(stack.entitlement("globex"))


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense"])
def test_a_call_without_a_good_token_is_401_and_charges_nothing(stack: Up, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{stack.ready['gateway']}/get", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
