"""An API key may travel wherever a token may, and never goes further: not upstream, not into a log or an answer."""

import os
from pathlib import Path

import pytest

from gateway.process.metrics import MetricsPublisher
from gateway.process.metrics_aggregator import MetricsAggregator
from tests.gateway.rig import Organization, StartGateway, Until, Upstream, get
from tests.gateway.rig.keys import Keyring
from tests.gateway.tunnels import ASKED, Accepting

ROUTES = [
    {
        "path": "/",
        "upstream": "api",
        "upgrades": ["websocket"],
        "tokens": {"header": "X-API-Key", "query": "key", "subprotocol": "quota.key"},
    },
    {"path": "/plain", "upstream": "api"},
]
CREDENTIAL = {"header": "Authorization", "value": "Bearer the-gateways-own"}
WAYS = ["authorization", "header", "query", "subprotocol"]


def carried(way: str, key: str) -> tuple[str, bytes]:
    """Target and lines."""
    return {
        "authorization": ("/", b"Authorization: Bearer %b\r\n" % key.encode()),
        "header": ("/", b"X-API-Key: %b\r\n" % key.encode()),
        "query": (f"/?a=1&key={key}&b=2", b""),
        "subprotocol": ("/", ASKED + b"Sec-WebSocket-Protocol: chat, quota.key, %b\r\n" % key.encode()),
    }[way]


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_opens_the_route_and_is_seen_nowhere_behind_it(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until, way: str
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(
        routes=ROUTES,
        upstreams={"api": {"credential": CREDENTIAL}},
        access_log={"path": str(file), "query": True},
        identity={"key": True, "user": True},
        cors={"allowed_origins": ["*"]},
    )
    key = await Keyring().make(acme, user="7")
    target, lines = carried(way, key.text)
    seen = b""
    client = await gateway.connect()
    if way == "subprotocol":
        Accepting(upstream)
        client.send(get(target, None, lines))
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        seen += head
    else:
        answers = [await client.ask(get(target, None, lines)) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
    assert upstream.requests
    await client.close()
    # And where it is refused, and where it is misplaced.
    await key.revoke()
    for answer in (
        await gateway.ask(get(target, None, lines.replace(b"Upgrade: websocket\r\n", b""))),
        await gateway.ask(get("/plain" + target[1:], None, lines)),
        await gateway.ask(get("/nowhere/../.." + target, None, lines)),
    ):
        assert answer.status in (400, 401)
        seen += answer.body + b"".join(name + value for name, value in answer.fields)
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 4)
    MetricsPublisher(gateway.worker, tmp_path).publish()
    page = MetricsAggregator(tmp_path).collect({os.getpid()})
    everywhere = b"".join((seen, *upstream.requests, file.read_bytes(), page.encode(), repr(gateway.logs).encode()))
    assert b"K00000000001" in everywhere
    for secret in (key.text, key.text.rsplit("_", 2)[1], key.digest.hex()):
        assert secret.encode() not in everywhere


async def test_a_key_does_not_go_upstream_and_what_is_no_key_does(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=ROUTES)
    key = await Keyring().make(acme)
    client = await gateway.connect()
    for spelling in (b"Authorization: Bearer %b\r\n", b"AUTHORIZATION:  bearer   %b \r\n"):
        for _ in range(2):
            assert (await client.ask(get("/plain", None, spelling % key.text.encode()))).status == 200
    beside = b"X-API-Key: %b\r\nAuthorization: Basic dXBzdHJlYW0=\r\n" % key.text.encode()
    assert (await client.ask(get("/", None, beside))).status == 200
    assert (await client.ask(get("/plain", acme))).status == 200
    *keyed, basic, token = upstream.requests
    assert len(keyed) == 4
    assert not any(b"authorization" in sent.lower() for sent in keyed)
    assert b"Authorization: Basic dXBzdHJlYW0=\r\n" in basic
    assert b"Authorization: Bearer " in token


@pytest.mark.parametrize("way", WAYS[1:])
async def test_a_key_is_not_looked_for_where_the_route_does_not_say_so(
    start: StartGateway, acme: Organization, way: str
) -> None:
    gateway = await start(routes=ROUTES)
    key = await Keyring().make(acme)
    target, lines = carried(way, key.text)
    assert (await gateway.ask(get("/plain" + target[1:], None, lines))).status == 401


async def test_two_keys_in_one_request_are_none(start: StartGateway, acme: Organization) -> None:
    gateway = await start(routes=ROUTES)
    keyring = Keyring()
    one, other = await keyring.make(acme), await keyring.make(acme)
    answer = await gateway.ask(get("/", None, one.auth + b"X-API-Key: %b\r\n" % other.text.encode()))
    assert answer.problem["reason"] == "invalid_request"
