"""An address of Redis by its Sentinels: one URL, which is taken apart into plain URLs.

    redis+sentinel://[user:password@]host[:port][,host[:port]…]/NAME[/DB][?options]

NAME is that of the primary at the Sentinels. User, password, database and options are those of the servers that hold
data. Options that begin with `sentinel_` are those of the Sentinels themselves.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
PREFIX: Final = "sentinel_"
TLS: Final = "sentinel_ssl"
"""yes or no: whether the Sentinels are spoken to in TLS. By default they are where the servers are."""
TLS_OPTIONS: Final = "ssl_"
PORT: Final = 26379
FORM: Final = "must be redis+sentinel://host[:port][,host[:port]…]/NAME[/DB], or rediss+sentinel:// for TLS"
_NOWHERE: Final = "of.sentinels"
"""In place of the host in the URL of the servers: where they are, the Sentinels say."""


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    name: str
    servers: str
    """A plain URL with what is needed to connect to the servers that hold data, but for their address."""
    sentinels: tuple[str, ...]
    """A plain URL each."""

    def server(self, address: str) -> str:
        """The plain URL of one server, by its host:port."""
        return self.servers.replace(_NOWHERE, address, 1)


def is_sentinel(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def taken_apart(url: str) -> SentinelUrl:
    """Raises ValueError, which says what is wrong with the form; the plain URLs are to be judged as such."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that is not closed
        raise ValueError(FORM) from None
    userinfo, at, hosts = parts.netloc.rpartition("@")
    name, _, database = parts.path.removeprefix("/").partition("/")
    if not name or parts.fragment:
        raise ValueError(FORM)
    of_servers, of_sentinels, tls = _options(parts)
    scheme = SCHEMES[parts.scheme]
    servers = f"{scheme}://{userinfo}{at}{_NOWHERE}{'/' if database else ''}{database}"
    if tls is None:
        tls = scheme == "rediss"
    if tls and not any(option.startswith(TLS_OPTIONS) for option, _ in of_sentinels):
        of_sentinels += [(option, value) for option, value in of_servers if option.startswith(TLS_OPTIONS)]
    addresses = [_address(host) for host in hosts.split(",")]
    if len(set(addresses)) < len(addresses):
        raise ValueError("a Sentinel is given twice")
    plain = "rediss" if tls else "redis"
    sentinels = tuple(_with(f"{plain}://{address}", of_sentinels) for address in addresses)
    return SentinelUrl(unquote(name), _with(servers, of_servers), sentinels)


def _options(parts: SplitResult) -> tuple[list[tuple[str, str]], list[tuple[str, str]], bool | None]:
    """Those of the servers, those of the Sentinels, and whether the Sentinels have TLS; None: that is not said."""
    given = parse_qsl(parts.query, keep_blank_values=True, separator="&")
    said = [value for name, value in given if name == TLS]
    if said and (len(said) > 1 or said[0] not in ("yes", "no")):
        raise ValueError(f"{TLS} must be yes or no, and given once")
    of_servers = [(name, value) for name, value in given if not name.startswith(PREFIX)]
    of_sentinels = [
        (name.removeprefix(PREFIX), value) for name, value in given if name.startswith(PREFIX) and name != TLS
    ]
    return of_servers, of_sentinels, said[0] == "yes" if said else None


def _address(text: str) -> str:
    """host:port, with the port that a Sentinel has by default."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(FORM) from None
    if not host or port == 0 or "@" in text:
        raise ValueError(FORM)
    host = f"[{host}]" if ":" in host else quote(host)
    return f"{host}:{PORT if port is None else port}"


def _with(url: str, options: list[tuple[str, str]]) -> str:
    return f"{url}?{urlencode(options)}" if options else url
