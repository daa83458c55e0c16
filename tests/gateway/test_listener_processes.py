"""What only processes can show of a listener with TLS, and of one at a Unix socket."""

import asyncio
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.listening import bound_unix, remove_unix
from common.settings_file import SettingsError
from devstack.token_mint import AUDIENCE, ISSUER
from tests.authority import Authority
from tests.gateway.rig import (
    OK,
    PATIENT,
    PROCESS_SECONDS,
    SECRET,
    STREAM_LIMIT,
    Client,
    Organization,
    Peer,
    Process,
    Until,
    Upstream,
    request,
)
from tests.gateway.test_listener_tls import NAME, trusting


class Gateway:
    """Its processes, at a Unix socket."""

    def __init__(self, directory: Path, settings: dict[str, Any], authority: Authority) -> None:
        self.path = directory / "gateway.sock"
        self.file = authority.issue(NAME)
        self.tls: dict[str, Any] = {"certificates": [{"cert_file": str(self.file)}]}
        self.process = Process(directory, {**settings, "listen": self._listen()})
        self.context = trusting(authority)

    def _listen(self) -> dict[str, Any]:
        return {"socket": str(self.path), "socket_mode": "640", "tls": self.tls}

    def reload(self, **tls: Any) -> None:
        self.tls |= tls
        self.process.write({**self.process.settings, "listen": self._listen()})
        self.process.signal(signal.SIGHUP)

    async def connect(self) -> Client:
        tls = {"ssl": self.context, "server_hostname": NAME}
        return Client(*await asyncio.open_unix_connection(self.path, limit=STREAM_LIMIT, **tls))


@pytest.fixture
async def gateway(
    redis_url: str, upstream: Upstream, tmp_path: Path, authority: Authority, until: Until
) -> AsyncIterator[Gateway]:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "gateway.sock"))
    settings = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": upstream.url}},
        "routes": [{"path": "/", "upstream": "api"}],
        "standby": False,
        "drain": {"idle_seconds": 0.25},
    }
    gateway = Gateway(tmp_path, settings, authority)
    await until(lambda: gateway.process.logged('"listening"') or gateway.process.process.poll(), PROCESS_SECONDS)
    yield gateway
    if gateway.process.process.poll() is None:
        gateway.process.process.terminate()
    gateway.process.wait()


async def test_a_gateway_at_a_unix_socket_with_tls_reloads_cuts_no_answer_and_leaves_no_socket(
    gateway: Gateway, acme: Organization, upstream: Upstream, authority: Authority, until: Until
) -> None:
    release = asyncio.Event()

    async def slowly(peer: Peer, message: bytes) -> None:
        if b"X-Slow" in message:
            await release.wait()
        peer.send(OK)

    upstream.script = slowly
    process, path = gateway.process, gateway.path
    assert process.logged(f"unix:{path}"), "it has replaced the socket that was abandoned"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(SettingsError, match="somebody listens there"):
        bound_unix(path, 0o600)
    busy, idle = await gateway.connect(), await gateway.connect()
    assert (await idle.ask(request(acme.auth))).status == 200
    busy.send(request(acme.auth, lines=b"X-Slow: 1\r\n"))
    await until(lambda: len(upstream.requests) == 2)
    gateway.reload(client_certificates={"ca_file": str(authority.ca_file)})
    await until(lambda: process.logged("settings read again") and process.logged("Shutting down"), PROCESS_SECONDS)
    answer = await idle.ask(request(acme.auth))
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await idle.ended()
    assert await (await gateway.connect()).loses(request(acme.auth)), "it shows no certificate"
    gateway.context.load_cert_chain(authority.issue("client.example"))
    assert (await (await gateway.connect()).ask(request(acme.auth))).status == 200
    release.set()
    assert (await busy.answer()).status == 200
    expires = f'quotagate_certificate_expires_timestamp_seconds{{file="{gateway.file}"}}'
    assert process.metrics()[expires] > time.time()
    process.signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    assert not path.exists()


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(SettingsError, match="no socket"):
        bound_unix(file, 0o600)
    assert file.read_text() == "kept"
    listener = bound_unix(tmp_path / "gateway.sock", 0o600)
    remove_unix(listener)
    assert not (tmp_path / "gateway.sock").exists()
    listener.close()
