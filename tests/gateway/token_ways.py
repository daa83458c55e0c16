"""Requests that carry a token in each of the ways in which one may come."""

from typing import Any

from tests.gateway.request_heads import ask

ALL = {"header": "X-Access-Token", "cookie": "session", "query": "access_token", "subprotocol": "bearer"}


def on(tokens: dict[str, Any], path: str = "/", **more: Any) -> dict[str, Any]:
    upgrades = {"upgrades": ["websocket"]} if "subprotocol" in tokens else {}
    return {"routes": [{"path": path, "upstream": "api", "tokens": tokens, **upgrades, **more}]}


LINES = {
    "authorization": "Authorization: Bearer {}\r\n",
    "header": "x-access-TOKEN:  {}\r\n",
    "header with a scheme": "X-Access-Token: bearer  {}\r\n",
    "cookie": "Cookie: a=1; session={}; b=2\r\n",
    "quoted cookie": 'Cookie: session="{}"\r\n',
    "one of several cookie fields": "Cookie: a=1\r\nCookie: session={}\r\n",
    "subprotocol": "Sec-WebSocket-Protocol: chat, bearer, {}\r\n",
    "subprotocols in two fields": "Sec-WebSocket-Protocol: bearer\r\nsec-websocket-protocol: {}\r\n",
}
QUERIES = {"query": "?access_token={}", "encoded query": "?access%5ftoken={}"}
WAYS = [*LINES, *QUERIES]
NOT_AUTHORIZATION = [way for way in WAYS if way != "authorization"]


def carrying(way: str, token: str, path: str = "/") -> bytes:
    """A request that carries its token in this way."""
    query = QUERIES.get(way, "").format(token.replace(".", "%2E") if way == "encoded query" else token)
    return ask(path + query, LINES.get(way, "").format(token).encode())
