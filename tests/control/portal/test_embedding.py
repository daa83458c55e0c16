"""Which pages of other origins may read what: by default none anything."""

from collections.abc import AsyncIterator

import pytest
from httpx import ASGITransport, AsyncClient

from control.app import build, opened
from control.portal.embed import ELEMENT
from control.settings.control_plane import Settings
from tests.control.plane import Entitled, MovedClock, TokenOf

SHOP = "https://shop.example.com"
ASKS = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
ALLOWED = "access-control-allow-origin"


@pytest.fixture
async def embedded(settings: Settings, clock: MovedClock) -> AsyncIterator[AsyncClient]:
    portal = settings.portal.model_copy(update={"embed_origins": (SHOP,)})
    async with opened(settings.model_copy(update={"portal": portal}), clock) as context:
        transport = ASGITransport(build(context), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            yield client


async def test_a_page_of_an_origin_that_is_named_reads_the_forecast_with_a_token(
    embedded: AsyncClient, entitled: Entitled, token_of: TokenOf
) -> None:
    path = f"/v1/organizations/{await entitled()}/forecast"
    asked = await embedded.options(path, headers={"origin": SHOP, **ASKS})
    assert (asked.status_code, asked.headers[ALLOWED]) == (204, SHOP)
    assert asked.headers["access-control-allow-headers"] == "authorization"
    assert asked.headers["access-control-allow-methods"] == "GET"
    token = {"authorization": f"Bearer {token_of(path.split('/')[3])}"}
    read = await embedded.get(path, headers={"origin": SHOP, **token})
    assert (read.status_code, read.headers[ALLOWED], read.headers["vary"]) == (200, SHOP, "Origin")
    assert "access-control-allow-credentials" not in read.headers
    refused = await embedded.get(path, headers={"origin": SHOP})
    assert (refused.status_code, refused.headers[ALLOWED]) == (401, SHOP), "or the page could not tell why"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://shop.example.com.evil.example.com", "null"])
async def test_a_page_of_another_origin_reads_nothing(embedded: AsyncClient, entitled: Entitled, origin: str) -> None:
    path = f"/v1/organizations/{await entitled()}/forecast"
    asked = await embedded.options(path, headers={"origin": origin, **ASKS})
    assert asked.status_code == 405
    assert ALLOWED not in asked.headers
    read = await embedded.get(path, headers={"origin": origin})
    assert ALLOWED not in read.headers
    assert read.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "path", ["/v1/usage", "/v1/entitlements/acme", "/v1/organizations/acme/keys", "/v1/organizations", "/portal"]
)
async def test_an_origin_that_is_named_reads_nothing_else(embedded: AsyncClient, path: str) -> None:
    for method in ("GET", "OPTIONS", "POST"):
        answer = await embedded.request(method, path, headers={"origin": SHOP, **ASKS})
        assert ALLOWED not in answer.headers
        assert answer.status_code >= 300


async def test_without_the_setting_no_page_of_another_origin_reads_anything(
    nobody: AsyncClient, entitled: Entitled
) -> None:
    path = f"/v1/organizations/{await entitled()}/forecast"
    for answer in (
        await nobody.options(path, headers={"origin": SHOP, **ASKS}),
        await nobody.get(path, headers={"origin": SHOP}),
    ):
        assert ALLOWED not in answer.headers


async def test_the_element_is_loaded_by_any_page_and_is_at_most_10_kilobytes(nobody: AsyncClient) -> None:
    answer = await nobody.get("/portal/quotagate-usage.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers[ALLOWED] == "*"
    assert len(ELEMENT) <= 10_000


def test_the_element_writes_no_markup_and_evaluates_nothing() -> None:
    """Names of meters come from elsewhere, and a strict policy must not be in the way."""
    text = ELEMENT.decode()
    markup = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", 'createElement("style')
    for word in (*markup, "eval(", "Function("):
        assert word not in text
