"""URLs in settings files: which are usable, and which stay on this machine."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Raises ValueError for another scheme, without a host, or with a port that is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable:
        raise ValueError(f"must be {' or '.join(f'{scheme}://host[:port]' for scheme in schemes)}")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine by its spelling, without a look-up that could be answered by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
