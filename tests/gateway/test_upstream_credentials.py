"""The upstream's own credential goes in place of the client's token, and nobody else sees it."""

import pytest

from common.settings_file import SettingsError
from tests.gateway.request_heads import ask, fields, on, to
from tests.gateway.rig import Organization, StartGateway, Until, Upstream
from tests.gateway.settings import read

KEY = "Bearer upstream-key-0123456789"


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
async def test_the_upstreams_own_credential_goes_in_place_of_the_clients_token(
    start: StartGateway, acme: Organization, upstream: Upstream, header: str
) -> None:
    gateway = await start(**to(credential={"header": header, "value": KEY}))
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(ask("/", acme.auth + b"X-API-Key: mine\r\nX_Api_Key: mine\r\nX-Other: 1\r\n"))
        assert answer.status == 200
        request = upstream.requests[-1]
        assert acme.token.encode() not in request
        assert fields(request)[header.lower()] == KEY
        assert (b"mine" in request) == (header == "Authorization")
        assert fields(request)["x-other"] == "1"
    assert await acme.used() == 2


async def test_the_credential_goes_with_nobody_whose_token_was_not_believed(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    routes = [
        {"path": "/", "upstream": "api", "shadow": True},
        {"path": "/free", "upstream": "api", "exempt": True},
    ]
    gateway = await start(routes=routes, **to(credential={"value": KEY}))
    assert (await gateway.ask(ask("/", b"Authorization: Bearer x.y.z\r\n"))).status == 200
    assert "authorization" not in fields(upstream.requests[-1]), "refused, but for the shadow"
    asks_leave = b"Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"
    for path in ("/", "/free"):
        assert (await gateway.ask(ask(path, asks_leave, "OPTIONS"), "OPTIONS")).status == 200
        assert "authorization" not in fields(upstream.requests[-1]), "a preflight speaks for nobody"
    assert (await gateway.ask(ask("/free"))).status == 200
    assert fields(upstream.requests[-1])["authorization"] == KEY
    client = await gateway.connect()
    for path, with_key in (("/", True), ("/free", True), ("/", True)):
        assert (await client.ask(ask(path, acme.auth))).status == 200
        assert (fields(upstream.requests[-1]).get("authorization") == KEY) == with_key


async def test_health_probes_ask_as_requests_do(start: StartGateway, upstream: Upstream, until: Until) -> None:
    health = {"path": "/healthz", "interval_seconds": 0.02}
    await start(**to(credential={"value": KEY}, host="api.internal", health=health))
    await until(lambda: upstream.requests)
    assert (fields(upstream.requests[0])["host"], fields(upstream.requests[0])["authorization"]) == (
        "api.internal",
        KEY,
    )


async def test_no_credential_and_no_value_is_shown(start: StartGateway, acme: Organization, upstream: Upstream) -> None:
    changes = {**to(credential={"value": KEY}), **on(request_headers={"set": {"X-Key": "hidden-value-17"}})}
    settings = read(upstreams={"sample": {"url": "http://a", **changes["upstreams"]["api"]}})
    assert KEY not in repr(settings) + str(settings) + str(settings.model_dump())
    gateway = await start(**changes)
    await gateway.ask(ask("/", acme.auth))
    assert fields(upstream.requests[0])["x-key"] == "hidden-value-17"
    route = next(iter(gateway.worker.destinations.routes()))
    for shown in (repr(route), repr(gateway.worker.settings), repr(gateway.logs)):
        assert KEY not in shown
        assert "hidden-value-17" not in shown
    with pytest.raises(SettingsError) as refused:
        read(upstreams={"sample": {"url": "http://a", "credential": {"value": KEY + "\n"}}})
    assert KEY not in str(refused.value)
