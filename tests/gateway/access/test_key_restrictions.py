"""What a key may be used for, and from where: 403 with the reason, and nothing charged."""

from typing import Any

import pytest

from identity.restrictions import Restrictions
from quota.model import MeterLimit
from tests.gateway.proxies import KINDS, TRUSTED, question
from tests.gateway.rig import Gateway, MakeOrganization, Organization, StartGateway, Upstream, request
from tests.gateway.rig.keys import Keyring

ROUTES = [
    {"path": "/", "upstream": "api", "name": "rest"},
    {"path": "/chat", "upstream": "api", "name": "chat", "meters": {"api_calls": 1, "tokens": 10}},
]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring()


@pytest.fixture
async def metered(organization: MakeOrganization) -> Organization:
    return await organization("acme", None, meters=(MeterLimit("api_calls", 1000), MeterLimit("tokens", 1000)))


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((), {"GET /", "HEAD /", "POST /", "GET /chat", "POST /chat"}),
        (("route:rest",), {"GET /", "HEAD /", "POST /"}),
        (("route:rest", "route:chat"), {"GET /", "HEAD /", "POST /", "GET /chat", "POST /chat"}),
        (("method:GET",), {"GET /", "HEAD /", "GET /chat"}),
        (("method:POST", "route:chat"), {"POST /chat"}),
        (("meter:api_calls",), {"GET /", "HEAD /", "POST /"}),
        (("meter:tokens",), set()),
        (("meter:tokens", "meter:api_calls"), {"GET /", "HEAD /", "POST /", "GET /chat", "POST /chat"}),
        (("route:elsewhere",), set()),
    ],
)
async def test_a_key_sends_what_is_within_its_scopes_and_nothing_else(
    start: StartGateway,
    metered: Organization,
    keyring: Keyring,
    upstream: Upstream,
    scopes: tuple[str, ...],
    allowed: set[str],
) -> None:
    gateway = await start(routes=ROUTES)
    key = await keyring.make(metered, scopes=scopes)
    client = await gateway.connect()
    for each in ("GET /", "HEAD /", "POST /", "GET /chat", "POST /chat"):
        method, path = each.split(" ")
        for _ in range(2):
            answer = await client.ask(request(key.auth, method.encode(), path=path), method)
            assert answer.status == (200 if each in allowed else 403), each
            if answer.status == 403 and method != "HEAD":
                assert answer.problem["reason"] == "key_scope"
                assert answer.problem["type"] == "urn:quotagate:problem:forbidden"
                challenge = answer["www-authenticate"] or ""
                assert 'error="insufficient_scope"' in challenge
                lacking = challenge.partition('scope="')[2].rstrip('"')  # what the key would need, too
                assert lacking, challenge
                assert lacking in answer.problem["detail"]
    assert len(upstream.requests) == 2 * len(allowed)
    assert await metered.used("api_calls") == 2 * len(allowed)


async def test_scopes_that_change_hold_for_the_next_request(
    start: StartGateway, metered: Organization, keyring: Keyring
) -> None:
    gateway = await start(routes=ROUTES)
    key = await keyring.make(metered)
    client = await gateway.connect()
    for scopes, expected in (
        ((), 200),
        (("route:chat",), 403),
        (("route:rest",), 200),
        ((), 200),
        (("method:PUT",), 403),
    ):
        await key.change(scopes=scopes)
        assert [(await client.ask(request(key.auth))).status for _ in range(2)] == [expected] * 2, scopes


@pytest.mark.parametrize(
    ("networks", "said", "trusted", "expected"),
    [
        (("127.0.0.0/8",), None, False, 200),
        (("127.0.0.1",), None, False, 200),
        (("192.0.2.0/24",), None, False, 403),
        (("192.0.2.0/24",), "192.0.2.7", False, 403),  # whoever says so is not believed
        (("192.0.2.0/24",), "192.0.2.7", True, 200),
        (("192.0.2.0/24",), "192.0.2.7, 203.0.113.9", True, 403),
        (("192.0.2.0/24", "203.0.113.9"), "192.0.2.7, 203.0.113.9", True, 200),
        (("2001:db8::/32",), "2001:db8::1", True, 200),
        (("127.0.0.0/8",), "nonsense", True, 200),  # the proxy itself, as in the access log
        (("0.0.0.0/0",), "2001:db8::1", True, 403),
    ],
)
async def test_a_key_with_networks_is_used_from_there_alone(
    start: StartGateway,
    acme: Organization,
    keyring: Keyring,
    networks: tuple[str, ...],
    said: str | None,
    trusted: bool,
    expected: int,
) -> None:
    gateway = await start(forwarded={"trusted": ["127.0.0.0/8"] if trusted else []})
    key = await keyring.make(acme, networks=networks)
    lines = b"" if said is None else b"X-Forwarded-For: %b\r\n" % said.encode()
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(request(key.auth, lines=lines))
        assert answer.status == expected
        if expected == 403:
            assert answer.problem["reason"] == "key_address"
    assert await acme.used() == (2 if expected == 200 else 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_that_asks_for_a_request_is_told_of_keys_as_clients_are(
    start: StartGateway, acme: Organization, keyring: Keyring, kind: str
) -> None:
    gateway = await start(identity={"key": True}, routes=[{"path": "/", "upstream": "api", "name": "rest"}], **TRUSTED)
    key, scoped = await keyring.make(acme), await keyring.make(acme, scopes=("route:chat",))
    answer = await gateway.ask(question(kind, fields=key.auth))
    assert (answer.status, answer["x-quota-org"], answer["x-quota-key"]) == (200, "acme", key.id)
    assert (await gateway.ask(question(kind, fields=scoped.auth))).status == 403
    await key.revoke()
    assert (await gateway.ask(question(kind, fields=key.auth))).status == 401
    assert await acme.used() == 1


def test_an_address_that_is_none_is_in_no_network() -> None:
    restrictions = Restrictions((), ("0.0.0.0/0", "::/0"))
    assert [restrictions.hold(address) for address in (b"", b"unix", b"127.0.0.1", b"::1", b"::ffff:192.0.2.1")] == [
        False,
        False,
        True,
        True,
        True,
    ]


async def test_a_request_that_a_key_may_send_needs_no_look_and_one_that_it_may_not_needs_one(
    gateway: Gateway, acme: Organization, keyring: Keyring
) -> None:
    key = await keyring.make(acme, scopes=("method:GET",))
    client = await gateway.connect()
    methods: list[Any] = ["GET", "POST"] * 5
    statuses = [(await client.ask(request(key.auth, method.encode()), method)).status for method in methods]
    assert statuses == [200, 403] * 5
    assert gateway.worker.looks.outcomes == {("key", "good"): 1 + 5}  # the first, and before each refusal
