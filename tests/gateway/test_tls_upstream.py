"""Upstreams behind TLS: who is believed, and what name is asked for. The certificates are made here."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import ValidationError

from common import certificates
from gateway.settings.upstreams import Tls
from tests.authority import Authority
from tests.gateway import tunnels
from tests.gateway.rig import Gateway, Organization, StartGateway, Until, Upstream


class Secured:
    """`upstream` behind TLS."""

    def __init__(self, context: ssl.SSLContext, port: int, names: list[str | None]) -> None:
        self.context = context
        self.url = f"https://127.0.0.1:{port}"
        self.names = names
        """What clients asked for by SNI."""


@pytest.fixture
async def secured(authority: Authority, upstream: Upstream) -> AsyncIterator[Secured]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("api.internal"))
    names: list[str | None] = []
    context.sni_callback = lambda _, asked, __: names.append(asked)
    server = await asyncio.start_server(upstream.on_connection, "127.0.0.1", 0, ssl=context)
    yield Secured(context, server.sockets[0].getsockname()[1], names)
    server.close()


def tls_settings(authority: Authority, **tls: Any) -> dict[str, Any]:
    return {"api": {"tls": {"ca_file": str(authority.ca_file), "server_name": "api.internal", **tls}}}


async def test_a_verified_upstream_is_asked_by_its_name(
    start: StartGateway, acme: Organization, upstream: Upstream, secured: Secured, authority: Authority
) -> None:
    gateway = await start(secured.url, upstreams=tls_settings(authority))
    client = await gateway.connect()
    for _ in range(2):
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: x.example\r\n" + acme.auth + b"\r\n")).body == b"ok"
    assert secured.names == ["api.internal"], "one handshake for both"


async def test_a_tunnel_to_a_secured_upstream_carries_bytes_both_ways_and_a_slow_end_holds_the_other(
    start: StartGateway, acme: Organization, upstream: Upstream, secured: Secured, authority: Authority, until: Until
) -> None:
    gateway = await start(secured.url, upstreams=tls_settings(authority), routes=tunnels.route())
    client, far, _ = await tunnels.opened(gateway, acme, upstream)
    await tunnels.held_by_slow_ends(gateway, client, far, until)
    assert await acme.used() == 1
    far.send(b"\x81\x04last")
    far.writer.close()
    assert await client.gone() == b"\x81\x04last"
    await until(lambda: not gateway.connections and gateway.pool._open == 0)


@pytest.mark.parametrize("case", ["another authority", "the system's authorities", "another name", "the address"])
async def test_an_upstream_that_is_not_verified_gets_nothing_and_costs_nothing(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    secured: Secured,
    authority: Authority,
    stranger: Authority,
    case: str,
) -> None:
    cases: dict[str, dict[str, str | None]] = {
        "another authority": {"ca_file": str(stranger.ca_file)},
        "the system's authorities": {"ca_file": None},
        "another name": {"server_name": "other.internal"},
        "the address": {"server_name": None},
    }
    gateway = await start(secured.url, upstreams=tls_settings(authority, **cases[case]))
    answer = await gateway.get("/", acme)
    assert (answer.status, answer.problem["type"]) == (502, "urn:quotagate:problem:upstream-unreachable")
    assert "certificate" not in answer.body.decode()
    assert upstream.requests == []
    assert await acme.settled("ts")


async def test_an_address_is_verified_when_the_certificate_names_it(
    start: StartGateway, acme: Organization, secured: Secured, authority: Authority
) -> None:
    secured.context.load_cert_chain(authority.issue("127.0.0.1"))
    gateway = await start(secured.url, upstreams=tls_settings(authority, server_name=None))
    assert (await gateway.get("/", acme)).status == 200


async def test_without_verification_everyone_is_believed(
    start: StartGateway, acme: Organization, secured: Secured
) -> None:
    gateway = await start(secured.url, upstreams={"api": {"tls": {"verify": False}}})
    assert (await gateway.get("/", acme)).status == 200


@pytest.mark.parametrize("shown", [True, False])
async def test_an_upstream_may_ask_for_the_gateways_certificate(
    start: StartGateway, acme: Organization, upstream: Upstream, secured: Secured, authority: Authority, shown: bool
) -> None:
    secured.context.load_verify_locations(authority.ca_file)
    secured.context.verify_mode = ssl.CERT_REQUIRED
    own = {"cert_file": str(authority.issue("gateway.internal"))} if shown else {}
    gateway = await start(secured.url, upstreams=tls_settings(authority, **own))
    assert (await gateway.get("/", acme)).status == (200 if shown else 502)
    assert len(upstream.requests) == shown


async def test_probes_verify_as_requests_do(
    start: StartGateway, upstream: Upstream, secured: Secured, authority: Authority, until: Until
) -> None:
    health = {"path": "/healthz", "interval_seconds": 0.02, "unhealthy_after": 1, "healthy_after": 1}
    settings = tls_settings(authority)
    settings["api"]["health"] = health
    gateway = await start(secured.url, upstreams=settings)
    await until(lambda: len(upstream.requests) >= 2)
    assert gateway.worker.upstreams["api"].state == "available"
    assert set(secured.names) == {"api.internal"}


def test_files_that_cannot_be_used_are_named_at_start(tmp_path: Path, authority: Authority) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(ValidationError, match="cannot be used: No such file"):
        Tls(ca_file=tmp_path / "none.pem")
    with pytest.raises(ValidationError, match="cannot be used"):
        Tls(ca_file=junk)
    with pytest.raises(ValidationError, match="cannot be used"):
        Tls(cert_file=authority.ca_file)
    with pytest.raises(ValidationError, match="is the key of no certificate"):
        Tls(key_file=junk)


@pytest.fixture
def looked_at_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0)


class StatusOfDial(Protocol):
    async def __call__(self, gateway: Gateway) -> int: ...


@pytest.fixture
def dialed(acme: Organization, upstream: Upstream, until: Until) -> StatusOfDial:
    """The status of a request that needs a new connection to the upstream."""

    async def status(gateway: Gateway) -> int:
        for peer in upstream.peers:
            await peer.close()
        await until(lambda: not gateway.pool._open)
        return (await gateway.get("/", acme)).status

    return status


async def test_a_ca_file_that_changes_is_believed_by_the_next_dial_and_one_that_is_broken_is_not(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    secured: Secured,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
    looked_at_each_dial: None,
    dialed: StatusOfDial,
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.ca_file.read_bytes())
    gateway = await start(secured.url, upstreams=tls_settings(authority, ca_file=str(file)))
    gateway.expected_errors.add("certificates not read again, those before serve on")
    assert await dialed(gateway) == 502
    file.write_bytes(authority.ca_file.read_bytes())
    assert await dialed(gateway) == 200
    kept = len(upstream.requests)
    assert (await gateway.get("/", acme)).status == 200
    assert len(upstream.requests) == kept + 1
    for broken in (b"", b"junk", authority.ca_file.read_bytes()[:200], None):
        file.unlink() if broken is None else file.write_bytes(broken)
        assert await dialed(gateway) == 200, "the one before serves on"
        assert await dialed(gateway) == 200
    told_broken = [entry for entry in gateway.logs if entry["event"].startswith("certificates not read again")]
    assert len(told_broken) == 4, "once for each state of the file"
    assert all(str(file) in entry["files"] and entry["reason"] for entry in told_broken)
    file.write_bytes(stranger.ca_file.read_bytes())
    assert await dialed(gateway) == 502, "a good file is believed again"


async def test_a_certificate_of_the_gateways_own_is_renewed_without_a_restart(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    secured: Secured,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
    looked_at_each_dial: None,
    dialed: StatusOfDial,
) -> None:
    """Certificate and key come one after the other, as renewals write them, or by a link, as Kubernetes has it."""
    secured.context.load_verify_locations(authority.ca_file)
    secured.context.verify_mode = ssl.CERT_REQUIRED
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder, issuer in zip(folders, (stranger, authority), strict=True):
        folder.mkdir()
        text = issuer.issue("gateway.internal").read_text()
        at = text.index("-----BEGIN PRIVATE KEY")
        (folder / "cert.pem").write_text(text[:at])
        (folder / "key.pem").write_text(text[at:])
    link = tmp_path / "current"
    link.symlink_to(folders[0])
    own = {"cert_file": str(link / "cert.pem"), "key_file": str(link / "key.pem")}
    gateway = await start(secured.url, upstreams=tls_settings(authority, **own))
    gateway.expected_errors.add("certificates not read again, those before serve on")
    assert await dialed(gateway) == 502
    old = (folders[0] / "cert.pem").read_text()
    (folders[0] / "cert.pem").write_text((folders[1] / "cert.pem").read_text())  # the key is not there yet
    assert await dialed(gateway) == 502
    (folders[0] / "cert.pem").write_text(old)
    link.unlink()
    link.symlink_to(folders[1])
    assert await dialed(gateway) == 200


async def test_probes_use_the_certificates_that_requests_use(
    start: StartGateway,
    upstream: Upstream,
    secured: Secured,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
    looked_at_each_dial: None,
    until: Until,
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.ca_file.read_bytes())
    settings = tls_settings(authority, ca_file=str(file))
    settings["api"]["health"] = {"path": "/h", "interval_seconds": 0.02, "unhealthy_after": 1, "healthy_after": 1}
    gateway = await start(secured.url, upstreams=settings)
    await until(lambda: gateway.worker.upstreams["api"].state == "unavailable")
    file.write_bytes(authority.ca_file.read_bytes())
    await until(lambda: gateway.worker.upstreams["api"].state == "available")


async def test_files_are_looked_at_no_more_than_every_few_seconds(authority: Authority, tmp_path: Path) -> None:
    file, now, made = tmp_path / "ca.pem", [0.0], []
    file.write_bytes(authority.ca_file.read_bytes())

    def make() -> ssl.SSLContext:
        made.append(file.read_bytes())
        return ssl.create_default_context(cafile=file)

    kept = certificates.Certificates(make, [file], lambda: now[0])
    first = await kept.current()
    file.write_bytes(authority.ca_file.read_bytes() + b"\n")
    assert await kept.current() is first
    now[0] = certificates.LOOK_SECONDS
    second, third = await asyncio.gather(kept.current(), kept.current())
    assert third is first, "nobody waits for what another reads"
    assert second is not first
    assert await kept.current() is second
    assert len(made) == 2
