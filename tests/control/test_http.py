"""Every answer of the control API: correlated, bounded, and a problem document when it is an error."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from httpx import AsyncClient

from control.db import StoreUnavailable
from control.http.context import Context
from control.http.envelope import BODY_BYTES_MAX
from control.http.guards import PUBLIC
from control.openapi import described
from control.routers import ROUTERS


async def test_a_sane_request_id_is_continued_and_another_is_replaced(admin: AsyncClient) -> None:
    kept = await admin.get("/nope", headers={"x-request-id": "trace:1/a+b=c.d_e-f"})
    assert kept.headers["x-request-id"] == kept.json()["correlation_id"] == "trace:1/a+b=c.d_e-f"
    for strange in (b"a b", b"x" * 129, b'"', "ü".encode()):
        made = await admin.get("/nope", headers={b"x-request-id": strange})
        assert len(made.headers["x-request-id"]) == 36


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/V1/plans", 404, "not-found"),
        ("POST", "/v1/plans", 405, "method-not-allowed"),
        ("POST", "/v1/entitlements/acme", 405, "method-not-allowed"),
        ("GET", "/v1/organizations?limit=0", 422, "invalid"),
        ("GET", "/v1/organizations/acme/journal?before=x", 422, "invalid"),
        ("PUT", "/v1/organizations/acme", 422, "invalid"),
    ],
)
async def test_every_error_is_a_problem_document(
    admin: AsyncClient, method: str, path: str, status: int, slug: str
) -> None:
    response = await admin.request(method, path)
    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:quotagate:problem:{slug}"
    assert problem["correlation_id"] == response.headers["x-request-id"]
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"name": "a", "name": 5}', b"null", b'"text"', b"[" * 5000])
async def test_a_body_that_is_no_document_is_refused_and_not_repeated(admin: AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await admin.put("/v1/organizations/acme", content=body, headers=headers)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "a\udfffb"])
async def test_text_that_postgres_cannot_hold_is_refused_wherever_it_comes_in(admin: AsyncClient, text: str) -> None:
    grant = {"meter": "api_calls", "units": 1, "expires_at": "2099-01-01T00:00:00Z", "reason": text}
    escaped, headers = json.dumps, {"content-type": "application/json"}
    for method, path, body in (
        ("PUT", "/v1/organizations/acme", escaped({"name": text})),
        ("PUT", "/v1/entitlements/acme", escaped({"plan": text})),
        ("PUT", "/v1/entitlements/acme", escaped({"plan": "tiny", "meters": {text: 1}})),
        ("POST", "/v1/organizations/acme/grants", escaped(grant)),
        ("GET", "/v1/organizations?after=a%00b", ""),
        ("GET", "/v1/organizations?after=%ff", ""),
    ):
        response = await admin.request(method, path, content=body, headers=headers)
        assert response.status_code == 422, (path, body, response.text)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_limit_is_refused_whether_it_says_its_length_or_not(
    admin: AsyncClient, declared: bool
) -> None:
    async def chunks() -> object:
        for _ in range(BODY_BYTES_MAX // 1024 + 1):
            yield b" " * 1024

    content: Any = b" " * (BODY_BYTES_MAX + 1) if declared else chunks()
    response = await admin.put("/v1/organizations/acme", content=content)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:quotagate:problem:payload-too-large"


async def test_a_postgres_that_is_away_is_503_and_no_reason_leaks(
    admin: AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("Postgres: connection to 10.0.0.1 refused, password=hunter2")

    monkeypatch.setattr("control.db.Database.connection", away)
    response = await admin.get("/v1/organizations")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "hunter2" not in response.text


async def test_a_fault_of_ours_is_a_problem_document_too_and_no_reason_leaks(
    admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret: hunter2")

    monkeypatch.setattr("control.db.Database.connection", broken)
    response = await admin.get("/v1/organizations")
    assert (response.status_code, response.json()["type"]) == (500, "urn:quotagate:problem:internal")
    assert response.json()["correlation_id"] == response.headers["x-request-id"]
    assert "hunter2" not in response.text


async def test_the_document_describes_every_error_as_a_problem(admin: AsyncClient) -> None:
    document = (await admin.get("/openapi.json")).json()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield from [value] if name == "$ref" else references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    schemas = document["components"]["schemas"]
    assert {ref.rpartition("/")[2] for ref in references(document)} <= set(schemas)
    for path, methods in document["paths"].items():
        if path.startswith("/v1/"):
            for method, operation in methods.items():
                assert "application/problem+json" in operation["responses"]["default"]["content"]
                assert "422" not in operation["responses"]
                assert bool(operation.get("security")) == ((method.upper(), path) not in PUBLIC), (method, path)
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/entitlements/acme", "DELETE, GET, PATCH, PUT"),
        ("/v1/usage", "GET, POST"),
        ("/v1/organizations/acme", "DELETE, GET, PUT"),
    ],
)
async def test_a_405_names_every_method_of_the_path(admin: AsyncClient, path: str, allowed: str) -> None:
    response = await admin.request("TRACE", path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (
            "/v1/organizations?email=a@example.com",
            (
                "query.email: is not a parameter of this endpoint (known: after, deleted, limit, near_quota, "
                "payment_failed, plan, q, shadow, sort, status)"
            ),
        ),
        ("/v1/organizations?limti=5", "query.limti: is not a parameter of this endpoint (did you mean limit?)"),
        ("/v1/usage?buckt=day", "query.buckt: is not a parameter of this endpoint (did you mean bucket?)"),
        ("/v1/plans?x=1", "query.x: is not a parameter of this endpoint (known: none)"),
    ],
)
async def test_a_query_parameter_that_is_not_known_is_refused_by_name(
    admin: AsyncClient, path: str, detail: str
) -> None:
    response = await admin.get(path)
    assert (response.status_code, response.json()["detail"]) == (422, detail)


async def test_a_field_that_is_wrong_is_told_once(admin: AsyncClient) -> None:
    problem = (await admin.get("/v1/organizations/no!id/grants")).json()
    assert [error["field"] for error in problem["errors"]] == ["path.org"]
    assert problem["detail"].count("path.org") == 1


async def test_many_wrong_fields_take_no_longer_than_they_are_many(admin: AsyncClient) -> None:
    await admin.put("/v1/organizations/wrong", json={"name": "Wrong"})
    body = {f"x{number}": 1 for number in range(40_000)}
    began = time.thread_time()
    answer = await admin.post("/v1/organizations/wrong/keys/import", json=body)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 40_001), "and `keys` is missing"
    assert time.thread_time() - began < 8, "each compared with all others took 18 s, in which nobody was answered"


async def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(admin: AsyncClient, catalogue: None) -> None:
    await admin.put("/v1/organizations/whole", json={"name": "Whole"})
    for units, status in ((b"1837.0", 200), (b"1837.5", 422), (b'"1837"', 422), (b"1e3", 200), (b"true", 422)):
        body = b'{"plan": "starter", "meters": {"api_calls": %b}}' % units
        headers = {"content-type": "application/json"}
        answer = await admin.put("/v1/entitlements/whole", content=body, headers=headers)
        assert answer.status_code == status, (units, answer.text)


async def test_statuses_that_are_answered_are_documented(admin: AsyncClient, context: Context) -> None:
    from control.app import build

    paths = build(context).openapi()["paths"]
    assert {"200", "201"} <= paths["/v1/organizations/{org}"]["put"]["responses"].keys()
    assert {"200", "201"} <= paths["/v1/organizations/{org}/grants"]["post"]["responses"].keys()


async def test_a_401_says_why(nobody: AsyncClient) -> None:
    answer = await nobody.get("/v1/plans")
    assert (answer.status_code, answer.json()["reason"]) == (401, "missing")


def test_apps_share_their_routes_so_that_endpoints_are_analysed_once() -> None:
    routes = {id(route) for router in ROUTERS for route in router.routes}
    for app in (described(), described()):
        assert routes <= {id(route) for route in app.router.routes}
