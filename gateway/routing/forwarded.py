"""Who the client is when proxies stand in front: what is believed of their fields, and what the upstream is told. Pure.

A field of a connection from a trusted address is kept and continued; all others are replaced by what the gateway itself
sees. `Forwarded` is RFC 7239; `X-Forwarded-*` is what most proxies write. Both come from anyone who writes HTTP, so a
trusted proxy must set what is believed of it, and not pass on what its own clients sent.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from common.addresses import plain_address, plain_network
from common.request_target import is_host
from gateway.settings.values import UNIX

Fields = Sequence[tuple[bytes, bytes]]
"""Forwarding fields as they came: name in lower case, and value."""

OWN_LINES_MAX, OWN_HOST_BYTES_MAX = 4096, 128  # some 300 bytes each
HOPS_MAX = 32  # of a chain that are looked at, from its end; no chain of proxies is that long

UNIX_PEER: Final = b"unix:"
"""The address of whoever is at the other end of a Unix socket, as nginx writes it."""
_UNKNOWN: Final = b"unknown"  # RFC 7239 section 6.2

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb"\"(?>(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)\""
_PAIR = rb"(?:" + _TOKEN + rb"=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))"
_ELEMENT = _PAIR + rb"?(?>(?:;" + _PAIR + rb"?)*)"
_FORWARDED: Final = re.compile(_ELEMENT + rb"(?>(?:[ \t]*+,[ \t]*+" + _ELEMENT + rb")*)")  # RFC 7239 section 4
_PAIRS: Final = re.compile(rb"(" + _TOKEN + rb")=(" + _TOKEN + rb"|" + _QUOTED + rb")")
_NODE: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}")


class Trust:
    """What an operator says of the proxies in front."""

    def __init__(self, networks: Iterable[str], *, rfc7239: bool) -> None:
        """`networks`: as settings have them, `unix` for the peers of a Unix socket."""
        given = tuple(networks)
        self._networks = tuple(plain_network(each) for each in given if each != UNIX)
        self._trusts_unix = UNIX in given
        self.rfc7239 = rfc7239
        self._own_lines: dict[tuple[bytes, bytes, bytes | None], bytes] = {}
        """Of requests that say nothing of other proxies, by what `lines` is told of them."""

    def trusts(self, address: bytes) -> bool:
        """Whether the fields of a connection from here are believed. What is no address is not trusted."""
        if address == UNIX_PEER:
            return self._trusts_unix
        if not self._networks:
            return False
        try:
            parsed = plain_address(address.decode("latin-1"))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client(self, peer: bytes, came: Fields) -> bytes:
        """The first address from the right of the chain that is not trusted; the last readable one of a chain that is
        damaged, or trusted to its end. `peer` is a trusted connection's address."""
        if not came:
            return peer
        client = peer
        for node in self._chain(came):
            match = _NODE.fullmatch(node)
            address = match and _address(match[1] or match[2] or match[3])
            if not address:
                break
            client = address
            if not self.trusts(address):
                break
        return client

    def _chain(self, came: Fields) -> list[bytes]:
        """From the right."""
        if text := _joined(came, b"x-forwarded-for"):
            *rest, last = text.rsplit(b",", HOPS_MAX)
            nodes = [last, *rest[:0:-1]] if len(rest) == HOPS_MAX else [last, *rest[::-1]]
            return [node.strip(b" \t") for node in nodes]
        text = _joined(came, b"forwarded") if self.rfc7239 else b""
        pairs = _PAIRS.findall(text) if _FORWARDED.fullmatch(text) else []
        nodes = [value.strip(b'"') for name, value in pairs if name.lower() == b"for"]
        return nodes[: -HOPS_MAX - 1 : -1]

    def lines(self, peer: bytes, proto: bytes, host: bytes | None, came: Fields) -> bytes:
        """The forwarding fields of one request as the upstream gets them. `came` is empty for a peer without trust."""
        if came or (host is not None and len(host) > OWN_HOST_BYTES_MAX):
            return self._lines(peer, proto, host, came)
        key, own_lines = (peer, proto, host), self._own_lines
        lines = own_lines.get(key)
        if lines is None:
            if len(own_lines) >= OWN_LINES_MAX:
                own_lines.clear()
            lines = own_lines[key] = self._lines(peer, proto, host, came)
        return lines

    def _lines(self, peer: bytes, proto: bytes, host: bytes | None, came: Fields) -> bytes:
        chain = _joined(came, b"x-forwarded-for")
        named_proto, named_host = _only(came, b"x-forwarded-proto"), _only(came, b"x-forwarded-host")
        sent_proto = named_proto.lower() if named_proto and _SCHEME.fullmatch(named_proto) else proto
        sent_host = named_host if named_host and is_host(named_host) else host
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (_continued(chain, peer), sent_proto)
        if sent_host is not None:
            lines += b"X-Forwarded-Host: %b\r\n" % sent_host
        if self.rfc7239:
            before = _joined(came, b"forwarded")
            if not _FORWARDED.fullmatch(before):
                before = b""
            lines += b"Forwarded: %b%b\r\n" % (before and before + b", ", element(peer, proto, host))
        return lines


def _continued(chain: bytes, peer: bytes) -> bytes:
    if peer == UNIX_PEER:  # which has no address to add to those that came
        return chain or _UNKNOWN
    return b"%b, %b" % (chain, peer) if chain else peer


def element(peer: bytes, proto: bytes, host: bytes | None) -> bytes:
    """What this gateway adds to `Forwarded`. RFC 7239 section 6: an IPv6 address is in brackets and quoted."""
    if peer == UNIX_PEER:
        peer = _UNKNOWN
    node = b'"[%b]"' % peer if b":" in peer else peer
    return b"for=%b;proto=%b%b" % (node, proto, b"" if host is None else b';host="%b"' % host)


def _joined(came: Fields, name: bytes) -> bytes:
    """Several fields of one name are one list (RFC 9110 section 5.3)."""
    return b", ".join([stripped for key, value in came if key == name and (stripped := value.strip(b" \t,"))])


def _only(came: Fields, name: bytes) -> bytes | None:
    """The one value; None for several, since which one counts is not for us to choose."""
    values = [value for key, value in came if key == name]
    return values[0].strip(b" \t") if len(values) == 1 else None


def _address(text: bytes) -> bytes:
    """As people write it; empty for what is none."""
    try:
        plain = plain_address(text.decode("ascii"))
    except ValueError:
        return b""
    return str(plain).encode() if isinstance(plain, IPv4Address) else text
