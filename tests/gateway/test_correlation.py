"""One id for one answer, and one RateLimit: what a client reads in two places is the same."""

import pytest

from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Upstream

HOST = b"Host: api.example.com\r\n"


def get(path: bytes, lines: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, lines)


@pytest.mark.parametrize("own", [b"", b"X-Request-Id: order-7\r\n", b"X-Request-Id: not sane\r\n"])
async def test_a_problems_correlation_id_is_the_request_id_of_its_answer(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, own: bytes
) -> None:
    empty, acme = await organization("empty", 0), await organization("acme", 5)

    async def broken(peer: Peer, _: bytes) -> None:
        peer.send(b"no HTTP\r\n\r\n")

    upstream.script = broken
    refusals = {
        get(b"/", own): 401,
        get(b"/%2f", own): 400,
        get(b"/-/nothing", own): 404,
        get(b"/", own + empty.auth): 429,
        get(b"/", own + acme.auth): 502,
        get(b"/", own + HOST): 400,
    }
    again = await gateway.connect()
    exhausted = [(get(b"/", own + empty.auth), 429)] * 3  # from memory, and the last from a head that is recognized
    for request, status in [*refusals.items(), *exhausted]:
        answer = await (again if status == 429 else gateway).ask(request)
        assert answer.status == status
        assert answer.problem["correlation_id"] == answer["x-request-id"]
        assert (answer["x-request-id"] == "order-7") is (own == b"X-Request-Id: order-7\r\n")
        assert " " not in str(answer["x-request-id"]), "what is no id is not taken over"
        if status == 502:
            [arrived] = upstream.requests
            assert arrived.lower().count(b"x-request-id:") == 1
            assert f"\r\nX-Request-Id: {answer['x-request-id']}\r\n".encode() in arrived


async def test_a_client_never_sees_two_rate_limits(start: StartGateway, acme: Organization, upstream: Upstream) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api"}, {"path": "/e", "upstream": "api", "exempt": True}])
    upstream.answer = (
        b'HTTP/1.1 200 OK\r\nRateLimit: "own";r=1;t=1\r\nratelimit-policy: "own";q=1;w=1\r\nX-RateLimit-Limit: 5\r\n'
        b"Content-Length: 2\r\n\r\nok"
    )
    client = await gateway.connect()
    for _ in range(3):  # in turns, so that nothing that is remembered of one passes for the other
        metered = await client.ask(get(b"/", acme.auth))
        assert "api_calls" in str(metered["ratelimit"])
        assert "api_calls" in str(metered["ratelimit-policy"])
        assert metered["x-ratelimit-limit"] == "5"
        exempt = await client.ask(get(b"/e", acme.auth))
        assert (exempt["ratelimit"], exempt["ratelimit-policy"]) == ('"own";r=1;t=1', '"own";q=1;w=1')
