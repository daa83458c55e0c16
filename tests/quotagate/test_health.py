"""`quotagate health`, as containers ask it."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from typer.testing import CliRunner

from devstack.ports import free_port
from quotagate.main import app


class _Healthy(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/-/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # named by the base class
        pass

    def address_string(self) -> str:
        return ""


class _Unhealthy(_Healthy):
    status = 503


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_one_that_runs_is_enough_on_a_port_or_at_a_socket(tmp_path: Path) -> None:
    runner, path, away = CliRunner(), tmp_path / "gateway.sock", f"http://127.0.0.1:{free_port()}"
    tcp = socketserver.TCPServer(("127.0.0.1", 0), _Healthy)
    with _served(tcp), _served(socketserver.UnixStreamServer(str(path), _Healthy)):
        for url in (f"http://127.0.0.1:{tcp.server_address[1]}", f"unix://{path}"):
            asked = runner.invoke(app, ["health", away, url])
            assert (asked.exit_code, asked.output) == (0, f"{url} runs\n")


def test_what_does_not_answer_200_is_named_with_the_reason_and_the_command_fails() -> None:
    away = f"http://127.0.0.1:{free_port()}"
    server = socketserver.TCPServer(("127.0.0.1", 0), _Unhealthy)
    with _served(server):
        asked = CliRunner().invoke(app, ["health", away, f"http://127.0.0.1:{server.server_address[1]}"])
    assert asked.exit_code == 1
    assert "Connection refused" in asked.output
    assert "answers 503" in asked.output
    wrong = CliRunner().invoke(app, ["health", "ftp://127.0.0.1"])
    assert (wrong.exit_code, "must be http://host:port" in wrong.output) == (2, True)
