"""Networks in settings files, and whether an address belongs to one."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import AfterValidator

from common.addresses import plain_address, plain_network


def checked_network(text: str) -> str:
    """As it is spelt in messages and compared. Raises ValueError."""
    try:
        return str(plain_network(text))
    except ValueError:
        raise ValueError(
            "must be an address, or a network such as 10.0.0.0/8 with no bits set behind its prefix"
        ) from None


Network = Annotated[str, AfterValidator(checked_network)]


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address; an IPv4 address in IPv6 form becomes IPv4. None for a text that is not an address."""
    try:
        return plain_address(text)
    except ValueError:
        return None


class Networks:
    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(plain_network, networks))

    def __contains__(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)
