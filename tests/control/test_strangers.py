"""What somebody without a token gets of the control port: few guesses, no script of others, nothing that is closed."""

import html
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from httpx import ASGITransport, AsyncClient

from common.settings_file import load
from control.access.callers import Callers
from control.access.guesses import NAMES_MAX, WRONG, Buckets, Guess, Guesses, TooManyGuesses
from control.access.people import members
from control.access.people.service_tokens import ServiceTokens
from control.access.standing import Standings
from control.app import build, opened
from control.http.context import Context
from control.settings.control_plane import Settings
from tests.control.plane import ADMIN_TOKEN, TokenOf

BURST, SECONDS_EACH = WRONG.at_once, WRONG.each_ms / 1000
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(context: Context, monkeypatch: pytest.MonkeyPatch) -> Time:
    """The clock that guesses are counted by."""
    moved = Time()
    monkeypatch.setattr(context.guesses, "_clock", moved)
    return moved


@asynccontextmanager
async def client_at(context: Context, address: str) -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(build(context), client=(address, 50_000))
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


async def guess(client: AsyncClient, token: str = ADMIN_TOKEN[::-1], **headers: str) -> Any:
    return await client.get("/v1/plans", headers={"authorization": f"Bearer {token}", **headers})


async def test_an_address_has_few_guesses_of_the_admin_token_and_then_waits(context: Context, time: Time) -> None:
    async with client_at(context, "203.0.113.1") as client, client_at(context, "203.0.113.2") as other:
        with structlog.testing.capture_logs() as logs:
            statuses = [(await guess(client, f"wrong-{n}")).status_code for n in range(500)]
        assert statuses == [401] * BURST + [429] * (500 - BURST)
        assert len([entry for entry in logs if entry["log_level"] == "warning"]) == 1
        answer = await guess(client, ADMIN_TOKEN)
        assert answer.status_code == 429, "a right one among them is not told from the others"
        assert answer.json()["type"] == "urn:quotagate:problem:rate-limited"
        assert (await guess(other, ADMIN_TOKEN)).status_code == 200, "other addresses are not concerned"
        time.now += int(answer.headers["retry-after"])
        assert (await guess(client, ADMIN_TOKEN)).status_code == 200
        assert [(await guess(client)).status_code for _ in range(3)] == [401, 429, 429]
        time.now += BURST * SECONDS_EACH
        assert (await guess(client)).status_code == 401


async def test_right_tokens_use_no_guess_up(context: Context, time: Time) -> None:
    async with client_at(context, "203.0.113.1") as client:
        assert {(await guess(client, ADMIN_TOKEN)).status_code for _ in range(5 * BURST)} == {200}
        assert (await guess(client)).status_code == 401


async def test_an_organizations_token_is_no_guess_and_waits_for_none(
    context: Context, time: Time, token_of: TokenOf
) -> None:
    expired = token_of("acme", now=0)
    async with client_at(context, "203.0.113.1") as client:
        assert {(await guess(client, expired)).status_code for _ in range(5 * BURST)} == {401}
        assert (await guess(client, ADMIN_TOKEN)).status_code == 200
        for _ in range(2 * BURST):
            await guess(client)
        assert (await guess(client, ADMIN_TOKEN)).status_code == 429
        assert (await guess(client, token_of("acme"))).status_code == 200


async def test_an_admin_token_of_a_tokens_form_is_guarded_alike(context: Context) -> None:
    service_tokens = ServiceTokens(context.db, "admin.token.of-the-tests", context.host_clock)
    callers = Callers(
        service_tokens, None, Guesses(), partial(members.role_of, context.db), Standings(context.db, context.ledger)
    )
    refusals: list[type[Exception]] = []
    for _ in range(BURST + 1):
        try:
            await callers.identify(b"a.b.c", "203.0.113.1")
        except Exception as e:
            refusals.append(type(e))
    assert refusals[-1] is TooManyGuesses
    assert TooManyGuesses not in refusals[:-1]


async def test_behind_a_trusted_proxy_each_client_has_guesses_of_its_own(settings: Settings, context: Context) -> None:
    behind = settings.model_copy(update={"forwarded": settings.forwarded.model_copy(update={"trusted": ("10.0.0.7",)})})
    async with (
        opened(behind) as proxied,
        client_at(proxied, "10.0.0.7") as proxy,
        client_at(proxied, "10.0.0.8") as own,
    ):
        for _ in range(2 * BURST):
            await guess(proxy, **{"x-forwarded-for": "198.51.100.1"})
            await guess(own, **{"x-forwarded-for": "198.51.100.9"})
        for client, forwarded, status in (
            (proxy, "198.51.100.1", 429),
            (proxy, "9.9.9.9, 198.51.100.1", 429),
            (proxy, "198.51.100.2", 200),
            (own, "198.51.100.2", 429),
        ):
            answer = await guess(client, ADMIN_TOKEN, **{"x-forwarded-for": forwarded})
            assert answer.status_code == status, forwarded


async def test_the_log_names_the_client_of_each_request(context: Context) -> None:
    async with client_at(context, "203.0.113.1") as client:
        with structlog.testing.capture_logs() as logs:
            await guess(client)
    [logged] = [entry for entry in logs if entry["event"] == "request"]
    assert (logged["client"], logged["status"]) == ("203.0.113.1", 401)


def test_guesses_of_many_addresses_take_a_bounded_memory() -> None:
    buckets = Buckets(WRONG)
    for n in range(NAMES_MAX + 500):
        buckets.add(("bearer", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"), n)
    assert len(buckets) <= NAMES_MAX


async def test_all_addresses_of_one_customer_count_as_one() -> None:
    guesses = Guesses()
    for n in range(3 * BURST):
        await guesses.count(Guess.BEARER, f"2001:db8::{n:x}")
    with pytest.raises(TooManyGuesses):
        await guesses.check(Guess.BEARER, "2001:db8::ffff")  # one customer has all of a /64
    await guesses.check(Guess.BEARER, "2001:db8:0:1::1")


CLOSED = ("/docs", "/openapi.json", "/-/metrics")


class OpenStranger(Protocol):
    async def __call__(self, **expose: Any) -> AsyncClient: ...


@pytest.fixture
async def closed(settings: Settings) -> AsyncIterator[OpenStranger]:
    """As by default, but for what is said."""
    async with AsyncExitStack() as stack:

        async def started(**expose: Any) -> AsyncClient:
            exposed = settings.model_copy(update={"expose": type(settings.expose).model_validate(expose)})
            context = await stack.enter_async_context(opened(exposed))
            return await stack.enter_async_context(client_at(context, "203.0.113.1"))

        yield started


async def test_the_apis_description_and_its_metrics_are_closed_to_strangers_by_default(
    closed: OpenStranger, token_of: TokenOf
) -> None:
    client = await closed()
    for path in CLOSED:
        assert (await client.get(path)).status_code == 401, path
        own = {"authorization": f"Bearer {token_of('acme')}"}
        assert (await client.get(path, headers=own)).status_code == 403, path
        assert (await client.get(path, headers=ADMIN)).status_code == 200, path
    for path in ("/-/health", "/-/ready"):
        assert (await client.get(path)).status_code in (200, 503), "what probes ask stays open"
    assert (await client.get("/redoc", headers=ADMIN)).status_code == 404


async def test_the_packaged_settings_expose_nothing_unless_the_environment_says_so() -> None:
    secrets = {
        "QUOTAGATE_POSTGRES_DSN": "postgresql://a",
        "QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        "QUOTAGATE_JWT_SECRET": "x" * 32,
    }
    for environ, exposed in (({}, False), ({"QUOTAGATE_CONTROL_EXPOSE": "true"}, True)):
        expose = load(None, "control.yaml", Settings, {**secrets, **environ}).expose
        assert (expose.docs, expose.metrics) == (exposed, exposed)


async def test_metrics_have_a_token_of_their_own_that_opens_nothing_else(closed: OpenStranger) -> None:
    scraper = {"authorization": "Bearer a-token-of-the-scraper"}
    client = await closed(metrics_token="a-token-of-the-scraper")
    assert "quotagate_control_lag_seconds" in (await client.get("/-/metrics", headers=scraper)).text
    assert (await client.get("/-/metrics")).status_code == 401
    for path in ("/docs", "/openapi.json", "/v1/plans"):
        assert (await client.get(path, headers=scraper)).status_code == 401, path


async def test_what_is_exposed_is_open_to_everybody(closed: OpenStranger) -> None:
    client = await closed(docs=True, metrics=True)
    assert [(await client.get(path)).status_code for path in CLOSED] == [200, 200, 200]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.style = ""
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        self.style += data if self._in_style else ""


async def test_the_page_of_the_api_holds_no_script_and_loads_nothing_and_its_policy_says_so(
    nobody: AsyncClient,
) -> None:
    answer = await nobody.get("/docs")
    page = Page()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert all(not name.startswith("on") for name, _ in page.attributes)
    assert {value for name, value in page.attributes if name in ("src", "style")} == set()
    links = {value or "" for name, value in page.attributes if name == "href"}
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    digest = b64encode(sha256(page.style.encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{digest}'", "or a browser would not apply it"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "cdn" not in answer.text


async def test_the_page_of_the_api_tells_every_operation_and_every_schema(nobody: AsyncClient) -> None:
    text = (await nobody.get("/docs")).text
    document = (await nobody.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f'id="{method}-{path}"' in text
    names = {f"schema-{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'id="(schema-\w+)"', text)) == names
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= names, "every link leads somewhere"
    for example in re.findall(r"-d '(.*?)'</pre>", text, re.DOTALL):
        assert json.loads(html.unescape(example)) is not None


async def test_a_strange_host_does_not_get_into_the_page(nobody: AsyncClient) -> None:
    answer = await nobody.get("/docs", headers={"host": "a'\"><script>alert(1)</script>"})
    assert "<script" not in answer.text


def test_what_up_prints_holds_no_admin_token(tmp_path: Path) -> None:
    from devstack import announcement
    from devstack.datadir import DataDirectory

    token, secret = "qga_the-admin-token", "a.customers.token"
    facts = {
        **{name: f"http://127.0.0.1/{name}" for name in ("gateway", "control", "metrics", "upstream", "redis")},
        "console": "http://127.0.0.1/console",
        "portal": None,
        "postgres": "postgresql://127.0.0.1",
        "stripe": "http://127.0.0.1/stripe",
        "admin_token": token,
        "sign_up": {"org": "newco", "checkout": "http://127.0.0.1/pay", "token": secret},
        "orgs": [{"org": org, "plan": org, "token": secret} for org in ("acme", "tiny")],
    }
    printed = "\n".join(announcement.lines(facts, DataDirectory(tmp_path), tmp_path, seconds=1.0))
    assert token not in printed
    assert str(tmp_path / "ready.json") in printed
