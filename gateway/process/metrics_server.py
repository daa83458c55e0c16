"""The port at which metrics of all workers are read."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import structlog

from common.settings_file import SettingsError
from gateway.settings.observing import Management

log = structlog.get_logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_SECONDS = 5.0


class MetricsServer:
    def __init__(self, collect: Callable[[], str]) -> None:
        """`collect`: its own thread calls it."""
        self._collect = collect
        self._server: ThreadingHTTPServer | None = None
        self._open: Connection | None = None
        """Its other end shows when this one is closed."""

    def listen(self, at: Management) -> None:
        """Instead of where it has listened before. Raises SettingsError for a port that is taken."""
        self.close()
        if at.port is None:
            return
        try:
            self._server = ThreadingHTTPServer((at.host, at.port), _handler_of(self._collect))
        except OSError as e:
            raise SettingsError(f"cannot listen on {at.host}:{at.port} for metrics: {e.strerror}") from e
        host, port = self._server.server_address[:2]
        log.info("metrics are served", url=f"http://{host!s}:{port}/metrics")
        closed, self._open = Pipe(duplex=False)
        self._thread = threading.Thread(target=_serve, args=(self._server, closed), daemon=True, name="management")
        self._thread.start()

    def close(self) -> None:
        if self._server is not None and self._open is not None:
            self._open.close()
            self._thread.join()
            self._server.server_close()
            self._server = None


def _serve(server: ThreadingHTTPServer, closed: Connection) -> None:
    """Until that end is closed. `serve_forever` looks twice a second whether it should end."""
    server.timeout = 0  # whoever has connected may have left
    while closed not in wait([server, closed]):  # type: ignore[list-item]  # a server has a `fileno`, which is enough
        server.handle_request()
    closed.close()


def _handler_of(collect: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS

        def do_GET(self) -> None:
            if self.path.partition("?")[0] == "/metrics":
                self._answer(200, CONTENT_TYPE, collect().encode())
            else:
                self._answer(404, "text/plain", b"Only /metrics is here.\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            pass

    return Handler
