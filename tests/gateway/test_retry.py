"""What is sent again when a target fails, and what never is (RFC 9110 section 9.2.2)."""

from typing import Protocol

import pytest

from tests.gateway.rig import Gateway, Organization, Peer, StartGateway, Until, Upstream, closed_port, request

METHODS = [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"]


def closed_url() -> str:
    return f"http://127.0.0.1:{closed_port()}"


class StartTwo(Protocol):
    async def __call__(self, said: bytes = b"") -> Gateway: ...


@pytest.fixture
def two(start: StartGateway, upstream: Upstream, issuer: Upstream) -> StartTwo:
    """A gateway before two targets that both take requests and end the connection after saying this."""

    async def started(said: bytes = b"") -> Gateway:
        async def serve(peer: Peer) -> None:
            upstream.requests.append(await peer.request() or b"")
            peer.send(said)

        upstream.serve = issuer.serve = serve
        return await start(None, upstreams={"api": {"targets": [upstream.url, issuer.url]}})

    return started


@pytest.mark.parametrize("lines", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_post_that_met_a_refused_connection_goes_to_another_target_whole(
    start: StartGateway, acme: Organization, upstream: Upstream, lines: bytes
) -> None:
    gateway = await start(None, upstreams={"api": {"targets": [closed_url(), upstream.url, closed_url()]}})
    body = b"hello" if b"Length" in lines else b"5\r\nhello\r\n0\r\n\r\n"
    client = await gateway.connect()
    for count in range(1, 5):
        assert (await client.ask(request(acme.auth, b"POST", lines, body))).status == 200
        assert len(upstream.requests) == count
        assert upstream.requests[-1].endswith(body)
    assert await acme.used() == 4, "charged once each"


async def test_a_charge_is_given_back_once_when_every_target_refuses(start: StartGateway, acme: Organization) -> None:
    gateway = await start(None, upstreams={"api": {"targets": [closed_url(), closed_url(), closed_url()]}})
    answer = await gateway.get("/", acme)
    assert (answer.status, answer.problem["type"]) == (502, "urn:quotagate:problem:upstream-unreachable")
    assert await acme.settled("ts")
    assert await acme.used() == 0


@pytest.mark.parametrize("method", METHODS)
async def test_an_idempotent_request_without_an_answer_is_sent_to_one_other_target(
    two: StartTwo, acme: Organization, upstream: Upstream, issuer: Upstream, method: bytes
) -> None:
    gateway = await two()
    assert (await gateway.ask(request(acme.auth, method))).status == 502
    assert (len(upstream.requests), upstream.accepted, issuer.accepted) == (2, 1, 1)
    assert await acme.settled("ts")


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
@pytest.mark.parametrize("lines", [b"", b"Content-Length: 5\r\n"])
async def test_a_post_that_was_sent_is_never_sent_again(
    two: StartTwo, acme: Organization, upstream: Upstream, method: bytes, lines: bytes
) -> None:
    gateway = await two()
    assert (await gateway.ask(request(acme.auth, method, lines, b"hello" if lines else b""))).status == 502
    assert len(upstream.requests) == 1
    assert await acme.settled("ts")


BODIES = [
    (b"Content-Length: 5\r\n", b"hello"),
    (b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: t\r\n\r\n"),
    (b"Content-Length: 60000\r\n", bytes(60_000)),
]


@pytest.mark.parametrize("method", [b"PUT", b"DELETE"])
@pytest.mark.parametrize(("lines", "body"), BODIES)
async def test_an_idempotent_request_whose_body_is_at_hand_is_sent_again_whole(
    two: StartTwo, acme: Organization, upstream: Upstream, issuer: Upstream, method: bytes, lines: bytes, body: bytes
) -> None:
    gateway = await two()
    assert (await gateway.ask(request(acme.auth, method, lines, body))).status == 502
    assert (len(upstream.requests), upstream.accepted, issuer.accepted) == (2, 1, 1)
    first, second = (
        asked.replace(b"\r\n2\r\nhe\r\n3\r\nllo\r\n", b"\r\n5\r\nhello\r\n") for asked in upstream.requests
    )
    assert first == second
    assert second.partition(b"\r\n\r\n")[2] == body.replace(b"2\r\nhe\r\n3\r\nllo\r\n", b"5\r\nhello\r\n")
    assert await acme.settled("ts")


async def test_a_body_that_comes_while_its_request_is_sent_again_goes_with_it(
    two: StartTwo, acme: Organization, upstream: Upstream, issuer: Upstream, until: Until
) -> None:
    gateway = await two()

    async def ends_early(peer: Peer) -> None:
        await peer.until(b"hel")

    upstream.serve, issuer.serve = ends_early, issuer._serve
    gateway.worker.upstreams["api"]._turn = 1  # the next one is the first
    client = await gateway.connect()
    client.send(request(acme.auth, b"PUT", b"Content-Length: 5\r\n", b"hel"))
    await until(lambda: issuer.accepted == 1)
    assert (await client.ask(b"lo", "PUT")).status == 200
    assert issuer.requests[0].endswith(b"\r\n\r\nhello")


async def test_a_put_whose_body_is_too_long_to_be_kept_is_not_sent_again(
    two: StartTwo, acme: Organization, upstream: Upstream
) -> None:
    gateway = await two()
    lines = b"Content-Length: 100000\r\n"
    assert (await gateway.ask(request(acme.auth, b"PUT", lines, bytes(100_000)))).status == 502
    assert len(upstream.requests) == 1


async def test_a_request_whose_answer_had_begun_is_not_sent_again(
    two: StartTwo, acme: Organization, upstream: Upstream
) -> None:
    gateway = await two(b"H")
    assert (await gateway.get("/", acme)).status == 502
    assert len(upstream.requests) == 1


async def test_a_retried_request_is_charged_once(
    two: StartTwo, acme: Organization, upstream: Upstream, issuer: Upstream
) -> None:
    gateway = await two()
    issuer.serve = issuer._serve
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200
    assert upstream.accepted == 2
    assert await acme.events() == ["t"] * 4
