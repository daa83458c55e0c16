"""Settings files that are examined, servers that are, and what the doctor finds."""

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from common.settings_file import load
from control.settings.control_plane import Settings
from gateway.settings.root import GatewaySettings
from quotagate.main import app

SECRET = "of-the-tests-and-long-enough-for-hs256"


def gateway_config(tmp_path: Path, upstreams: dict[str, Any], auth: dict[str, Any] | None = None) -> str:
    auth = auth or {"algorithms": ["HS256"], "secret": SECRET}
    settings = {
        "redis": {"url": "redis://127.0.0.1:1"},
        "auth": {"issuer": "doctor", "audience": "doctor", **auth},
        "upstreams": upstreams,
        "routes": [{"path": "/", "upstream": name} for name in list(upstreams)[:1]],
    }
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    return str(file)


def gateway_settings(tmp_path: Path, change: dict[str, Any]) -> GatewaySettings:
    """As written into gateway.yaml, with this change."""
    file = Path(gateway_config(tmp_path, {"api": {"url": "http://127.0.0.1:1"}}))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return load(file, "gateway.yaml", GatewaySettings)


def control_settings(tmp_path: Path, change: dict[str, Any]) -> Settings:
    """The same of control.yaml."""
    settings = {
        "postgres": {"dsn": "postgresql://127.0.0.1/x"},
        "redis": {"url": "redis://127.0.0.1:1"},
        "admin_token": "of-the-tests-and-long-enough",
        **change,
    }
    file = tmp_path / "control.yaml"
    file.write_text(json.dumps(settings))
    return load(file, "control.yaml", Settings)


def examined(*arguments: str) -> dict[str, dict[str, Any]]:
    """The findings by what they are of; the exit code says the same."""
    result = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (1 if report["wrong"] else 0), result.output
    assert report["wrong"] == sum(not each["good"] for each in report["findings"])
    return {each["what"]: each for each in report["findings"]}


def secured(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def listening(certificate: Path | None = None, path: Path | None = None) -> Iterator[str]:
    """A target that takes connections; its address."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                peer = self.request if certificate is None else secured(certificate).wrap_socket(self.request, True)
                peer.recv(1)
            except OSError:
                pass  # whoever does not believe us goes

    server: socketserver.BaseServer
    if path is None:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent)
        url = f"127.0.0.1:{server.server_address[1]}"
    else:
        server, url = socketserver.ThreadingUnixStreamServer(str(path), Silent), f"unix://{path}"
    with server as target:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        try:
            yield url
        finally:
            target.shutdown()


@contextmanager
def answering(text: str, certificate: Path | None = None) -> Iterator[str]:
    """A server that answers everything with this text; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that the base class gives it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            server.socket = secured(certificate).wrap_socket(server.socket, True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()
