"""Lets pages of the vendor's origins read one endpoint: the forecast, which `<quotagate-usage>` shows.

It is off unless the settings name origins. Cookies are never allowed, so such a page reads with a token of its own and
nothing of whoever is signed in here (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EMBEDDED: Final = re.compile(r"/v1/organizations/[^/]+/forecast")
_PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"GET"),
    (b"access-control-allow-headers", b"authorization"),
    (b"access-control-max-age", b"600"),
]


class Embedding:
    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        """`origins`: in lower case, as browsers send them."""
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._origins or scope["type"] != "http" or not _EMBEDDED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        fields: dict[bytes, bytes] = dict(scope["headers"])
        origin = fields.get(b"origin", b"")
        allowed = [(b"vary", b"Origin")]  # whoever caches the answer must not give it to another origin
        if origin in self._origins:
            allowed.append((b"access-control-allow-origin", origin))

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        if scope["method"] == "OPTIONS" and origin in self._origins and b"access-control-request-method" in fields:
            await send({"type": "http.response.start", "status": 204, "headers": [*allowed, *_PREFLIGHT]})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send_allowed)
