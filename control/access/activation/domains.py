"""A site's domain: one spelling for each, and whether it takes a seat. Pure.

A client says what its domain is, so a domain is a statement and no proof: what proves is the site's key.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import idna
import yaml

TEXT_CHARACTERS_MAX: Final = 2048

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Of a country's registry that sells names at the third level: `dev.co.uk` is a whole domain.
_SECOND_LEVELS: Final = frozenset(("ac", "co", "com", "edu", "gov", "gob", "net", "ne", "nom", "or", "org", "sch"))


class DomainInvalid(ValueError):
    """The text names no host."""


@dataclass(frozen=True, slots=True)
class Domain:
    name: str
    """In lower case and ASCII, without `www.`; or an address."""
    counted: bool
    """Whether a site there takes a seat."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Which domains take no seat."""

    below: frozenset[str] = frozenset()
    """Whatever is below one of these."""
    labels: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def add(self, patterns: Iterable[str]) -> "Uncounted":
        """With `*.example.com` (all below), `example.com` (that one), or `staging.*` (that first label)."""
        below, labels, names = set(self.below), set(self.labels), set(self.names)
        for pattern in patterns:
            if pattern.startswith("*."):
                below.add(pattern[2:])
            elif pattern.endswith(".*"):
                labels.add(pattern[:-2])
            else:
                names.add(pattern)
        return Uncounted(frozenset(below), frozenset(labels), frozenset(names))

    def holds(self, name: str) -> bool:
        labels = name.split(".")
        if len(labels) == 1:
            return True  # no public site has a name without a dot
        if name in self.names or any(".".join(labels[start:]) in self.below for start in range(1, len(labels))):
            return True
        return self._is_named_for_it(labels)

    def _is_named_for_it(self, labels: Sequence[str]) -> bool:
        rest = labels[1:]
        whole = len(rest) < 2 or (len(rest) == 2 and rest[0] in _SECOND_LEVELS and len(rest[1]) == 2)
        if whole:
            return False
        first = labels[0]
        return first.rstrip("0123456789").rstrip("-") in self.labels or first.partition("-")[0] in self.labels


@cache
def packaged() -> Uncounted:
    """What `config/uncounted-domains.yaml` says."""
    content: dict[str, Any] = yaml.safe_load((resources.files("config") / "uncounted-domains.yaml").read_text())
    return Uncounted(below=frozenset(content["below"]), labels=frozenset(content["labels"]))


def read_domain(text: str, uncounted: Uncounted) -> Domain:
    """The domain of a host or a URL. Scheme, port, path, letter case, `www.` and a dot at the end make no other site.

    Raises DomainInvalid."""
    host = _host_of(text)
    address = _address(host)
    if address is not None:
        return Domain(str(address), address.is_global and not address.is_multicast)
    name = _ascii(host)
    labels = name.split(".")
    if labels[0] == "www" and len(labels) > 2:
        labels = labels[1:]
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMERIC.fullmatch(labels[-1]):
        # A number at the end is an address in another spelling (127.1, 0x7f.1), which would be one more site.
        raise DomainInvalid("is no domain")
    name = ".".join(labels)
    return Domain(name, not uncounted.holds(name))


def _host_of(text: str) -> str:
    text = text.strip()
    if not text or len(text) > TEXT_CHARACTERS_MAX:
        raise DomainInvalid("must name a host")
    if not text.isprintable() or " " in text:  # urlsplit would drop some of these, and make another host of it
        raise DomainInvalid("is no domain and no URL")
    if not _SCHEME.match(text):
        bare = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
        text = f"//{bare.lstrip('/')}"
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for what is no port
        host = parts.hostname
    except ValueError:
        raise DomainInvalid("is no domain and no URL") from None
    if not host:
        raise DomainInvalid("must name a host")
    return host.removesuffix(".")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _ascii(host: str) -> str:
    if host.isascii() and "xn--" not in host:
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise DomainInvalid("is no domain") from None
