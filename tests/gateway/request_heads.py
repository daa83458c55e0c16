"""Requests and settings of one line, and what the head that arrives says."""

from typing import Any


def fields(request: bytes) -> dict[str, str]:
    lines = [line.decode().split(": ", 1) for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    found = {name.lower(): value for name, value in lines}
    assert len(found) == len(lines), "each field stands there once"
    return found


def line(request: bytes) -> str:
    return request.partition(b"\r\n")[0].decode()


def to(**upstream: Any) -> dict[str, Any]:
    return {"upstreams": {"api": upstream}}


def on(path: str = "/", **route: Any) -> dict[str, Any]:
    return {"routes": [{"path": path, "upstream": "api", **route}]}


def ask(target: str = "/", lines: bytes = b"", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: Api.Example.com:8080\r\n".encode() + lines + b"\r\n"
