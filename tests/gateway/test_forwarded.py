"""Who the client is: of a trusted proxy its word is kept and continued, of all others it is replaced."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings_file import SettingsError, load
from gateway.routing.forwarded import HOPS_MAX, Trust, element
from gateway.settings.root import GatewaySettings
from tests.gateway.rig import Organization, StartGateway, Until, Upstream, connected

HOST = b"Host: api.example.com\r\n"
SAID = (
    b"X-Forwarded-For: 203.0.113.7, 10.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example.com\r\n"
    b"Forwarded: for=203.0.113.7;proto=https\r\n"
)
TRUST = Trust(["10.0.0.0/8", "2001:db8::/32"], rfc7239=True)
PEER = b"10.0.0.1"


def get(lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, lines)


def forwarded(message: bytes) -> dict[str, str]:
    lines = [line.decode().split(": ", 1) for line in message.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    values = {name.lower(): value for name, value in lines if "orwarded" in name}
    assert len(values) == sum("orwarded" in name for name, _ in lines), "each stands there once"
    return values


async def test_a_trusted_proxys_word_is_kept_and_continued(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(forwarded={"trusted": ["127.0.0.0/8"], "rfc7239": True})
    client = await gateway.connect()
    for _ in range(2):  # parsed, and recognized
        assert (await client.ask(get(SAID + acme.auth))).status == 200
        assert forwarded(upstream.requests[-1]) == {
            "x-forwarded-for": "203.0.113.7, 10.0.0.9, 127.0.0.1",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "shop.example.com",
            "forwarded": 'for=203.0.113.7;proto=https, for=127.0.0.1;proto=http;host="api.example.com"',
        }


@pytest.mark.parametrize("rfc7239", [False, True])
async def test_what_anyone_else_says_is_replaced(
    start: StartGateway, acme: Organization, upstream: Upstream, rfc7239: bool
) -> None:
    gateway = await start(forwarded={"trusted": ["10.0.0.0/8"], "rfc7239": rfc7239})
    assert (await gateway.ask(get(SAID + acme.auth))).status == 200
    expected = {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": "api.example.com"}
    if rfc7239:
        expected["forwarded"] = 'for=127.0.0.1;proto=http;host="api.example.com"'
    assert forwarded(upstream.requests[0]) == expected


async def test_forwarded_is_neither_believed_nor_sent_unless_it_is_set(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(forwarded={"trusted": ["127.0.0.1"]})
    assert (await gateway.ask(get(b"Forwarded: for=6.6.6.6\r\n" + acme.auth))).status == 200
    assert b"6.6.6.6" not in upstream.requests[0]
    assert "forwarded" not in forwarded(upstream.requests[0])


async def test_the_access_log_names_the_first_address_from_the_right_that_is_not_trusted(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    trusted = ["127.0.0.1", "10.0.0.0/8"]
    gateway = await start(forwarded={"trusted": trusted}, access_log={"path": str(file)})
    client = await gateway.connect()
    for _ in range(2):
        await client.ask(get(b"X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.9\r\n" + acme.auth))
    await client.ask(get(acme.auth))
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 3)
    clients = [json.loads(line)["client"] for line in file.read_bytes().splitlines()]
    assert clients == ["203.0.113.7", "203.0.113.7", "127.0.0.1"]


@pytest.mark.parametrize(
    ("came", "client"),
    [
        ([], PEER),
        ([(b"x-forwarded-for", b"203.0.113.7")], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"6.6.6.6, 203.0.113.7 ,10.2.3.4")], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"203.0.113.7")], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"203.0.113.7:4711")], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"[2001:db9::1]:4711, 2001:db8::2")], b"2001:db9::1"),
        ([(b"x-forwarded-for", b"10.0.0.3, 10.0.0.2")], b"10.0.0.3"),
        ([(b"x-forwarded-for", b"6.6.6.6, ::ffff:203.0.113.7, ::FFFF:10.0.0.2")], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"[0:0:0:0:0:ffff:cb00:7107]:4711")], b"203.0.113.7"),
        ([(b"forwarded", b'for="[::ffff:203.0.113.7]:80", for="[::ffff:10.0.0.2]"')], b"203.0.113.7"),
        ([(b"x-forwarded-for", b"6.6.6.6, unknown, 10.0.0.2")], b"10.0.0.2"),
        ([(b"x-forwarded-for", b"6.6.6.6, , 10.0.0.2")], b"10.0.0.2"),
        ([(b"x-forwarded-for", b'6.6.6.6, <"x">')], PEER),
        ([(b"x-forwarded-for", b"999.1.1.1")], PEER),
        ([(b"forwarded", b"for=203.0.113.7;proto=http, for=10.0.0.2")], b"203.0.113.7"),
        ([(b"forwarded", b'For="[2001:db9::1]:80";by=x , for=10.0.0.2')], b"2001:db9::1"),
        ([(b"forwarded", b'for=203.0.113.7;host="a,for=6.6.6.6;for=6.6.6.6"')], b"203.0.113.7"),
        ([(b"forwarded", b"for=_hidden, for=10.0.0.2")], b"10.0.0.2"),
        ([(b"forwarded", b"for=203.0.113.7, for=")], PEER),
        ([(b"forwarded", b"for=6.6.6.6"), (b"x-forwarded-for", b"203.0.113.7")], b"203.0.113.7"),
    ],
)
def test_the_client_is_read_from_a_chain_from_the_right(came: list[tuple[bytes, bytes]], client: bytes) -> None:
    assert TRUST.client(PEER, came) == client


def test_of_a_chain_without_end_only_the_last_hops_are_looked_at() -> None:
    for name, node in ((b"x-forwarded-for", b"10.0.0.2"), (b"forwarded", b"for=10.0.0.2")):
        chain = b"for=6.6.6.6, " + b", ".join([node] * 5000)
        assert TRUST.client(PEER, [(name, chain)]) == b"10.0.0.2"
    chain = b", ".join([b"203.0.113.7", *[b"10.0.0.2"] * (HOPS_MAX - 2)])
    assert TRUST.client(PEER, [(b"x-forwarded-for", chain)]) == b"203.0.113.7"


@pytest.mark.parametrize(
    ("came", "line"),
    [
        ([(b"x-forwarded-proto", b"HTTPS")], b"X-Forwarded-Proto: https"),
        ([(b"x-forwarded-proto", b"https, http")], b"X-Forwarded-Proto: http"),
        ([(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")], b"X-Forwarded-Proto: http"),
        ([(b"x-forwarded-host", b"a/b")], b"X-Forwarded-Host: api"),
        ([(b"x-forwarded-host", b"shop:8443")], b"X-Forwarded-Host: shop:8443"),
        ([(b"x-forwarded-for", b" , ")], b"X-Forwarded-For: 10.0.0.1"),
        ([(b"forwarded", b"for=a b")], b'Forwarded: for=10.0.0.1;proto=http;host="api"'),
        ([(b"forwarded", b"for=a;;,")], b'Forwarded: for=a;;, for=10.0.0.1;proto=http;host="api"'),
    ],
)
def test_what_cannot_be_read_of_a_trusted_proxy_is_replaced(came: list[tuple[bytes, bytes]], line: bytes) -> None:
    assert line in TRUST.lines(PEER, b"http", b"api", came).split(b"\r\n")


def test_an_ipv6_address_is_quoted_in_forwarded() -> None:
    assert element(b"2001:db8::1", b"https", None) == b'for="[2001:db8::1]";proto=https'
    assert element(b"unknown", b"http", b"[::1]:80") == b'for=unknown;proto=http;host="[::1]:80"'


def test_an_ipv4_address_on_an_ipv6_socket_is_that_address() -> None:
    assert TRUST.trusts(b"::ffff:10.0.0.1")
    assert TRUST.trusts(b"2001:db8:1::1")
    assert not any(TRUST.trusts(address) for address in (b"::ffff:11.0.0.1", b"unknown", b"", b"2001:db9::1"))
    assert not Trust([], rfc7239=True).trusts(b"10.0.0.1")
    mapped = Trust(["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"], rfc7239=True)
    assert [mapped.trusts(address) for address in (b"10.1.2.3", b"::ffff:192.0.2.1", b"192.0.2.2")] == [
        True,
        True,
        False,
    ]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv4_client_of_an_ipv6_socket_is_told_by_its_ipv4_address_everywhere(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(
        forwarded={"rfc7239": True}, access_log={"path": str(file)}, forward_auth={"trusted": ["127.0.0.1"]}
    )
    loop = asyncio.get_running_loop()
    dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    server = await loop.create_server(gateway.accept, sock=dual)
    client = await connected(dual.getsockname()[1])
    gateway.clients.append(client)
    for _ in range(2):  # parsed, and recognized
        assert (await client.ask(get(acme.auth))).status == 200
        assert forwarded(upstream.requests[-1])["x-forwarded-for"] == "127.0.0.1"
        assert forwarded(upstream.requests[-1])["forwarded"].startswith("for=127.0.0.1;")
    asked = b"GET /-/authorize/envoy/ HTTP/1.1\r\nHost: api.example.com\r\n" + acme.auth + b"\r\n"
    assert (await client.ask(asked)).status == 200, "trusted by its IPv4 address"
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 3)
    assert {json.loads(line)["client"] for line in file.read_bytes().splitlines()} == {"127.0.0.1"}
    server.close()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-forwarded-for", b"forwarded", b"x-forwarded-proto", b"x-forwarded-host"]),
            st.binary(max_size=60)
            | st.lists(st.sampled_from([b"for=", b"10.0.0.1", b",", b";", b'"', b" ", b"\\", b"[::1]"])).map(b"".join),
        ),
        max_size=6,
    )
)
def test_no_chain_fails_and_no_line_becomes_two(came: list[tuple[bytes, bytes]]) -> None:
    came = [(name, value.translate(None, b"\r\n\0")) for name, value in came]  # which no parser lets through
    assert TRUST.client(PEER, came)
    assert TRUST.lines(PEER, b"http", b"api", came).count(b"\r\n") == 4


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.internal", "10.0.0.0/33", ""])
def test_a_network_that_is_none_is_named_at_start(tmp_path: Path, network: str) -> None:
    file = tmp_path / "gateway.yaml"
    settings = {
        "redis": {"url": "redis://127.0.0.1"},
        "auth": {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": "x"},
        "upstreams": {"api": {"url": "http://127.0.0.1:1"}},
        "routes": [{"path": "/", "upstream": "api"}],
        "forwarded": {"trusted": [network]},
    }
    file.write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match=r"forwarded\.trusted\[0\]: must be an address, or a network such as"):
        load(file, "gateway.yaml", GatewaySettings)
