"""PROXY headers are read to their last byte and no further, and what is none is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.listener.proxy_header import SIGNATURE, V2_BYTES_MAX, BadProxyHeader, ProxyHeader, Source, crc32c

V4 = bytes((192, 0, 2, 7, 10, 0, 0, 1)) + struct.pack("!HH", 56324, 443)
V6 = bytes.fromhex("20010db8000000000000000000000007" + "00" * 15 + "01") + struct.pack("!HH", 56324, 443)
MAPPED = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 7)) + bytes(16) + struct.pack("!HH", 1, 2)
UNIX = bytes(216)


def v2(content: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(content)) + content


def value(kind: int, content: bytes) -> bytes:
    return struct.pack("!BH", kind, len(content)) + content


def summed(content: bytes, wrong: int = 0) -> bytes:
    """With a checksum behind it, as its sender computes it."""
    blank = v2(content + value(0x03, bytes(4)))
    return blank[:-4] + (crc32c(blank) ^ wrong).to_bytes(4, "big")


GOOD = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n": Source(b"192.0.2.7"),
    b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n": Source(b"2001:db8::7"),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 0\r\n": Source(b"192.0.2.7"),
    b"PROXY UNKNOWN\r\n": Source(None),
    b"PROXY UNKNOWN ffff::1 whatever it says\r\n": Source(None),
    v2(V4): Source(b"192.0.2.7"),
    v2(V6, family=0x21): Source(b"2001:db8::7"),
    v2(MAPPED, family=0x21): Source(b"192.0.2.7"),
    v2(UNIX, family=0x31): Source(None),
    v2(b"", family=0x00): Source(None),
    v2(b"", 0x20, 0x00): Source(None),
    v2(V4, 0x20): Source(None),
    v2(V4 + value(0x04, b"padding") + value(0x20, b"\x01" + bytes(4))): Source(b"192.0.2.7", secured=True),
    v2(V4 + value(0x20, b"\x00" + bytes(4))): Source(b"192.0.2.7"),
    summed(V4): Source(b"192.0.2.7"),
}
BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
    b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n" + b"x" * 200,
    b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    SIGNATURE[:11] + b"\r" + bytes(4),
    v2(V4, 0x11),
    v2(V4, 0x22),
    v2(V4, family=0x12),
    v2(V4[:-1]),
    v2(V4 + b"\x04"),
    v2(V4 + b"\x04\x00\x05abcd"),
    v2(bytes(V2_BYTES_MAX)),
    summed(V4, wrong=1),
    v2(V4 + value(0x03, b"abc")),
]


@given(st.sampled_from(list(GOOD)), st.data())
def test_a_header_is_read_however_it_is_cut_and_nothing_behind_it(header: bytes, data: st.DataObject) -> None:
    behind = data.draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\n", SIGNATURE]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(header + behind)))) | {len(header + behind)})
    reader, taken = ProxyHeader(), 0
    for cut in cuts:  # the socket holds what has come by then, without what was taken
        seen = (header + behind)[taken:cut]
        if seen and reader.source is None:
            taken += reader.feed(seen)
    assert reader.source == GOOD[header]
    assert taken == len(header)


def fed_bytewise(header: bytes) -> None:
    reader = ProxyHeader()
    for byte in header:
        reader.feed(bytes((byte,)))


@pytest.mark.parametrize("header", GOOD)
def test_each_header_says_whose_connection_it_is(header: bytes) -> None:
    reader = ProxyHeader()
    assert reader.feed(header + b"GET") == len(header)
    assert reader.source == GOOD[header]


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused_in_one_piece_and_byte_by_byte(header: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        ProxyHeader().feed(header)
    with pytest.raises(BadProxyHeader):
        fed_bytewise(header)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    for start in (b"", b"PROXY ", SIGNATURE):
        reader = ProxyHeader()
        try:
            taken = reader.feed(start + data)
        except BadProxyHeader:
            continue
        assert 0 <= taken <= len(start + data)


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA  # appendix B.4
    assert crc32c(b"123456789") == 0xE3069283
