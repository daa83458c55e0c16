"""Who reaches what listens: a port without TLS, and one that tells of everybody, by the addresses that they are at."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from quotagate.diagnosis.finding import Finding, Level

if TYPE_CHECKING:
    from control.settings.control_plane import Settings
    from gateway.settings.root import GatewaySettings

_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849
PLAIN: Final = "tokens and answers travel in clear text"
OPEN_METRICS: Final = "whoever reaches it reads routes and traffic"

OwnAddresses = Callable[[], Sequence[str]]


def own_addresses() -> list[str]:
    """From which this machine would speak to others, of IPv4 and IPv6. Nothing is sent."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            try:
                asked.connect((elsewhere, 9))
            except OSError:  # there is no way out by this protocol
                continue
            found.append(str(asked.getsockname()[0]))
    return found


def of_gateway(settings: "GatewaySettings", own: OwnAddresses = own_addresses) -> list[Finding]:
    listen, management = settings.listen, settings.management
    findings = []
    if listen.socket is None:
        # With a PROXY header, connections of all but the named proxies are closed.
        by_proxies = "by the proxies of listen.proxy_protocol" if listen.proxy_protocol else None
        secured = "by TLS" if listen.tls else by_proxies
        remedy = "set listen.tls, or listen where only a proxy with TLS reaches it"
        findings.append(judge_port("gateway listener", listen.host, listen.port, secured, f"{PLAIN}: {remedy}", own))
    if management.port is not None:
        remedy = "name an address of your own network in management.host"
        consequence = f"{OPEN_METRICS}: {remedy}"
        findings.append(judge_port("management port", management.host, management.port, None, consequence, own))
    return findings


def of_control(settings: "Settings", own: OwnAddresses = own_addresses) -> list[Finding]:
    listen, remedy = settings.listen, "listen where only a proxy with TLS reaches it"
    findings = [judge_port("control listener", listen.host, listen.port, None, f"{PLAIN}: {remedy}", own)]
    public_url = settings.signin.public_url
    if settings.signin.providers and public_url.startswith("http://"):
        detail = f"{public_url}: {PLAIN}, unless browsers run on this machine"
        findings.append(Finding(Level.NOTE, "signin.public_url", detail))
    return findings


def judge_port(what: str, host: str, port: int, secured: str | None, consequence: str, own: OwnAddresses) -> Finding:
    """`secured`: how, if it is. `consequence`: what follows where everybody reaches it."""
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if secured is not None:
        return Finding(Level.GOOD, what, f"{at}, secured {secured}")
    everywhere = _is_unspecified(host)
    public = [each for each in (own() if everywhere else [host]) if _is_public(each)]
    if public:
        return Finding(Level.WRONG, what, f"{at} is open to everybody at {', '.join(public)}: {consequence}")
    if everywhere:
        return Finding(Level.NOTE, what, f"{at} is open on all addresses of this machine: {consequence}")
    return Finding(Level.GOOD, what, f"{at}, which is no public address")


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_public(host: str) -> bool:
    """Of a name, what it is resolved to is not asked."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False
