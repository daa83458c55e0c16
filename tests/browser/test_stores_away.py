"""Each page while Redis, Stripe or PostgreSQL is away, silent or slow: it opens, and says what it does not know."""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from control.commands.plans import apply_catalogue
from devstack import postgres, stripe_backend
from devstack.child import stopping
from devstack.ports import free_port
from tests.browser.gate import Gate, Way, gate_to
from tests.browser.routes import pattern_of
from tests.browser.running import SESSION_COOKIE, WAIT_MS, Console, console_running, new_page
from tests.e2e.running import run_quotagate, wait_for

expect.set_options(timeout=WAIT_MS)  # a loaded machine takes its time

PAYER = "payer"
AT_ONCE = 8
SHOWING_REDIS = [f"/console/organizations/{PAYER}", f"/console/organizations/{PAYER}/usage", "/console"]
PATIENCE_SECONDS = 60
POSSESSIONS = {
    "grants": {"meter": "api_calls", "units": 5, "expires_at": "2090-01-01T00:00:00Z", "reason": "an outage"},
    "keys": {"name": "the shop"},
    "activation-codes": {"sites": 2},
}
INCIDENT = f"""
    INSERT INTO incident (id, kind, key, org, content, count, opened_at, last_seen_at)
    VALUES (gen_random_uuid(), 'payment_failed', 'in_1', '{PAYER}', '{{}}', 1, now(), now())
"""


@dataclass
class Rig:
    console: Console
    session: str
    redis: Gate
    stripe: Gate
    postgres: Gate

    def get(self, address: str) -> httpx.Response:
        headers = {"cookie": f"{SESSION_COOKIE}={self.session}"}
        return httpx.get(urljoin(self.console.url, address), headers=headers, timeout=PATIENCE_SECONDS)

    def opened(self, addresses: list[str]) -> dict[str, httpx.Response]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return dict(zip(addresses, threads.map(self.get, addresses), strict=True))

    def by(self, browser: Browser, *, scripts: bool) -> Page:
        """A page of somebody who has signed in by a link."""
        page = new_page(browser, java_script_enabled=scripts)
        page.goto(self.console.link())
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        return page


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, application_login: str, valkey: str
) -> Iterator[Rig]:
    folder, double_port = tmp_path_factory.mktemp("away"), free_port()
    assert run_quotagate("plans", "apply", "--dsn", postgres_dsn).returncode == 0
    server = urlsplit(postgres_dsn)
    double = stripe_backend.start(
        double_port, folder / "stripe.json", "http://127.0.0.1:1", "whsec_none", log=folder / "stripe.log"
    )
    with stopping(double), gate_to(_port(valkey)) as redis, gate_to(double_port) as stripe:
        stripe_backend.wait_ready(double, double_port)
        with gate_to(server.port or 0) as database:
            dsn = f"postgresql://{application_login}@127.0.0.1:{database.port}{server.path}"
            stripe_settings = {"secret_key": "sk_test_x", "api_url": f"http://127.0.0.1:{stripe.port}"}
            more = {
                "redis": {"url": f"redis://127.0.0.1:{redis.port}/0", "timeout_seconds": 2},
                "stripe": {**stripe_settings, "timeout_seconds": 2},
            }
            with console_running(folder, dsn, "", more) as console:
                _furnish(console, postgres_dsn, double_port)
                yield Rig(console, _session(console), redis, stripe, database)


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def _furnish(console: Console, dsn: str, double_port: int) -> None:
    """One that pays, and has something of everything."""
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright has an event loop in this thread
        stripe = f"http://127.0.0.1:{double_port}"
        elsewhere.submit(apply_catalogue, dsn, "sk_test_x", stripe, dry_run=False).result()
    body = {"org": PAYER, "plan": "starter", "success_url": "https://vendor.example/thanks"}
    url = console.admin.post("/v1/checkout-sessions", json=body).json()["url"]
    assert httpx.post(url, data={"action": "pay"}, timeout=PATIENCE_SECONDS).status_code == 303
    found = console.admin.post("/api/admin/webhooks/replay", json={"since": "2020-01-01T00:00:00Z"})
    assert found.json()["replayed"] > 0
    assert wait_for(lambda: console.admin.get(f"/v1/entitlements/{PAYER}").status_code == 200)
    for path, content in POSSESSIONS.items():
        made = console.admin.post(f"/v1/organizations/{PAYER}/{path}", json=content)
        assert made.status_code == 201, made.text
    assert console.admin.put("/v1/users/ada", json={"name": "Ada", "email": "ada@example.com"}).status_code == 201
    assert console.admin.put(f"/v1/organizations/{PAYER}/members/ada", json={"role": "owner"}).status_code == 201
    postgres.execute(dsn, INCIDENT)
    effect = console.admin.post(f"/v1/organizations/{PAYER}/actions/suspend/preview", json={"fields": {}}).json()
    done = {"fields": {}, "reason": "a test", "state": effect["state"]}
    assert console.admin.post(f"/v1/organizations/{PAYER}/actions/suspend", json=done).status_code == 201


def _session(console: Console) -> str:
    link = console.link()
    with httpx.Client(headers={"sec-fetch-site": "same-origin"}, timeout=PATIENCE_SECONDS) as browser:
        answer = browser.post(f"{console.url}/console/link", data={"code": link.partition("code=")[2]})
    return answer.cookies[SESSION_COOKIE]


@pytest.fixture(scope="module")
def addresses(rig: Rig) -> list[str]:
    """One of each page, as the pages link to them."""
    found: dict[str, str] = {}
    waiting = ["/console", f"/console/organizations/{PAYER}", f"/console/organizations/{PAYER}/actions"]
    while waiting:
        address = waiting.pop(0)
        path = urlsplit(address).path
        pattern = pattern_of(path)
        if pattern is None or pattern in found:
            continue
        found[pattern] = address
        answer = rig.get(address)
        assert answer.status_code < 500, (address, answer.text)
        links = re.findall(r'<a [^>]*href="([^"]+)"', answer.text.replace("&amp;", "&"))
        waiting += [each for each in (urljoin(address, link) for link in links) if each.startswith("/console")]
    return list(found.values())


EFFECTS = ("cancel", "discount", "resync", "reconcile", "credit&amount=1&currency=usd")


@pytest.fixture(scope="module")
def effects() -> list[str]:
    """Of actions that are looked up at Stripe and in Redis."""
    asked = (f"{name}&show=effect".replace("&", "?", 1) for name in EFFECTS)
    return [f"/console/organizations/{PAYER}/actions/{each}" for each in asked]


def said(answer: httpx.Response) -> str:
    """What the page tells, without its markup."""
    text = re.sub(r"<(script|style|svg).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    assert "<h1" in answer.text
    return re.sub(r"\s+", " ", text)


def assert_open(opened: Mapping[str, httpx.Response]) -> None:
    assert {address: answer.status_code for address, answer in opened.items() if answer.status_code != 200} == {}


def test_each_page_opens_without_redis_and_says_what_it_does_not_know(
    rig: Rig, addresses: list[str], effects: list[str]
) -> None:
    with rig.redis.set(Way.CUT):
        opened = rig.opened(addresses)
        looked = rig.opened(effects)
    with rig.redis.set(Way.SILENT):
        silent = rig.opened(SHOWING_REDIS)
    assert_open(opened)
    assert_open(silent)
    for answers in (opened, silent):
        assert "Redis does not answer" in said(answers[f"/console/organizations/{PAYER}"])
        assert "Redis does not answer" in said(answers[f"/console/organizations/{PAYER}/usage"])
    for address, answer in looked.items():
        assert answer.status_code == (409 if "reconcile" in address else 200), address
        assert "Redis" in said(answer), address


def test_each_page_opens_without_stripe_and_no_effect_is_made_up(
    rig: Rig, addresses: list[str], effects: list[str]
) -> None:
    with rig.stripe.set(Way.CUT):
        assert_open(rig.opened(addresses))
    with rig.stripe.set(Way.SILENT):
        looked = rig.opened(effects)
    for address, answer in looked.items():
        if "reconcile" not in address:
            assert answer.status_code in (409, 503), address
            assert re.search("Stripe does not|does not answer", said(answer)), address
    assert_open(rig.opened(effects))


def test_each_page_opens_while_postgres_is_slow(rig: Rig, addresses: list[str]) -> None:
    with rig.postgres.set(delay_seconds=0.02):
        assert_open(rig.opened(addresses))


@pytest.mark.parametrize("way", [Way.CUT, Way.SILENT])
def test_without_postgres_each_page_is_one_that_says_so_and_comes_back(
    rig: Rig, addresses: list[str], way: Way
) -> None:
    asked = addresses if way is Way.CUT else addresses[:AT_ONCE]
    with rig.postgres.set(way):
        opened = rig.opened(asked)
    for address, answer in opened.items():
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), address
        assert "Try again in a moment" in said(answer), address
    assert wait_for(lambda: rig.get("/console").status_code == 200)


def test_an_admin_who_erases_a_person_without_redis_is_told_what_was_done_and_what_follows(
    rig: Rig, browser: Browser
) -> None:
    name, admin = uuid4().hex[:8], rig.console.admin
    admin.put(f"/v1/organizations/org-{name}", json={"name": "Of one person"}).raise_for_status()
    admin.put(f"/v1/users/u-{name}", json={"email": f"{name}@example.com"}).raise_for_status()
    admin.put(f"/v1/organizations/org-{name}/members/u-{name}", json={"role": "member"}).raise_for_status()
    page = rig.by(browser, scripts=False)
    try:
        with rig.redis.set(Way.CUT):
            page.goto(f"{rig.console.url}/console/people")
            page.get_by_label("User id").fill(f"u-{name}")
            page.get_by_role("button", name="Show what is stored").click()
            page.get_by_label("Reason").fill("a letter of today")
            page.get_by_role("button", name="Erase this person").click()
            notice = page.get_by_role("status")
            expect(notice).to_contain_text("The person is erased: ")
            expect(notice).to_contain_text("The journal has ")
            expect(notice).to_contain_text(f"tokens and keys in org-{name} are refused as soon as it does")
            expect(notice).to_contain_text("there is nothing to do")
    finally:
        page.context.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_an_admin_suspends_without_redis_and_is_not_told_that_a_credit_was_given_without_stripe(
    rig: Rig, browser: Browser, scripts: bool
) -> None:
    org = f"org-{uuid4().hex[:8]}"
    assert rig.console.admin.put(f"/v1/organizations/{org}", json={"name": org}).status_code == 201
    assert rig.console.admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"}).status_code == 200
    page = rig.by(browser, scripts=scripts)
    try:
        with rig.redis.set(Way.CUT):
            page.goto(f"{rig.console.url}/console/organizations/{org}/actions/suspend")
            page.get_by_role("button", name="Show the effect").click()
            expect(page.get_by_role("main")).to_contain_text("Redis is away")
            page.get_by_label("Reason").fill("as agreed")
            page.get_by_role("button", name="Suspend", exact=True).click()
            expect(page.locator("#action")).to_contain_text("Done")
            expect(page.get_by_text("as soon as Redis is back")).to_be_visible()
            page.get_by_label("Reason").fill("a mistake")
            page.get_by_role("button", name="Undo").click()
            expect(page.locator("#action")).to_contain_text("Undone")
            expect(page.get_by_text("as soon as Redis is back")).to_be_visible()
        assert rig.console.admin.get(f"/v1/entitlements/{org}").json()["status"] == "active"
        page.goto(f"{rig.console.url}/console/organizations/{PAYER}/actions/credit")
        page.get_by_label("Amount").fill("5")
        page.get_by_label("Currency").fill("usd")
        page.get_by_role("button", name="Show the effect").click()
        page.get_by_label("Reason").fill("as agreed")
        before = rig.console.admin.get(f"/v1/organizations/{PAYER}/billing-entries").json()
        with rig.stripe.set(Way.CUT):
            page.get_by_role("button", name="Give credit", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text("It may have been done all the same")
        assert rig.console.admin.get(f"/v1/organizations/{PAYER}/billing-entries").json() == before
    finally:
        page.context.close()
