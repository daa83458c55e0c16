"""Why a request was refused, in a browser: what was kept, one decision, and a request that nobody has sent."""

import time
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from devstack import postgres
from quota import keys, routes
from quota.kept_refusals import FIELD, Batch, Refused, encode, words_of
from quota.model import Exhausted, MeterBalance, NotInPlan
from quota.periods import Period
from quota.routes import Price, Route, Routes
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console
from tests.expected import monthly_period

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def told(console: Console, postgres_dsn: str, valkey: str) -> list[Refused]:
    """Refusals as a gateway tells of them, when they are in the database."""
    postgres.execute(postgres_dsn, "DELETE FROM refusal")
    postgres.execute(postgres_dsn, "DELETE FROM refusal_source")
    postgres.execute(postgres_dsn, "DELETE FROM refusal_count")
    assert console.admin.put("/v1/organizations/acme", json={"name": "Acme"}).status_code < 300
    now = time.time()
    found = monthly_period(0, now)
    period = Period(found.start, found.end)
    balance = MeterBalance("api_calls", 10, 3, 0)
    quota = Exhausted(period, int(now * 1_000_000), balance, over_limit=False)
    refused = [
        _refused(1, now, words_of(quota), "exhausted", correlation="order-7"),
        _refused(2, now, words_of(NotInPlan("tokens")), "not_in_plan", user=HOSTILE, charges={"tokens": 1}),
        _refused(3, now, {}, "token_key_revoked", org=None, detail=HOSTILE),
    ]
    with redis.Redis.from_url(valkey) as client:
        batch = Batch(f"w{now}", "gw1", 1, 40, {"acme": 30}, tuple(refused))
        client.xadd(keys.REFUSALS, {FIELD: encode(batch)})
        chat = Route(HOSTILE, None, ("POST",), "/chat", {"api_calls": Price(1_000_000), "tokens": Price(2)})
        routes_text = routes.encode(Routes((chat,), ("live",)))
        client.hset(keys.ROUTES, routes.digest_of(routes_text), routes.value_of(routes_text, int(now), int(now)))
    deadline = time.monotonic() + 60
    while not console.admin.get("/v1/decisions").json()["refusals"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return refused


def _refused(number: int, at: float, said: dict[str, Any], verdict: str, **fields: Any) -> Refused:
    plain = Refused(
        f"a1b2c3d4e5{number:010d}",
        None,
        int(at * 1_000_000) - number,
        "acme",
        None,
        None,
        "api",
        "GET",
        429,
        verdict,
        False,
        "It is refused.",
        {"api_calls": 5},
        None,
        "",
        said,
    )
    return plain._replace(**fields)


def test_each_page_is_usable_by_everybody(console: Console, page: Page, told: list[Refused]) -> None:
    signed_in(page, console)
    paths = ["", *(f"/{refused.request_id}" for refused in told), "/order-7", "/suppose"]
    by_path = "/suppose?org=acme&path=/chat/1&method=POST&address=192.0.2.7"
    for path in (
        *paths,
        by_path,
        "/suppose?org=acme&charge=api_calls:1",
        "/suppose?org=acme&charge=%3Cb%3E",
        "/unknown-0",
    ):
        check_page(page, f"{console.url}/console/decisions{path}")


def test_a_refused_client_s_id_leads_to_the_reason_with_the_keyboard_alone(
    console: Console, page: Page, told: list[Refused]
) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/decisions")
    expect(page.get_by_role("main")).to_contain_text("37 are not kept")
    page.get_by_label("Request id").focus()
    page.keyboard.type("order-7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Why this request")
    main = page.get_by_role("main")
    expect(main).to_contain_text("Refused")
    expect(main).to_contain_text("acme")
    page.goto(f"{console.url}/console/decisions")
    page.get_by_label("Reason").select_option("not_in_plan")
    expect(page.get_by_role("row").filter(has_text="1 tokens")).to_have_count(1)
    expect(page.get_by_role("row").filter(has_text="5 api_calls")).to_have_count(0)


def test_what_a_stranger_sent_is_shown_as_text(console: Console, page: Page, told: list[Refused]) -> None:
    signed_in(page, console)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(f"{console.url}/console/decisions/{told[2].request_id}")
    expect(page.get_by_role("main")).to_contain_text(HOSTILE)
    expect(page.get_by_role("main")).to_contain_text("one that was revoked never comes back")
    page.goto(f"{console.url}/console/decisions")
    expect(page.get_by_role("main")).to_contain_text(HOSTILE)


def test_a_supposed_request_is_answered_without_scripts(
    console: Console, browser: Browser, told: list[Refused]
) -> None:
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/decisions")
        page.get_by_role("link", name="Suppose a request").click()
        page.get_by_label("Organization").fill("acme")
        page.get_by_label("Route", exact=True).select_option(HOSTILE)  # which costs more than any plan has
        page.get_by_role("button", name="Apply").click()
        main = page.get_by_role("main")
        expect(main).to_contain_text("The organization is known")
        expect(main).to_contain_text("What would admit it")
        expect(main).to_contain_text("1,000,000 api_calls; 2 tokens.")
        page.get_by_label("Cost (meter:units)").fill("one call")
        page.get_by_role("button", name="Apply").click()
        expect(main).to_contain_text("must be meter:units")
