"""What a page of another origin may read: the gateway's fields on answers, and its refusals."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.http.cors import Cors
from gateway.settings.clients import Cors as CorsSettings
from quota.model import RateLimit
from tests.gateway.rig import Answer, Gateway, MakeOrganization, Organization, StartGateway, Upstream

APP = "https://app.example.com"
OURS = ["RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id"]


def of(origin: str) -> bytes:
    return b"Origin: %b\r\n" % origin.encode()


def listed(value: str | None) -> list[str]:
    return [] if value is None else value.split(", ")


def answering(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "Content-Length: 2", "", "ok")).encode()


@pytest.mark.parametrize(
    ("field_lines", "exposed"),
    [
        ([], OURS),
        (["Access-Control-Expose-Headers: X-Total, x-request-id"], ["X-Total", "x-request-id", *OURS[:4]]),
        (
            ["Access-Control-Expose-Headers: X-A", "access-control-expose-headers: ,X-B ,"],
            ["X-A", "X-B", *OURS],
        ),
        (["Access-Control-Expose-Headers: *"], ["*", *OURS]),
    ],
)
async def test_an_answer_that_a_page_may_read_lets_it_read_what_the_gateway_adds(
    gateway: Gateway, acme: Organization, upstream: Upstream, field_lines: list[str], exposed: list[str]
) -> None:
    upstream.answer = answering(f"Access-Control-Allow-Origin: {APP}", "Vary: Origin", *field_lines)
    client = await gateway.connect()
    for _ in range(3):  # from the second on the answer's head is recognized by its bytes
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (acme.auth, of(APP)))
        assert answer.status == 200
        assert answer["access-control-allow-origin"] == APP
        assert listed(answer["access-control-expose-headers"]) == exposed
        assert answer["vary"] == "Origin"
        assert answer["ratelimit"]


async def test_an_answer_that_no_page_may_read_stays_as_it_is(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    for field_lines in ([], ["Access-Control-Expose-Headers: X-Total"]):
        upstream.answer = answering(*field_lines)
        for _ in range(2):
            answer = await gateway.get("/", acme, of(APP))
            assert answer["access-control-expose-headers"] == ("X-Total" if field_lines else None)
            assert answer["vary"] is None


async def test_chunked_answers_and_those_without_origin_are_exposed_alike_so_that_a_cache_may_mix_them(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    for lines in (b"", of(APP)):
        assert listed((await gateway.get("/", acme, lines))["access-control-expose-headers"]) == OURS


async def test_where_the_operator_allows_the_origin_in_place_of_the_upstream_fields_are_exposed_too(
    start: StartGateway, acme: Organization
) -> None:
    rule = {"path": "/", "upstream": "api", "response_headers": {"set": {"Access-Control-Allow-Origin": APP}}}
    gateway = await start(routes=[rule])
    for _ in range(2):
        assert listed((await gateway.get("/", acme, of(APP)))["access-control-expose-headers"]) == OURS


async def refusals(start: StartGateway, organization: MakeOrganization, **cors: Any) -> list[Answer]:
    """The answers to a 401, 429, 429 of a rate, 404, 405, 400."""
    routes = [{"path": "/v1", "upstream": "api", "methods": ["GET"]}]
    gateway = await start(routes=routes, cors=cors)
    empty, slow = await organization("empty", 0), await organization("slow", 9, rate=RateLimit(1, 3600, 1))
    lines = of(cors.pop("asks", APP))

    async def ask(method: bytes, path: bytes, auth: bytes, more: bytes = b"") -> Answer:
        return await gateway.ask(b"%b %b HTTP/1.1\r\nHost: a\r\n%b%b%b\r\n" % (method, path, auth, lines, more))

    await ask(b"GET", b"/v1", slow.auth)
    return [
        await ask(b"GET", b"/v1", b""),
        await ask(b"GET", b"/v1", empty.auth),
        await ask(b"GET", b"/v1", empty.auth),  # from memory
        await ask(b"GET", b"/v1", slow.auth),
        await ask(b"GET", b"/v2", empty.auth),
        await ask(b"POST", b"/v1", empty.auth),
        await ask(b"GET", b"/v1", empty.auth, b"Host: b\r\n"),
    ]


STATUSES = [401, 429, 429, 429, 404, 405, 400]


@pytest.mark.parametrize("credentials", [False, True])
async def test_a_page_of_an_allowed_origin_reads_every_refusal_with_its_fields(
    start: StartGateway, organization: MakeOrganization, credentials: bool
) -> None:
    answers = await refusals(start, organization, allowed_origins=[APP], allow_credentials=credentials)
    assert [answer.status for answer in answers] == STATUSES
    for answer in answers:
        assert answer["access-control-allow-origin"] == APP
        assert answer["access-control-allow-credentials"] == ("true" if credentials else None)
        assert set(OURS) | {"Allow", "Link"} == set(listed(answer["access-control-expose-headers"]))
        assert answer["vary"] == "Origin"
    assert answers[0]["www-authenticate"]
    assert answers[5]["allow"] == "GET, HEAD"


@pytest.mark.parametrize("allowed", [[], ["https://other.example.com"], ["https://*.app.example.com"]])
async def test_a_page_of_another_origin_reads_no_refusal_and_caches_are_told_that_it_depends(
    start: StartGateway, organization: MakeOrganization, allowed: list[str]
) -> None:
    answers = await refusals(start, organization, allowed_origins=allowed)
    assert [answer.status for answer in answers] == STATUSES
    for answer in answers:
        assert answer["vary"] == "Origin"
        assert answer["access-control-allow-origin"] is None
        assert answer["access-control-allow-credentials"] is None


async def test_a_refusal_that_no_page_asked_for_is_not_given_to_one_by_a_cache(
    start: StartGateway, organization: MakeOrganization
) -> None:
    empty = await organization("empty", 0)
    for allowed, vary in (([APP], "Origin"), ([], None), (["*"], None)):
        gateway = await start(cors={"allowed_origins": allowed})
        client = await gateway.connect()
        for _ in range(3):  # from memory, too
            refused = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % empty.auth)
            assert (refused.status, refused["vary"]) == (429, vary)


async def test_a_refused_preflight_says_that_it_depends_on_the_origin(start: StartGateway) -> None:
    gateway = await start(routes=[{"path": "/v1", "upstream": "api"}], cors={"allowed_origins": [APP]})
    for origin, allowed in ((APP, APP), ("https://evil.example.com", None)):
        asks = of(origin) + b"Access-Control-Request-Method: GET\r\n"
        refused = await gateway.ask(b"OPTIONS /v2 HTTP/1.1\r\nHost: a\r\n%b\r\n" % asks)
        assert (refused.status, refused["vary"]) == (404, "Origin")
        assert refused["access-control-allow-origin"] == allowed


@pytest.mark.parametrize(
    ("allowed", "origin", "fits"),
    [
        ("https://*.example.com", "https://app.example.com", True),
        ("https://*.example.com", "https://a.b-c.example.com", True),
        ("https://*.example.com", "https://xn--bcher-kva.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "http://app.example.com", False),
        ("https://*.example.com", "https://app.example.com:8443", False),
        ("https://*.example.com", "https://app.example.com.evil.com", False),
        ("https://*.example.com", "https://evil-example.com", False),
        ("https://*.example.com", "https://evil.com/.example.com", False),
        ("https://*.example.com", "https://evil.com?.example.com", False),
        ("https://*.example.com", "https://u@app.example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://a..example.com", False),
        ("https://*.example.com", "https://appxexample.com", False),
        ("https://*.example.com", "https://" + "a." * 20_000 + "example.com", False),
        ("https://*.example.com", "https://" + "a" * 60_000, False),
        ("https://*.example.com", "null", False),
        ("https://*.example.com:8443", "https://app.example.com:8443", True),
        ("http://*.localhost:3000", "http://app.localhost:3000", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
    ],
)
def test_a_wildcard_stands_for_one_or_more_labels(allowed: str, origin: str, fits: bool) -> None:
    settings = CorsSettings(allowed_origins=(allowed,))
    lines = Cors(settings.allowed_origins, credentials=True).lines(origin.encode())
    assert (b"Access-Control-Allow-Origin: %b\r\n" % origin.encode() in lines) is fits
    assert lines.endswith(b"Vary: Origin\r\n")
    assert (b"Credentials" in lines) is fits


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("https://app-*.example.com", "a wildcard stands for one or more labels"),
        ("https://a.*.example.com", "a wildcard stands for one or more labels"),
        ("https://*", "a wildcard stands for one or more labels"),
        ("*.example.com", "a wildcard stands for one or more labels"),
        ("http://localhost:*", "a wildcard stands for one or more labels"),
        ("https://*.com", "a wildcard stands before a domain"),
        ("https://*.0.0.1", "a wildcard stands before a domain"),
        ("https://App.example.com", "write https://app.example.com"),
        ("https://app.example.com:443", "leave the scheme's own port out"),
        ("http://app.example.com:80", "leave the scheme's own port out"),
        ("http://app.example.com:99999", "leave the scheme's own port out"),
        ("https://bücher.example.com", "xn--"),
        ("null", "names nobody"),
        ("app.example.com", "an origin is"),
        ("https://app.example.com/", "an origin is"),
        ("https://u:p@app.example.com", "an origin is"),
        ("", "an origin is"),
    ],
)
def test_an_origin_that_would_fit_nothing_is_refused_with_the_reason(origin: str, reason: str) -> None:
    with pytest.raises(ValidationError, match="allowed_origins") as refused:
        CorsSettings.model_validate({"allowed_origins": [origin]})
    assert reason in str(refused.value)


def test_credentials_for_everybody_are_refused() -> None:
    with pytest.raises(Exception, match="name the origins"):
        CorsSettings.model_validate({"allowed_origins": ["*"], "allow_credentials": True})
