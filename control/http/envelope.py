"""Around every request: a correlation id, a limit for the body, a log line, and an answer even when we fail."""

import re
import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.networks import Networks
from control.http.peers import client_address
from control.http.refusals import Refusal, answer
from control.http.request_times import RequestTimes
from quota import problems

log = structlog.get_logger()

BODY_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX_OF = {
    "/v1/usage": 512 * 1024,  # a thousand records, each as long as one may be
    "/api/webhooks/clerk": 1024 * 1024,
    "/api/webhooks/stripe": 1024 * 1024,
    "/v1/keys/leaks": 1024 * 1024,
}
_IMPORT = re.compile(r"/v1/organizations/[^/]+/keys/import")
IMPORT_BYTES_MAX = 1024 * 1024  # a thousand hashes, with what each may do
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
FIELDS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""Of each answer that does not say otherwise: a browser takes JSON for nothing else, and loads nothing by it."""
STRICT: Final = (b"strict-transport-security", b"max-age=31536000")  # RFC 6797; other hosts of the domain are not ours
CLIENT_GONE = 499  # for the log: nobody was there to be answered
_CORRELATION_ID = re.compile(rb"[A-Za-z0-9_.:/+=-]{1,128}")  # the gateway's rule


class Envelope:
    def __init__(self, app: ASGIApp, trusted: Networks, times: RequestTimes, *, secured: bool = False) -> None:
        """`secured`: browsers come by TLS, and are told to come in no other way."""
        self._app = app
        self._fields = [*FIELDS, STRICT] if secured else FIELDS
        self._trusted = trusted
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        correlation_id = given.decode() if _CORRELATION_ID.fullmatch(given) else str(uuid4())
        scope["correlation_id"] = correlation_id
        client = client_address(scope["client"][0] if scope.get("client") else "", scope["headers"], self._trusted)
        scope["client_address"] = client
        started, status, body_bytes, watches = time.perf_counter(), 0, 0, False
        body_bytes_max = _body_bytes_max(scope["path"])

        async def send_marked(message: Message) -> None:
            nonlocal status, watches
            if message["type"] == "http.response.start":
                status = message["status"]
                watches = any(field == _EVENT_STREAM for field in message["headers"])
                set_already = {name for name, _ in message["headers"]}
                rest = [field for field in self._fields if field[0] not in set_already]
                message["headers"] = [*message["headers"], (b"x-request-id", correlation_id.encode()), *rest]
            await send(message)

        async def receive_limited() -> Message:
            nonlocal body_bytes
            message = await receive()
            body_bytes += len(message.get("body", b""))
            if body_bytes > body_bytes_max:
                raise Refusal(
                    problems.PAYLOAD_TOO_LARGE, f"The request body exceeds the limit of {body_bytes_max} bytes."
                )
            return message

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                await self._app(scope, receive_limited, send_marked)
            except ClientDisconnect:
                status = status or CLIENT_GONE
            except Exception:
                log.exception("a request failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # the answer has begun: only closing the connection tells that it is cut
                await answer(problems.INTERNAL, "The request failed.", scope)(scope, receive, send_marked)
            if not scope["path"].startswith("/-/"):
                seconds = time.perf_counter() - started
                if not watches:
                    self._times.add(scope["method"], scope["path"], status, seconds)
                ms = round(seconds * 1000, 1)
                log.info("request", client=client, method=scope["method"], path=scope["path"], status=status, ms=ms)


def _body_bytes_max(path: str) -> int:
    if _IMPORT.fullmatch(path):
        return IMPORT_BYTES_MAX
    return BODY_BYTES_MAX_OF.get(path, BODY_BYTES_MAX)
