"""Addresses and networks as people write them: an IPv4 address stays one, whatever kind of socket it came from. Pure.

A socket that listens on `::` names an IPv4 peer `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2). In that form it would
not match a rule for 192.0.2.1.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_MAPPED_BITS: Final = 96


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError for a text that is not an address."""
    parsed = ip_address(text)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def plain_network(text: str) -> IPv4Network | IPv6Network:
    """An address or a network. Raises ValueError for another text, also where bits behind the prefix are set."""
    parsed = ip_network(text)
    mapped = parsed.network_address.ipv4_mapped if isinstance(parsed, IPv6Network) else None
    if mapped is not None and parsed.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, parsed.prefixlen - _MAPPED_BITS))
    return parsed


def spelt_plainly(text: str) -> str:
    """An IPv4 address in its own form; any other text unchanged."""
    if ":" not in text:
        return text
    try:
        plain = plain_address(text)
    except ValueError:
        return text
    return str(plain) if isinstance(plain, IPv4Address) else text
