"""Pages speak to people: no word of our code is on them, neither in the console nor in the portal."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.access.signin.same_origin import token_of
from control.attention.kinds import KINDS
from control.console.frame.formats import prose
from control.http.context import Context
from quota import keys
from quota.model import OveragePolicy
from quota.routes import Price, Route, Routes, TellsCost, Tunnel, TunnelUnit, digest_of, encode, value_of
from tests.browser.routes import page_routes, pattern_of
from tests.control.access.signin.test_sessions import OWN_PAGE, begun, cookie
from tests.control.plane import Entitled
from tests.control.portal.customers import customer, pages_of_portal

ADDRESSES_OF_A_PAGE_MAX: Final = 2
CHOSEN: Final = {
    # Names that an admin has chosen, or that another system has: of meters, and of people and keys of this test.
    *("api_calls", "user_1", "ai_tokens", "x86_64"),
    # Words of protocols that pages are about.
    *("OIDC", "HTTP", "HTTPS", "JSON", "CSV", "UTC", "SAML", "TLS", "CIDR", "POST", "GET", "PUT", "DELETE", "READONLY"),
    *("MRR", "ARPU", "LTV", "ARR", "NRR", "GRR"),
}
OVERRIDE: Final = {"plan": "growth", "meters": {"api_calls": 7}, "policy": "METERED"}
_INTERNAL: Final = re.compile(
    r"(?<![\w.:/@%&?=-])(?:"
    r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+"  # a name of a column, a field or a value
    r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"  # a name of a member of an enumeration
    r"|[A-Z]{4,}"
    r"|(?<=[\w,;:=({[] )(?:None|True|False)|null|undefined|NaN"
    r"|<[\w.]+ object|\w+\(\w+="  # how Python writes an object
    r")(?![\w.:/@%=-]*[\w/@%=])"
)
_PYTHON: Final = {"None", "True", "False"}
"""In place of a value. A sentence may begin with such a word."""
_CAPITALS: Final = re.compile(r"\b(?:" + "|".join(each.value for each in OveragePolicy) + r")\b")
_SKIPPED: Final = {"script", "style", "pre", "template"}
"""Payloads of other systems are shown as they are."""
_SAID: Final = {"aria-label", "placeholder", "title", "alt"}


class _Page(HTMLParser):
    """What a person reads of it, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.links: list[str] = []
        self.values: list[str] = []
        """Of fields, commands and JSON: names are shown there as they are, and only the words of ours are wrong."""
        self._skipped = self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped += tag in _SKIPPED
        self._code += tag == "code"
        given = dict(attrs)
        self.said += [value for name, value in attrs if name in _SAID and value]
        if tag == "a" and (href := given.get("href")):
            self.links.append(href)

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in _SKIPPED
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            (self.values if self._code else self.said).append(data)

    def words(self) -> Iterator[str]:
        yield from (word for text in self.values for word in _CAPITALS.findall(text))
        for text in self.said:
            if "`" in text:  # around code, as a document has it
                yield "`"
            if text.strip() in _PYTHON:
                yield text.strip()
            for match in _INTERNAL.finditer(text):
                if match[0] not in CHOSEN and not match[0].startswith("qg_live_"):  # the beginning of a key
                    yield match[0]


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<p>It is HARD_STOP.</p>", ["HARD_STOP"]),
        ("<p>METERED</p><td>app_user</td><td>None</td>", ["METERED", "app_user", "None"]),
        ('<input aria-label="plan_code">', ["plan_code"]),
        ("<p>key.created of api_calls, in UTC</p><pre>app_user</pre><a href='/a_b'>Ended</a>", []),
        ("<code>HARD_STOP</code><code>{'user_id': 1}</code>", ["HARD_STOP"]),
        ("<p>customer.subscription.past_due, stripe_event@example</p>", []),
    ],
)
def test_a_word_of_code_is_found_where_a_person_reads_it(html: str, words: list[str]) -> None:
    assert list(_Page(html).words()) == words


def test_what_is_said_of_an_incident_has_no_word_of_the_code() -> None:
    for name, kind in KINDS.items():
        for text in (kind.title, kind.means, *kind.steps):
            assert list(_Page(prose(text)).words()) == [], name


@pytest.fixture
async def org(context: Context, admin: AsyncClient, entitled: Entitled) -> str:
    """An organization with something of each kind, and what installations have."""
    org = await entitled("growth")
    other = await entitled("tiny")
    for path, content in (
        ("grants", {"meter": "api_calls", "units": 5, "reason": "an outage", "expires_at": "2099-01-01T00:00:00Z"}),
        ("keys", {"name": "production", "scopes": ["method:GET"], "networks": ["192.0.2.0/24"]}),
        ("revocations", {"kind": "user", "subject": "user_1", "reason": "left"}),
        ("activation-codes", {"sites": 1, "note": "the first"}),
    ):
        made = await admin.post(f"/v1/organizations/{org}/{path}", json=content)
        assert made.status_code < 300, (path, made.text)
    assert (await admin.put("/v1/users/user_1", json={"email": "ada@example.com"})).status_code < 300
    assert (await admin.put(f"/v1/organizations/{org}/members/user_1", json={"role": "owner"})).status_code < 300
    assert (await admin.put(f"/v1/entitlements/{other}", json=OVERRIDE)).status_code < 300
    record = {"meter": "api_calls", "units": 90, "idempotency_key": "k"}
    assert (await admin.post("/v1/usage", params={"org": org}, json=record)).status_code == 200
    await context.writer.resume()
    await context.writer.write()
    await context.publisher.install(org)
    chat = Route(
        "chat",
        None,
        None,
        "/chat",
        {"api_calls": Price(2), "ai_tokens": Price(5, TellsCost.HEADER, "X-Tokens", 2, 50)},
        upgrades=("websocket",),
        tunnel=Tunnel(TunnelUnit.MEBIBYTE, {"api_calls": 3}),
    )
    text, now = encode(Routes((chat,), ("live",))), int(context.clock())
    await context.ledger.redis.hset(keys.ROUTES, digest_of(text), value_of(text, now, now))
    async with context.db.connection() as connection:
        for kind in KINDS:
            told: dict[str, object] = {
                "why": "a reason",
                "subscription_status": "past_due",
                "is_closed": True,
                "plan": None,
            }
            await connection.execute(
                "INSERT INTO incident (id, kind, key, org, content, count, opened_at, last_seen_at) "
                "VALUES ($1, $2, $3, $4, $5, 1, now(), now())",
                *(uuid4(), kind, f"{kind}:{org}", org, told),
            )
        for number, verdict in enumerate(("exhausted", "token_key_revoked", "rate_limited", "not_in_plan")):
            await connection.execute(
                "INSERT INTO refusal (at, request_id, org, route, method, status, verdict, shadow, detail, charges, "
                "limits, said, gateway) VALUES (now(), $1, $2, 'chat', 'GET', 429, $3, $4, 'No.', $5, '', $6, 'gw')",
                *(f"a1b2c3d4e5{number:010d}", org, verdict, bool(number % 2), [["api_calls", 1]], {}),
            )
    return org


def _console_address(base: str, href: str) -> str | None:
    address = urlsplit(urljoin(base, href))
    if address.netloc != "control" or pattern_of(address.path) is None:
        return None
    return f"{address.path}?{address.query}" if address.query else address.path


async def test_no_page_of_the_console_has_a_word_of_the_code(context: Context, nobody: AsyncClient, org: str) -> None:
    secret = await begun(context)
    headers = cookie(secret) | OWN_PAGE | {"x-csrf-token": token_of(secret)}
    waiting = ["/console", f"/console/organizations/{org}", "/console/decisions/a1b2c3d4e50000000001"]
    waiting += [f"/console/decisions/suppose?org={org}&path=/chat&upgrade=websocket"]
    waiting += [f"/console/decisions/suppose?org={org}&charge=api_calls:999999999"]
    waiting += [route.path for route in page_routes() if "{" not in route.path]
    seen, found = dict[str, set[str]](), dict[str, list[str]]()
    while waiting:
        address = waiting.pop(0)
        addresses = seen.setdefault(str(pattern_of(urlsplit(address).path)), set())
        if address in addresses or len(addresses) >= ADDRESSES_OF_A_PAGE_MAX:
            continue
        addresses.add(address)
        answer = await nobody.get(address, headers=headers)
        assert answer.status_code < 500, (address, answer.text)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        page = _Page(answer.text)
        if words := sorted(set(page.words())):
            found[address] = words
        waiting += [each for href in page.links if (each := _console_address(f"http://control{address}", href))]
    assert len(seen) > 30
    assert found == {}


async def test_no_page_of_the_portal_has_a_word_of_the_code(context: Context, admin: AsyncClient, org: str) -> None:
    found: dict[str, Any] = {}
    async with customer(context, admin, org, role="owner") as ours:
        for path in pages_of_portal(context):
            page = await ours.client.get(path, headers=ours.cookie)
            if words := sorted(set(_Page(page.text).words())):
                found[path] = words
    assert found == {}
