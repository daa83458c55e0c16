"""`quotagate health`: whether the process beside it answers, for engines that watch containers by a command."""

import http.client
import socket
import ssl
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from quotagate.failure import Unreachable
from quotagate.options import AsJson
from quotagate.output import show
from quotagate.times import DURATION, duration

HEALTH: Final = "/-/health"
LONGEST_TIMEOUT: Final = timedelta(days=1)  # a socket waits for 24 days at most
ROLES: Final = ("http://127.0.0.1:8080", "http://127.0.0.1:8081")
"""Where the gateway and the control plane listen by default: a container runs one of them."""

Urls = Annotated[
    list[str] | None,
    typer.Argument(metavar="URL", help=f"http://, https:// or unix:///path of a socket.  [default: {' '.join(ROLES)}]"),
]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def health(
    urls: Urls = None,
    timeout: Annotated[str, typer.Option(metavar=DURATION, help="For each URL.")] = "3s",
    as_json: AsJson = False,
) -> None:
    """Ask /-/health of what runs at one of the URLs. Exits with 1 when none says that it runs. Stores that are away are
    no fault here: `quotagate doctor` looks at them."""
    faults: list[str] = []
    timeout_seconds = duration(timeout, "--timeout", LONGEST_TIMEOUT).total_seconds()
    for url in urls or ROLES:
        fault = _fault(url, timeout_seconds)
        if fault is None:
            show({"url": url, "runs": True}, as_json, f"{url} runs")
            return
        faults.append(f"{url}: {fault}")
    raise Unreachable("; ".join(faults))


def _fault(url: str, timeout_seconds: float) -> str | None:
    connection = _connection(url, timeout_seconds)
    try:
        connection.request("GET", HEALTH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as e:
        return str(e) or type(e).__name__
    finally:
        connection.close()
    return None if status == http.client.OK else f"answers {status}"


def _connection(url: str, timeout_seconds: float) -> http.client.HTTPConnection:
    """Raises BadParameter."""
    parts = urlsplit(url)
    try:
        match parts.scheme, parts.hostname, parts.port, parts.path:
            case "unix", None, None, path if path:
                return _UnixConnection(path, timeout_seconds)
            case "http", str(host), port, _:
                return http.client.HTTPConnection(host, port, timeout=timeout_seconds)
            case "https", str(host), port, _:
                # The question stays on this machine, whose address no certificate names.
                unverified = ssl._create_unverified_context()  # noqa: S323  # nothing secret is sent or believed
                return http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=unverified)
    except ValueError as e:
        raise typer.BadParameter(f"{url}: {e}", param_hint="URL") from e
    raise typer.BadParameter(f"{url} must be http://host:port, https://host:port or unix:///path", param_hint="URL")
