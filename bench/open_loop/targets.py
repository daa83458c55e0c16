"""What is called in an open loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from bench.loadtest.callers import Caller, CallersUnreadable
from bench.traffic import ORGS, Traffic, varied

CONNECTIONS = 64
HOST = b"Host: api.example.com\r\n"  # of bench/traffic.py, in place of which the gateway's own name is sent


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    host: str
    port: int
    traffic: Traffic


def target(name: str, url: str, callers: Sequence[Caller], prefix: str) -> Target:
    """Raises CallersUnreadable for what is not plain HTTP."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise CallersUnreadable(f"{url!r}: only http:// is measured here")
    orgs, tokens = [each.org for each in callers], [each.credential.encode() for each in callers]
    made = varied(ORGS[:1], prefix)
    shapes = [shape.replace(HOST, b"Host: %b\r\n" % parts.netloc.encode()) for shape in made.shapes]
    traffic = replace(made, orgs=orgs, tokens=tokens, shapes=shapes)
    return Target(name, parts.hostname, parts.port or 80, traffic)
