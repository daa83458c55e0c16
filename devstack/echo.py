"""A request that was received, described in httpbin's fields."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

ECHO_BYTES_MAX = 1024 * 1024  # a larger body is counted and hashed to its end, but not sent back


async def received(request: Request) -> dict[str, Any]:
    """Reads the body as it comes, and holds no more of it than is echoed. Beside httpbin's fields, the description has
    `bytes_received` and `sha256` of the whole body."""
    digest = hashlib.sha256()
    echoed = bytearray()
    bytes_received = 0
    async for chunk in request.stream():
        digest.update(chunk)
        bytes_received += len(chunk)
        if len(echoed) < ECHO_BYTES_MAX:
            echoed += chunk[: ECHO_BYTES_MAX - len(echoed)]
    return {
        **request_facts(request),
        **_body_fields(bytes(echoed), request.headers.get("content-type", "")),
        "files": {},
        "method": request.method,
        "bytes_received": bytes_received,
        "sha256": digest.hexdigest(),
    }


def request_facts(request: Request) -> dict[str, Any]:
    return {
        "args": _grouped(request.query_params.multi_items()),
        "headers": {name: _joined(values) for name, values in _by_name(request).items()},
        "origin": origin(request),
        "url": str(request.url),
    }


def origin(request: Request) -> str:
    forwarded = request.headers.get("x-forwarded-for")
    if forwarded is not None:
        return forwarded
    return request.client.host if request.client is not None else ""


def _body_fields(body: bytes, content_type: str) -> dict[str, Any]:
    if content_type.startswith("application/x-www-form-urlencoded"):
        return {"form": _grouped(parse_qsl(body.decode("latin-1"), keep_blank_values=True)), "data": "", "json": None}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"form": {}, "data": f"data:application/octet-stream;base64,{b64encode(body).decode()}", "json": None}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    return {"form": {}, "data": text, "json": parsed}


def _by_name(request: Request) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        values.setdefault(name.title(), []).append(value)
    return values


def _joined(values: list[str]) -> str:
    return ",".join(values)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    by_name: dict[str, list[str]] = {}
    for name, value in pairs:
        by_name.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in by_name.items()}
