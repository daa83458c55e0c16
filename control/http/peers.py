"""The address of the client, when proxies may be in front. Pure.

Anyone can send `X-Forwarded-For`. So it is read only if the connection comes from a proxy that the settings name, and
from its end, which that proxy wrote.
"""

from collections.abc import Iterable
from typing import Final

from common.networks import Networks, address_of

FORWARDED: Final = b"x-forwarded-for"
HOPS_MAX: Final = 32  # no chain of proxies is that long


def client_address(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Networks) -> str:
    """The first address from the end of the chain that is no trusted proxy; if the chain is damaged, the last readable
    one."""
    client = address_of(peer)
    if client is None:
        return peer or "unknown"
    if client not in trusted:
        return str(client)
    chain = b",".join(value for name, value in headers if name == FORWARDED).decode("latin-1")
    for hop in reversed(chain.rsplit(",", HOPS_MAX)[-HOPS_MAX:]):
        address = address_of(hop.strip())
        if address is None:
            break
        client = address
        if client not in trusted:
            break
    return str(client)
