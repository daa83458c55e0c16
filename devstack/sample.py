"""The sample upstream's app: the API behind the gateway while one tries it out.

Its paths are named and answered as in httpbin, so that examples from anywhere work. `/_/hits` counts the requests that
really reached it, by which the exactness runs check what was charged.
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from devstack.echo import origin, received, request_facts
from devstack.ports import LOOPBACK

DELAY_SECONDS_MAX = 30
BYTES_MAX = 100 * 1024 * 1024
LINES_MAX = 100_000
CHUNK_BYTES = 64 * 1024
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ANY_METHOD = (*METHODS, "HEAD", "OPTIONS")


class HitCounter:
    """Counts every request that arrives, by the organization that the gateway names in `X-Quota-Org`."""

    def __init__(self, app: ASGIApp, by_org: Counter[str]) -> None:
        self.app = app
        self.by_org = by_org

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/_/"):
            org = next((value for name, value in scope["headers"] if name == b"x-quota-org"), b"")
            self.by_org[org.decode("latin-1")] += 1
        await self.app(scope, receive, send)


def build() -> Starlette:
    by_org: Counter[str] = Counter()

    async def hits(request: Request) -> Response:
        if request.method == "DELETE":
            by_org.clear()
        return JSONResponse({"total": by_org.total(), "by_org": by_org})

    return Starlette(
        routes=[
            Route("/_/hits", hits, methods=["GET", "DELETE"]),
            Route("/anything", anything, methods=ANY_METHOD),
            Route("/anything/{path:path}", anything, methods=ANY_METHOD),
            *(Route(f"/{method.lower()}", anything, methods=[method]) for method in METHODS),
            Route("/headers", headers),
            Route("/ip", ip),
            Route("/user-agent", user_agent),
            Route("/uuid", fresh_uuid),
            Route("/status/{code:int}", status, methods=ANY_METHOD),
            Route("/delay/{seconds:float}", delay, methods=ANY_METHOD),
            Route("/stream/{n:int}", stream),
            Route("/bytes/{n:int}", sized_bytes),
            Route("/stream-bytes/{n:int}", chunked_bytes),
            Route("/sse", server_sent_events),
            Route("/drip", drip),
            Route("/redirect-to", redirect_to, methods=ANY_METHOD),
            Route("/gzip", gzipped),
            Route("/response-headers", response_headers, methods=["GET", "POST"]),
            WebSocketRoute("/ws", echoed),
        ],
        middleware=[Middleware(HitCounter, by_org=by_org)],
    )


async def anything(request: Request) -> Response:
    return JSONResponse(await received(request))


async def headers(request: Request) -> Response:
    return JSONResponse({"headers": request_facts(request)["headers"]})


async def ip(request: Request) -> Response:
    return JSONResponse({"origin": origin(request)})


async def user_agent(request: Request) -> Response:
    return JSONResponse({"user-agent": request.headers.get("user-agent")})


async def fresh_uuid(request: Request) -> Response:
    return JSONResponse({"uuid": str(uuid.uuid4())})


async def status(request: Request) -> Response:
    code = request.path_params["code"]
    if not 200 <= code <= 599:
        raise HTTPException(400, "a final status is 200 to 599")
    extra = {"location": "/get"} if code in (301, 302, 303, 307, 308) else None
    return Response(status_code=code, headers=extra)


async def delay(request: Request) -> Response:
    await asyncio.sleep(min(request.path_params["seconds"], DELAY_SECONDS_MAX))
    return JSONResponse(await received(request))


async def stream(request: Request) -> Response:
    lines = min(request.path_params["n"], LINES_MAX)
    facts = request_facts(request)

    async def body() -> AsyncIterator[bytes]:
        for number in range(lines):
            yield json.dumps({**facts, "id": number}).encode() + b"\n"

    return StreamingResponse(body(), media_type="application/json")


async def sized_bytes(request: Request) -> Response:
    size = min(request.path_params["n"], BYTES_MAX)
    body = _random_chunks(request, size, CHUNK_BYTES)
    return StreamingResponse(
        _as_stream(body), media_type="application/octet-stream", headers={"content-length": str(size)}
    )


async def chunked_bytes(request: Request) -> Response:
    size = min(request.path_params["n"], BYTES_MAX)
    chunk_size = int(_number(request, "chunk_size", 10 * 1024, at_least=1))
    return StreamingResponse(
        _as_stream(_random_chunks(request, size, chunk_size)), media_type="application/octet-stream"
    )


async def server_sent_events(request: Request) -> Response:
    """`count` events, one every `interval_ms`."""
    count = min(int(_number(request, "count", 10)), LINES_MAX)
    interval_seconds = min(_number(request, "interval_ms", 100) / 1000, DELAY_SECONDS_MAX)

    async def body() -> AsyncIterator[str]:
        for number in range(count):
            if number:
                await asyncio.sleep(interval_seconds)
            yield f"id: {number}\nevent: tick\ndata: {json.dumps({'id': number, 'of': count})}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def drip(request: Request) -> Response:
    """`numbytes` bytes spread over `duration` seconds, after a `delay`, with status `code`."""
    size = min(int(_number(request, "numbytes", 10)), LINES_MAX)
    interval_seconds = min(_number(request, "duration", 2), DELAY_SECONDS_MAX) / max(size, 1)
    await asyncio.sleep(min(_number(request, "delay", 0), DELAY_SECONDS_MAX))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"*"
            await asyncio.sleep(interval_seconds)

    code = int(_number(request, "code", 200))
    return StreamingResponse(body(), code, media_type="application/octet-stream", headers={"content-length": str(size)})


async def redirect_to(request: Request) -> Response:
    target = request.query_params.get("url")
    if target is None:
        raise HTTPException(400, "the query needs a url")
    return RedirectResponse(target, int(_number(request, "status_code", 302)))


async def gzipped(request: Request) -> Response:
    body = gzip.compress(json.dumps({"gzipped": True, **request_facts(request)}).encode())
    return Response(body, media_type="application/json", headers={"content-encoding": "gzip"})


async def response_headers(request: Request) -> Response:
    pairs = request.query_params.multi_items()
    response = JSONResponse(dict(pairs))
    for name, value in pairs:
        response.headers.append(name, value)
    return response


async def echoed(socket: WebSocket) -> None:
    """Each message comes back as it was."""
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await socket.send({**message, "type": "websocket.send"})


def _random_chunks(request: Request, size: int, chunk_size: int) -> Iterator[bytes]:
    """`size` bytes; the same ones each time for the same `seed`."""
    seed = request.query_params.get("seed")
    make = os.urandom if seed is None else random.Random(seed).randbytes  # noqa: S311  # repeatable, not secret
    return (make(min(chunk_size, size - sent)) for sent in range(0, size, chunk_size))


async def _as_stream(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:  # it is an async generator, since Starlette hands a plain one to a thread, chunk by chunk
        yield chunk


def _number(request: Request, name: str, default: float, at_least: float = 0) -> float:
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not at_least <= value < float("inf"):
        raise HTTPException(400, f"{name} is a number of at least {at_least:g}")
    return value


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m devstack.sample")
    arguments.add_argument("--port", type=int, required=True)
    uvicorn.run(
        build(),
        host=LOOPBACK,
        port=arguments.parse_args().port,
        loop="uvloop",
        http="httptools",
        ws="auto",  # where `websockets` is installed; elsewhere nothing is upgraded
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,  # it shows what has arrived, not an interpretation of that
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
