"""Where clients connect, and what a connection shows before its first request."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.certificates import Certificates
from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.settings.upstreams import SOCKET_BYTES_MAX
from gateway.settings.values import Peers, Port, Text

ALPN: Final = ("http/1.1",)
_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

Fact = Literal["certificate", "fingerprint", "subject"]


def _socket_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or re.search(r"[\x00-\x1f\x7f]", path):
        raise ValueError("must be the absolute path of a socket")
    if len(path.encode()) > SOCKET_BYTES_MAX:
        raise ValueError(f"must have at most {SOCKET_BYTES_MAX} bytes, which is the system's limit")
    return path


@dataclass(frozen=True, slots=True)
class Served:
    """One certificate as it is read from its files."""

    context: ssl.SSLContext
    names: frozenset[str]
    """DNS names in lower case; one may begin with `*.`."""


class ServedCertificate(SettingsModel):
    """A certificate that the gateway shows to clients."""

    cert_file: Path
    """PEM; the certificate, followed by those between it and the authority."""
    key_file: Path | None = None
    """PEM, without a password; null: the key is in `cert_file`."""


class ClientCertificates(SettingsModel):
    """Certificates that clients show."""

    ca_file: Path
    """PEM; the authorities that are believed."""
    required: bool = True
    """Whether a client without one is refused; false: it is served, and one that is not believed is refused."""
    forward: tuple[Fact, ...] = ()
    """What upstreams are told: `certificate` in Client-Cert (RFC 9440), `fingerprint` (SHA-256, hexadecimal) in
    X-Quota-Client-Fingerprint, `subject` (RFC 4514, percent-encoded) in X-Quota-Client-Subject. Clients' own fields of
    these names do not go on."""


class ListenerTls(SettingsModel):
    """TLS between clients and the gateway. Files that change are read again within seconds, for the connections that
    are made then; what cannot be used is logged, and what was read before goes on."""

    certificates: Annotated[tuple[ServedCertificate, ...], Field(min_length=1)]
    """A client is shown the first that names the host that it asks for (SNI), or else the first of all."""
    minimum_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    client_certificates: ClientCertificates | None = None
    """null: clients are not asked for any."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        at: Location = ("client_certificates", "ca_file")
        try:
            self._context()
            for index, files in enumerate(self.certificates):
                at = ("certificates", index, "cert_file")
                self._served(files)
        except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
            reason = (e.strerror if isinstance(e, OSError) else None) or e
            raise SettingsConflict([(at, f"cannot be used: {reason}")]) from None
        return self

    def served(self) -> list[Certificates[Served]]:
        """The certificates by the files as they are when a connection is made. Raises OSError and ValueError."""
        return [self._following(files) for files in self.certificates]

    def _following(self, files: ServedCertificate) -> Certificates[Served]:
        named = [files.cert_file, *([files.key_file] if files.key_file else [])]
        if self.client_certificates is not None:
            named.append(self.client_certificates.ca_file)
        return Certificates(lambda: self._served(files), named)

    def _served(self, files: ServedCertificate) -> Served:
        from common.x509 import dns_names_of  # which only those with TLS need

        context = self._context()
        # A password would be asked for on the terminal.
        context.load_cert_chain(files.cert_file, files.key_file, password=lambda: "")
        return Served(context, dns_names_of(files.cert_file))

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.minimum_version]
        context.options |= ssl.OP_NO_RENEGOTIATION  # a handshake costs a server more than a client
        context.set_alpn_protocols(list(ALPN))
        if (asked := self.client_certificates) is not None:
            context.load_verify_locations(cafile=asked.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED if asked.required else ssl.CERT_OPTIONAL
        return context


class ProxyProtocol(SettingsModel):
    """Each connection begins with a PROXY header (version 1 or 2), which says whose it is."""

    trusted: Annotated[tuple[Peers, ...], Field(min_length=1)]
    """Who writes that header: addresses, networks, or `unix` for whoever may open the socket. Connections of
    others, and those without a header, are closed."""


class Listen(SettingsModel):
    """Where clients connect."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    """0 takes a free port."""
    socket: Annotated[str, AfterValidator(_socket_path)] | None = None
    """The path of a Unix socket, in place of host and port."""
    socket_mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "660"
    """Who may open it, as chmod has it."""
    tls: ListenerTls | None = None
    """null: clients speak plain HTTP."""
    proxy_protocol: ProxyProtocol | None = None
    """null: a connection is from where it comes."""

    @property
    def address(self) -> tuple[object, ...]:
        """What a reload cannot change."""
        return self.host, self.port, self.socket, self.socket_mode

    @property
    def plain(self) -> bool:
        """Whether connections are of TCP and show nothing before their first request."""
        return self.socket is None and self.tls is None and self.proxy_protocol is None
