"""What an operator can decide about an API behind the gateway: one entry under `upstreams` of `config/gateway.yaml`."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from common.certificates import Certificates, system_authorities
from common.request_target import is_host
from common.settings_file import Location, SettingsConflict, SettingsModel
from common.urls import split_url
from gateway.settings.rewriting import Credential
from gateway.settings.values import Count, Seconds


def _upstream_url(url: str) -> str:
    if url.startswith("unix:"):
        return _socket_url(url)
    parts = split_url(url, ("http", "https"))
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must name scheme, host and port only: the path that was matched is the path that is sent")
    return url.rstrip("/")


def _socket_url(url: str) -> str:
    path = url.removeprefix("unix://")
    if path == url or not path.startswith("/") or path.endswith("/") or not _SOCKET.fullmatch(path):
        raise ValueError("must be unix:///path of a socket, spelt without escapes and without ?, # and %")
    if len(path.encode()) > SOCKET_BYTES_MAX:
        raise ValueError(f"must name a socket by at most {SOCKET_BYTES_MAX} bytes, which is the system's limit")
    return url


def _host_name(host: str) -> str:
    if not is_host(host.encode()):
        raise ValueError("must be preserve, upstream, or a host with an optional port")
    return host


SOCKET_BYTES_MAX: Final = 107  # of a path: sockaddr_un's sun_path without its end, unix(7)
_SOCKET: Final = re.compile(r"[^\x00-\x1f\x7f?#%]+")

Url = Annotated[str, AfterValidator(_upstream_url)]


class Ejection(SettingsModel):
    """When a target is left out because requests to it fail: no connection, no head in time, an end before a head."""

    consecutive_failures: Count = 5
    """One after the other, without an answer between them, in one worker."""
    seconds: Seconds = 1
    """Left out for so long at first, and twice as long each time the one request that tries it then fails."""
    seconds_max: Seconds = 30

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.seconds_max < self.seconds:
            raise SettingsConflict([(("seconds_max",), f"must not be less than seconds ({self.seconds:g})")])
        return self


class Health(SettingsModel):
    """Probes: each worker asks each target now and then. While all fail, requests are sent all the same."""

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")]
    """Well is whoever answers 2xx to a GET of it."""
    interval_seconds: Seconds = 10
    timeout_seconds: Seconds = 2
    healthy_after: Count = 2
    """Good answers in a row."""
    unhealthy_after: Count = 3
    """Failures in a row."""


class Tls(SettingsModel):
    """How an https target shows who it is, and the gateway to it. Files that change are read again within seconds, for
    the connections that are made then; what cannot be used is logged, and what was read before goes on."""

    ca_file: Path | None = None
    """PEM; null: the certificate authorities of the system."""
    server_name: Annotated[str, Field(min_length=1)] | None = None
    """Asked for (SNI) and verified instead of the URL's host."""
    verify: bool = True
    """False believes everyone: for tests."""
    cert_file: Path | None = None
    """PEM; the gateway's own certificate, for upstreams that ask for one."""
    key_file: Path | None = None
    """PEM; null: the key is in `cert_file`."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise SettingsConflict([(("key_file",), "is the key of no certificate: set cert_file, too")])
        try:
            field = "ca_file"
            context = self._trusting()
            field = "cert_file"
            self._identify(context)
        except OSError as e:  # ssl.SSLError is one
            raise SettingsConflict([((field,), f"cannot be used: {e.strerror or e}")]) from None
        return self

    def certificates(self) -> Certificates[ssl.SSLContext]:
        """What connections are secured with, by the files as they are when one is made. Raises OSError."""
        own = [file for file in (self.cert_file, self.key_file) if file is not None]
        return Certificates(self._context, [*([self.ca_file] if self.ca_file else system_authorities()), *own])

    def _context(self) -> ssl.SSLContext:
        context = self._trusting()
        self._identify(context)
        return context

    def _trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _identify(self, context: ssl.SSLContext) -> None:
        if self.cert_file is not None:
            # A password would be asked for on the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")


class Upstream(SettingsModel):
    """An API behind the gateway."""

    url: Url | None = None
    """Where it is: http://, https:// or unix:///path of a socket that speaks http; or `targets`."""
    targets: Annotated[tuple[Url, ...], Field(min_length=1)] | None = None
    """Several places that are the same to a client; instead of `url`."""
    host: Annotated[str, AfterValidator(_host_name)] = "preserve"
    """The Host field that it is sent: the client's (preserve), that of the target's URL (upstream), or this name. What
    TLS asks for is decided by `tls` all the same."""
    credential: Credential | None = None
    """What it is shown in place of the client's token; null: `Authorization` goes on as it came."""
    balance: Literal["round_robin", "least_connections"] = "round_robin"
    """Which target is next: each in turn, or the one with the fewest requests of this worker."""
    connect_timeout_seconds: Seconds = 2
    """502 after it; nothing was sent, so the charge is given back."""
    head_timeout_seconds: Seconds = 30
    """From the last byte of the request to the head of the answer; 504 after it."""
    idle_timeout_seconds: Seconds = 60
    """Between two bytes of an answer's body; after it the answer is cut."""
    total_timeout_seconds: Seconds | None = None
    """From the charge to the answer's last byte: 504 before its head, cut within it; null: no limit."""
    keepalive_idle_max: Annotated[int, Field(ge=0)] = 1024
    """Unused connections kept for each target, in each worker. 0: each connection carries one request."""
    keepalive_seconds: Seconds = 30
    """A connection that is unused for longer is closed, sooner where the upstream's Keep-Alive says so. Keep it
    below the upstream's own idle timeout."""
    connections_max: Count = 1024
    """To each target, in each worker; beyond, requests wait."""
    queue_max: Annotated[int, Field(ge=0)] = 1024
    """Requests that wait for a connection to a target, in each worker; 503 beyond."""
    queue_timeout_seconds: Seconds | None = None
    """503 for a request that waited for so long; null: as long as `head_timeout_seconds`."""
    ejection: Ejection = Ejection()
    health: Health | None = None
    """Active probes; null: none."""
    tls: Tls | None = None
    """For https; null: verified by the system's certificate authorities."""
    resolve_seconds: Seconds = 30
    """How long the addresses of a name hold until DNS is asked again; its last answer holds while it is away."""
    circuit_breaker: bool = True
    """While all targets are ejected: 503 at once and no charge, but for one request now and then that tries (true), or
    every target is used as if none were ejected (false)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := list(self._conflicts()):
            raise SettingsConflict(faults)
        return self

    def _conflicts(self) -> list[tuple[Location, str]]:
        faults: list[tuple[Location, str]] = []
        if self.url is None and self.targets is None:
            faults.append((("url",), "is missing (or `targets`, for several)"))
        elif self.url is not None and self.targets is not None:
            faults.append((("targets",), "names the targets instead of `url`: leave one of the two out"))
        urls = self.urls
        if self.tls is not None and urls and urlsplit(urls[0]).scheme != "https":
            faults.append((("tls",), "is for https targets"))
        for index, url in enumerate(urls):
            if url in urls[:index]:
                faults.append((("targets", index), f"is given twice: {url}"))
            elif urlsplit(url).scheme != urlsplit(urls[0]).scheme:
                faults.append((("targets", index), "must have the scheme of the others"))
        return faults

    @property
    def urls(self) -> tuple[str, ...]:
        """Its targets, however many."""
        return self.targets or ((self.url,) if self.url is not None else ())

    @property
    def queue_seconds(self) -> float:
        return self.queue_timeout_seconds or self.head_timeout_seconds
