"""The PROXY header in front of a connection, versions 1 and 2. Pure.

https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt; its section numbers are named below. Bytes are looked at in
the socket and taken from it afterwards, so that none behind the header is.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from common.addresses import spelt_plainly

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LOOK_BYTES: Final = 4096  # that are looked at in one step
V1_BYTES_MAX: Final = 107  # section 2.1
V2_BYTES_MAX: Final = 4096  # a sender must not need more than 536 (section 2.2); certificates' names may be beyond

_V1_START: Final = b"PROXY "
_V1_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN[^\r\n]*|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_FIXED: Final = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_ADDRESS_BYTES: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # of no family, TCP on IPv4 and IPv6, a Unix stream
_CRC32C, _SSL = 0x03, 0x20  # types of what follows the addresses
_CLIENT_SSL: Final = 0x01


class BadProxyHeader(Exception):
    """What a connection begins with is no PROXY header."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose connection it is."""

    address: bytes | None
    """None: that of the connection itself, as of a health check by the proxy."""
    secured: bool = False
    """Whether the client's connection to the proxy was one with TLS."""


class ProxyHeader:
    """Reads one."""

    def __init__(self) -> None:
        self.source: Source | None = None
        """Once the header is whole."""
        self._taken = b""

    def feed(self, seen: bytes) -> int:
        """`seen`: what the socket holds now. How many of these bytes are the header's. Raises BadProxyHeader."""
        whole = self._taken + seen
        size = _size(whole)
        before = len(self._taken)
        self._taken = whole[:size]
        if size is not None and len(whole) >= size:
            self.source = _v2(self._taken) if self._taken.startswith(SIGNATURE) else _v1(self._taken)
        return len(self._taken) - before


def _size(whole: bytes) -> int | None:
    """Of the header that begins like this. None: it is not known yet, and all of these bytes are the header's."""
    if whole[: len(SIGNATURE)] == SIGNATURE[: len(whole)]:
        if len(whole) < _FIXED.size:
            return None
        size = _FIXED.size + int(_FIXED.unpack_from(whole)[3])
        if size > V2_BYTES_MAX:
            raise BadProxyHeader(f"a header of {size} bytes")
        return size
    if whole[: len(_V1_START)] != _V1_START[: len(whole)]:
        raise BadProxyHeader("no PROXY header")
    end = whole.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0 and len(whole) >= V1_BYTES_MAX:
        raise BadProxyHeader("a line without end")
    return None if end < 0 else end + 2


def _v1(line: bytes) -> Source:
    if (match := _V1_LINE.fullmatch(line)) is None:
        raise BadProxyHeader("a malformed line")
    family, source, destination, *ports = match.groups()
    if family is None:
        return Source(None)  # section 2.1: what follows UNKNOWN is ignored
    kind = IPv4Address if family == b"4" else IPv6Address
    try:
        address, _ = kind(source.decode()), kind(destination.decode())
    except ValueError:
        raise BadProxyHeader("an address that is none") from None
    if any(int(port) > 65535 or (port.startswith(b"0") and port != b"0") for port in ports):
        raise BadProxyHeader("a port that is none")
    return Source(_spelt(address))


def _v2(header: bytes) -> Source:
    _, command, family, size = _FIXED.unpack_from(header)
    content = header[_FIXED.size :]
    if command == _LOCAL:
        return Source(None)
    if command != _PROXY or family not in _ADDRESS_BYTES:
        raise BadProxyHeader(f"command {command:#04x} of family {family:#04x}")
    address_bytes = _ADDRESS_BYTES[family]
    if size < address_bytes:
        raise BadProxyHeader("addresses that are cut")
    secured = False
    for kind, at, value in _further(content, address_bytes):
        if kind == _CRC32C:
            _check_sum(header, _FIXED.size + at, value)
        elif kind == _SSL:
            secured = bool(value[:1] and value[0] & _CLIENT_SSL)
    if family == 0x11:
        return Source(_spelt(IPv4Address(content[:4])), secured)
    if family == 0x21:
        return Source(_spelt(IPv6Address(content[:16])), secured)
    return Source(None, secured)


def _further(content: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, where the value is, and the value, of each that follows the addresses (section 2.2)."""
    while at < len(content):
        if at + 3 > len(content):
            raise BadProxyHeader("a value that is cut")
        kind, size = content[at], int.from_bytes(content[at + 1 : at + 3], "big")
        at += 3
        if at + size > len(content):
            raise BadProxyHeader("a value that is cut")
        yield kind, at, content[at : at + size]
        at += size


def _check_sum(header: bytes, at: int, value: bytes) -> None:
    """Section 2.2.3: the sum over the header in which its own place is zero."""
    if len(value) != 4 or int.from_bytes(value, "big") != crc32c(header[:at] + bytes(4) + header[at + 4 :]):
        raise BadProxyHeader("a wrong checksum")


def crc32c(data: bytes) -> int:
    """RFC 4960 appendix B."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def _spelt(address: IPv4Address | IPv6Address) -> bytes:
    return spelt_plainly(str(address)).encode()
