"""URLs in settings files: which of them can be used, and which stay on this machine."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Raises ValueError for another scheme, a missing host, or an invalid port."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable:
        raise ValueError(f"must be {' or '.join(f'{scheme}://host[:port]' for scheme in schemes)}")
    return parts


def is_loopback(host: str) -> bool:
    """Whether the host of a URL names this machine by its text alone: others could answer a look-up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
