"""The address of a Cluster: `redis+cluster://[user:password@]host[:6379][,host[:6379]…][/][?options]`.

`rediss+cluster://` is with TLS. The servers that it names are asked who holds what; all servers have the same
credentials and options.
"""

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from common.redis_cluster.topology import Address

SCHEMES: Final = ("redis+cluster", "rediss+cluster")
FORM: Final = "redis+cluster://host[:port],host[:port]"
SERVER: Final = "{server}"
PORT: Final = 6379


class ClusterUrl(NamedTuple):
    seeds: tuple[Address, ...]
    template: str
    """The URL of each server, with SERVER in place of host and port."""

    def of(self, address: Address) -> str:
        return self.template.replace(SERVER, str(address))

    @property
    def plain(self) -> str:
        """That of the first server."""
        return self.of(self.seeds[0])


def is_cluster(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def taken_apart(url: str) -> ClusterUrl:
    """Raises ValueError, which says what is wrong with it."""
    scheme, _, rest = url.partition("://")
    authority = rest.split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]
    behind = rest[len(authority) :]
    credentials, at, servers = authority.rpartition("@")
    seeds = tuple(map(_seed, servers.split(",")))
    if len(set(seeds)) < len(seeds):
        raise ValueError("a server is named twice")
    if behind.partition("?")[0] not in ("", "/", "/0"):
        raise ValueError("a Redis Cluster has no databases: the path must be empty")
    return ClusterUrl(seeds, f"{scheme.partition('+')[0]}://{credentials}{at}{SERVER}{behind}")


def _seed(text: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, a bracket that is not closed
        host, port = None, 0
    if not host or port == 0:
        raise ValueError(f"must be {FORM}")
    return Address(host, PORT if port is None else port)
