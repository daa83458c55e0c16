"""Forward-auth: the decision of the gateway for a proxy that forwards itself."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.gateway.proxies import KINDS, TRUSTED, question
from tests.gateway.rig import Gateway, MakeOrganization, Organization, StartGateway, Until, Upstream

ROUTES = [
    {"path": "/", "upstream": "api"},
    {"path": "/free", "upstream": "api", "exempt": True},
    {"path": "/dear", "upstream": "api", "host": "dear.example.com", "meters": {"api_calls": 9}},
    {"path": "/post", "upstream": "api", "methods": ["POST"]},
]


@pytest.fixture
async def gateway(start: StartGateway) -> Gateway:
    return await start(routes=ROUTES, **TRUSTED)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_admitted_request_is_charged_and_answered_with_the_fields_to_copy(
    gateway: Gateway, acme: Organization, upstream: Upstream, kind: str
) -> None:
    answer = await gateway.ask(question(kind, "/a/../v1?q=1", acme.auth + b"X-Request-Id: order-7\r\n"))
    assert (answer.status, answer.body) == (200, b"")
    assert answer["x-quota-org"] == "acme"
    assert answer["x-quota-target"] == "/v1?q=1"
    assert answer["x-request-id"] == "order-7"
    assert answer.remaining == 99
    assert answer["ratelimit-policy"] is not None
    assert await acme.used() == 1
    assert not upstream.requests


@pytest.mark.parametrize("kind", KINDS)
async def test_the_original_request_is_routed_by_its_own_method_host_and_path(
    gateway: Gateway, organization: MakeOrganization, kind: str
) -> None:
    acme = await organization("acme", 10)
    assert (await gateway.ask(question(kind, "/dear", acme.auth, host="DEAR.example.com:8443"))).status == 200
    assert await acme.used() == 9
    assert (await gateway.ask(question(kind, "/free/x"))).status == 200
    assert (await gateway.ask(question(kind, "/post", acme.auth, method="POST"))).status == 200
    assert await acme.used() == 10


async def test_refusals_are_those_of_the_gateway(gateway: Gateway, organization: MakeOrganization) -> None:
    empty, unpaid = await organization("empty", 1), await organization("unpaid", None)
    await gateway.ask(question("envoy", fields=empty.auth))
    for path, fields, status in (
        ("/v1", b"", 401),
        ("/v1", empty.auth, 429),
        ("/v1", empty.auth, 429),  # from memory
        ("/v1", unpaid.auth, 403),
        ("/a%2fb", empty.auth, 400),
    ):
        direct = await gateway.get(path, None, fields)
        for kind in ("traefik", "envoy"):
            answer = await gateway.ask(question(kind, path, fields))
            assert answer.status == direct.status == status
            assert answer.problem["type"] == direct.problem["type"]
            names = {name for name, _ in direct.fields} - {b"Connection"}  # what a client got wrong closes its own
            assert {name for name, _ in answer.fields} == names
    assert await empty.used() == 1


async def test_nginx_is_told_401_or_403_with_status_and_problem_in_fields(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    empty = await organization("empty", 1)
    assert (await gateway.ask(question("nginx", fields=empty.auth))).status == 200
    for fields, status, real in ((b"", 401, 401), (empty.auth, 403, 429), (empty.auth, 403, 429)):
        answer = await gateway.ask(question("nginx", fields=fields))
        assert (answer.status, answer["x-quota-status"]) == (status, str(real))
        problem = json.loads(answer["x-quota-problem"] or "")
        assert (problem["status"], problem) == (real, json.loads(answer.body))
        assert (answer["retry-after"] is not None) == (real == 429)
        assert (answer["www-authenticate"] is not None) == (real == 401)
    assert (await gateway.ask(question("nginx", "/a%2fb", empty.auth)))["x-quota-status"] == "400"


async def test_a_refusal_of_a_head_request_has_its_body_where_the_question_was_a_get(gateway: Gateway) -> None:
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(question("traefik", method="HEAD"), "GET")
        assert (answer.status, answer.problem["status"]) == (401, 401)
    answer = await client.ask(question("envoy", method="HEAD"), "HEAD")
    assert (answer.status, answer.body) == (401, b"")


async def test_preflights_are_free(gateway: Gateway, acme: Organization) -> None:
    asks = b"Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n"
    for kind in KINDS:
        answer = await gateway.ask(question(kind, "/post", asks, method="OPTIONS"), None if kind == "envoy" else "GET")
        assert (answer.status, answer["x-quota-org"]) == (200, None)
    assert await acme.used() == 0


async def test_without_exactly_one_of_each_original_field_the_answer_is_400(
    gateway: Gateway, acme: Organization
) -> None:
    for kind in ("nginx", "traefik"):
        lines = question(kind, fields=acme.auth).split(b"\r\n")
        for index in (2, 3, 4):
            for changed in ([*lines[:index], *lines[index + 1 :]], [*lines[:index], lines[index], *lines[index:]]):
                answer = await gateway.ask(b"\r\n".join(changed))
                assert (answer.status, answer.problem["type"]) == (400, "urn:quotagate:problem:bad-request")
    assert await acme.used() == 0


async def test_fields_of_another_kind_of_proxy_are_not_believed(gateway: Gateway, acme: Organization) -> None:
    """A client can send any field that its proxy does not replace."""
    forged = b"X-Original-URI: /free\r\nX-Original-Method: GET\r\nX-Original-Host: a\r\n"
    assert (await gateway.ask(question("traefik", fields=forged))).status == 401
    assert (
        await gateway.ask(question("envoy", fields=forged + forged.replace(b"Original", b"Forwarded")))
    ).status == 401


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8", "::1"]], ids=["off", "others"])
async def test_for_those_who_are_not_trusted_the_endpoint_does_not_exist(
    start: StartGateway, acme: Organization, upstream: Upstream, trusted: list[str]
) -> None:
    gateway = await start(forward_auth={"trusted": trusted})
    for kind in KINDS:
        answer = await gateway.ask(question(kind, fields=acme.auth))
        assert (answer.status, json.loads(answer.body)["type"]) == (404, "urn:quotagate:problem:not-found")
    assert await acme.used() == 0
    assert not upstream.requests


async def test_a_path_that_climbs_out_of_the_endpoint_is_refused_and_goes_nowhere(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    for target in ("/../../free", "/%2e%2e/%2e%2e/%2e%2e/free"):
        assert (await gateway.ask(question("envoy", target, acme.auth))).status == 400
    for target in ("/-/health", "/-/authorize/envoy/free"):
        assert (await gateway.ask(question("envoy", target, acme.auth))).status == 404
    assert not upstream.requests


async def test_other_names_under_the_endpoint_are_404(gateway: Gateway) -> None:
    for path in ("/-/authorize", "/-/authorize/", "/-/authorize/nginx/", "/-/authorize/apache", "/-/authorize/envoy"):
        assert (await gateway.get(path)).status == 404
    assert (await gateway.get("/-/health")).status == 200


async def test_questions_on_one_connection_are_answered_in_order_and_each_by_itself(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    acme, empty = await organization("acme", 100), await organization("empty", 1)
    client = await gateway.connect()
    questions = [
        question("nginx", f"/{number}", empty.auth if number % 2 else acme.auth)
        if number % 3
        else question("nginx", "/free")
        for number in range(12)
    ]
    client.send(b"".join(questions))
    answers = [await client.answer() for _ in questions]
    assert [(a.status, a["x-quota-org"]) for a in answers[:6]] == [
        (200, None),
        (200, "empty"),
        (200, "acme"),
        (200, None),
        (200, "acme"),
        (403, None),
    ]
    for number in range(3):  # recognized heads, too
        assert (await client.ask(question("nginx", "/v1", acme.auth)))["x-quota-target"] == "/v1", number


async def test_a_client_that_leaves_before_the_decision_is_not_charged_and_after_it_stays_so(
    gateway: Gateway, acme: Organization, until: Until
) -> None:
    for _ in range(3):
        client = await gateway.connect()
        client.send(question("traefik", fields=acme.auth))
        await client.answer()
        await client.close()
    await until(lambda: not gateway.connections)
    assert await acme.used() == 3
    assert await acme.events() == ["t"] * 3


async def test_exactly_the_limit_is_admitted_of_many_concurrent_questions(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    acme = await organization("acme", 20)
    answers = await asyncio.gather(*(gateway.ask(question("envoy", f"/{n}", acme.auth)) for n in range(60)))
    assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 40
    assert await acme.used() == 20


async def test_the_access_log_tells_what_the_client_asked(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(routes=ROUTES, access_log={"path": str(file)}, **TRUSTED)
    await gateway.ask(question("nginx", "/post/x?secret", acme.auth, method="POST"))
    await until(lambda: file.exists() and file.read_bytes().endswith(b"\n"))
    line = json.loads(file.read_bytes())
    assert (line["method"], line["path"], line["route"]) == ("POST", "/post/x", "POST /post")
    assert (line["org"], line["verdict"], line["status"], line["upstream_us"]) == ("acme", "admitted", 200, None)


@pytest.mark.parametrize("published", [False, True], ids=["route", "organization"])
async def test_in_shadow_mode_the_proxy_is_told_to_forward(
    start: StartGateway, organization: MakeOrganization, published: bool
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "shadow": not published}], **TRUSTED)
    acme = await organization("acme", 1, shadow=published)
    answers = [await gateway.ask(question("nginx", fields=acme.auth)) for _ in range(3)]
    assert [(a.status, a["x-quota-org"], a["x-quota-status"]) for a in answers] == [(200, "acme", None)] * 3
    assert await acme.used() == 1
