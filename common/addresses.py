"""Addresses and networks as people write them: an IPv4 address is one, whatever kind of socket it came by. Pure.

A socket that listens on `::` names an IPv4 peer as `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2). Told so, it would
miss every rule that was written for 192.0.2.1.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_MAPPED_BITS: Final = 96


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError for what is no address."""
    parsed = ip_address(text)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def plain_network(text: str) -> IPv4Network | IPv6Network:
    """An address or a network. Raises ValueError for what is none, also for bits behind the prefix."""
    parsed = ip_network(text)
    mapped = parsed.network_address.ipv4_mapped if isinstance(parsed, IPv6Network) else None
    if mapped is not None and parsed.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, parsed.prefixlen - _MAPPED_BITS))
    return parsed


def spelt_plainly(text: str) -> str:
    """An IPv4 address as one; what is another address, or none, as it is."""
    if ":" not in text:
        return text
    try:
        plain = plain_address(text)
    except ValueError:
        return text
    return str(plain) if isinstance(plain, IPv4Address) else text
