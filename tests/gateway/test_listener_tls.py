"""TLS on the gateway's own listener: who is shown which certificate, who is let in, and what upstreams are told."""

import asyncio
import base64
import hashlib
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from common import certificates
from gateway.client.states import ClientState
from gateway.listener.entrance import Turned
from tests.authority import Authority
from tests.gateway import tunnels
from tests.gateway.request_heads import ask, fields
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    STREAM_LIMIT,
    Client,
    Gateway,
    Organization,
    StartGateway,
    Until,
    Upstream,
)
from tests.gateway.settings import refusal

NAME = "api.example.com"


@pytest.fixture
def looked_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0)


def secured(*files: Path, **tls: Any) -> dict[str, Any]:
    return {"tls": {"certificates": [{"cert_file": str(file)} for file in files], **tls}}


def trusting(authority: Authority, own: Path | None = None, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca_file)
    if own is not None:
        context.load_cert_chain(own)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def client_of(
    gateway: Gateway, context: ssl.SSLContext, name: str | None = NAME, limit: int = STREAM_LIMIT
) -> Client:
    if name is None:
        context.check_hostname = False
    connection = asyncio.open_connection(
        "127.0.0.1", gateway.port, ssl=context, server_hostname=name or "", limit=limit
    )
    return gateway.keep(Client(*await connection))


def shown_to(client: Client) -> frozenset[str]:
    """The names of the certificate that the gateway has shown."""
    certificate = client.writer.get_extra_info("peercert")
    return frozenset(name for _, name in certificate["subjectAltName"])


async def test_a_client_with_tls_is_served_as_any_other_and_upstreams_are_told(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority
) -> None:
    gateway = await start(listen=secured(authority.issue(NAME)))
    client = await client_of(gateway, trusting(authority, None, "h2", "http/1.1"))
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    for _ in range(2):
        assert (await client.ask(ask("/a", acme.auth))).body == b"ok"
    assert fields(upstream.requests[1])["x-forwarded-proto"] == "https"
    assert fields(upstream.requests[1])["x-forwarded-for"] == "127.0.0.1"
    body = b"x" * 3_000_000
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    answer = await client.ask(ask("/", acme.auth + b"Content-Length: %d\r\n" % len(body), "POST") + body)
    assert answer.body == body
    assert upstream.requests[2].endswith(body)
    assert await acme.used() == 3


async def test_what_speaks_no_tls_or_nothing_is_closed_counted_and_logged_once(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority, until: Until
) -> None:
    gateway = await start(listen=secured(authority.issue(NAME)), timeouts={"handshake_seconds": 0.2})
    for _ in range(3):
        await (await gateway.connect()).send_all(ask("/", acme.auth))
    await until(lambda: gateway.turned[Turned.TLS] == 3)
    silent = await gateway.connect()
    assert await silent.gone() == b""
    assert gateway.turned[Turned.TIMEOUT] == 1
    await (await gateway.connect()).close()  # as a health check of the port does
    assert upstream.requests == []
    told = [entry["why"] for entry in gateway.logs if entry["event"] == "connections closed before a request"]
    assert told == ["tls", "timeout"]
    await until(lambda: not gateway.state.connections)


async def test_a_client_is_shown_the_first_certificate_that_names_the_host_it_asks_for(
    start: StartGateway, authority: Authority
) -> None:
    files = [authority.issue("first.example"), authority.issue("*.shop.example", "shop.example"), authority.issue(NAME)]
    gateway = await start(listen=secured(*files))
    for asked, shown in (
        ("first.example", "first.example"),
        ("a.shop.example", "*.shop.example"),
        ("SHOP.example", "*.shop.example"),
        (NAME, NAME),
        ("a.b.shop.example", "first.example"),
        ("unknown.example", "first.example"),
        (None, "first.example"),
    ):
        context = trusting(authority)
        context.check_hostname = False
        assert shown in shown_to(await client_of(gateway, context, asked)), asked


async def test_a_renewed_certificate_is_shown_from_then_on_and_a_broken_one_changes_nothing(
    start: StartGateway, acme: Organization, authority: Authority, tmp_path: Path, looked_at_each_connection: None
) -> None:
    renewed, other = tmp_path / "renewed.pem", authority.issue("other.example")
    renewed.write_bytes(authority.issue(NAME).read_bytes())
    gateway = await start(listen=secured(other, renewed))
    gateway.expected_errors.add("certificates not read again, those before serve on")
    open_before = await client_of(gateway, trusting(authority))

    async def serial() -> int:
        client = await client_of(gateway, trusting(authority))
        shown = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown).serial_number

    first = await serial()
    for broken in (b"", b"junk", renewed.read_bytes()[:400], authority.ca_file.read_bytes()):
        renewed.write_bytes(broken)
        assert await serial() == first, "the one before serves on"
    told = [entry for entry in gateway.logs if entry["event"].startswith("certificates not read again")]
    assert len(told) == 4
    assert all(entry["files"] == [str(renewed)] and entry["reason"] for entry in told)
    renewed.write_bytes(authority.issue(NAME).read_bytes())
    assert await serial() != first
    assert (await open_before.ask(ask("/", acme.auth))).status == 200, "a connection goes on"


@pytest.mark.parametrize("required", [True, False])
async def test_a_client_whose_certificate_is_not_believed_or_is_missing_is_refused_where_one_is_required(
    start: StartGateway, acme: Organization, authority: Authority, stranger: Authority, required: bool
) -> None:
    asked = {"ca_file": str(authority.ca_file), "required": required}
    gateway = await start(listen=secured(authority.issue(NAME), client_certificates=asked))

    async def serves(own: Path | None) -> bool:
        client = await client_of(
            gateway, trusting(authority, own)
        )  # with TLS 1.3 a client is judged after its handshake
        return not await client.loses(ask("/", acme.auth))

    assert await serves(authority.issue("client.example"))
    assert await serves(None) is not required
    assert not await serves(stranger.issue("client.example"))
    assert await acme.used() == 2 - required


async def test_upstreams_are_told_of_the_certificate_and_never_what_a_client_says_of_one(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority
) -> None:
    asked = {"ca_file": str(authority.ca_file), "required": False, "forward": ["certificate", "fingerprint", "subject"]}
    gateway = await start(listen=secured(authority.issue(NAME), client_certificates=asked))
    own = authority.issue("Smith & Sons, Ltd")
    said = (
        b"Client-Cert: :bGll:\r\nclient_cert: :bGll:\r\nClient-Cert-Chain: :bGll:\r\n"
        b"X-Quota-Client-Subject: CN=root\r\nX-Quota-Client-Fingerprint: 00\r\n"
    )
    der = x509.load_pem_x509_certificate(own.read_bytes()).public_bytes(Encoding.DER)
    with_one, without = [await client_of(gateway, trusting(authority, each)) for each in (own, None)]
    for _ in range(2):  # parsed, and recognized
        assert (await with_one.ask(ask("/", acme.auth + said))).status == 200
        told = fields(upstream.requests[-1])
        assert base64.b64decode(told["client-cert"].strip(":")) == der
        assert told["x-quota-client-fingerprint"] == hashlib.sha256(der).hexdigest()
        assert told["x-quota-client-subject"] == "CN=Smith%20%26%20Sons%5C,%20Ltd"
        assert b"bGll" not in upstream.requests[-1]
        assert (await without.ask(ask("/", acme.auth + said))).status == 200
        assert b"client" not in upstream.requests[-1].lower()


async def test_a_sender_that_is_refused_within_its_body_reads_why(
    start: StartGateway, acme: Organization, authority: Authority, intervals: dict[str, Any]
) -> None:
    intervals["client_linger_seconds"] = 0.05
    gateway = await start(listen=secured(authority.issue(NAME)))

    def send_then_read() -> bytes:
        """As most clients do. It goes on sending for longer than one has that is silent."""
        with (
            socket.create_connection(("127.0.0.1", gateway.port), PATIENCE_SECONDS) as plain,
            trusting(authority).wrap_socket(plain, server_hostname=NAME) as client,
        ):
            client.sendall(ask("/", b"Content-Length: 9000000\r\n", "POST"))
            for _ in range(30):
                client.sendall(b"x" * 100_000)
                time.sleep(0.01)
            return client.recv(1000)

    assert (await asyncio.to_thread(send_then_read)).startswith(b"HTTP/1.1 401 ")


async def test_of_a_client_that_takes_nothing_the_tls_layer_keeps_little_and_its_answer_is_whole(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority, until: Until
) -> None:
    gateway = await start(listen=secured(authority.issue(NAME)))
    body = b"x" * 6_000_000
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    client = await client_of(gateway, trusting(authority), limit=1000)
    client.send(ask("/", acme.auth))
    await until(lambda: any(connection.writing_paused for connection in gateway.connections))
    assert gateway.connections[0].transport.get_write_buffer_size() < 400_000
    assert (await client.answer()).body == body


async def test_a_slow_client_gets_the_end_of_its_last_answer(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    authority: Authority,
    intervals: dict[str, Any],
    until: Until,
) -> None:
    intervals["client_linger_seconds"] = 0.05
    gateway = await start(listen=secured(authority.issue(NAME)))
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel keeps little for it
    plain.settimeout(PATIENCE_SECONDS)
    plain.connect(("127.0.0.1", gateway.port))
    with await asyncio.to_thread(trusting(authority).wrap_socket, plain, server_hostname=NAME) as client:
        await until(lambda: gateway.connections)
        [held] = gateway.connections
        held.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        body = b"x" * 60_000  # beyond what the kernel takes, and not beyond what is written to it at once
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        client.sendall(ask("/", acme.auth + b"Connection: close\r\n"))
        await until(lambda: held.state is ClientState.CLOSING)
        assert held.transport.get_write_buffer_size() == 0, "what is left is below the TLS layer"
        begun = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > begun + 0.3)  # several times what a silent one has
        answer = await asyncio.to_thread(lambda: b"".join(iter(lambda: client.recv(65_536), b"")))
    assert answer.endswith(body)


async def test_a_tunnel_of_a_client_with_tls_carries_bytes_both_ways(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority, until: Until
) -> None:
    gateway = await start(listen=secured(authority.issue(NAME)), routes=tunnels.route())
    accepting = tunnels.Accepting(upstream)
    client = await client_of(gateway, trusting(authority))
    client.send(ask("/", acme.auth + tunnels.ASKED))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    far = await accepting.ends.get()
    client.send(tunnels.frame(b"hello"))
    assert (await far.exactly(11)).endswith(bytes(a ^ b for a, b in zip(b"hello", b"abcda", strict=True)))
    far.send(b"\x81\x04last")
    far.writer.close()
    assert await client.gone() == b"\x81\x04last"
    await until(lambda: not gateway.state.connections)


def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, authority: Authority) -> None:
    good = str(authority.issue(NAME))
    none = str(tmp_path / "none.pem")
    files = {"certificates": [{"cert_file": good}, {"cert_file": none}]}
    assert "listen.tls.certificates[1].cert_file: cannot be used: No such file" in refusal(listen={"tls": files})
    keyless = {"certificates": [{"cert_file": str(authority.ca_file)}]}
    assert "listen.tls.certificates[0].cert_file: cannot be used" in refusal(listen={"tls": keyless})
    asking = {"certificates": [{"cert_file": good}], "client_certificates": {"ca_file": none}}
    assert "listen.tls.client_certificates.ca_file: cannot be used: No such file" in refusal(listen={"tls": asking})
    assert "listen.tls.certificates" in refusal(listen={"tls": {"certificates": []}})
