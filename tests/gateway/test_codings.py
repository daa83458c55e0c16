"""Content codings: in which an answer that is read may be asked for, and what is read of those that come."""

import gzip
import json
import sys
import zlib
from itertools import pairwise
from typing import Any

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import codings
from gateway.http.codings import Decoder, Undecodable, acceptable, readable
from quota.model import MeterLimit
from tests.gateway.rig import MakeOrganization, Organization, StartGateway, Upstream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METERS = (MeterLimit("api_calls", 100), MeterLimit("tokens", 1000))
COST = {"reported": {"json": "usage.total_tokens"}, "estimate": 100, "max": 500}
BODY = json.dumps({"text": "words and words " * 300, "usage": {"total_tokens": 34}}).encode()
HALF = len(BODY) // 2


def deflated(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


def skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


CODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "GZip": gzip.compress(BODY),
    "gzip of several members": gzip.compress(BODY[:HALF]) + gzip.compress(b"") + gzip.compress(BODY[HALF:]),
    "gzip with padding": gzip.compress(BODY) + bytes(512),
    "gzip with junk": gzip.compress(BODY) + b"\x1fjunk",
    "deflate with zlib's head": deflated(BODY, zlib.MAX_WBITS),
    "deflate with a small window": deflated(BODY, 9),
    "deflate that is raw": deflated(BODY, -zlib.MAX_WBITS),
    "br": brotli.compress(BODY),
    "zstd": zstd.compress(BODY),
    "zstd of several frames": skippable(b"hello") + zstd.compress(BODY[:HALF]) + zstd.compress(BODY[HALF:]),
    "gzip, br": brotli.compress(gzip.compress(BODY)),
    "br, zstd, gzip": gzip.compress(zstd.compress(brotli.compress(BODY))),
    "identity": BODY,
    "identity, gzip,": gzip.compress(BODY),
}


def coding_of(name: str) -> bytes:
    return name.split(" of ")[0].split(" with")[0].split(" that")[0].encode()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(at)]


def decoded(parts: list[bytes], *fields: bytes) -> bytes:
    decoder = Decoder(fields)
    parts_out = []
    for part in parts:
        decoder.refill()
        parts_out += list(decoder.decode(part))
    assert all(len(part) <= 4 * codings.SLICE_BYTES for part in parts_out)
    return b"".join(parts_out)


# Decoded


@pytest.mark.parametrize("name", CODED)
def test_a_body_is_decoded_whatever_its_codings_and_wherever_it_is_cut(name: str) -> None:
    body, coding = CODED[name], coding_of(name)
    assert decoded([body], coding) == BODY
    assert decoded([body[n : n + 1] for n in range(len(body))], coding) == BODY
    assert decoded([body], *coding.split(b",")) == BODY, "fields of one name are one list"


@given(st.sampled_from(sorted(CODED)), st.lists(st.integers(0, 100_000), max_size=8))
def test_cuts_make_no_difference(name: str, cuts: list[int]) -> None:
    assert decoded(cut(CODED[name], cuts), coding_of(name)) == BODY


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate", b"br", b"zstd", b"br, gzip", b"gzip, zstd"]))
def test_junk_is_refused_or_decoded_and_never_an_error_of_another_kind(junk: bytes, coding: bytes) -> None:
    try:
        decoded([junk], coding)
    except Undecodable:
        return


@pytest.mark.parametrize(
    "name", [b"compress", b"dcb", b"dcz", b"aws-chunked", b"gzip, exi", b"gzip;q=1", b", ".join([b"br"] * 4)]
)
def test_a_coding_that_is_not_known_is_told_at_once(name: bytes) -> None:
    with pytest.raises(Undecodable):
        Decoder([name])


BOMB = b"a" * 50_000_000
BOMBS = {
    "gzip": gzip.compress(BOMB),
    "deflate": deflated(BOMB, -zlib.MAX_WBITS),
    "br": brotli.compress(BOMB, quality=5),
    "zstd": zstd.compress(BOMB),
    "gzip, gzip": gzip.compress(gzip.compress(BOMB)),
    "zstd, br": brotli.compress(zstd.compress(BOMB)),
    "gzip of empty members": gzip.compress(b"") * 13_000,
    "zstd of empty frames": zstd.compress(b"") * 25_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_a_bounded_number_of_bytes_in_one_read(name: str) -> None:
    decoder, count = Decoder([coding_of(name)]), 0
    parts = decoder.decode(BOMBS[name])
    with pytest.raises(Undecodable):  # noqa: PT012 - what came before it is counted
        for part in parts:
            count += len(part)
    assert count <= codings.DECODED_BYTES_MAX


def test_a_window_beyond_what_a_sender_may_use_is_not_allocated() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    body = packer.compress(bytes(1000)) + packer.flush(zstd.ZstdCompressor.FLUSH_BLOCK)
    with pytest.raises(Undecodable):
        decoded([body], b"zstd")


# Offered

OFFERS = [
    ([b"gzip"], None),
    ([b"gzip, deflate, br, zstd"], None),
    ([b"gzip;q=0.5, identity;q=0"], None),
    ([b"x-gzip"], None),
    ([b"br;q=1.0, gzip;q=0.8, *;q=0"], b"br;q=1.0, gzip;q=0.8, zstd;q=0, deflate;q=0, identity;q=0"),
    ([b"*"], b"gzip, br, zstd, deflate"),
    ([b"*;q=0.3, gzip;q=0"], b"gzip;q=0, br;q=0.3, zstd;q=0.3, deflate;q=0.3"),
    ([b"x-gzip;q=0, *"], b"x-gzip;q=0, br, zstd, deflate"),
    ([b"compress"], b"identity"),
    ([b"compress;q=1, br;q=0.1"], b"br;q=0.1"),
    ([b"gzip", b"dcb, BR ; Q=0.5"], b"gzip, BR ; Q=0.5"),
    ([b"gzip, deflate, br, zstd, dcb, dcz"], b"gzip, deflate, br, zstd"),
    ([b""], b"identity"),
    ([b"identity"], None),
    ([b"compress, identity;q=0"], b"identity"),
    ([b"*;q=0"], b"identity"),
    ([b"gzip;q=1.5, br;level=3, \xff"], b"identity"),
]


@pytest.mark.parametrize(("accepted", "sent"), OFFERS)
def test_of_the_codings_that_a_client_takes_those_that_can_be_read_are_offered_with_their_weights(
    accepted: list[bytes], sent: bytes | None
) -> None:
    assert acceptable(accepted) == sent


@given(
    st.lists(
        st.sampled_from(
            [b"gzip", b"br;q=0.3", b"*", b"*;q=0.000", b"compress", b"x-gzip;q=0", b"identity;q=0", b"", b"a;b=c"]
        )
    )
)
def test_nothing_is_offered_that_cannot_be_read_or_that_the_client_did_not_name(members: list[bytes]) -> None:
    accepted = b",".join(members)
    sent = acceptable([accepted])
    names = {
        member.partition(b";")[0] for member in (accepted if sent is None else sent).replace(b" ", b"").split(b",")
    }
    assert names <= {b"gzip", b"x-gzip", b"br", b"zstd", b"deflate", b"identity", b""}
    if not {b"*", b"*;q=0.000"} & set(members):
        assert names <= {member.partition(b";")[0] for member in members} | {b"identity"}


def test_fields_that_would_make_an_answer_unreadable_do_not_go_on() -> None:
    lines = [b"Accept: */*\r\n", b"accept-encoding: br, dcb\r\n", b"Range: bytes=0-10\r\n", b'If-Range: "x"\r\n']
    assert readable(lines) == [b"Accept: */*\r\n", b"Accept-Encoding: br\r\n"]
    as_they_were = [b"ACCEPT-ENCODING: br\r\n", b"A: b\r\n"]
    assert sorted(readable(as_they_were)) == sorted(as_they_were)
    assert readable([b"A: b\r\n"]) == [b"A: b\r\n"]
    assert readable([b"Accept_Encoding: compress\r\n"]) == [b"Accept-Encoding: identity\r\n"]


# Together


@pytest.fixture
async def acme(organization: MakeOrganization) -> Organization:
    return await organization("acme", None, meters=METERS)


def routes(cost: Any = COST) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", "meters": {"tokens": cost}}, {"path": "/plain", "upstream": "api"}]


def request(organization: Organization, lines: bytes, target: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (target, organization.auth, lines)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("framing", ["sized", "in small chunks"])
async def test_usage_is_read_through_every_coding_and_the_client_gets_the_bytes_as_they_came(
    start: StartGateway, acme: Organization, upstream: Upstream, name: str, framing: str
) -> None:
    body = CODED[name]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: %b\r\n" % coding_of(name)
    if framing == "sized":
        upstream.answer = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    else:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, list(range(0, len(body), 17))))
        upstream.answer = b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunks)
    gateway = await start(routes=routes())
    answer = await gateway.ask(request(acme, b"Accept-Encoding: br\r\n"))
    assert answer.body == body
    assert answer["content-encoding"] == coding_of(name).decode()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 34


async def test_small_chunks_of_a_bomb_in_one_read_have_one_budget(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    packer = zlib.compressobj()
    parts = [packer.compress(b" " * 1_000_000) + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(40)]
    parts.append(packer.compress(BODY) + packer.flush())
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: deflate\r\n"
    upstream.answer = b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunks)
    gateway = await start(routes=routes())
    assert len((await gateway.ask(request(acme, b""))).body) == sum(map(len, parts))
    assert gateway.worker.recorder.reports == {("/", "unreadable"): 1}


async def test_a_client_cannot_choose_a_coding_or_a_part_of_the_answer_that_cannot_be_read(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    await acme.publish(100, meters=METERS)
    lines = b"Accept-Encoding: dcb, br;q=0.9\r\nRange: bytes=0-1\r\nX-Other: 1\r\nAccept-Encoding: compress\r\n"
    gateway = await start(routes=routes())
    client = await gateway.connect()
    for target in (b"/", b"/plain", b"/plain", b"/", b"/"):  # one head: what is remembered of it is the route's
        assert (await client.ask(request(acme, lines, target))).status == 200
        sent = upstream.requests[-1]
        assert b"X-Other: 1\r\n" in sent
        if target == b"/plain":
            assert lines in sent, "where nothing is read of the body, it is the client's own affair"
        else:
            assert sent.lower().count(b"accept-encoding") == 1
            assert b"Accept-Encoding: br;q=0.9\r\n" in sent
            assert b"Range" not in sent


async def test_what_can_be_read_is_offered_as_the_client_wrote_it(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=routes())
    for line in (b"accept-encoding: gzip, deflate,br;q=0.1, zstd\r\n", b""):
        assert (await gateway.ask(request(acme, line))).status == 200
        assert upstream.requests[-1].lower().count(b"accept-encoding") == bool(line)
        assert line in upstream.requests[-1]


async def test_an_upstream_is_asked_for_the_trailers_that_tell_what_was_used_though_the_client_takes_none(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=routes({"reported": {"trailer": "X-Units"}, "estimate": 1, "max": 9}))
    client = await gateway.connect()
    for target in (b"/", b"/plain", b"/"):
        await client.ask(request(acme, b"", target))
        assert (b"TE: trailers\r\nConnection: TE\r\n" in upstream.requests[-1]) == (target == b"/")
