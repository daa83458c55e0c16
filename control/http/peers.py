"""Who a request comes from, when proxies may stand in front. Pure.

`X-Forwarded-For` comes from anyone who writes HTTP: it is read only where the connection is of a proxy that the
settings name, and from its end, which is what that proxy wrote.
"""

from collections.abc import Iterable
from typing import Final

from common.networks import Networks, address_of

FORWARDED: Final = b"x-forwarded-for"
HOPS_MAX: Final = 32  # no chain of proxies is that long


def client_address(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Networks) -> str:
    """The first address from the end of the chain that no trusted proxy has; of a damaged one the last readable one."""
    found = address_of(peer)
    if found is None:
        return peer or "unknown"
    if found not in trusted:
        return str(found)
    chain = b",".join(value for name, value in headers if name == FORWARDED).decode("latin-1")
    for hop in reversed(chain.rsplit(",", HOPS_MAX)[-HOPS_MAX:]):
        address = address_of(hop.strip())
        if address is None:
            break
        found = address
        if found not in trusted:
            break
    return str(found)
