"""What gateways tell of their routes: what was written is read, and anything else is refused."""

import json

import pytest

from quota.routes import (
    CURRENT_SECONDS,
    Price,
    Route,
    Routes,
    RoutesMalformed,
    TellsCost,
    decode,
    digest_of,
    encode,
    seen_at,
    value_of,
)

ROUTES = Routes(
    (
        Route("GET /v1", None, ("GET", "POST"), "/v1", {"api_calls": Price(1)}),
        Route(
            "chat",
            "api.example.com",
            None,
            "/v1/chat",
            {
                "api_calls": Price(1),
                "tokens": Price(100, TellsCost.ANSWER, "", 0, 5000),
                "rows": Price(1, TellsCost.HEADER, "X-Rows", 0, 50),
            },
            shadow=True,
            scopes=("chat",),
            roles=("owner", "member"),
            keys=False,
        ),
        Route("health", None, None, "/health", {}, exempt=True),
    ),
    ("live", "test"),
    ("acme",),
)


def test_what_is_told_is_read_again() -> None:
    text = encode(ROUTES)
    told = decode(digest_of(text).encode(), value_of(text, 100, 160))
    assert told.routes == ROUTES
    assert (told.digest, told.started_s, told.seen_s) == (digest_of(text), 100, 160)
    assert seen_at(value_of(text, 100, 160)) == 160
    assert told.is_current(160 + CURRENT_SECONDS)
    assert not told.is_current(161 + CURRENT_SECONDS)


def test_a_route_is_charged_what_nobody_tells_otherwise() -> None:
    assert ROUTES.routes[1].charges == {"api_calls": 1, "tokens": 100, "rows": 1}


def line(path: object = "/", prices: object = None, exempt: object = False) -> list[object]:
    return ["a", None, None, path, {} if prices is None else prices, exempt, False, [], [], True]


@pytest.mark.parametrize(
    "document",
    [
        "nothing",
        [3, [], [], []],
        [1, [], []],
        [1, "live", [], []],
        [1, [], [], [["a"]]],
        [1, [], [], [line(path=7)]],
        [1, [], [], [line(prices={"m": True})]],
        [1, [], [], [line(prices={"m": [1, "who", "", 0, 0]})]],
        [1, [], [], [line(prices=[])]],
        [1, [], [], [line(exempt="no")]],
    ],
)
def test_what_tells_no_routes_is_refused(document: object) -> None:
    text = json.dumps(document).encode()
    for value in (b"1 2\n" + text, text, b"", b"1 2"):
        with pytest.raises(RoutesMalformed):
            decode(b"0123", value)
    with pytest.raises(RoutesMalformed):
        seen_at(b"")
