"""What clients, and proxies in front of the gateway, may do."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from gateway.http.cors import checked_origin
from gateway.settings.values import Count, Peers, Seconds


class ClientTimeouts(SettingsModel):
    """How long a client may take."""

    handshake_seconds: Seconds = 10
    """For what a connection shows before its first request: the PROXY header and TLS; closed after it."""
    head_seconds: Seconds = 10
    """From a request's first byte to the end of its head; 408 after it."""
    idle_seconds: Seconds = 75
    """Between two requests of a connection."""
    body_idle_seconds: Seconds = 30
    """Between two bytes of a request's body; 408 after it."""
    tunnel_idle_seconds: Seconds = 3600
    """An upgraded connection is closed after so long without a byte of either side."""


class Limits(SettingsModel):
    """How much a client may send."""

    head_bytes_max: Annotated[int, Field(ge=1024, le=1_048_576)] = 65_536
    """Of the request line and the header section together; 431 beyond."""
    header_fields_max: Annotated[int, Field(ge=8, le=1000)] = 100
    """431 beyond."""
    connections_max: Count = 16_384
    """Client connections, in each worker."""
    body_bytes_max: Annotated[int, Field(ge=0)] | None = None
    """413 beyond; null: no limit, bodies are streamed and cost no memory."""


class Forwarding(SettingsModel):
    """Proxies in front of the gateway, and how the upstream learns who the client is."""

    trusted: tuple[Peers, ...] = ()
    """Addresses or networks (10.0.0.0/8, 2001:db8::/32) whose X-Forwarded-For, -Proto and -Host are kept and continued;
    from all others they are replaced. `unix`: of whoever may open the gateway's socket. A proxy that is named here must
    write them itself."""
    rfc7239: bool = False
    """Whether `Forwarded` (RFC 7239) is sent as well, and believed of trusted proxies. Set it only if those proxies
    write or remove the field: where one passes it on, its clients would be believed."""


class Cors(SettingsModel):
    """Which pages may read a refusal. The upstream decides on its own answers."""

    allowed_origins: tuple[Annotated[str, AfterValidator(checked_origin)], ...] = ()
    """Origins such as https://app.example.com, or `*` for all. https://*.example.com is those with one label or more in
    place of the asterisk, and not https://example.com."""
    allow_credentials: bool = False
    """Whether pages that ask with cookies may read a refusal, too: as the upstream has it for its answers."""

    @model_validator(mode="after")
    def _credentials_of_somebody(self) -> Self:
        if self.allow_credentials and "*" in self.allowed_origins:
            raise SettingsConflict(
                [(("allow_credentials",), "is not for everybody (*), as browsers have it: name the origins")]
            )
        return self


class ForwardAuth(SettingsModel):
    """Decisions for proxies that forward themselves: /-/authorize/nginx and its like (docs/forward-auth.md)."""

    trusted: tuple[Peers, ...] = ()
    """Addresses of those proxies, as 10.0.0.7 or 10.0.0.0/24, or `unix`. They are believed about what the client asked
    for. Others get 404, and so does everyone while none is named."""
